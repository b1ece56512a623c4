"""What changed between two files that `arcmtp bench … -o json` wrote."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from arcmtp.errors import ArcmtpError


class Model(NamedTuple):
    """What tells one model from another."""

    model: str  # name of the file
    weights_bytes: int

    def __str__(self) -> str:
        return f"{self.model} ({self.weights_bytes / 1e6:.1f} MB of weights)"


@dataclass(frozen=True)
class _Measured:
    model: Model | None  # None: operators belong to none, and servers name models as they like
    values: dict[str, float]


@dataclass(frozen=True)
class _Kind:
    command: str
    unit: str
    lower_is_better: bool
    read: Callable[[Any], _Measured]


def compare(kind: str, before: Path, after: Path) -> str:
    """A Markdown table of what two results of one benchmark ("llama", "mtp", "ops" or "serve") have in common.

    Raises ArcmtpError for a file that is no such result, for two models, and if nothing is in common.
    """
    how = _KINDS[kind]
    first, second = _load(before, how), _load(after, how)
    if first.model != second.model:
        raise ArcmtpError(f"{after}: is of {second.model} and {before} of {first.model}; expected one model")
    common = [name for name in first.values if name in second.values]
    if not common:
        raise ArcmtpError(f"{after}: has nothing in common with {before}; expected results of the same options")
    lines = [f"| | {before.stem}, {how.unit} | {after.stem}, {how.unit} | times as fast |", "|---|---:|---:|---:|"]
    for name in common:
        old, new = first.values[name], second.values[name]
        faster = old / new if how.lower_is_better else new / old
        lines.append(f"| {name} | {old:.2f} | {new:.2f} | {faster:.2f} |")
    return "\n".join(lines)


def _load(path: Path, how: _Kind) -> _Measured:
    try:
        measured = how.read(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ArcmtpError(f"{path}: {error.strerror}; expected a file of `{how.command} -o json`") from None
    except (ValueError, KeyError, TypeError, IndexError):
        raise ArcmtpError(f"{path}: is not what `{how.command} -o json` writes") from None
    if not measured.values or min(measured.values.values()) <= 0:
        raise ArcmtpError(f"{path}: holds no times; expected the output of `{how.command} -o json`")
    return measured


def _llama(rows: Any) -> _Measured:
    values = {f"{row['test']} at depth {row['depth']}": float(row["tokens_per_second"]) for row in rows}
    return _Measured(Model(rows[0]["model"], rows[0]["weights_bytes"]), values)


def _mtp(content: Any) -> _Measured:
    values = {f"{length['draft']} drafts": median(length["tokens_per_second"]) for length in content["lengths"]}
    return _Measured(Model(content["model"], content["weights_bytes"]), values)


def _ops(content: Any) -> _Measured:
    values = {f"{r['operator']} {r['shape']}, {r['rows']} rows": float(r["us"]) for r in content["results"]}
    return _Measured(None, values)


def _serve(content: Any) -> _Measured:
    values = {f"{level['concurrency']} at once": float(level["tokens_per_second"]) for level in content["levels"]}
    return _Measured(None, values)


_KINDS = {
    "llama": _Kind("arcmtp bench", "tokens/s", False, _llama),
    "mtp": _Kind("arcmtp bench mtp", "tokens/s", False, _mtp),
    "ops": _Kind("arcmtp bench ops", "µs", True, _ops),
    "serve": _Kind("arcmtp bench serve URL", "tokens/s", False, _serve),
}
