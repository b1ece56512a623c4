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
    """A response, the conversation that ends with it, and bytes that both have as JSON."""

    response: dict[str, Any]
    items: Sequence[Item]
    size: int


class Store:
    """Keeps responses in memory, until those used last have more than `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._stored: OrderedDict[str, Stored] = OrderedDict()
        self._outputs: dict[str, Item] = {}  # items of their outputs by id
        self._size = 0

    def add(self, response: dict[str, Any], items: Sequence[Item]) -> None:
        """Keep a response to `items`, if it is not larger than the limit alone."""
        outputs = Items.validate_python(response["output"])
        items = [*items, *outputs]
        size = len(Items.dump_json(items, exclude_none=True)) + len(json.dumps(response))
        if size > self._limit:
            return
        self._stored[response["id"]] = Stored(response, items, size)
        self._outputs.update(zip((output["id"] for output in response["output"]), outputs, strict=True))
        self._size += size
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
            items += self.get(previous).items
        return items + [self._item(item) for item in request.items]

    def delete(self, response_id: str) -> None:
        """ApiError if it is not there."""
        self._size -= self.get(response_id).size
        for output in self._stored.pop(response_id).response["output"]:
            del self._outputs[output["id"]]

    def _item(self, item: Item) -> Item:
        if not isinstance(item, Reference):
            return item
        if item.id not in self._outputs:
            raise ApiError(400, f"there is no item {item.id!r} of a response here (any more)", "input")
        return self._outputs[item.id]
