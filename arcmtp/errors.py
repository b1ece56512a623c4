"""What commands turn into a one-line message and exit status 2."""


class ArcmtpError(Exception):
    """Bad input or an unusable machine. The message is one line: what was wrong, and what would be right."""


class OutOfMemory(ArcmtpError):
    """A device that refuses an allocation, although it said that it has the memory."""


class ContextExceeded(ArcmtpError):
    """A prompt of more tokens than the context holds (`LLM.context`)."""


class MemoryExceeded(ArcmtpError):
    """A model and a context that the device has no memory for; a context of `largest` tokens fits, of 0: none."""

    def __init__(self, message: str, largest: int) -> None:
        super().__init__(message)
        self.largest = largest
