"""Measurements of speed: prompts and decoding, drafting, operators, a server; and their comparison with peers."""
