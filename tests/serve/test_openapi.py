"""Requests made up from the OpenAPI document: whatever they hold, no error of the server's own."""

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.core.result import Ok

from tests.serve.conftest import Server

LIMITS = {
    "/completion": "max_tokens",
    "/infill": "max_tokens",
    "/v1/chat/completions": "max_tokens",
    "/v1/completions": "max_tokens",
    "/v1/messages": "max_tokens",
    "/v1/responses": "max_output_tokens",
}
COUNTS = ("/count_tokens", "/input_tokens")


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_no_request_is_an_internal_error(server: Server, mode: GenerationMode) -> None:
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    operations: list[Any] = [result.ok() for result in schema.get_all_operations() if isinstance(result, Ok)]
    # What counts tokens takes what the route that answers takes.
    operations = [operation for operation in operations if not operation.path.endswith(COUNTS)]
    if mode == GenerationMode.NEGATIVE:  # what takes nothing cannot be given anything wrong
        operations = [operation for operation in operations if operation.body]
    assert len(operations) >= 4
    statuses = set().union(*(_statuses(operation, mode) for operation in operations))
    assert max(statuses) < 500
    assert 400 in statuses and (200 in statuses or mode == GenerationMode.NEGATIVE)


def _statuses(operation: Any, mode: GenerationMode) -> set[int]:
    """The statuses of made-up requests to one route."""
    statuses = set()

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=30, deadline=None, derandomize=True, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    def send(case: schemathesis.Case[Any]) -> None:
        limit = LIMITS.get(operation.path)
        if isinstance(case.body, dict) and limit:
            case.body[limit] = 4  # or answers go on to the end of the context
        status = case.call(timeout=60).status_code
        assert status < 500, case.as_curl_command()
        statuses.add(status)

    send()
    return statuses
