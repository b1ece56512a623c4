"""Speed by draft length and prompt length, cold and warm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice, product

from arcmtp.bench.mtp import Request, answer, prompts
from arcmtp.engine.llm import LLM
from arcmtp.engine.loading import AUTO, Draft
from arcmtp.errors import ArcmtpError
from arcmtp.progress import Progress

DRAFTS: tuple[Draft, ...] = (0, 1, 2, 3, 4, AUTO)
SHORTEST = 1024  # tokens of the first prompt
REQUEST = "code_python"  # of `arcmtp bench mtp`; what each prompt ends with


@dataclass(frozen=True)
class Speed:
    """Tokens per second of one request."""

    input: float  # of the prompt
    output: float  # of decoding; 0 if there was nothing but the token after the prompt


@dataclass(frozen=True)
class Cell:
    """Requests of one prompt length and one draft setting. The counts are the last one's: where the engine chooses the
    draft length they change with what it has learnt."""

    prompt: int  # tokens
    draft: Draft
    tokens: int  # of the answer
    drafted: int
    accepted: int
    cold: Speed  # of the first request after loading, which compiles and captures what is new
    warm: list[Speed]  # of those after it

    @property
    def acceptance(self) -> float | None:
        """Accepted of drafted; None if nothing was drafted."""
        return self.accepted / self.drafted if self.drafted else None

    @property
    def inputs(self) -> list[float]:
        """Tokens of the prompt per second, warm."""
        return [speed.input for speed in self.warm]

    @property
    def outputs(self) -> list[float]:
        """Decoded tokens per second, warm."""
        return [speed.output for speed in self.warm]


@dataclass(frozen=True)
class Matrix:
    """The cells, prompt by prompt, and where the text depended on the draft setting, a line per cell."""

    cells: list[Cell]
    differences: list[str]

    @property
    def lengths(self) -> list[int]:
        """The prompts' lengths in tokens, ascending."""
        return sorted({cell.prompt for cell in self.cells})

    @property
    def drafts(self) -> list[Draft]:
        """The draft settings, in the order of the cells."""
        return list(dict.fromkeys(cell.draft for cell in self.cells))


def name_of(draft: Draft) -> str:
    """What a draft setting is called: `off`, the number of tokens, or `auto`."""
    return str(draft) if draft else "off"


def prompt_lengths(most: int, longest: int | None = None) -> list[int]:
    """1,024 tokens, doubled as long as it is at most `most` and `longest`; `longest` itself is the last, if it fits.

    Raises ArcmtpError if there is none.
    """
    limit = most if longest is None else min(most, longest)
    lengths = [SHORTEST << power for power in range(limit.bit_length()) if SHORTEST << power <= limit]
    if longest is not None and longest <= most and longest not in lengths:
        lengths.append(longest)
    if not lengths:
        raise ArcmtpError(f"the shortest prompt has {SHORTEST} tokens, {most} fit: name a --max-prompt that fits")
    return lengths


def prompt_ids(llm: LLM, length: int) -> list[int]:
    """`length` token ids: the texts of `arcmtp bench mtp`, again and again, and a request for a program at the end.

    The end is cut at its begin if it is longer than `length`.
    """
    texts = prompts()
    text = texts[REQUEST]
    end = llm.prompt_ids([{"role": "user", "content": text}] if llm.has_chat_template else text)
    filling = llm.tokenize("\n\n".join(texts.values()) + "\n\n", special=False)
    return [*islice(cycle(filling), max(length - len(end), 0)), *end][-length:]


def bench_matrix(
    llm: LLM, lengths: Sequence[int], tokens: int, drafts: Sequence[Draft], repetitions: int,
    progress: Progress | None = None,
) -> Matrix:  # fmt: skip
    """Answer a prompt of each length greedily, at most `tokens` tokens, with each draft setting.

    Each is answered once cold and then `repetitions` times. The settings alternate, every second time in the opposite
    order, so that a machine that grows slower does so for all of them. Raises ArcmtpError for numbers below 1, nothing
    to measure, and a context that is too small.
    """
    for name, value in (("n", tokens), ("r", repetitions), ("a prompt's length", min(lengths, default=0))):
        if value < 1:
            raise ArcmtpError(f"{name} is {value}; it must be at least 1")
    if llm.context < (need := max(lengths) + tokens):
        raise ArcmtpError(f"the requests take {need} tokens, the context holds {llm.context}: raise ctx")
    asked = {length: prompt_ids(llm, length) for length in lengths}
    done: dict[tuple[int, Draft], list[Request]] = {place: [] for place in product(lengths, drafts)}
    total = (repetitions + 1) * len(done)
    for turn in range(repetitions + 1):
        for number, (length, draft) in enumerate(product(lengths, drafts[:: -1 if turn % 2 else 1]), start=1):
            done[length, draft].append(answer(llm, name_of(draft), asked[length], tokens, draft))
            if progress:
                progress("benchmarks", turn * len(done) + number, total)
    cells = [_cell(length, draft, requests) for (length, draft), requests in done.items()]
    return Matrix(cells, _differences(done))


def _cell(length: int, draft: Draft, requests: list[Request]) -> Cell:
    last = requests[-1]
    cold, *warm = (Speed(length / (r.seconds - r.decode_seconds), r.tokens_per_second) for r in requests)
    return Cell(length, draft, len(last.ids), last.drafted, last.accepted, cold, warm)


def _differences(done: dict[tuple[int, Draft], list[Request]]) -> list[str]:
    expected: dict[int, list[int]] = {}
    for (length, _), requests in done.items():
        expected.setdefault(length, requests[0].ids)
    return [
        f"the text after {length} tokens differs with draft {name_of(draft)}"
        for (length, draft), requests in done.items()
        if any(request.ids != expected[length] for request in requests)
    ]
