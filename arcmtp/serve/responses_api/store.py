"""Responses that requests may follow on."""

import json
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from arcmtp.serve.errors import ApiError
from arcmtp.serve.responses_api.request import InputRequest, Item, Items, Reference


@dataclass(frozen=True)
class Stored:
    """A response and the conversation that ends with it, both as JSON: objects would take many times the memory."""

    response: bytes
    items: bytes

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.response) + len(self.items)

    @property
    def output(self) -> list[dict[str, Any]]:
        """The response's items."""
        return json.loads(self.response)["output"]


class Store:
    """Keeps responses in memory, until those used last have more than `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._stored: OrderedDict[str, Stored] = OrderedDict()
        self._owners: dict[str, str] = {}  # of an item the response
        self._size = 0

    def add(self, response: dict[str, Any], items: Sequence[Item]) -> None:
        """Keep a response to `items`, if it is not larger than the limit alone."""
        conversation = [*items, *Items.validate_python(response["output"])]
        # By the json module, since what a client has sent may have lone surrogates.
        said = json.dumps(Items.dump_python(conversation, exclude_none=True))
        stored = Stored(json.dumps(response).encode(), said.encode())
        if stored.size > self._limit:
            return
        self._stored[response["id"]] = stored
        self._owners.update((item["id"], response["id"]) for item in response["output"])
        self._size += stored.size
        while self._size > self._limit:
            self.delete(next(iter(self._stored)))

    def get(self, response_id: str) -> Stored:
        """ApiError if it is not there."""
        if response_id not in self._stored:
            raise ApiError(404, f"there is no response {response_id!r} here (any more)", "response_id")
        self._stored.move_to_end(response_id)
        return self._stored[response_id]

    def conversation(self, request: InputRequest) -> list[Item]:
        """The items of a request with those that it follows and refers to; ApiError if these are not there."""
        items: list[Item] = []
        if previous := request.previous_response_id:
            if previous not in self._stored:
                message = f"there is no response {previous!r} here (any more)"
                raise ApiError(400, message, "previous_response_id", "previous_response_not_found")
            items += Items.validate_python(json.loads(self.get(previous).items))
        return items + [self._referred(item) if isinstance(item, Reference) else item for item in request.items]

    def delete(self, response_id: str) -> None:
        """ApiError if it is not there."""
        stored = self.get(response_id)
        for item in stored.output:
            del self._owners[item["id"]]
        self._size -= stored.size
        del self._stored[response_id]

    def _referred(self, reference: Reference) -> Item:
        if reference.id not in self._owners:
            raise ApiError(400, f"there is no item {reference.id!r} of a response here (any more)", "input")
        output = self.get(self._owners[reference.id]).output
        (item,) = Items.validate_python([item for item in output if item["id"] == reference.id])
        return item
