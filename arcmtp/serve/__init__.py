"""`arcmtp serve`: an OpenAI-compatible HTTP server around one `LLM`. docs/serve.md is its manual."""
