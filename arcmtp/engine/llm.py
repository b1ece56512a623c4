"""`LLM`: a model on a device, for text."""

from collections.abc import Iterator, Sequence
from dataclasses import fields
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, cast, overload

from arcmtp.constraint.constraint import Constraint
from arcmtp.constraint.grammars import Grammars
from arcmtp.engine import sequence as engine
from arcmtp.engine.cycle import Cycle
from arcmtp.engine.draft_log import DraftLog
from arcmtp.engine.draft_policy import DraftPolicy, checked_policy, longest, may_draft
from arcmtp.engine.guide import Guide
from arcmtp.engine.loading import AUTO, Draft, LoadedModel, LoadOptions, policy_of
from arcmtp.engine.memory_plan import ExpertsHost
from arcmtp.engine.model_file import ModelFile
from arcmtp.engine.prompts import Message, Prompt, Prompts, are_several
from arcmtp.engine.request import Request
from arcmtp.engine.results import Generation
from arcmtp.engine.sampling import GREEDY, Sampler, SamplingOptions
from arcmtp.engine.scheduler import Scheduler
from arcmtp.engine.stream import Stream
from arcmtp.errors import ArcmtpError
from arcmtp.model.blocks.head import SamplingMode
from arcmtp.model.blocks.mtp import HiddenRows
from arcmtp.model.draft_vocabulary import DraftVocab
from arcmtp.model.network import Network
from arcmtp.ops.launch import MAX_ROWS
from arcmtp.progress import Progress
from arcmtp.runtime.device import Device
from arcmtp.runtime.paths import data_dir

BUNDLED_MODEL = "tiny-qwen36moe-q4_0.gguf"


def bundled_model() -> Path:
    """The small model that comes with the package."""
    return data_dir() / BUNDLED_MODEL


