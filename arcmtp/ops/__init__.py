"""Operators, one a module: kernel declaration, launches, cost and plain numpy reference, beside a kernel of the same name."""
