"""`LLM`: a model on a device, for text."""

import resource
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, cast

from arcmtp.engine.memory_plan import memory_plan, padded_context
from arcmtp.engine.results import Chunk, Generation, Statistics
from arcmtp.engine.sampling import Sampler, SamplingOptions
from arcmtp.engine.sequence import TokenSequence
from arcmtp.errors import ArcmtpError
from arcmtp.model.chat import ChatTemplate
from arcmtp.model.config import Config
from arcmtp.model.gguf import GGUF
from arcmtp.model.network import Network
from arcmtp.model.tokenizer import Detokenizer, Tokenizer
from arcmtp.model.weights import Plan, load, plan
from arcmtp.runtime.device import Device
from arcmtp.runtime.graphs import choose
from arcmtp.runtime.paths import data_dir

BUNDLED_MODEL = "tiny-qwen36moe-q4_0.gguf"
MAX_LOGPROBS = 100
GREEDY = SamplingOptions()

Message = Mapping[str, Any]
Prompt = str | Sequence[int] | Sequence[Message]
Progress = Callable[[str, int, int], None]  # stage, done, total


class LLM:
    """A GGUF model of architecture `qwen35moe` on a SYCL device.

    path: the file, or any part of a split one; None takes the small model that comes with the package.
    device: a dpctl filter string such as `cpu` or `level_zero:gpu:0`; None chooses (`arcmtp devices`).
    ctx: tokens that a prompt and its continuation may have together; None takes 8192, or what the model allows if less.
    requant: "int4" turns every large matrix into 4-bit weights while loading.
    graphs: whether a decoding step is one replay of a captured graph; None takes what is faster here, measured once and
        remembered (`graph_choice`). The text is the same.
    progress: called as progress(stage, done, total) while loading and compiling.

    The device holds one sequence: a new generation ends one that is still being streamed. Not for several threads.
    Raises ArcmtpError for a file, device or context that cannot be used.

        >>> with LLM() as llm:
        ...     result = llm.generate("def __len__(self):", max_tokens=8)
        >>> result.finish_reason
        'length'
        >>> len(result.ids)
        8
    """

    def __init__(
        self, path: str | Path | None = None, device: str | None = None, ctx: int | None = None,
        requant: Literal["int4"] | None = None, graphs: bool | None = None, progress: Progress | None = None,
    ) -> None:  # fmt: skip
        began = time.perf_counter()
        report = progress or (lambda stage, done, total: None)
        gguf = GGUF(data_dir() / BUNDLED_MODEL if path is None else path)
        self.config = Config.from_gguf(gguf)
        self.tokenizer = Tokenizer(gguf.metadata)
        self._metadata = gguf.metadata
        self.context = self.config.usable_context(ctx)
        steps = plan(gguf, self.config, requant)
        self.device = Device(device)
        network = Network(steps, self.device, padded_context(self.context), self.tokenizer.vocab_used)
        _check_memory(self.context, steps, network)
        weights = load(steps, self.device, lambda done, total: report("loading weights", done, total))
        self.requant_errors = weights.requant_errors
        network.load(weights)
        for done, rows in enumerate((0, 1)):
            report("compiling kernels", done, 2)
            network.compile(rows)
        report("compiling kernels", 2, 2)
        self.graph_choice = choose(self.device, network.step()) if graphs is None else None
        network.graphs.enabled = self.graph_choice.use_graphs if self.graph_choice else bool(graphs)
        self._network: Network | None = network
        self._sequence: TokenSequence | None = None
        self.load_seconds = time.perf_counter() - began

    def __enter__(self) -> "LLM":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the device's memory back; the model cannot be used after."""
        self._end_sequence()
        self._network = None

    @property
    def network(self) -> Network:
        """The network on the device; ArcmtpError after `close`."""
        if self._network is None:
            raise ArcmtpError("this LLM is closed")
        return self._network

    def new_sequence(self, sampler: Sampler | None = None) -> TokenSequence:
        """An empty sequence; the one before can go no further. Without a sampler it is continued greedily."""
        self._end_sequence()
        self._sequence = TokenSequence(self.network, sampler)
        return self._sequence

    def _end_sequence(self) -> None:
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

    def prompt_ids(self, prompt: Prompt, **template_options: Any) -> list[int]:
        """Token ids of a prompt: of text as it is, or of chat messages through the file's chat template."""
        if isinstance(prompt, str):
            return self._with_bos(self.tokenize(prompt))
        if prompt and isinstance(prompt[0], Mapping):
            messages = cast(Sequence[Message], prompt)
            text = ChatTemplate.from_metadata(self._metadata).render(messages, **template_options)
            return self._with_bos(self.tokenize(text))
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
        **template_options: Any,
    ) -> Generation:  # fmt: skip
        """Continue a prompt until an end-of-generation token, `max_tokens`, or the end of the context.

        prompt: text, token ids, or chat messages ({"role": …, "content": …}), which go through the chat template.
        logprobs: how many of the likeliest tokens to give with each position, as the model has them: without options.
        sampling: how each token is chosen; as it stands, greedily.

        Raises ArcmtpError for an empty prompt or one longer than the context.

        >>> from arcmtp import SamplingOptions
        >>> with LLM() as llm:
        ...     warm = SamplingOptions(temperature=0.8, top_p=0.95, seed=1)
        ...     first, second = (llm.generate("import", max_tokens=8, sampling=warm).text for _ in range(2))
        >>> first == second
        True
        """
        stream = self.stream(prompt, max_tokens, logprobs, sampling, **template_options)
        for _ in stream:
            pass
        return stream.result

    def stream(
        self, prompt: Prompt, max_tokens: int = 128, logprobs: int = 0, sampling: SamplingOptions = GREEDY,
        **template_options: Any,
    ) -> "Stream":  # fmt: skip
        """The same token by token: iterate over the chunks, then ask for `result`.

        >>> with LLM() as llm:
        ...     "".join(chunk.text for chunk in llm.stream("import", max_tokens=3)) != ""
        True
        """
        if max_tokens < 1:
            raise ArcmtpError(f"max_tokens is {max_tokens}; it must be at least 1")
        if not 0 <= logprobs <= MAX_LOGPROBS:
            raise ArcmtpError(f"logprobs is {logprobs}; it must be 0 to {MAX_LOGPROBS}")
        ids = self.prompt_ids(prompt, **template_options)
        if not ids:
            raise ArcmtpError("the prompt is empty; it needs at least one token")
        if len(ids) > self.context:
            raise ArcmtpError(f"the prompt has {len(ids)} tokens, the context holds {self.context}: raise ctx")
        sampler = Sampler(sampling, self.config.vocab)
        return Stream(self, ids, min(max_tokens, self.context - len(ids) + 1), logprobs, sampler)


