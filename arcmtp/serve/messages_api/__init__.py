"""Anthropic's Messages on the chat path."""
