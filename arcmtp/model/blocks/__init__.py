"""The parts of a network: each owns its tensors in the file, its weights, its state and its launches."""