class LLM:
    """A GGUF model of architecture `qwen35moe` or `qwen35` on a SYCL device.

    path: the file, any part of a split one, or a file that is open; None takes the small model that comes with the
        package.
    device: a dpctl filter string such as `cpu` or `level_zero:gpu:0`, or a `Device`; None chooses (`arcmtp devices`).
    ctx: tokens that a prompt and its continuation may have together; None takes 8192, or what the model allows or the
        memory holds if less (`context`).
    requant: "int4" turns every large matrix into 4-bit weights while loading.
    graphs: whether a decoding step is one replay of a captured graph; None takes what is faster here, measured once and
        remembered (`graph_choice`), but no graphs on the CPU, whose driver leaks with each. The text is the same.
    progress: called as progress(stage, done, total) while loading (in bytes) and compiling.
    draft: tokens that are drafted before each step, 0 to 7, which changes the speed and not the text; "auto" finds the
        number, 0 to 4, that is fastest (`AutoDrafts`); None takes "auto" if there is an MTP block. With 0 the block
        takes no memory.
    draft_p_min: 0 to 1, a draft less likely than this is the last one before its step: the device skips the work of
        further draft calls. 0 ends none early. The text is the same.
    mtp_hidden: which hidden rows the MTP block is given, those after ("post") or before the final norm.
    parallel: 1 to 32 generations go side by side, each with a context of its own; their steps share every weight that
        is read. Further ones wait until one of them finishes or is closed.
    mtp_model: a file of the same model whose MTP block drafts, in place of one that `path` may have; whole, or as
        `arcmtp mtp extract` writes it. Nothing but the block is loaded from there, with draft=0 nothing at all.
    draft_vocab: the tokens that may be drafted, which changes the speed and not the text: "full" for all, N for as many
        of the lowest ids, or a file with an id in each line, as `arcmtp mtp count-tokens` writes it. Fewer make a draft
        call cheaper. "full" is the default because no number fits all: of Qwen2's 151,936 tokens the 65,536 lowest ids
        are 0.98 of English text and code, and 0.67 to 0.75 of Russian, Chinese, Japanese and Korean.
    draft_requant: "int4" stores the MTP block, with a copy of the output matrix for it, in 4-bit weights; the text is
        the same.
    experts_host: the experts of so many layers, the trunk's last ones, lie in host memory, which a GPU reads over PCIe;
        "auto": on a GPU of as few layers as the context needs, on a CPU of none. The text is the same. `memory` tells
        what was chosen.
    kv_type: how keys and values are kept: "f16", "q8_0", "turbo4" or "turbo3" (docs/kv.md), the drafts' too. It changes
        the logits a little.

    cache_mib, cache_host_mib: MiB of device memory and of host memory for checkpoints; None takes 256 and 2048, or a
        quarter of what all else leaves free if that is less; 0 takes none.
    ignore_selftest: use also what failed in the device's latest selftest (docs/selftest.md); otherwise a device that
        computes wrongly is refused, and graphs or drafts are done without (`without`).

    A prompt that begins like an earlier prompt and its continuation is evaluated from the deepest checkpoint on that
    both share. There is one where the last two messages begin, where the first one ends, where a continuation ended,
    where prompts parted, and every 2048 tokens. The text is the same.

    `generate`, `chat`, `stream` and iterating over streams may be called from any thread: whoever waits for a token
    advances all generations that have started. To cancel one, call its stream's `close`, from any thread.
    Raises ArcmtpError for a file, device or context that cannot be used.

        >>> with LLM() as llm:
        ...     result = llm.generate("def __len__(self):", max_tokens=8)
        >>> result.finish_reason
        'length'
        >>> len(result.ids)
        8
    """

    def __init__(  # noqa: PLR0913 the public interface
        self, path: str | Path | ModelFile | None = None, device: str | Device | None = None, ctx: int | None = None,
        requant: Literal["int4"] | None = None, graphs: bool | None = None, progress: Progress | None = None,
        draft: Draft | None = None, mtp_hidden: HiddenRows = "post", parallel: int = 1, *, draft_p_min: float = 0.0,
        draft_vocab: DraftVocab = "full", draft_requant: Literal["int4"] | None = None,
        mtp_model: str | Path | None = None, experts_host: ExpertsHost = "auto", kv_type: str = "f16",
        cache_mib: int | None = None, cache_host_mib: int | None = None, ignore_selftest: bool = False,
    ) -> None:  # fmt: skip
        options = LoadOptions(
            bundled_model() if path is None else path, device, ctx, requant, graphs, draft, mtp_hidden, parallel,
            draft_p_min, draft_vocab, draft_requant, mtp_model, experts_host, kv_type,
            cache_mib, cache_host_mib, ignore_selftest,
        )  # fmt: skip
        model = LoadedModel(options, progress or (lambda stage, done, total: None))
        self._model, self.config, self.tokenizer, self.device = model, model.config, model.tokenizer, model.device
        self.context = model.context  # tokens of a prompt and its continuation
        self.memory = model.memory  # what device and host hold
        self.draft = model.draft  # tokens before each step, or "auto", unless a generation asks otherwise
        self.draft_p_min = draft_p_min  # unless a generation asks otherwise
        self.parallel, self.kv_type = parallel, kv_type
        self.requant_errors = model.requant_errors  # relative RMS error of each tensor that is now in 4 bits
        self.without = model.without  # what is done without after a selftest, and why
        self.graph_choice = model.graph_choice  # µs of a step by launches and by a graph; None where not measured
        self.load_seconds = model.load_seconds
        self.scheduler = Scheduler(model.network)
        self._auto = policy_of(AUTO)
        self.prompting = model.prompting

    def __enter__(self) -> "LLM":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all generations and give the device's memory back; the model cannot be used after."""
        self.scheduler.close()
        self._model.close()

    @property
    def network(self) -> Network:
        """The network on the device. Raises ArcmtpError after `close`."""
        return self._model.network

    @cached_property
    def grammars(self) -> Grammars:
        """Constraints compiled for the model's vocabulary, made when first asked for."""
        return Grammars(self.tokenizer)

    @property
    def has_chat_template(self) -> bool:
        """Whether the file says how chat messages become text."""
        return self.prompting.has_chat_template

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
        """Token ids of a prompt: of text as it is, or of chat messages through the file's chat template.

        Raises ArcmtpError for ids outside of the vocabulary and for what are no messages, and ContextExceeded, before
        any work, for text of so many bytes that the context cannot hold its tokens.
        """
        return self.prompting.ids(prompt, **template_options)

    @overload
    def generate(
        self, prompt: Prompt, max_tokens: int = 128, logprobs: int = 0, sampling: SamplingOptions = GREEDY,
        draft: Draft | DraftPolicy | None = None, stop: Sequence[str] = (), draft_p_min: float | None = None,
        constraint: Constraint | None = None, **template_options: Any,
    ) -> Generation: ...  # fmt: skip

    @overload
    def generate(
        self, prompt: Prompts, max_tokens: int = 128, logprobs: int = 0, sampling: SamplingOptions = GREEDY,
        draft: Draft | DraftPolicy | None = None, stop: Sequence[str] = (), draft_p_min: float | None = None,
        constraint: Constraint | None = None, **template_options: Any,
    ) -> list[Generation]: ...  # fmt: skip

    def generate(  # noqa: PLR0913 the public interface
        self, prompt: Prompt | Prompts, max_tokens: int = 128, logprobs: int = 0, sampling: SamplingOptions = GREEDY,
        draft: Draft | DraftPolicy | None = None, stop: Sequence[str] = (), draft_p_min: float | None = None,
        constraint: Constraint | None = None, **template_options: Any,
    ) -> Generation | list[Generation]:  # fmt: skip
        """Continue a prompt until an end-of-generation token, `max_tokens`, or the end of the context.

        prompt: text, token ids, or chat messages ({"role": …, "content": …}), which go through the chat template. Of a
            list of texts or a list of lists, each is a prompt; as many as the LLM's `parallel` are continued at once,
            and the generations come in their order.
        max_tokens: 0 or more; 0 evaluates the prompt and chooses no token.
        logprobs: 0 to 100, how many of the likeliest tokens to give with each position, as the model has them: without
            options.
        sampling: how each token is chosen; as it stands, greedily.
        draft: tokens to draft before each step, 0 to 7, "auto", or a policy that says how many; None takes that of the
            LLM. One that was opened with 0 cannot draft.
        draft_p_min: 0 to 1, the least probability of a draft after which there is another; None takes that of the LLM.
        stop: strings that end the generation; the text is cut before the one that is complete first.
        constraint: what the text must keep to (docs/constraints.md), behind the reasoning if the prompt opens it. The
            text is whole where the generation ends by itself.
        template_options: variables for the chat template, such as enable_thinking=False.

        Raises ArcmtpError for an empty prompt, for options out of range and for a constraint that cannot be compiled,
        and ContextExceeded for a prompt longer than the context.

        >>> from arcmtp import SamplingOptions
        >>> with LLM() as llm:
        ...     warm = SamplingOptions(temperature=0.8, top_p=0.95, seed=1)
        ...     first, second = (llm.generate("import", max_tokens=8, sampling=warm).text for _ in range(2))
        ...     results = llm.generate(["import", "class"], max_tokens=8, sampling=warm)
        >>> first == second == results[0].text
        True
        """
        several = are_several(prompt)
        prompts = cast(list[Prompt], prompt if several else [prompt])
        results = self._finish(
            [
                self.stream(
                    one, max_tokens, logprobs, sampling, draft, stop, draft_p_min, constraint, **template_options
                )
                for one in prompts
            ]
        )
        return results if several else results[0]

    def chat(self, messages: Sequence[Message], **options: Any) -> Generation:
        """Answer chat messages, {"role": str, "content": str, …} each: the message that comes next, as text.

        options: those of `generate`; further ones are variables for the chat template, such as `tools` or
            enable_thinking=False.

        Raises ArcmtpError for what are no messages, for a file without a chat template, and as `generate` does.

        >>> with LLM() as llm:
        ...     answer = llm.chat([{"role": "user", "content": "Hello"}], max_tokens=8, enable_thinking=False)
        >>> len(answer.ids)
        8
        """
        own = {field.name: options.pop(field.name) for field in fields(Request) if field.name in options}
        request = Request(self.prompting.of_messages(messages, **options), **own)
        return self._finish([self.stream_request(request)])[0]

    def stream(  # noqa: PLR0913 the public interface
        self, prompt: Prompt, max_tokens: int = 128, logprobs: int = 0, sampling: SamplingOptions = GREEDY,
        draft: Draft | DraftPolicy | None = None, stop: Sequence[str] = (), draft_p_min: float | None = None,
        constraint: Constraint | None = None, **template_options: Any,
    ) -> Stream:  # fmt: skip
        """`generate` for one prompt, token by token: iterate over the chunks, then ask for `result`.

        >>> with LLM() as llm:
        ...     "".join(chunk.text for chunk in llm.stream("import", max_tokens=3)) != ""
        True
        """
        ids = self.prompt_ids(prompt, **template_options)
        request = Request(ids, max_tokens, logprobs, sampling, draft, stop, draft_p_min, constraint)
        return self.stream_request(request)

    def stream_request(self, request: Request) -> Stream:
        """A stream for a request; raises ArcmtpError for what this model cannot do."""
        prompt = self.prompting.checked(request.prompt_ids)
        sampler = Sampler(request.sampling, self.config.vocab, self._guide(request.constraint, prompt))
        policy = self.policy(request.draft)
        sequence = engine.Sequence(
            sampler,
            prompt,
            limit=min(request.max_tokens, self.context - len(prompt) + 1),
            stop_ids=self.tokenizer.eos_ids,
            policy=policy,
            draft_p_min=self.draft_p_min if request.draft_p_min is None else request.draft_p_min,
            top=request.logprobs,
            boundaries=self.prompting.boundaries(prompt),
            log=self._draft_log() if may_draft(policy) else None,
            scored=request.score_prompt,
        )
        self._prepare(sequence)
        return Stream(self._model, self.scheduler, sequence, request.stop)

    def _guide(self, constraint: Constraint | None, prompt: list[int]) -> Guide | None:
        return None if constraint is None else Guide(self.grammars.matcher(constraint), self.tokenizer, prompt)

    def policy(self, draft: Draft | DraftPolicy | None = None) -> DraftPolicy:
        """The policy that drafts as `generate` is asked to; all generations with "auto" share one. Raises ArcmtpError
        for what this LLM cannot do."""
        if draft is None or draft == self.draft:
            return self._model.policy
        if draft == AUTO:
            policy = self._auto
        elif isinstance(draft, int | str):
            policy = policy_of(draft)
        else:
            policy = checked_policy(draft)
        if may_draft(policy) and not self.draft:
            raise ArcmtpError(f"draft is {draft}; this LLM was opened without drafts (draft=0)")
        return policy

    def new_sequence(
        self, sampler: Sampler | None = None, draft: Draft = 0, top: int = 0, log: DraftLog | None = None
    ) -> engine.Sequence:
        """An empty sequence of token ids, to `extend` or `prefill` and then to go on with `cycles`; all else ends and
        is forgotten, and a generation that starts ends it. For measurements: not beside other threads.

        sampler: how tokens are chosen; None: greedily. draft: tokens to draft before each step, 0 to 7, or "auto". top:
        how many of the likeliest tokens to give with each position, 0 to 100. log: where draft calls are noted.
        `draft_p_min` is that of the LLM.
        """
        sequence = engine.Sequence(
            sampler or Sampler(GREEDY, self.config.vocab), policy=self.policy(draft), draft_p_min=self.draft_p_min,
            top=top, log=log,
        )  # fmt: skip
        self.scheduler.lend(sequence)
        return sequence

    def cycles(self, sequence: engine.Sequence) -> Iterator[Cycle]:
        """The cycles of a sequence from `new_sequence` until it is done. Raises ArcmtpError if it has ended before."""
        return self.scheduler.cycles(sequence)

    def _finish(self, streams: list[Stream]) -> list[Generation]:
        """Advance streams until each has finished; should that fail, close them all."""
        try:
            for stream in streams:
                stream.start()
            for _ in zip_longest(*streams):
                pass
            return [stream.result for stream in streams]
        finally:
            for stream in streams:
                stream.close()

    def _prepare(self, sequence: engine.Sequence) -> None:
        """Compile what is not yet, so that no step of any stream waits for it."""
        network, policy, mode = self.network, sequence.policy, sequence.sampler.mode(sequence.top)
        with self.scheduler.between_turns():
            network.first(mode)
            if sequence.scored:
                network.logits(MAX_ROWS, SamplingMode(top=mode.top))
            for sequences in range(1, self.parallel + 1):
                for length in (length for length in policy.lengths if length <= longest(sequences)):
                    network.cycle(length + 1, length, mode, sequences, sequence.draft_p_min > 0)

    def _draft_log(self) -> DraftLog:
        mtp = self.network.mtp
        assert mtp is not None
        return DraftLog(mtp.head.weights.output.matrices[0].n, self.network.stage.graphs.enabled)
