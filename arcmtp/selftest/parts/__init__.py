"""What a selftest does beside comparing operators; a module each, with `run(subject)`."""
