"""llama-server's own requests: text that is continued, or filled in."""
