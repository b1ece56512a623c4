"""Masks behind drafts that were right and wrong, beside those of a matcher that has seen nothing else."""

import json
import random
from pathlib import Path

import numpy as np
import pytest

from arcmtp.constraint.constraint import Constraint
from arcmtp.constraint.grammars import Grammars
from arcmtp.engine.guide import Guide
from arcmtp.engine.llm import bundled_model
from arcmtp.gguf import GGUF
from arcmtp.model.tokenizer import Tokenizer

SCHEMAS = json.loads((Path(__file__).parents[1] / "data/schemas.json").read_text())
NAMES = ["arrays in arrays", "an object of all types", "a tree", "a pattern and a length", "an array of objects"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_gguf(GGUF(bundled_model()))


@pytest.fixture(scope="module")
def grammars(tokenizer: Tokenizer) -> Grammars:
    return Grammars(tokenizer)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(4))
def test_masks_depend_on_the_tokens_before_them_alone(
    grammars: Grammars, tokenizer: Tokenizer, name: str, seed: int
) -> None:
    constraint, choose = Constraint.json_schema(SCHEMAS[name]), random.Random(seed)
    guide, words = Guide(grammars.matcher(constraint), tokenizer, [1]), -(-tokenizer.vocab_used // 32)
    text = list[int]()

    def mask(ids: list[int]) -> list[int]:
        """The tokens that the guide allows, which must be those that a fresh matcher allows behind `ids`."""
        row = np.zeros(words + 1, np.uint32)
        guide.allow(row)
        matcher = grammars.matcher(constraint)
        assert not ids or matcher.consume_tokens(ids)
        fresh = np.frombuffer(matcher.compute_bitmask(), np.uint32)[:words]
        assert np.array_equal(row[:words], fresh), tokenizer.decode(ids)
        return [int(token) for token in np.flatnonzero(np.unpackbits(fresh.view(np.uint8), bitorder="little"))]

    while len(text) < 40:
        drafts, allowed = list[int](), [mask(text)]
        for _ in range(choose.randint(0, 3)):
            draft = choose.choice(allowed[-1]) if choose.random() < 0.7 else choose.randrange(tokenizer.vocab_used)
            guide.draft(draft)
            if draft not in allowed[-1] or draft in tokenizer.eos_ids:
                break
            drafts.append(draft)
            allowed.append(mask(text + drafts))
        right = choose.randint(0, len(drafts))
        following = choose.choice(allowed[right])
        guide.settle([*drafts[:right], following])
        if following in tokenizer.eos_ids:
            break
        text += [*drafts[:right], following]


def test_the_mask_behind_a_wrong_draft_is_not_that_of_the_draft(grammars: Grammars, tokenizer: Tokenizer) -> None:
    constraint, words = Constraint.json_schema(SCHEMAS["arrays in arrays"]), -(-tokenizer.vocab_used // 32)
    (begin,), (end,), (zero,) = (tokenizer.encode(text) for text in ("[[", "]", "0"))
    guide, row = Guide(grammars.matcher(constraint), tokenizer, [1]), np.zeros(words + 1, np.uint32)
    guide.settle([begin])
    guide.draft(end)
    guide.allow(row)
    guide.settle([zero])
    row[:] = 0
    guide.allow(row)
    matcher = grammars.matcher(constraint)
    assert matcher.consume_tokens([begin, zero])
    assert np.array_equal(row[:words], np.frombuffer(matcher.compute_bitmask(), np.uint32)[:words])
