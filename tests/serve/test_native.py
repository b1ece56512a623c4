"""llama-server's own requests: /completion and /infill."""

import json
from typing import Any

import httpx
import pytest

from tests.serve.conftest import Server

PROMPT = "def __len__(self):\n        return"


def complete(http: httpx.Client, **fields: Any) -> Any:
    answer = http.post("/completion", json={"prompt": PROMPT, "n_predict": 12, "temperature": 0, **fields})
    assert answer.status_code == 200, answer.text
    return answer.json()


def expected(http: httpx.Client, **fields: Any) -> str:
    """The text by OpenAI's route."""
    body = {"prompt": PROMPT, "max_tokens": 12, "temperature": 0, **fields}
    return str(http.post("/v1/completions", json=body).json()["choices"][0]["text"])


def test_an_answer_is_one_object(http: httpx.Client) -> None:
    answer = complete(http, ignore_eos=True, return_tokens=True)
    assert answer["content"] == expected(http, ignore_eos=True)
    assert (answer["stop"], answer["stop_type"], answer["stopping_word"]) == (True, "limit", "")
    assert (answer["tokens_predicted"], len(answer["tokens"]), answer["index"]) == (12, 12, 0)
    assert http.post("/detokenize", json={"tokens": answer["tokens"]}).json()["content"] == answer["content"]
    assert answer["tokens_evaluated"] == answer["timings"]["prompt_n"] + answer["tokens_cached"]
    assert complete(http)["tokens"] == []


def test_why_a_text_has_stopped(http: httpx.Client) -> None:
    (end,) = http.post("/tokenize", json={"content": "<|im_end|>"}).json()["tokens"]
    assert complete(http, logit_bias={str(end): 100})["stop_type"] == "eos"
    whole = complete(http, ignore_eos=True)["content"]
    stopped = complete(http, stop=[whole[3:6], "never"], ignore_eos=True)
    assert (stopped["stop_type"], stopped["stopping_word"]) == ("word", whole[3:6])
    assert stopped["content"] == whole[: whole.index(whole[3:6])]


def test_without_a_limit_a_text_goes_on_to_the_end_of_the_context(http: httpx.Client) -> None:
    context = http.get("/props").json()["context"]
    answer = complete(http, prompt=[65] * (context - 20), n_predict=None, ignore_eos=True)
    assert (answer["tokens_predicted"], answer["stop_type"]) == (21, "limit")


def test_a_list_of_prompts_has_a_list_of_answers(http: httpx.Client) -> None:
    ids = http.post("/tokenize", json={"content": "import"}).json()["tokens"]
    answers = complete(http, prompt=[PROMPT, [*ids, " os"]])
    assert [answer["index"] for answer in answers] == [0, 1]
    assert [answer["content"] for answer in answers] == [expected(http), expected(http, prompt="import os")]
    assert len(complete(http, prompt=[PROMPT])) == 1
    assert "content" in complete(http, prompt=[*ids, " os"])


def test_events_end_with_one_that_has_stopped(http: httpx.Client) -> None:
    whole = complete(http, return_tokens=True)
    for path in ("/completion", "/completions"):
        body = {"prompt": PROMPT, "n_predict": 12, "temperature": 0, "stream": True}
        lines = [line for line in http.post(path, json=body).text.split("\n\n") if line]
        assert all(line.startswith("data: {") for line in lines)  # and no [DONE]
        events = [json.loads(line.removeprefix("data: ")) for line in lines]
        assert "".join(event["content"] for event in events) == whole["content"]
        assert [token for event in events for token in event["tokens"]] == whole["tokens"]
        assert [event["stop"] for event in events] == [False] * (len(events) - 1) + [True]
        counts = [event["tokens_predicted"] for event in events]
        assert counts == sorted(counts) and counts[-1] == whole["tokens_predicted"]
        assert events[-1]["timings"]["predicted_n"] == whole["timings"]["predicted_n"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompt": []}, "prompt: expected text, a list of token ids and texts, or a list of at most 16 of these"),
        ({"prompt": [1, [2]]}, "prompt: expected text, a list of token ids and texts, or a list of at most 16 of"),
        ({"prompt": ["x"] * 17}, "prompt: expected text, a list of token ids and texts, or a list of at most 16 of"),
        ({"prompt": {"prompt_string": "x", "multimodal_data": []}}, "prompt: expected text, a list of token ids and"),
        ({"prompt": ["x", ""]}, "the prompt is empty; it needs at least one token"),
        ({"prompt": [6144, "x"]}, "token id 6144 is not in the vocabulary, which has ids 0 to 6143"),
        ({"n_predict": -2}, "n_predict: Input should be greater than or equal to -1"),
        ({"mirostat": 2}, "mirostat is not available: "),
        ({"n_probs": 5}, "n_probs is not available: use logprobs"),
        ({"response_fields": ["content"]}, "response_fields is not available: answers have all their fields"),
        ({"image_data": [{"data": "x", "id": 1}]}, "image_data is not available: "),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_named(http: httpx.Client, fields: dict[str, Any], message: str) -> None:
    answer = http.post("/completion", json={"prompt": PROMPT, "n_predict": 1, **fields})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith(message), answer.text


def test_what_is_filled_in_stands_between_prefix_and_suffix(scripted: Server) -> None:
    with scripted.http() as http:
        body = {"input_prefix": "a", "input_suffix": "<|im_end|>", "temperature": 0}
        answer = http.post("/infill", json=body).json()
        assert (answer["content"], answer["stop_type"]) == ("in between", "eos")
        assert answer["tokens_evaluated"] == 4 + len("<|im_end|>") > 5  # of a suffix no part is a control token
        with_files = http.post("/infill", json=body | {"input_extra": [{"filename": "b.py", "text": "x"}]}).json()
        assert with_files["content"] == "in between"
        assert with_files["tokens_evaluated"] > answer["tokens_evaluated"]
        begun = http.post("/infill", json=body | {"prompt": "<|fim_middle|>in "}).json()
        assert begun["content"] == "between"


def test_a_vocabulary_without_tokens_for_it_cannot_fill_in(http: httpx.Client) -> None:
    answer = http.post("/infill", json={"input_prefix": "a", "input_suffix": "b"})
    message = "/infill: this model's vocabulary has no token for filling in (fim_pre_token_id or <|fim_prefix|>)"
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, message)
