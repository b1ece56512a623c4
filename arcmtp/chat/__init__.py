"""A conversation with a model in a terminal."""
