"""Every operator beside its numpy reference; a module each, with `compare(bench)`."""
