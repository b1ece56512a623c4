"""What lies where: the fewest layers' experts in host memory with which a context fits a card, and byte counts."""

import re
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest

from arcmtp.engine.loading import LoadOptions
from arcmtp.engine.memory_plan import (
    CACHE_MIB,
    CacheBytes,
    CacheMib,
    ExpertsHost,
    MemoryPlan,
    load,
    memory_plan,
    place_experts,
    planned,
)
from arcmtp.errors import ArcmtpError, MemoryExceeded, OutOfMemory
from arcmtp.model.config import LayerKind
from arcmtp.model.network import Network, NetworkOptions
from arcmtp.predict import CardOnPaper, cards_on_paper
from scripts.battlemage.models import DENSE, MOE, Header, network, stock_q4_0, unsloth_q4_k_m

# 256 experts of three matrices of 512 x 2048 in 4.5 bits: of a layer of Qwen3.6-35B-A3B in Q4_0.
LAYER_BYTES = 256 * 3 * 512 * 2048 * 9 // 16
DEVICES = {device.card.profile: device for device in cards_on_paper()}


def moe(device: CardOnPaper, context: int, cache: CacheBytes = (0, 0), parallel: int = 1) -> Network:
    return network(device, MOE, stock_q4_0, slots=parallel, context=context, cache_bytes=cache)


@pytest.mark.parametrize("context", [1024, 8192, 131_072])
@pytest.mark.parametrize("parallel", [1, 4])
@pytest.mark.parametrize("profile", DEVICES)
def test_auto_takes_the_fewest_layers_with_which_the_context_fits(profile: str, context: int, parallel: int) -> None:
    made = moe(DEVICES[profile], context, parallel=parallel)
    plan = place_experts(made, "auto")
    assert (plan.host_layers, plan.host_bytes) == (made.host_layers, made.host_layers * LAYER_BYTES)
    if plan.host_layers < MOE.layers:
        assert plan.fits and plan.largest_context >= context
    if plan.host_layers:
        made.keep_experts_in_host_memory(plan.host_layers - 1)
        fewer = memory_plan(made)
        assert not fewer.fits and fewer.largest_context < context
        assert fewer.weights_bytes == plan.weights_bytes + LAYER_BYTES


@pytest.mark.parametrize(
    ("profile", "layers"),
    [("arc-b570", 24), ("arc-b580", 19), ("arc-pro-b50", 10), ("arc-pro-b60", 0), ("arc-pro-b70", 0)],
)
def test_layers_of_the_35b_model_that_each_card_leaves_to_the_host(profile: str, layers: int) -> None:
    assert place_experts(moe(DEVICES[profile], 8192), "auto").host_layers == layers


def test_the_last_layers_experts_go_to_the_host_and_nothing_else_does() -> None:
    made = moe(DEVICES["arc-b580"], 8192)
    made.keep_experts_in_host_memory(40)
    made.keep_experts_in_host_memory(3)
    in_host = {region.name for region in made.stage.arena.regions if region.in_host_memory}
    assert in_host == {f"blk.{layer}.{part}" for layer in (37, 38, 39) for part in ("gate_up", "down")}


@pytest.mark.parametrize("layers", range(0, 41, 8))
def test_device_and_host_share_the_weights(layers: int) -> None:
    made = moe(DEVICES["arc-pro-b70"], 8192)
    whole = memory_plan(made)
    plan = place_experts(made, layers)
    assert plan.host_bytes == layers * LAYER_BYTES
    assert plan.weights_bytes + plan.host_bytes == whole.weights_bytes
    assert (plan.cache_bytes, plan.buffer_bytes) == (whole.cache_bytes, whole.buffer_bytes)


def test_a_mix_of_formats_counts_each_layer_as_it_is() -> None:
    """In UD-Q4_K_M down matrices of layers 38 and 39 have 6.5625 bits, of the others 6.625."""
    made = network(DEVICES["arc-b580"], MOE, unsloth_q4_k_m)
    matrix = 256 * 512 * 2048 // 8
    assert place_experts(made, 1).host_bytes == matrix * (2 * 4.625 + 6.5625)
    assert place_experts(made, 3).host_bytes == matrix * (3 * 2 * 4.625 + 2 * 6.5625 + 6.625)


class SmallHost(CardOnPaper):
    free_host_memory = LAYER_BYTES * 7 // 2


def small_host(profile: str) -> SmallHost:
    return SmallHost(DEVICES[profile].card, DEVICES[profile].hardware)


