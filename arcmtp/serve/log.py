"""The log: a line of JSON for everything."""

import json
import logging
import sys
import time


class JsonLines(logging.Formatter):
    """Time (UTC), level and message, and what is given as `extra={"fields": …}`; an exception's traceback too."""

    def format(self, record: logging.LogRecord) -> str:
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        at = f"{at}.{record.msecs:03.0f}Z"
        line = {"time": at, "level": record.levelname.lower(), "message": record.getMessage()}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line | getattr(record, "fields", {}))


def log_to_standard_error(level: str) -> None:
    """Write the server's log from a level on, and warnings of everything else, to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("arcmtp.serve").setLevel(level.upper())
