"""Operators, one a module: kernel, launches, cost and plain numpy reference, beside a header of the same name."""
