"""Log-probabilities of prompts, as evaluations of models ask for them: `echo` with `logprobs`."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from arcmtp.engine.llm import bundled_model
from arcmtp.engine.results import Chunk
from arcmtp.gguf import GGUF
from arcmtp.model.tokenizer import Tokenizer
from arcmtp.serve.text_logprobs import TextLogprobsLists

PROMPT = 'def greet(name):\n    return "naïve 日本 " + name\n'


def complete(http: httpx.Client, **fields: Any) -> dict[str, Any]:
    answer = http.post("/v1/completions", json={"prompt": PROMPT, "max_tokens": 0, "temperature": 0, **fields})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def tokenized(http: httpx.Client, text: str) -> list[int]:
    return list(http.post("/tokenize", json={"content": text}).json()["tokens"])


def test_an_echoed_prompt_has_the_log_probabilities_of_generating_it(http: httpx.Client) -> None:
    said = complete(http, max_tokens=12, logprobs=2, ignore_eos=True)["choices"][0]
    ids = [token for text in (PROMPT, said["text"]) for token in tokenized(http, text)]
    answer = complete(http, prompt=ids, echo=True, logprobs=2)
    (choice,), given = answer["choices"], said["logprobs"]
    lists = choice["logprobs"]
    assert (choice["text"], choice["finish_reason"]) == (PROMPT + said["text"], "length")
    assert answer["usage"]["completion_tokens"] == 0
    assert len(lists["tokens"]) == answer["usage"]["prompt_tokens"]
    assert (lists["token_logprobs"][0], lists["top_logprobs"][0]) == (None, None)
    for name in ("tokens", "token_logprobs", "top_logprobs"):
        assert lists[name][-12:] == given[name], name
    for logprob, top in zip(lists["token_logprobs"][1:], lists["top_logprobs"][1:], strict=True):
        assert logprob <= max(top.values()) and 1 <= len(top) <= 2
    assert lists["text_offset"][-12:] == [len(PROMPT) + offset for offset in given["text_offset"]]
    for token, offset in zip(lists["tokens"], lists["text_offset"], strict=True):
        if "\ufffd" not in token:  # part of a character
            assert choice["text"][offset:].startswith(token)


def test_one_token_more_is_asked_for_as_lm_eval_does(http: httpx.Client) -> None:
    """Two prompts of ids, of which the second is continued by the end of generation, which counts too."""
    ids, (end,) = tokenized(http, PROMPT), tokenized(http, "<|im_end|>")
    fields: dict[str, Any] = {"prompt": [ids, ids[:5]], "max_tokens": 1, "logprobs": 1, "echo": True, "seed": 1234}
    ended = complete(http, **fields, logit_bias={str(end): 100})["choices"]
    for prompt, choice, ended_choice in zip(fields["prompt"], complete(http, **fields)["choices"], ended, strict=True):
        for lists in (choice["logprobs"], ended_choice["logprobs"]):
            assert {len(items) for items in lists.values()} == {len(prompt) + 1}
        assert choice["logprobs"]["token_logprobs"][:-1] == ended_choice["logprobs"]["token_logprobs"][:-1]
        assert ended_choice["logprobs"]["tokens"][-1] == "<|im_end|>"
        assert PROMPT.startswith(ended_choice["text"])
    (unscored,) = complete(http, max_tokens=1, logprobs=1, logit_bias={str(end): 100})["choices"]
    assert (unscored["text"], unscored["logprobs"]) == ("", None)


def test_of_tokens_with_one_name_the_likeliest_is_shown() -> None:
    tokenizer = Tokenizer.from_gguf(GGUF(bundled_model()))
    parts = [token for token in range(300) if tokenizer.token_bytes(token).decode(errors="replace") == "\ufffd"]
    lists = TextLogprobsLists(tokenizer)
    lists.add(Chunk(parts[0], "", [(parts[0], -0.5), (parts[1], -2.0)], -0.5))
    shown = lists.all()
    assert shown and shown["top_logprobs"] == [{"\ufffd": -0.5}]


def test_a_stream_begins_with_the_prompt_and_its_log_probabilities(http: httpx.Client) -> None:
    fields: dict[str, Any] = {"max_tokens": 3, "logprobs": 1, "echo": True}
    body = {"prompt": PROMPT, "temperature": 0, "stream": True, **fields}
    lines = http.post("/v1/completions", json=body).text.split("\n\n")
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
    choices = [event["choices"][0] for event in events]
    whole = complete(http, **fields)["choices"][0]
    assert choices[0]["text"] == PROMPT
    assert "".join(choice["text"] for choice in choices) == whole["text"]
    for name, items in whole["logprobs"].items():
        assert [item for choice in choices for item in (choice["logprobs"] or {name: []})[name]] == items


def test_numbers_are_the_same_whatever_else_runs_and_is_cached(http: httpx.Client) -> None:
    fields: dict[str, Any] = {"prompt": PROMPT * 12, "logprobs": 3, "echo": True}
    alone = complete(http, **fields)["choices"]
    others = [{"max_tokens": 40, "draft": draft, "temperature": t} for draft, t in ((0, 0), (3, 0), (3, 1))]
    with ThreadPoolExecutor(6) as threads:
        beside = [threads.submit(complete, http, prompt=PROMPT[:-1], **other) for other in others]
        scored = [threads.submit(complete, http, **fields) for _ in range(3)]
        assert [one.result()["choices"] for one in scored] == [alone] * 3
        assert all(one.result() for one in beside)


@pytest.mark.parametrize("echo", [False, True])
def test_no_tokens_evaluate_the_prompt_and_keep_it(http: httpx.Client, echo: bool) -> None:
    prompt = f"# {echo}\n{PROMPT}"
    answer = complete(http, prompt=prompt, echo=echo)
    choice = answer["choices"][0]
    assert (choice["text"], choice["logprobs"], choice["finish_reason"]) == (prompt * echo, None, "length")
    further = complete(http, prompt=prompt + "print", n_predict=1, max_tokens=None)["usage"]
    assert further["prompt_tokens_details"]["cached_tokens"] == answer["usage"]["prompt_tokens"]