def test_auto_leaves_the_host_no_more_than_it_holds() -> None:
    plan = place_experts(moe(small_host("arc-pro-b50"), 8192), "auto")
    assert (plan.host_layers, plan.fits, plan.largest_context) == (3, False, 0)
    assert plan.experts == "experts of the last 3 layers in host memory (1,296 of 1,512 MiB free there)"


def test_more_experts_than_the_host_holds_are_refused_with_both_sizes() -> None:
    made = moe(small_host("arc-pro-b70"), 8192)
    plan = place_experts(made, 4)
    assert (plan.fits, plan.largest_context) == (False, 0)
    with pytest.raises(MemoryExceeded) as caught:
        load(made, 8192, plan, lambda *_: None)
    sizes = "(1,728 of 1,512 MiB free there) do not fit"
    assert str(caught.value) == f"experts of the last 4 layers in host memory {sizes}: use a smaller experts_host"


def test_a_cpu_device_holds_both_in_one_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    made = moe(DEVICES["arc-pro-b70"], 8192)
    whole = memory_plan(made)
    monkeypatch.setattr(made.device, "is_cpu", True)
    monkeypatch.setattr(CardOnPaper, "free_memory", whole.nbytes)
    for layers in (0, 40):
        plan = place_experts(made, layers)
        assert plan.fits and plan.free_bytes == plan.nbytes
        assert plan.largest_context >= 8192
    monkeypatch.setattr(CardOnPaper, "free_memory", whole.nbytes - 1)
    assert not any(place_experts(made, layers).fits for layers in (0, 20, 40))
    assert place_experts(made, "auto").host_layers == 0


def refusal(made: Network, experts_host: ExpertsHost) -> str:
    """What `load` says, in which nothing is allocated."""
    made.device.sycl_device = SimpleNamespace(name="a card")
    with pytest.raises(ArcmtpError) as caught:
        load(made, 8192, place_experts(made, experts_host), lambda *_: None)
    return str(caught.value)


def test_a_card_that_is_too_small_is_told_with_the_numbers_of_both_memories() -> None:
    b580 = CardOnPaper(DEVICES["arc-b580"].card, DEVICES["arc-b580"].hardware)
    assert re.fullmatch(
        r"ctx 8192 needs 1\d\.\d GiB \(1\d\.\d of them weights\), with experts of the last 5 layers in host memory "
        r"\(2,160 of [\d,]+ MiB free there\), and a card has 11\.4 GiB free: too little for any context; "
        "a larger experts_host needs less", refusal(moe(b580, 8192), 5),
    )  # fmt: skip
    said = refusal(moe(small_host("arc-b580"), 8192), "auto")  # no more fit the host
    assert said.endswith("and a card has 11.4 GiB free: too little for any context")
    said = refusal(network(b580, DENSE, stock_q4_0), "auto")
    assert said.endswith("and a card has 11.4 GiB free: too little for any context") and "experts" not in said


def test_a_card_that_is_full_all_the_same_may_leave_more_to_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OutOfMemory("a card has no 1.0 MiB left in one piece")

    monkeypatch.setattr(Network, "load", full)
    b580 = CardOnPaper(DEVICES["arc-b580"].card, DEVICES["arc-b580"].hardware)
    tail = "but a card has no 1.0 MiB left in one piece: a smaller ctx may fit"
    assert refusal(moe(b580, 8192), "auto").endswith(f"{tail}; a larger experts_host needs less")
    assert refusal(moe(b580, 8192), 40).endswith(tail)


def test_the_usual_context_becomes_what_fits() -> None:
    small = moe(DEVICES["arc-pro-b60"], 262_144)
    largest = memory_plan(small).largest_context
    context, made, plan = planned(partial(moe, DEVICES["arc-pro-b60"]), 262_144, 0, or_less=True)
    assert (context, plan.fits, plan.host_layers) == (largest, True, 0) and made.context >= context
    context, _, plan = planned(partial(moe, DEVICES["arc-pro-b60"]), 262_144, 0)
    assert (context, plan.fits) == (262_144, False)
    context, _, plan = planned(partial(moe, DEVICES["arc-pro-b60"]), 262_144, "auto", or_less=True)
    assert (context, plan.fits) == (262_144, True) and plan.host_layers > 0


def test_a_model_without_a_kv_cache_has_room_for_any_context_or_none() -> None:
    kinds: list[LayerKind] = ["gdn"] * MOE.layers
    config, device = replace(MOE, layer_kinds=tuple(kinds)), DEVICES["arc-b580"]
    made = Network(Header(config, stock_q4_0), config, NetworkOptions(1024, config.vocab), device)
    assert (made.bytes_per_position, memory_plan(made).largest_context) == (0, 0)
    assert place_experts(made, "auto").largest_context == config.context_length


