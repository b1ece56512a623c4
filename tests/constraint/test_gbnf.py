"""llama.cpp's grammars: which texts they take, compared with a plain recogniser, and how errors name the place."""

import random
from collections.abc import Mapping

import pytest

from arcmtp.constraint import gbnf
from arcmtp.constraint.constraint import Constraint
from arcmtp.constraint.gbnf import Characters, Choice, Node, Reference, Repeat, Sequence
from arcmtp.constraint.grammars import Grammars
from arcmtp.errors import ArcmtpError
from arcmtp.model.tokenizer import Tokenizer

JSON = r"""root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws  # of any kind

object ::=
  "{" ws (
            string ":" ws value
    ("," ws string ":" ws value)*
  )? "}" ws

array  ::= "[" ws ( value ("," ws value)* )? "]" ws
string ::= "\"" ([^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}))* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws
ws ::= | " " | "\n" [ \t]{0,20}
"""


def takes(grammars: Grammars, tokenizer: Tokenizer, grammar: str, text: str) -> bool:
    matcher, ids = grammars.matcher(Constraint.gbnf(grammar)), tokenizer.encode(text)
    return matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting()


@pytest.mark.parametrize(
    "grammar, good, bad",
    [
        (JSON, ['{"a": [1, "x\\u00e9", {"b":null}]}', '{\n  "a" :-1.5e3}'], ["[1]", '{"a":tru}', "{"]),
        (r'root ::= "\u0041" [\x42-\x44] "\U0001F600" [^a-z]', ["AB😀é", "AC😀\n"], ["AE😀A", "AB😀b"]),
        ('root ::= . "\\n" .{2}', ["\n\n\n\n"], ["\n", "a\nb"]),
        (r"root ::= [a-z-]+ [&&~] [/] [.] [\]]", ["a-&/.]", "b~/.]"], ["a-!/.]", "a-&/b]"]),
        ('root ::= ("a" |\n "b")+ start-up\nstart-up ::= startUp\nstartUp ::= "c"?', ["ab", "bac"], ["c", "abcc"]),
        ('root ::= "a"{2} "b"{0,2} "c"{1,} "d"{0}', ["aac", "aabbcc"], ["abc", "aabbbc", "aacd"]),
        ('root ::= [a-z]+ "x"', ["abx", "xx"], ["x", "ab"]),  # a terminal [a-z]+ would run on
        ('root ::= name "x" root | "."\nname ::= [a-z]+', ["abx.", "axxbx."], ["x.", "ab."]),
        # Terminals of which a longer match would leave nothing for what follows: in a repetition, behind what may be
        # absent, and where what follows begins with something that may be absent.
        ('root ::= (item | "(" root ")"){2}\nitem ::= "a" "a"?', ["aa", "aaa", "aaaa", "a(aa)"], ["a", "aaaaa"]),
        ('root ::= item "b"? "ab" root | "."\nitem ::= "x" "a"?', ["xab.", "xaab."], ["xb.", "xa."]),
        ('root ::= item tail root | "."\nitem ::= "x" "a"?\ntail ::= "b"? "a"', ["xa.", "xaa.", "xba."], ["x.", "xb."]),
        ('root ::= "(" root ")" | "a" root "b" |', ["", "(ab)", "a()b"], ["(", "ba"]),
        ('root ::= root "a" | "b"', ["b", "baa"], ["a", "ab"]),
        ('# first\nroot ::= "a" # at the end\n\n# last', ["a"], ["b"]),
    ],
)
def test_texts_of_a_grammar(
    grammars: Grammars, tokenizer: Tokenizer, grammar: str, good: list[str], bad: list[str]
) -> None:
    assert [takes(grammars, tokenizer, grammar, text) for text in good] == [True] * len(good)
    assert [takes(grammars, tokenizer, grammar, text) for text in bad] == [False] * len(bad)


def ends(node: Node, rules: Mapping[str, Node], text: str, begin: int) -> set[int]:
    """Where a part of `text` from `begin` may end that a node takes; not for rules that begin with themselves."""
    match node:
        case Characters():
            inside = begin < len(text) and any(low <= ord(text[begin]) <= high for low, high in node.ranges)
            return {begin + 1} if inside else set()
        case Reference():
            return ends(rules[node.rule], rules, text, begin)
        case Choice():
            return set[int]().union(*(ends(option, rules, text, begin) for option in node.options))
        case Sequence():
            found = {begin}
            for item in node.items:
                found = {end for place in found for end in ends(item, rules, text, place)}
            return found
        case Repeat():
            found, new, count = {begin} if node.low == 0 else set[int](), {begin}, 0
            while new and (node.high is None or count < node.high):
                count += 1
                new = {end for place in new for end in ends(node.item, rules, text, place)}
                new -= found if count > node.low else set()
                found |= new if count >= node.low else set()
            return found


