"""What clients send beside OpenAI's own way: histories, numbers, fields of other servers."""

import json
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from arcmtp.serve.protocol import ChatRequest, CompletionRequest
from tests.serve.conftest import Server

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
QUESTION: Any = {"role": "user", "content": "How is the weather?"}
NO_THINKING = {"chat_template_kwargs": {"enable_thinking": False}}
ANSWER = "The answer is 42."


@pytest.fixture
def http(scripted: Server) -> Any:
    with scripted.http() as http:
        yield http


def ask(http: httpx.Client, *messages: Any, **fields: Any) -> Any:
    """The choice of a chat's answer."""
    answer = http.post(CHAT, json={"messages": [QUESTION, *messages], **fields})
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]


def prompt(http: httpx.Client, *messages: Any) -> str:
    """What the template makes of messages."""
    tokens = http.post("/tokenize", json={"messages": [QUESTION, *messages]}).json()["tokens"]
    return str(http.post("/detokenize", json={"tokens": tokens}).json()["content"])


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ('{"city": "Zürich", "days": 2}', '(city="Zürich")(days=2)'),
        ({"city": "Zürich", "days": 2}, '(city="Zürich")(days=2)'),
        ('{"city": "Zür', '(city="Zür")'),
        ('{"city": "Zürich", "days": ', '(city="Zürich")'),
        ('{"city": ["a", "b', '(city=["a", "b"])'),
        ("{", ""),
        ("", ""),
        (None, ""),
        ("null", ""),
        ("[1, 2]", '(arguments="[1, 2]")'),
        ([1, 2], "(arguments=[1, 2])"),
        ("Zürich", '(arguments="Zürich")'),
        ('{"a": 1} and more', '(arguments="{\\"a\\": 1} and more")'),
        ("[" * 5000, f'(arguments="{"[" * 5000}")'),
    ],
)
def test_arguments_of_earlier_calls_reach_the_model_however_they_came(
    http: httpx.Client, arguments: Any, shown: str
) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "weather", "arguments": arguments}}
    text = prompt(http, {"role": "assistant", "content": None, "tool_calls": [call]})
    assert text.endswith(f"<|im_start|>assistant\n{shown}<|im_end|>\n<|im_start|>assistant\n<think>\n")


def test_a_call_that_this_server_has_cut_off_can_be_sent_back(http: httpx.Client) -> None:
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
    choice = ask(http, tools=tools, max_tokens=9)
    assert choice["finish_reason"] == "length"
    message = choice["message"]
    with pytest.raises(json.JSONDecodeError):
        json.loads(message["tool_calls"][0]["function"]["arguments"])
    assert ask(http, message, {"role": "tool", "tool_call_id": "c", "content": None}, tools=tools)["message"]


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "content": None},
        {"role": "assistant"},
        {"role": "assistant", "content": "", "tool_calls": [], "refusal": None, "function_call": None},
        {"role": "tool", "tool_call_id": "c"},
        {"role": "tool", "tool_call_id": "c", "content": None},
        {"role": "user", "content": None},
        {"role": "system", "content": None, "name": None},
    ],
)
def test_content_that_is_null_is_empty(http: httpx.Client, message: Any) -> None:
    assert f"<|im_start|>{message['role']}\n<|im_end|>\n" in prompt(http, message, QUESTION)


@pytest.mark.parametrize(
    ("message", "fields", "content", "reasoning"),
    [
        ({"content": "The answer"}, {}, " is 42.", None),
        ({"content": [{"type": "text", "text": "The answer"}]}, {}, " is 42.", None),
        ({"content": "The answer"}, {"enable_thinking": False}, " is 42.", None),
        ({"content": "The answer"}, {"continue_final_message": True, "add_generation_prompt": False}, " is 42.", None),
        ({"content": None}, {"enable_thinking": False}, ANSWER, None),
        ({"content": "The answer", "reasoning_content": "Hm."}, {}, " is 42.", None),
        ({"content": "The answer", "reasoning": "Hm."}, {}, " is 42.", None),
        ({"content": "<think>\nHm.\n</think>\n\nThe answer"}, {}, " is 42.", None),
        ({"content": "The answer"}, {"continue_final_message": False, "reasoning_effort": "none"}, ANSWER, None),
        ({"reasoning_content": "I should "}, {"stop": " look."}, "Let me", "look."),
        ({"content": "<think>\nI should "}, {"stop": " look.", "reasoning_format": "none"},
         "look.\n</think>\n\nLet me", None),
    ],
)  # fmt: skip
def test_a_last_message_of_the_assistant_is_continued(
    http: httpx.Client, message: Any, fields: Any, content: str, reasoning: str | None
) -> None:
    answer = ask(http, {"role": "assistant", **message}, **fields)["message"]
    assert (answer["content"], answer.get("reasoning_content")) == (content, reasoning)


