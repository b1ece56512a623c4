"""Responses that requests may follow on."""

import json
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from arcmtp.serve.errors import ApiError
from arcmtp.serve.responses_api.request import Item, Items


@dataclass(frozen=True)
class Stored:
    """A response, the conversation that ends with it, and bytes that both have as JSON."""

    response: dict[str, Any]
    items: Sequence[Item]
    size: int


class Store:
    """Keeps responses in memory, until those used last have more than `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._stored: OrderedDict[str, Stored] = OrderedDict()
        self._size = 0

    def add(self, response: dict[str, Any], items: Sequence[Item]) -> None:
        """Keep a response to `items`, if it is not larger than the limit alone."""
        items = [*items, *Items.validate_python(response["output"])]
        size = len(Items.dump_json(items, exclude_none=True)) + len(json.dumps(response))
        stored = Stored(response, items, size)
        if size > self._limit:
            return
        self._stored[response["id"]] = stored
        self._size += size
        while self._size > self._limit:
            self._size -= self._stored.popitem(last=False)[1].size

    def get(self, response_id: str) -> Stored:
        """ApiError if it is not there."""
        if response_id not in self._stored:
            raise ApiError(404, f"there is no response {response_id!r} here (any more)", "response_id")
        self._stored.move_to_end(response_id)
        return self._stored[response_id]

    def conversation(self, previous_response_id: str | None) -> Sequence[Item]:
        """The items that a request follows; ApiError if the response is not there."""
        if previous_response_id is None:
            return ()
        try:
            return self.get(previous_response_id).items
        except ApiError as error:
            raise ApiError(400, error.message, "previous_response_id", "previous_response_not_found") from None

    def delete(self, response_id: str) -> None:
        """ApiError if it is not there."""
        self._size -= self.get(response_id).size
        del self._stored[response_id]
