"""Operators, one a module: launcher, cost and plain numpy reference, beside a kernel of the same name."""