def test_white_space_of_reasoning_that_goes_on_stays(http: httpx.Client) -> None:
    answer = ask(http, {"role": "assistant", "reasoning_content": "I should "}, max_tokens=2)["message"]
    assert answer["reasoning_content"] == "look."
    answer = ask(http, {"role": "assistant", "content": "<think>\n\nhm "}, max_tokens=2, n=2)["message"]
    assert answer["reasoning_content"] == "hm hm"


@pytest.mark.parametrize(
    ("fields", "thinks"),
    [
        ({}, True),
        ({"reasoning_effort": "none"}, False),
        ({"reasoning_effort": "minimal"}, False),
        ({"reasoning_effort": "low"}, True),
        ({"reasoning_effort": "xhigh"}, True),
        ({"enable_thinking": False}, False),
        ({"enable_thinking": True, "reasoning_effort": "none"}, True),
        ({"enable_thinking": True, **NO_THINKING}, False),
        ({"reasoning_budget": -1}, True),
        ({"thinking_budget": 0}, False),
    ],
)
def test_reasoning_can_be_switched_off_in_each_client_s_way(http: httpx.Client, fields: Any, thinks: bool) -> None:
    message = ask(http, **fields)["message"]
    assert ("reasoning_content" in message) == thinks
    assert thinks or message["content"] == ANSWER


@pytest.mark.parametrize("stream", [False, True])
def test_reasoning_can_stay_in_the_content(http: httpx.Client, stream: bool) -> None:
    fields = {"reasoning_format": "none", "stop": "<tool_call>"}
    text = "<think>\nI should look.\n</think>\n\nLet me look.\n\n"
    if not stream:
        message = ask(http, **fields)["message"]
        assert "reasoning_content" not in message
        assert message["content"] == text
        return
    answer = http.post(CHAT, json={"messages": [QUESTION], "stream": True, **fields}).text.splitlines()
    chunks = [json.loads(line.removeprefix("data: ")) for line in answer if line.startswith("data: {")]
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == text


def test_an_end_of_the_answer_can_be_forbidden(http: httpx.Client) -> None:
    choice = ask(http, ignore_eos=True, max_tokens=9, **NO_THINKING)
    assert choice["finish_reason"] == "length"
    assert choice["message"]["content"].startswith(ANSWER)


@pytest.mark.parametrize(
    ("fields", "tokens"),
    [
        ({"max_tokens": 3.0}, 3),
        ({"n_predict": 3}, 3),
        ({"n_predict": 30, "max_tokens": 4}, 4),
        ({"max_completion_tokens": 2, "max_tokens": 4}, 2),
        ({"max_tokens": -1, "top_k": 20.0, "n": 1.0, "seed": 4.0}, 12),
        ({"max_tokens": -1, "max_completion_tokens": None}, 12),
        ({"max_tokens": 5, "stop": ["x" * 1024] * 64}, 5),
        ({"max_tokens": 5, "stop": ""}, 5),
        ({"max_tokens": 5, "stop": [""]}, 5),
        ({"max_tokens": 5, "repeat_last_n": 64, "repeat_penalty": 1.0}, 5),
    ],
)
def test_numbers_are_taken_as_clients_send_them(http: httpx.Client, fields: Any, tokens: int) -> None:
    answer = http.post(CHAT, json={"messages": [QUESTION], **fields})
    assert answer.status_code == 200, answer.text
    assert answer.json()["usage"]["completion_tokens"] == tokens


def test_a_completion_without_an_end_fills_the_context(http: httpx.Client) -> None:
    body = {"prompt": "<think>\n\n", "max_tokens": -1, "stream": True}
    with http.stream("POST", TEXT, json=body) as answer:
        events = (line for line in answer.iter_lines() if line.startswith("data: {"))
        assert [json.loads(next(events)[6:])["choices"][0]["finish_reason"] for _ in range(40)] == [None] * 40


