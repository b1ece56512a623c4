"""What commands turn into a one-line message and exit status 2."""


class ArcmtpError(Exception):
    """Bad input or an unusable machine. The message is one line: what was wrong, and what would be right."""


class OutOfMemory(ArcmtpError):
    """A device that refuses an allocation, although it said that it has the memory."""


class ContextExceeded(ArcmtpError):
    """A prompt of more tokens than the context holds (`LLM.context`)."""
