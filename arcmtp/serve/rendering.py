"""What every protocol makes of a reply."""

from collections.abc import AsyncIterator
from typing import Any, Protocol

from arcmtp.serve.errors import ApiError


class Rendering(Protocol):
    """A reply as a protocol shows it. Use either `whole` or `events`, once; both raise ApiError if a choice failed.

    id: the answer's.
    last_line: what ends a stream of events.
    """

    id: str
    last_line: str

    async def whole(self) -> dict[str, Any] | list[dict[str, Any]]:
        """The body of the answer, when it is complete."""

    def events(self) -> AsyncIterator[dict[str, Any]]:
        """The events of a stream; one that has a `type` is named by it."""

    def failed(self, error: ApiError) -> dict[str, Any]:
        """The last event of a stream that cannot go on."""