@pytest.mark.parametrize(
    "fields",
    [
        {"mirostat": 2}, {"dry_multiplier": 0.8}, {"xtc_probability": 0.5}, {"dynatemp_range": 0.5},
        {"typical_p": 0.9}, {"typ_p": 0.9}, {"tfs_z": 0.5}, {"top_n_sigma": 1.0}, {"samplers": ["top_k"]},
        {"min_tokens": 5}, {"stop_token_ids": [5]}, {"bad_words": ["x"]}, {"allowed_token_ids": [1]},
        {"include_stop_str_in_output": True}, {"skip_special_tokens": False}, {"add_special_tokens": False},
        {"use_beam_search": True}, {"structural_tag": {"x": 1}}, {"grammar_lazy": True},
        {"n_probs": 5}, {"prompt_logprobs": 1}, {"truncate_prompt_tokens": 5}, {"t_max_predict_ms": 5},
        {"chat_template": "x"}, {"documents": [{}]}, {"lora": [{"id": 0}]}, {"verbosity": "low"},
        {"web_search_options": {"x": 1}}, {"modalities": ["text", "audio"]}, {"audio": {"voice": "x"}},
        {"thinking": {"type": "disabled"}}, {"reasoning": {"effort": "low"}}, {"parse_tool_calls": False},
    ],
)  # fmt: skip
def test_what_would_change_the_answer_and_is_not_there_is_refused(http: httpx.Client, fields: Any) -> None:
    answer = http.post(CHAT, json={"messages": [QUESTION], **fields})
    (name,) = fields
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == name
    assert answer.json()["error"]["message"].startswith(f"{name} is not available: ")


def test_values_that_ask_for_nothing_are_taken() -> None:
    nothing = {
        "mirostat": 0, "mirostat_tau": 5.0, "mirostat_eta": 0.1, "dry_multiplier": 0.0, "dry_base": 1.75,
        "dry_allowed_length": 2, "dry_penalty_last_n": -1, "xtc_probability": 0.0, "xtc_threshold": 0.1,
        "dynatemp_range": 0.0, "dynatemp_exponent": 1.0, "typical_p": 1.0, "typ_p": 1, "top_n_sigma": -1,
        "samplers": [], "min_tokens": 0, "n_keep": 0, "n_probs": 0, "cache_prompt": True, "id_slot": -1,
        "timings_per_token": True, "t_max_predict_ms": -1, "skip_special_tokens": True, "modalities": ["text"],
        "audio": None, "verbosity": None, "prediction": None, "grammar": "", "lora": [], "repeat_last_n": -1,
        "repeat_penalty": 1.1,
    }  # fmt: skip
    ChatRequest.model_validate({"messages": [QUESTION], **nothing})
    CompletionRequest.model_validate({"prompt": "x", **nothing})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_tokens": 10.5}, "Input should be a valid integer"),
        ({"max_tokens": -2}, "Input should be greater than or equal to -1"),
        ({"max_tokens": 0}, "must be at least 1, or -1: to the end of the context"),
        ({"n_predict": 0}, "must be at least 1, or -1: to the end of the context"),
        ({"n_predict": True}, "Input should be a valid integer"),
        ({"stop": ["x"] * 65}, "List should have at most 64 items"),
        ({"stop": "x" * 1025}, "String should have at most 1024 characters"),
        ({"repeat_last_n": 64, "repeat_penalty": 1.1}, "repeat_last_n is 64; penalties count all tokens"),
        ({"repeat_last_n": 64, "presence_penalty": 1.5}, "repeat_last_n is 64; penalties count all tokens"),
        ({"reasoning_effort": "much"}, "Input should be 'none', 'minimal', 'low'"),
        ({"reasoning_format": "raw"}, "Input should be 'auto', 'deepseek' or 'none'"),
        ({"enable_thinking": "no"}, "Input should be a valid boolean"),
        ({"continue_final_message": True}, "the last message is not a text of the assistant"),
        ({"add_generation_prompt": False}, "there is no message to continue"),
        ({"chat_template_kwargs": {"continue_final_message": True}}, "cannot be set here"),
    ],
)
def test_numbers_and_values_that_mean_nothing_are_refused(fields: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ChatRequest.model_validate({"messages": [QUESTION], **fields})
