"""What each launch of a piece is: layer, operator and cost, in the order in which `Network` adds the launches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from arcmtp.model.drafter import Drafter
from arcmtp.model.layer import LayerOps
from arcmtp.model.network import Choice, Network
from arcmtp.ops.attention import Attention
from arcmtp.ops.cost import Cost


@dataclass(frozen=True)
class Work:
    """What a piece runs on: its rows, how many keys the last of them sees, how many routed experts each layer uses."""

    rows: int
    context: int
    experts: Sequence[int]


class Label(NamedTuple):
    """One launch. The name of its kernel begins with `operator`; `part` tells apart what the operator serves for."""

    layer: int | None  # of the trunk
    kind: str  # of the layer: "gdn", "attention" or "mtp"; "" outside layers
    operator: str
    part: str
    cost: Cost

    @property
    def title(self) -> str:
        """Operator and part."""
        return f"{self.operator} {self.part}".rstrip()


Labels = Callable[[Work], Iterator[Label]]


def labels(network: Network, draft: int) -> dict[str, Labels]:
    """Those of every piece of a greedy generation with `draft` drafts, by the piece's name."""
    rows, choice = draft + 1, Choice()
    pieces: dict[str, Labels] = {
        "block": partial(_block, network),
        network.first(choice).name: partial(_head_and_accept, network, rows=1),
        network.step(rows, choice).name: partial(_step, network),
    }
    for index in range(1, rows):
        pieces[network.draft(index, rows, choice).name] = partial(_draft, network, index, rows)
    return pieces


def _block(network: Network, work: Work) -> Iterator[Label]:
    yield from _trunk(network, work, block=True)
    if network.drafter:
        yield from _drafter_block(network.drafter, work.rows)


def _step(network: Network, work: Work) -> Iterator[Label]:
    yield from _trunk(network, work)
    yield from _head_and_accept(network, work, work.rows)


def _trunk(network: Network, work: Work, block: bool = False) -> Iterator[Label]:
    yield Label(None, "", "embedding", "", network.embedding.cost(work.rows))
    for index, ops in enumerate(network.layers):
        kind = network.config.layer_kinds[index]
        yield from _to_projections(ops, index, kind, work.rows)
        yield from _mixer_and_experts(ops, index, kind, work.rows, work.context, work.experts[index], block)


def _to_projections(ops: LayerOps, layer: int | None, kind: str, rows: int) -> Iterator[Label]:
    yield Label(layer, kind, "norm", "", ops.norm.cost(rows))
    yield Label(layer, kind, "mul_mat", "projections", ops.projections.cost(rows))


def _mixer_and_experts(
    ops: LayerOps, layer: int | None, kind: str, rows: int, context: int, experts: int, block: bool = False
) -> Iterator[Label]:
    label = partial(Label, layer, kind)
    if isinstance(ops.mixer, Attention):
        *store, weighed = ops.mixer.costs(rows, context, block)
        yield from (label("attention_store", "", cost) for cost in store)
        yield label("attention", "", weighed)
    else:
        yield label("gated_delta_net", "", ops.mixer.cost(rows))
    yield label("mul_mat", "output", ops.output.cost(rows))
    yield label("router", "", ops.router.cost(rows))
    yield label("experts_gate_up", "", ops.gate_up.cost(rows, experts))
    yield label("experts_down", "", ops.down.cost(rows, experts))


def _head_and_accept(network: Network, work: Work, rows: int) -> Iterator[Label]:
    yield Label(None, "", "norm", "", network.final_norm.cost(rows))
    yield Label(None, "", "mul_mat", "head", network.head_product.cost(rows))
    yield Label(None, "", "sampling", "", network.sampling.cost(rows))
    yield Label(None, "", "accept", "", network.accept.cost())


def _draft(network: Network, index: int, rows: int, work: Work) -> Iterator[Label]:
    drafter = network.drafter
    assert drafter is not None
    rows = rows if index == 1 else 1
    label = partial(Label, None, "mtp")
    yield label("draft_input", "", drafter.input.cost(rows))
    yield label("mul_mat", "eh_proj", drafter.eh_proj.cost(rows))
    yield from _to_projections(drafter.layer, None, "mtp", rows)
    if rows > 1:
        yield label("attention_store", "", drafter.mixer.store_cost(rows))
    yield from _mixer_and_experts(drafter.layer, None, "mtp", 1, work.context, network.config.experts_used)
    yield label("norm", "head", drafter.head_norm.cost(1))
    yield label("mul_mat", "head", drafter.head.cost(1))
    yield label("sampling", "", network.sampling.cost(1))


def _drafter_block(drafter: Drafter, rows: int) -> Iterator[Label]:
    label = partial(Label, None, "mtp")
    yield label("norm", "block", drafter.block_norm.cost(rows))
    yield label("draft_input", "", drafter.input.cost(rows))
    yield label("mul_mat", "eh_proj", drafter.eh_proj.cost(rows))
    yield label("norm", "", drafter.layer.norm.cost(rows))
    yield label("mul_mat", "k, v", drafter.keys_values.cost(rows))
    yield label("attention_store", "", drafter.store.store_cost(rows))
    yield label("carry_hidden", "", drafter.input.carry_cost())
