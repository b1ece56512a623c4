"""What huggingface_hub raises, as one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,  # that of httpx or httpx2, on whichever the library stands
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from arcmtp.errors import ArcmtpError

LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"


class HubError(ArcmtpError):
    """The hub refuses a repository or does not have it, or something fails between it and the cache."""


class Unreachable(HubError):
    """The hub cannot be asked; what is in the cache may do."""


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Raises HubError for whatever the library raises about the repository `name`, Unreachable where there is no
    connection."""
    try:
        yield
    except GatedRepoError:
        page = f"{constants.ENDPOINT}/{name}"
        raise HubError(f"hf:{name}: is gated; accept its terms at {page}, then {LOG_IN}") from None
    except RepositoryNotFoundError:
        message = f"no such repository at {constants.ENDPOINT}, or a private one: for that {LOG_IN}"
        raise HubError(f"hf:{name}: {message}") from None
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status == 429 or status >= 500:  # too many requests, or the hub's own failure
            raise Unreachable(f"hf:{name}: {constants.ENDPOINT} answers with HTTP status {status}") from None
        refused = f"refuses access: {LOG_IN}" if status in (401, 403) else f"answers with HTTP status {status}"
        raise HubError(f"hf:{name}: {constants.ENDPOINT} {refused}") from None
    except OfflineModeIsEnabled:
        raise Unreachable(f"hf:{name}: offline (HF_HUB_OFFLINE is set)") from None
    except (HTTPError, LocalEntryNotFoundError) as error:
        raise Unreachable(f"hf:{name}: {constants.ENDPOINT} cannot be reached: {_one_line(error)}") from None
    except (OSError, ValueError) as error:  # a cache that cannot be written to; an answer that is not the hub's
        raise HubError(f"hf:{name}: {_one_line(error)}") from None


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split()) or type(error).__name__