def test_nothing_is_tried_again_where_no_context_fits() -> None:
    made: list[int] = []

    def make(context: int, cache: CacheBytes) -> Network:
        made.append(context)
        return network(DEVICES["arc-b570"], DENSE, stock_q4_0, context=context)

    _, _, plan = planned(make, 8192, "auto", or_less=True)
    assert (made, plan.fits, plan.host_layers) == ([8192], False, 0)


@pytest.mark.parametrize("wrong", [-1, True, 2.0, "most"])
@pytest.mark.parametrize("option", ["cache_mib", "cache_host_mib"])
def test_what_is_no_number_of_mib_is_refused(option: str, wrong: object) -> None:
    with pytest.raises(ArcmtpError, match=rf"{option} is .*; it must be a whole number of MiB, 0 \(no cache\) or more"):
        LoadOptions("model.gguf", **{option: wrong})  # type: ignore[arg-type]


def with_cache(profile: str, context: int, cache_mib: CacheMib) -> MemoryPlan:
    return planned(partial(moe, DEVICES[profile]), context, "auto", cache_mib=cache_mib)[2]


@pytest.mark.parametrize("profile", DEVICES)
def test_checkpoints_take_as_usual_no_more_than_a_quarter_of_what_is_left(profile: str) -> None:
    none, usual = (with_cache(profile, 8192, (mib, 0)) for mib in (0, None))
    page = moe(DEVICES[profile], 8192).pages.device.page_bytes
    most = min(CACHE_MIB[0] << 20, (none.free_bytes - none.nbytes) // 4)
    assert none.pages_bytes == 0 and most - page < usual.pages_bytes <= most
    assert usual.nbytes == none.nbytes + usual.pages_bytes
    assert (usual.host_layers, usual.largest_context) == (none.host_layers, none.largest_context)


def test_checkpoints_that_are_asked_for_are_counted_as_all_else() -> None:
    none, asked = (with_cache("arc-pro-b50", 8192, (mib, 0)) for mib in (0, 1024))
    assert 1018 << 20 < asked.pages_bytes <= 1 << 30
    assert asked.host_layers > none.host_layers and asked.fits
    assert asked.buffer_bytes == none.buffer_bytes
    too_many = planned(partial(moe, DEVICES["arc-pro-b60"]), 8192, 0, cache_mib=(8192, 0))[1]
    assert refusal(too_many, 0).endswith("; a larger experts_host needs less; a smaller cache_mib needs less")


def test_checkpoints_that_the_host_does_not_hold_are_refused() -> None:
    made = planned(partial(moe, small_host("arc-pro-b70")), 8192, 3, cache_mib=(0, 300))[1]
    assert refusal(made, 3) == (
        "a cache in host memory of 297 MiB, with experts of the last 3 layers in host memory (1,296 of 1,512 MiB free "
        "there), does not fit, 1,512 MiB are free there: use a smaller cache_host_mib"
    )


def test_a_cpu_device_counts_checkpoints_of_both_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    device = DEVICES["arc-pro-b70"]
    whole = memory_plan(moe(device, 8192))
    monkeypatch.setattr(device, "is_cpu", True)
    monkeypatch.setattr(CardOnPaper, "free_memory", whole.nbytes + (1 << 30))
    plan = planned(partial(moe, device), 8192, 0)[2]
    assert plan.fits and plan.pages_bytes > 240 << 20 and plan.host_pages_bytes > 240 << 20
    plan = planned(partial(moe, device), 8192, 0, cache_mib=(400, 400))[2]
    assert plan.fits
    assert not planned(partial(moe, device), 8192, 0, cache_mib=(400, 800))[2].fits


@pytest.mark.parametrize("wrong", [-1, True, 2.0, "most", None])
def test_what_is_no_number_of_layers_is_refused(wrong: object) -> None:
    with pytest.raises(ArcmtpError, match=r"experts_host is .*; it must be 'auto' or a whole number of layers, 0 or "):
        LoadOptions("model.gguf", experts_host=wrong)  # type: ignore[arg-type]


def test_more_layers_than_have_experts_are_refused() -> None:
    with pytest.raises(ArcmtpError) as caught:
        place_experts(moe(DEVICES["arc-b580"], 8192), 41)
    assert str(caught.value) == "experts_host is 41; of this model it can be 0 to 40: it has 40 layers with experts"
    dense = network(DEVICES["arc-b580"], DENSE, stock_q4_0)
    assert isinstance(place_experts(dense, 0), MemoryPlan)
    with pytest.raises(ArcmtpError) as caught:
        place_experts(dense, 1)
    assert str(caught.value) == "experts_host is 1; of this model it can be 0 to 0: it has no experts"
