"""Grammars that answers keep to."""
