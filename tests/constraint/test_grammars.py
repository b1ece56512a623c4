import pytest
from llguidance import LLMatcher

from arcmtp.constraint import grammars as module
from arcmtp.constraint.constraint import Constraint
from arcmtp.constraint.grammars import Grammars
from arcmtp.errors import ArcmtpError
from arcmtp.model.tokenizer import Tokenizer

OBJECT = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


def takes(matcher: LLMatcher, tokenizer: Tokenizer, text: str) -> bool:
    """Whether a text is complete for a matcher."""
    ids = tokenizer.encode(text)
    return bool(matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting())


def allowed(matcher: LLMatcher) -> set[int]:
    mask = matcher.compute_bitmask()
    return {token_id for token_id in range(8 * len(mask)) if mask[token_id // 8] >> token_id % 8 & 1}


@pytest.mark.parametrize(
    "constraint, good, bad",
    [
        (Constraint.json_schema(OBJECT), ['{"a": 1}', '{"a":-3, "b": [2]}', '{\n  "a": 0\n}'], ["1", '{"b": 1}', "{}"]),
        (Constraint.json_object(), ["{}", '{"x": {"y": [null, true, 1.5e3]}}'], ["[]", '"x"', "{} "]),
        (Constraint.lark('start: "a" /[0-9]+/'), ["a1", "a27"], ["a", "b1"]),
        (Constraint.gbnf('root ::= "a" digit+\ndigit ::= [0-9]'), ["a1", "a27"], ["a", "b1"]),
        (Constraint.regex("a[0-9]+|é"), ["a1", "a27", "é"], ["a", "b1"]),
    ],
)  # fmt: skip
def test_a_matcher_takes_what_its_constraint_says(
    grammars: Grammars, tokenizer: Tokenizer, constraint: Constraint, good: list[str], bad: list[str]
) -> None:
    assert [takes(grammars.matcher(constraint), tokenizer, text) for text in good] == [True] * len(good)
    assert [takes(grammars.matcher(constraint), tokenizer, text) for text in bad] == [False] * len(bad)


def test_masks_are_of_the_vocabulary_and_have_the_end_only_where_the_text_may_end(
    grammars: Grammars, tokenizer: Tokenizer
) -> None:
    matcher = grammars.matcher(Constraint.regex("ab?"))
    assert len(matcher.compute_bitmask()) == (tokenizer.vocab_used // 32 + 1) * 4
    (a,), (b,) = tokenizer.encode("a"), tokenizer.encode("b")
    assert a in allowed(matcher) and not tokenizer.control_ids & allowed(matcher)
    assert matcher.consume_token(a)
    assert allowed(matcher) == {b} | tokenizer.eos_ids
    assert matcher.rollback(1) and a in allowed(matcher)


def test_matchers_of_one_constraint_do_not_share_their_place(grammars: Grammars, tokenizer: Tokenizer) -> None:
    first, second = (grammars.matcher(Constraint.regex("a[0-9]")) for _ in range(2))
    (a,) = tokenizer.encode("a")
    assert first.consume_token(a)
    assert a not in allowed(first) and a in allowed(second)


@pytest.mark.parametrize(
    "constraint, words",
    [
        (Constraint.lark("start: unknown"), "unknown"),
        (Constraint.regex("(a"), "unclosed group"),
        (Constraint.json_schema({"type": "string", "pattern": "(?=a)b"}), "look-around"),
        (Constraint.lark("start: <|nothing|>"), "nothing"),
        (Constraint.lark('start: "a" %json {"allOf": [{"type": "null"}, {"type": "string"}]}'),
         "compiled: Unsatisfiable schema: incompatible types$"),
        (Constraint.lark("start: start"), "no text keeps to it"),
        (Constraint.json_schema({"oneOf": [{"type": "string"}, {"const": "a"}]}), "oneOf is supported where"),
        (Constraint.json_schema({"type": "object", "properties": {"a": False}, "required": ["a"]}),
         "required property 'a' is unsat"),
        (Constraint.lark("start: A0\n" + "".join(f"A{i}: A{i + 1}\n" for i in range(12000))), "nested too deeply"),
        (Constraint.regex("(" * 5000 + "a" + ")" * 5000), "exceed"),
        (Constraint.json_schema({"allOf": [{"anyOf": [{"properties": {f"{i}{j}": {}}} for i in range(4)]}
                                           for j in range(12)]}), "schema too large"),
    ],
)  # fmt: skip
def test_a_grammar_that_cannot_be_compiled_is_one_line(grammars: Grammars, constraint: Constraint, words: str) -> None:
    for _ in range(2):
        with pytest.raises(ArcmtpError, match=words) as error:
            grammars.matcher(constraint)
        assert "\n" not in str(error.value)


def test_what_takes_too_long_to_compile_is_refused_and_the_next_grammar_is_compiled(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SECONDS", 0.2)
    grammars = Grammars(tokenizer)
    slow = Constraint.json_schema({"type": "integer", "multipleOf": 10000019})
    for _ in range(2):
        with pytest.raises(ArcmtpError, match=r"takes more than the 0.2 s of processor time"):
            grammars.matcher(slow)
        assert grammars.matcher(Constraint.json_object())


def test_constraints_that_are_asked_for_again_are_not_compiled_again(
    grammars: Grammars, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEPT", 2)
    compiled = list[Constraint]()
    compile_one = grammars._compile

    def compile_and_note(constraint: Constraint) -> LLMatcher:
        compiled.append(constraint)
        return compile_one(constraint)

    monkeypatch.setattr(grammars, "_compile", compile_and_note)
    a, b, c = (Constraint.regex(f"again{i}") for i in range(3))
    for constraint in (a, b, a, c, a, b):
        grammars.matcher(constraint)
    assert compiled == [a, b, c, b]
