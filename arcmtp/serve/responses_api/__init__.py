"""OpenAI's Responses on the chat path."""
