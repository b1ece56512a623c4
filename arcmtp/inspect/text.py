"""The report of `arcmtp inspect` for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from arcmtp.inspect.cards import Fit
from arcmtp.inspect.report import Report, Running, Tensors
from arcmtp.model.config import Config

TENSORS = ("tensors in the file", "count", "MiB", "bits per weight", "on the device", "MiB", "bits per weight")
CARDS = ("card", "memory", "context", "experts in host memory", "largest context", "KV cache", "tokens/s")
MTP = {"present": "present", "stripped": "stripped: the keys announce one, the tensors are not there", "none": "none"}


def as_text(report: Report) -> str:
    """The report in paragraphs and tables."""
    names = f"architecture {_said(report.architecture)}, name {_said(report.model)}"
    parts = [f"{report.file}: {_size(report.file_bytes)}, {names}"]
    if report.config:
        parts.append("\n".join(_hyperparameters(report.config)) + f"\nMTP block: {MTP[report.mtp or 'none']}")
    parts.append(table([TENSORS, *map(_tensors, report.tensors)]))
    if report.running:
        parts += _running(report.running)
    if report.refused:
        parts.append(f"arcmtp does not run it: {report.refused}")
    return "\n\n".join(parts)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Cells in columns, the first one flush left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    )


def _size(nbytes: int) -> str:
    return f"{nbytes / 2**30:.1f} GiB" if nbytes >= 1 << 30 else f"{nbytes / 2**20:.1f} MiB"


def _said(text: str) -> str:
    """What a file says, which may be anything, on one line."""
    return repr(text[:80])


def placed(fit: Fit) -> str:
    """Which experts a card needs in host memory."""
    return f"{layers(fit.experts_host)}, {_size(fit.host_bytes)}" if fit.experts_host else "none"


def layers(count: int) -> str:
    """So many layers, in words."""
    return f"{count} layer{'s' * (count != 1)}"


def _hyperparameters(c: Config) -> Iterator[str]:
    attention = c.layer_kinds.count("attention")
    yield (
        f"layers: {c.layers}, {c.layers - attention} with gated delta net and {attention} with attention; "
        f"hidden {c.hidden}; vocabulary {c.vocab:,}; trained for {c.context_length:,} tokens"
    )
    yield (
        f"attention: {c.q_heads} heads of {c.head_dim}, {c.kv_heads} for keys and values, {c.rope_dim} rotated; "
        f"gated delta net: {c.gdn_v_heads} heads of {c.gdn_v_dim}, {c.gdn_k_heads} for keys"
    )
    if c.experts:
        yield f"experts: {c.experts_used} of {c.experts}, {c.expert_ffn} wide; shared expert {c.shared_ffn} wide"
    else:
        yield f"feed-forward: dense, {c.ffn} wide"


def _tensors(t: Tensors) -> Sequence[str]:
    in_file = (t.type, str(t.count), f"{t.file_bytes / 2**20:,.1f}", f"{8 * t.file_bytes / t.elements:.3f}")
    if t.format is None or t.device_bytes is None:
        return *in_file, "not loaded", "", ""
    return *in_file, t.format, f"{t.device_bytes / 2**20:,.1f}", f"{8 * t.device_bytes / t.elements:.3f}"


def _running(running: Running) -> Iterator[str]:
    parts = ", ".join(f"{part} {nbytes / 1e6:,.1f}" for part, nbytes in running.bytes_per_token.items())
    total = sum(running.bytes_per_token.values()) / 1e6
    lines = [f"a token moves {total:,.1f} MB in an empty context: {parts}"]
    if running.bytes_per_draft:
        lines.append(f"a draft call moves {running.bytes_per_draft / 1e6:,.1f} MB")
    context = f"a token of context takes {running.bytes_per_position / 2**10:.1f} KiB"
    yield "\n".join([*lines, f"the weights take {_size(running.weights_bytes)}, {context}"])
    yield table([CARDS, *map(_card, running.cards)])
    yield (
        "Predicted, measured on no card. Tokens/s: without drafts, in an empty context; what is expected, of which\n"
        "arcmtp predict gives the range. Largest context: with the same experts in host memory."
    )


def _card(fit: Fit) -> Sequence[str]:
    card = (fit.name.removeprefix("Intel "), f"{fit.memory_gib} GiB")
    if not fit.fits:
        return *card, "does not fit", placed(fit), f"{fit.largest_context:,}" if fit.largest_context else "", "", ""
    return (
        *card, f"{fit.context:,}", placed(fit), f"{fit.largest_context:,}", fit.kv_type,
        f"{fit.tokens_per_second:.0f}",
    )  # fmt: skip
