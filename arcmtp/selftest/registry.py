"""The parts of a selftest. No part is imported here: that would load SYCL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from arcmtp.errors import ArcmtpError
from arcmtp.runtime.verdict import Ability

Group = Literal["operators", "products", "model", "figures"]


@dataclass(frozen=True)
class Part:
    """A part by name. ability: what arcmtp does without on a device where the part fails; None: nothing."""

    name: str
    group: Group
    what: str
    ability: Ability | None = "device"

    @property
    def module(self) -> str:
        """Which has the function that runs it: `compare(bench)` of operators, `run(subject)` of others."""
        return f"arcmtp.selftest.{'operators' if self.group == 'operators' else 'parts'}.{self.name}"


PARTS = (
    Part("dpas", "products", "products of integers with a known answer: 2-, 4- and 8-bit weights"),
    Part("mul_mat", "operators", "products of activations and weights of every format"),
    Part("norm", "operators", "RMS norm of a sum"),
    Part("embedding", "operators", "rows of embeddings of every format"),
    Part("router", "operators", "choice of experts"),
    Part("experts", "operators", "gate, up and down of the chosen experts"),
    Part("feed_forward", "operators", "gate and up of a dense feed-forward"),
    Part("gated_delta_net", "operators", "gated delta net"),
    Part("attention", "operators", "attention with every type of KV cache"),
    Part("sampling", "operators", "the likeliest token"),
    Part("gumbel_sampling", "operators", "sampling with options"),
    Part("top_logprobs", "operators", "the likeliest tokens and their log-probabilities"),
    Part("accept", "operators", "which rows of a step count"),
    Part("draft_input", "operators", "input rows of the MTP block", "drafts"),
    Part("draft_chain", "operators", "where chains of drafts end", "drafts"),
    Part("golden", "model", "text of the bundled model: ids and log-probabilities of llama.cpp"),
    Part("mtp", "model", "0, 2 and auto drafts give the same bits", "drafts"),
    Part("graph", "model", "graphs give the bits of launches", "graphs"),
    Part("launches", "figures", "time of a launch and of a node of a graph", None),
    Part("bandwidth", "figures", "reading the memory", None),
    Part("steps", "figures", "time of a step and of a draft call of the bundled model", None),
)
NAMES = tuple(part.name for part in PARTS)
GROUPS = tuple(dict.fromkeys(part.group for part in PARTS))


def chosen(names: Sequence[str]) -> list[Part]:
    """The parts of these names, or of groups of these names, in their order; all for none.

    Raises ArcmtpError for a name that no part or group has.
    """
    for name in names:
        if name not in (*NAMES, *GROUPS):
            known = f"{', '.join(NAMES)}, and the groups {', '.join(GROUPS)}"
            raise ArcmtpError(f"--only: there is no part {name!r}; there are {known}")
    return [part for part in PARTS if not names or part.name in names or part.group in names]
