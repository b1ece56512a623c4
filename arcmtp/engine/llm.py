"""`LLM`: a model on a device, for text."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, cast

from arcmtp.engine.batch import most_runs
from arcmtp.engine.draft_log import DraftLog
from arcmtp.engine.memory_plan import memory_plan
from arcmtp.engine.results import Generation
from arcmtp.engine.sampling import GREEDY, Sampler, SamplingOptions
from arcmtp.engine.scheduler import Scheduler
from arcmtp.engine.sequence import TokenSequence
from arcmtp.engine.stream import Stream
from arcmtp.errors import ArcmtpError, ContextExceeded
from arcmtp.gguf import GGUF
from arcmtp.model.blocks.head import SamplingMode
from arcmtp.model.blocks.mtp import HiddenRows, has_mtp
from arcmtp.model.chat import ChatTemplate
from arcmtp.model.config import Config
from arcmtp.model.network import Network, NetworkOptions
from arcmtp.model.tokenizer import Tokenizer
from arcmtp.ops.launch import MAX_ROWS, STEP_ROWS
from arcmtp.ops.top_logprobs import MAX_TOP
from arcmtp.progress import Progress
from arcmtp.runtime.device import Device
from arcmtp.runtime.graphs import choose
from arcmtp.runtime.launch import kernels_of
from arcmtp.runtime.paths import data_dir

BUNDLED_MODEL = "tiny-qwen36moe-q4_0.gguf"
DEFAULT_DRAFT = 2  # tokens, where the file has an MTP block

Message = Mapping[str, Any]
Prompt = str | Sequence[int] | Sequence[Message]


class LLM:
    """A GGUF model of architecture `qwen35moe` on a SYCL device.

    path: the file, or any part of a split one; None takes the small model that comes with the package.
    device: a dpctl filter string such as `cpu` or `level_zero:gpu:0`, or a `Device`; None chooses (`arcmtp devices`).
    ctx: tokens that a prompt and its continuation may have together; None takes 8192, or what the model allows if less.
    requant: "int4" turns every large matrix into 4-bit weights while loading.
    draft: tokens that are drafted before each step, 0 to 7, which changes the speed and not the text; None takes 2 if
        the file has an MTP block. With 0 the block takes no memory.
    mtp_hidden: which hidden rows the MTP block is given, those after ("post") or before the final norm.
    graphs: whether a decoding step is one replay of a captured graph; None takes what is faster here, measured once and
        remembered (`graph_choice`), but no graphs on the CPU, whose driver leaks with each. The text is the same.
    progress: called as progress(stage, done, total) while loading and compiling.
    parallel: 1 to 32 generations can be streamed side by side, each with a context of its own; their steps share every
        weight that is read. Iterating over any of them advances all that have started. One more ends the oldest.

    Of a prompt that goes on from an earlier one, or from the beginning of that one's last message, only what is new is
    evaluated, if that one's state is still there; the text is the same. Not for several threads.
    Raises ArcmtpError for a file, device or context that cannot be used.

        >>> with LLM() as llm:
        ...     result = llm.generate("def __len__(self):", max_tokens=8)
        >>> result.finish_reason
        'length'
        >>> len(result.ids)
        8
    """

    def __init__(
        self, path: str | Path | None = None, device: str | Device | None = None, ctx: int | None = None,
        requant: Literal["int4"] | None = None, graphs: bool | None = None, progress: Progress | None = None,
        draft: int | None = None, mtp_hidden: HiddenRows = "post", parallel: int = 1,
    ) -> None:  # fmt: skip
        began = time.perf_counter()
        report = progress or (lambda stage, done, total: None)
        gguf = GGUF(data_dir() / BUNDLED_MODEL if path is None else path)
        self.config = Config.from_gguf(gguf)
        self.tokenizer = Tokenizer(gguf.metadata)
        self._metadata = gguf.metadata
        self.context = self.config.usable_context(ctx)
        if draft is None:
            draft = DEFAULT_DRAFT if has_mtp(gguf, self.config) else 0
        self.draft = _checked_draft(draft)
        if not 1 <= parallel <= STEP_ROWS:
            raise ArcmtpError(f"parallel is {parallel}; it must be 1 to {STEP_ROWS}")
        self.parallel = parallel
        self.device = device if isinstance(device, Device) else Device(device)
        options = NetworkOptions(
            self.context, self.tokenizer.vocab_used, parallel, mtp=draft > 0, hidden_rows=mtp_hidden, requant=requant
        )
        network = Network(gguf, self.config, options, self.device)
        _check_memory(self.context, network)
        self.requant_errors = network.load(lambda done, total: report("loading weights", done, total))
        shapes = [(0, 1)]
        for rows in sorted({1, draft + 1}):
            shapes += [(rows, runs) for runs in range(1, min(parallel, most_runs(rows - 1)) + 1)]
        for done, (rows, runs) in enumerate(shapes):
            report("compiling kernels", done, len(shapes))
            network.compile(rows, runs)
        report("compiling kernels", len(shapes), len(shapes))
        # The CPU driver never frees 2 KiB per kernel of every replay, however it is submitted (docs/log.md).
        measured = graphs is None and not self.device.is_cpu
        step = network.step(draft + 1, SamplingMode())
        self.graph_choice = choose(self.device, step.bound, kernels_of(step)) if measured else None
        network.stage.graphs.enabled = self.graph_choice.use_graphs if self.graph_choice else bool(graphs)
        self._network: Network | None = network
        self._scheduler: Scheduler | None = Scheduler(network, self._boundary)
        self._sequence: TokenSequence | None = None
        turn = self.tokenize("<|im_start|>")
        self._turn_id = turn[0] if len(turn) == 1 else None
        self.load_seconds = time.perf_counter() - began

    def __enter__(self) -> "LLM":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the device's memory back; the model cannot be used after."""
        if self._network is not None:
            self._end_sequences()
        self._network = self._scheduler = None

    @property
    def network(self) -> Network:
        """The network on the device; ArcmtpError after `close`."""
        if self._network is None:
            raise ArcmtpError("this LLM is closed")
        return self._network

    @property
    def scheduler(self) -> Scheduler:
        """Advances all streams; ArcmtpError after `close`."""
        if self._scheduler is None:
            raise ArcmtpError("this LLM is closed")
        return self._scheduler

    def new_sequence(
        self, sampler: Sampler | None = None, draft: int = 0, top: int = 0, log: DraftLog | None = None
    ) -> TokenSequence:
        """An empty sequence (`TokenSequence`); all others can go no further."""
        self._end_sequences()
        slot = self.scheduler.take_slot()
        slot.forget()
        self._sequence = TokenSequence(self.scheduler.batch, slot, sampler, draft, top, log)
        return self._sequence

    def _boundary(self, prompt: Sequence[int]) -> int:
        """Where the last message of a prompt begins; without messages, its last token. The state there becomes a
        checkpoint, for a next prompt that renders the answer otherwise."""
        places = (place for place in range(len(prompt) - 1, 0, -1) if prompt[place] == self._turn_id)
        return next(places, len(prompt) - 1)

    def launches_per_cycle(self, draft: int, sampler: Sampler) -> int:
        """Kernels that run for `draft` drafts and the step that verifies them."""
        rows, choice = draft + 1, SamplingMode(by_options=not sampler.options.plain)
        drafts = [self.network.draft(index, rows, choice) for index in range(1, rows)]
        return sum(len(piece) for piece in (*drafts, self.network.step(rows, choice)))

    def _end_sequences(self) -> None:
        self.scheduler.end_all()
        if self._sequence is not None:
            self._sequence.end()
            self._sequence = None

    def tokenize(self, text: str, special: bool = True) -> list[int]:
        """Token ids; with `special`, the text of control tokens such as `<|im_end|>` becomes those tokens."""
        return self.tokenizer.encode(text, special=special)

    def detokenize(self, ids: Sequence[int], skip_special: bool = False) -> str:
        """The text of token ids; invalid UTF-8 becomes U+FFFD.

        >>> with LLM() as llm:
        ...     llm.detokenize(llm.tokenize("import os"))
        'import os'
        """
        return self.tokenizer.decode(list(ids), skip_special=skip_special)

    @property
    def has_chat_template(self) -> bool:
        """Whether the file says how chat messages become text."""
        return bool(self._metadata.get("tokenizer.chat_template"))

    def prompt_ids(self, prompt: Prompt, **template_options: Any) -> list[int]:
        """Token ids of a prompt: of text as it is, or of chat messages through the file's chat template.

        Raises ContextExceeded, before any work, for text of so many bytes that the context cannot hold its tokens.
        """
        if isinstance(prompt, str):
            return self._with_bos(self.tokenizer.encode(prompt, context=self.context))
        if prompt and isinstance(prompt[0], Mapping):
            messages = cast(Sequence[Message], prompt)
            text = ChatTemplate.from_metadata(self._metadata).render(messages, **template_options)
            return self._with_bos(self.tokenizer.encode(text, context=self.context))
        ids = [int(token) for token in cast(Sequence[int], prompt)]
        wrong = next((token for token in ids if not 0 <= token < self.config.vocab), None)
        if wrong is not None:
            raise ArcmtpError(f"token id {wrong} is not in the vocabulary, which has ids 0 to {self.config.vocab - 1}")
        return ids

    def _with_bos(self, ids: list[int]) -> list[int]:
        bos = self.tokenizer.bos_id
        return ids if bos is None or ids[:1] == [bos] else [bos, *ids]

    def generate(
        self, prompt: Prompt, max_tokens: int = 128, logprobs: int = 0, sampling: SamplingOptions = GREEDY,
        draft: int | None = None, stop: Sequence[str] = (), **template_options: Any,
    ) -> Generation:  # fmt: skip
        """Continue a prompt until an end-of-generation token, `max_tokens`, or the end of the context.

        prompt: text, token ids, or chat messages ({"role": …, "content": …}), which go through the chat template.
        logprobs: how many of the likeliest tokens to give with each position, as the model has them: without options.
        sampling: how each token is chosen; as it stands, greedily.
        draft: tokens to draft before each step; None takes that of the LLM. One that was opened with 0 cannot draft.
        stop: strings that end the generation; the text is cut before the one that is complete first.

        Raises ArcmtpError for an empty prompt or one longer than the context, and for options out of range.

        >>> from arcmtp import SamplingOptions
        >>> with LLM() as llm:
        ...     warm = SamplingOptions(temperature=0.8, top_p=0.95, seed=1)
        ...     first, second = (llm.generate("import", max_tokens=8, sampling=warm).text for _ in range(2))
        >>> first == second
        True
        """
        stream = self.stream(prompt, max_tokens, logprobs, sampling, draft, stop, **template_options)
        for _ in stream:
            pass
        return stream.result

    def stream(
        self, prompt: Prompt, max_tokens: int = 128, logprobs: int = 0, sampling: SamplingOptions = GREEDY,
        draft: int | None = None, stop: Sequence[str] = (), **template_options: Any,
    ) -> "Stream":  # fmt: skip
        """The same token by token: iterate over the chunks, then ask for `result`.

        >>> with LLM() as llm:
        ...     "".join(chunk.text for chunk in llm.stream("import", max_tokens=3)) != ""
        True
        """
        if max_tokens < 1:
            raise ArcmtpError(f"max_tokens is {max_tokens}; it must be at least 1")
        if not 0 <= logprobs <= MAX_TOP:
            raise ArcmtpError(f"logprobs is {logprobs}; it must be 0 to {MAX_TOP}")
        ids = self.prompt_ids(prompt, **template_options)
        if not ids:
            raise ArcmtpError("the prompt is empty; it needs at least one token")
        if len(ids) > self.context:
            raise ContextExceeded(f"the prompt has {len(ids)} tokens, the context holds {self.context}: raise ctx")
        sampler = Sampler(sampling, self.config.vocab)
        draft = self.draft if draft is None else _checked_draft(draft)
        if draft and not self.draft:
            raise ArcmtpError(f"draft is {draft}; this LLM was opened without drafts (draft=0)")
        if isinstance(stop, str) or not all(stop):
            raise ArcmtpError(f"stop is {stop!r}; it must be a list of strings that are not empty")
        self._prepare(draft, SamplingMode(not sampler.options.plain, logprobs > 0))
        return Stream(self, ids, min(max_tokens, self.context - len(ids) + 1), logprobs, sampler, draft, stop)

    def _prepare(self, draft: int, choice: SamplingMode) -> None:
        """Compile what is not yet, so that no step of any stream waits for it."""
        self.network.first(choice)
        for runs in range(1, min(self.parallel, most_runs(draft)) + 1):
            self.network.step(draft + 1, choice, runs)
            for index in range(1, draft + 1):
                self.network.draft(index, draft + 1, choice, runs)


def _checked_draft(draft: int) -> int:
    if not 0 <= draft < MAX_ROWS:
        raise ArcmtpError(f"draft is {draft}; it must be 0 to {MAX_ROWS - 1}")
    return draft


def _check_memory(context: int, network: Network) -> None:
    """Refuse what the device cannot hold before anything is allocated."""
    need = memory_plan(network)
    if need.nbytes > need.free_bytes:
        raise ArcmtpError(
            f"ctx {context} needs {need.nbytes / 2**30:.1f} GiB ({need.weights_bytes / 2**30:.1f} of them weights) and "
            f"{network.device.sycl_device.name} has {need.free_bytes / 2**30:.1f} GiB free: {need.advice}"
        )