def random_node(choose: random.Random, depth: int) -> str:
    kind = choose.randrange(4 if depth else 2)
    parts = [random_node(choose, depth - 1) for _ in range(choose.randint(1, 3))] if kind > 1 else []
    match kind:
        case 0:
            return f'"{"".join(choose.choices("ab(", k=choose.randint(1, 2)))}"'
        case 1:
            return choose.choice(["[ab]", "[^a]", "part", "[b(]"])
        case 2:
            return f"({' | '.join(parts)}){choose.choice(['', '*', '+', '?', '{1,2}'])}"
        case _:
            return " ".join(parts)


@pytest.mark.parametrize("seed", range(15))
def test_no_other_text_is_taken_than_a_plain_recogniser_takes(
    grammars: Grammars, tokenizer: Tokenizer, seed: int
) -> None:
    choose = random.Random(seed)
    body, part = random_node(choose, 3), random_node(choose, 1).replace("part", '"b"')
    grammar = f'root ::= {body} | "(" root "a"\npart ::= {part}'
    rules = gbnf.parse(grammar, "grammar")
    texts = ["".join(choose.choices("ab(", k=length % 7)) for length in range(60)]
    expected = [len(text) in ends(rules["root"], rules, text, 0) for text in texts]
    found = [takes(grammars, tokenizer, grammar, text) for text in texts]
    assert [text for text, e, f in zip(texts, expected, found, strict=True) if f and not e] == []
    assert sum(found) >= sum(expected) // 2


@pytest.mark.parametrize(
    "grammar, words",
    [
        ('root "a"', "line 1: expected '::=', found '\"a\"'"),
        ('root ::= "a', "line 1: expected a character, found the end"),
        ('\nroot ::= "\\q"', "line 2: expected an escape: one of"),
        ('root ::= "\\x4"', "line 1: expected an escape: one of"),
        ('root ::= "\\UFFFFFFFF"', "line 1: expected a code point of Unicode"),
        ("root ::= []", "line 1: expected a character in '[]'"),
        ("root ::= [b-a]", "line 1: expected a range that ends behind its begin"),
        ('root ::= ("a"', "line 1: expected ')', found the end"),
        ('root ::= "a")', "line 1: expected the end of the line, found ')'"),
        ('root ::= "a"{3,2}', "line 1: expected a second number of at least 3"),
        ('root ::= "a"{99999}', "line 1: expected a number up to 2000"),
        ('root ::= "a"**', "line 1: expected a literal, a class, a rule, '.' or '(', found '*'"),
        ("root ::= <tool>", "line 1: expected a literal, a class, a rule"),
        ('root ::= "a"\n| "b"', "line 2: expected the name of a rule"),
        ('other ::= "a"', "there is no rule root"),
        ("root ::= other", "the rule 'other' is not defined"),
        ("root ::= " + "(" * 100, "line 1: expected at most 64 parentheses within each other"),
        ('root ::= "a"\n' + "".join(f'r{i} ::= "a"\n' for i in range(500)), "it has 501 rules; it may have 500"),
    ],
)
def test_what_is_no_grammar_is_refused_in_one_line(grammar: str, words: str) -> None:
    with pytest.raises(ArcmtpError) as error:
        Constraint.gbnf(grammar)
    assert str(error.value).startswith(f"grammar: {words}") and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "grammar",
    [
        'root ::= a0 root | "y"\n' + "".join(f"a{i} ::= a{i + 1} a{i + 1}\n" for i in range(60)) + 'a60 ::= ""',
        'root ::= a0 root | "y"\n' + "".join(f'a{i} ::= a{i + 1} "b"\n' for i in range(400)) + 'a400 ::= ""',
    ],
)
def test_hostile_grammars_end(grammars: Grammars, tokenizer: Tokenizer, grammar: str) -> None:
    try:
        assert takes(grammars, tokenizer, grammar, "y")
    except ArcmtpError as error:
        assert "nested too deeply" in str(error)