class Stream:
    """A generation under way: an iterator of chunks, and `result` at any time, final when the iterator has ended."""

    def __init__(self, llm: LLM, prompt_ids: list[int], max_tokens: int, logprobs: int, sampler: Sampler) -> None:
        self._llm, self._prompt_ids, self._max_tokens, self._logprobs = llm, prompt_ids, max_tokens, logprobs
        self._sampler = sampler
        self._ids: list[int] = []
        self._texts: list[str] = []
        self._top: list[list[tuple[int, float]]] = []
        self._finish_reason: Literal["stop", "length"] | None = None
        self._prompt_seconds = self._decode_seconds = 0.0
        self._decode_steps = 0
        self._chunks = self._run()

    def __iter__(self) -> Iterator[Chunk]:
        return self._chunks

    def _run(self) -> Iterator[Chunk]:
        llm, detokenizer = self._llm, Detokenizer(self._llm.tokenizer, skip_special=True)
        sequence = llm.new_sequence(self._sampler)
        began = time.perf_counter()
        token = sequence.prefill(self._prompt_ids)
        self._prompt_seconds = time.perf_counter() - began
        # The likeliest tokens are read from the last step's logits, which a step ahead would overwrite.
        steps = sequence.steps(self._max_tokens - 1, overlap=not self._logprobs)
        while True:
            if token in llm.tokenizer.eos_ids:
                self._finish_reason = "stop"
                break
            top = sequence.top_logprobs(self._logprobs) if self._logprobs else None
            last = len(self._ids) + 1 == self._max_tokens
            text = detokenizer.push(token) + (detokenizer.flush() if last else "")
            self._ids.append(token)
            self._texts.append(text)
            if top is not None:
                self._top.append(top)
            if last:
                self._finish_reason = "length"
            yield Chunk(token, text, top)
            if last:
                return
            began = time.perf_counter()
            token = next(steps)
            self._decode_seconds += time.perf_counter() - began
            self._decode_steps += 1
        if rest := detokenizer.flush():
            self._texts.append(rest)
            yield Chunk(None, rest)

    @property
    def result(self) -> Generation:
        """What has been generated so far."""
        return Generation(
            self._prompt_ids, list(self._ids), "".join(self._texts), self._finish_reason,
            list(self._top) if self._logprobs else None, self._sampler.seed, self._statistics(),
        )  # fmt: skip

    def _statistics(self) -> Statistics:
        network = self._llm.network
        rate = self._decode_steps / self._decode_seconds if self._decode_steps else 0.0
        step_bytes = network.step_bytes(len(self._prompt_ids) + len(self._ids) // 2)
        return Statistics(
            prompt_tokens=len(self._prompt_ids),
            completion_tokens=len(self._ids),
            prompt_tokens_per_second=len(self._prompt_ids) / self._prompt_seconds if self._prompt_seconds else 0.0,
            decode_tokens_per_second=rate,
            launches_per_token=len(network.step(not self._sampler.options.plain)),
            bytes_per_token=step_bytes,
            gigabytes_per_second=step_bytes * rate / 1e9,
            load_seconds=self._llm.load_seconds,
            peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        )


def _check_memory(context: int, steps: Plan, network: Network) -> None:
    """Refuse what the device cannot hold before anything is allocated."""
    need = memory_plan(steps, network)
    if need.nbytes > need.free_bytes:
        raise ArcmtpError(
            f"ctx {context} needs {need.nbytes / 2**30:.1f} GiB ({need.weights_bytes / 2**30:.1f} of them weights) and "
            f"{network.device.sycl_device.name} has {need.free_bytes / 2**30:.1f} GiB free: {need.advice}"
        )
