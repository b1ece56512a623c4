"""Answers in turn: what is evaluated for them, how they end, and what stays."""

import math
import os
import signal

import pytest

from arcmtp import LLM, SamplingOptions
from arcmtp.chat.conversation import Answer, Asking, Conversation
from arcmtp.errors import ArcmtpError
from tests.chat.conftest import CONTEXT
from tests.engine.conftest import scripted as scripted_sequence

GREEDY = SamplingOptions()
QUESTIONS = ("How do I read a file line by line?", "And how do I write one?", "Is that safe?", "Why?")


def begun(llm: LLM, max_tokens: int | None = 12, system: str | None = None, thinking: bool = False) -> Conversation:
    """A conversation of which the device has seen nothing."""
    llm.new_sequence()
    return Conversation(llm, Asking(GREEDY, max_tokens, {"enable_thinking": thinking}), system)


def endless(llm: LLM) -> Conversation:
    """A conversation whose answers end with the context."""
    llm.new_sequence()
    sampling = SamplingOptions(logit_bias=dict.fromkeys(llm.tokenizer.eos_ids, -math.inf))
    return Conversation(llm, Asking(sampling, None, {"enable_thinking": False}))


def whole(conversation: Conversation, answer: Answer) -> Answer:
    for _ in answer:
        pass
    conversation.keep(answer)
    return answer


def last_message(llm: LLM, ids: list[int]) -> int:
    """Where the last message of a prompt begins: the one that is to be generated."""
    return len(ids) - 1 - ids[::-1].index(llm.tokenize("<|im_start|>")[0])


@pytest.mark.parametrize("thinking", [True, False])
def test_a_turn_evaluates_only_what_is_new_and_answers_as_a_fresh_one(tiny: LLM, thinking: bool) -> None:
    conversation, results, seen = begun(tiny, system="Be brief.", thinking=thinking), [], 0
    for question in QUESTIONS:
        result = whole(conversation, conversation.ask(question)).result
        # The template renders the last answer otherwise than it was generated, without reasoning: that is new too.
        assert result.statistics.cached_tokens == seen
        seen = last_message(tiny, result.prompt_ids)
        results.append(result)
    assert "system\nBe brief." in tiny.detokenize(results[-1].prompt_ids)
    evaluated = sum(result.statistics.prompt_tokens - result.statistics.cached_tokens for result in results)
    beginnings = sum(len(result.prompt_ids) - last_message(tiny, result.prompt_ids) for result in results[:-1])
    assert evaluated == len(results[-1].prompt_ids) + beginnings  # every token once, and "<|im_start|>assistant…"
    for result in results:
        tiny.new_sequence()
        fresh = tiny.generate(result.prompt_ids, 12)
        assert (fresh.ids, fresh.token_logprobs) == (result.ids, result.token_logprobs)
        assert fresh.statistics.cached_tokens == 0


def test_another_answer_takes_the_place_of_the_last_and_evaluates_nothing_of_the_rest(tiny: LLM) -> None:
    conversation = begun(tiny)
    first = whole(conversation, conversation.ask("Hello"))
    messages = list(conversation.messages)
    second = whole(conversation, conversation.ask_again())
    assert conversation.messages == messages and second.content == first.content  # greedy
    assert second.result.statistics.cached_tokens >= last_message(tiny, second.result.prompt_ids)
    conversation.reset()
    with pytest.raises(ArcmtpError, match="there is no message to answer yet"):
        conversation.ask_again()


def test_a_message_that_the_context_does_not_hold_changes_nothing(tiny: LLM) -> None:
    conversation = begun(tiny)
    whole(conversation, conversation.ask("Hello"))
    messages, last = list(conversation.messages), conversation.last
    for long in ("word " * CONTEXT, "x" * 10**7):
        message = rf"^the .* the context holds {CONTEXT}.*: /save FILE keeps .* /reset"
        with pytest.raises(ArcmtpError, match=message):
            conversation.ask(long)
        assert conversation.messages == messages and conversation.last is last
    assert whole(conversation, conversation.ask("Why?")).content


def test_an_answer_that_fills_the_context_is_kept_and_says_so(tiny: LLM) -> None:
    conversation = endless(tiny)
    answer = whole(conversation, conversation.ask("Hello"))
    assert answer.context_used == CONTEXT + 1  # the last token is chosen and not evaluated
    assert answer.ended_by == (
        f"the context of {CONTEXT} tokens is full: /save FILE keeps the conversation, /reset begins a new one, "
        "a larger --ctx holds more"
    )
    assert conversation.messages[-1] == {"role": "assistant", "content": answer.content}
    with pytest.raises(ArcmtpError, match="/reset"):
        conversation.ask("More")
    conversation.reset()
    assert whole(conversation, conversation.ask("Hello")).content == answer.content


def test_reasoning_is_told_from_content_and_counted(scripted: LLM) -> None:
    conversation = begun(scripted, None, thinking=True)
    answer = conversation.ask("Look")
    kinds = [kind for kind, _ in answer]
    conversation.keep(answer)
    assert kinds[:2] == ["reasoning_content"] * 2 and set(kinds[2:]) == {"content"}
    assert (answer.reasoning, answer.reasoning_tokens, answer.ended_by) == ("I should look.", 3, "")
    assert answer.content.startswith("Let me look.") and answer.first_token_seconds is not None
    assert conversation.messages == [
        {"role": "user", "content": "Look"},
        {"role": "assistant", "content": answer.content, "reasoning_content": "I should look."},
    ]


def test_what_may_have_been_the_beginning_of_a_tag_is_shown_at_the_end(
    tiny: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    conversation = begun(tiny)
    monkeypatch.setattr("arcmtp.engine.sequence.Sequence", scripted_sequence(tiny.tokenize("<thi")))
    assert whole(conversation, conversation.ask("Hello")).content == "<thi"


def test_ctrl_c_stops_an_answer_and_what_was_said_stays(tiny: LLM) -> None:
    conversation = endless(tiny)
    before = signal.getsignal(signal.SIGINT)
    answer = conversation.ask("Hello")
    for count, _ in enumerate(answer):
        if count == 5:
            os.kill(os.getpid(), signal.SIGINT)
    conversation.keep(answer)
    assert answer.ended_by == "stopped" and 0 < len(answer.result.ids) < CONTEXT // 2
    assert conversation.messages[-1]["content"] == answer.content != ""
    assert signal.getsignal(signal.SIGINT) is before
    following = whole(conversation, conversation.ask("And?"))
    assert following.result.statistics.cached_tokens > 0 and following.ended_by != "stopped"


def test_a_second_ctrl_c_does_not_wait(tiny: LLM) -> None:
    conversation = begun(tiny, None)
    answer = conversation.ask("Hello")
    with pytest.raises(KeyboardInterrupt):
        for _ in answer:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
    assert whole(conversation, conversation.ask_again()).content


def test_thoughts_without_an_answer_are_not_kept(scripted: LLM) -> None:
    conversation = begun(scripted, 20, thinking=True)
    answer = whole(conversation, conversation.ask("think forever"))
    assert answer.reasoning.startswith("hm hm") and answer.ended_by == "ended after 20 tokens (--max-tokens)"
    assert conversation.messages == [{"role": "user", "content": "think forever"}]
