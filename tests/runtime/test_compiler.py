"""Sources made of kernels, and what is said when they do not compile."""

from collections.abc import Iterable

import numpy as np
import pytest
from dpctl import SyclQueue

from arcmtp.errors import ArcmtpError
from arcmtp.runtime import _host
from arcmtp.runtime import compiler as compiler_module
from arcmtp.runtime import device as device_module
from arcmtp.runtime.compiler import Compiler, source_text
from arcmtp.runtime.device import Device
from arcmtp.runtime.launch import FLOAT, INT, parameters, reads, writes
from arcmtp.runtime.tensor import F32, I32
from tests.launches import kernel, launch

X = parameters(x=writes(I32))
GOOD = kernel("good", X, "x[0] = 1;")
BROKEN = kernel("broken", X, "x[0] = no_such_name;")


def test_a_source_holds_each_kernel_and_includes_its_header_once() -> None:
    text = source_text([GOOD, BROKEN])
    assert text.count('#include "formats.hpp"') == 1
    assert text.count("ARCMTP_KERNEL(") == 2


def test_kernels_that_do_not_compile_are_one_line_with_the_compilers_reason() -> None:
    with pytest.raises(ArcmtpError, match=r"does not compile the kernels: .*no_such_name") as failure:
        Device("cpu").compile([GOOD, BROKEN])
    assert "\n" not in str(failure.value)


def test_two_kernels_of_one_name_are_refused_however_far_apart() -> None:
    device, other = Device("cpu"), kernel("good", X, "x[0] = 2;")
    with pytest.raises(ValueError, match="two different kernels are called good"):
        device.compile([GOOD, other])
    device.compile([GOOD])
    with pytest.raises(ValueError, match="two different kernels are called good"):
        device.compile([other])


def test_a_kernel_is_compiled_once_and_what_launches_lack_when_they_are_bound() -> None:
    device, minus = Device("cpu"), kernel("minus", X, "x[0] = -x[0];")
    x = device.zeros(4)
    assert device.compile([GOOD, GOOD]) == 1
    bound = device.bind([launch(GOOD, x=x), launch(minus, x=x), launch(GOOD, x=x), launch(minus, x=x)])
    assert bound.names() == ["good", "minus"] * 2
    assert device.compile([minus, GOOD]) == 0
    device.run(bound)
    assert x.read(np.int32, 1)[0] == -1


@pytest.mark.parametrize("options", [[], ["-DARCMTP_INTEL_CPU"]])
def test_memory_may_be_asked_for_on_the_cpus_of_each_maker(options: list[str]) -> None:
    device = Device("cpu")
    asks = kernel("asks", X, "simd::stream_ahead<512>(x); x[0] += 1;")
    compiler, x = Compiler(device.queue, options), device.zeros(512)
    device.run(compiler.bind([launch(asks, x=x)]))
    assert x.read(np.int32, 2).tolist() == [1, 0]


@pytest.mark.parametrize("of_intel", [False, True])
def test_a_cpu_of_intel_gets_an_option_of_its_own(monkeypatch: pytest.MonkeyPatch, of_intel: bool) -> None:
    asked: list[list[str]] = []

    class Recorded(Compiler):
        def __init__(self, queue: SyclQueue, options: Iterable[str]) -> None:
            asked.append(list(options))
            super().__init__(queue, asked[-1])

    monkeypatch.setattr(_host, "cpu_is_intel", lambda: of_intel)
    monkeypatch.setattr(device_module, "Compiler", Recorded)
    Device("cpu")
    assert asked and all(("-DARCMTP_INTEL_CPU" in options) is of_intel for options in asked)


def test_devices_of_a_process_share_what_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = kernel("shared", X, "x[0] += 1;")
    first, second = Device("cpu"), Device("cpu")
    first.compile([shared])
    monkeypatch.setattr(_host, "build", None)
    for device in (first, second):
        x = device.zeros(4)
        device.run(device.bind([launch(shared, x=x)]))
        assert x.read(np.int32, 1)[0] == 1


def test_kernels_that_know_sequences_have_a_source_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    compiler, sources = Compiler(Device("cpu").queue, []), []
    monkeypatch.setattr(compiler_module, "program", lambda context, device, source, options: sources.append(source))
    monkeypatch.setattr(_host, "kernel", lambda program, name: name)
    of_runs = kernel("of_runs", parameters(x=writes(I32), batch_size=INT, slots=reads(I32)), "x[0] = batch_size;")
    assert compiler.compile([of_runs, GOOD, BROKEN]) == 3
    assert [source.count("ARCMTP_KERNEL(") for source in sources] == [2, 1]
    assert "of_runs" in sources[1]


def test_arguments_of_all_kinds_arrive_whatever_their_order() -> None:
    """On the CPU they are one struct, with gaps before pointers and at its end."""
    declared = parameters(first=INT, x=reads(F32), scale=FLOAT, offset=INT, out=writes(F32), last=INT)
    mixed = kernel("mixed", declared, "out[offset] = x[1] * scale + first * 10000 + last * 1000;")
    device = Device("cpu")
    x, out = device.array(np.array([2, 3], np.float32)), device.zeros(16)
    device.run(device.bind([launch(mixed, out=out, x=x, scale=0.5, last=7, first=5, offset=2)]))
    assert out.read(np.float32, 4).tolist() == [0, 0, 57001.5, 0]


@pytest.fixture(params=["cpu", pytest.param("emulated", marks=pytest.mark.emulated)])
def any_device(request: pytest.FixtureRequest) -> Device:
    """The CPU device and the emulated card."""
    return Device("cpu") if request.param == "cpu" else request.getfixturevalue("emulated_card")


def test_a_product_is_rounded_before_it_is_added(any_device: Device) -> None:
    """(1 + 2⁻¹²)² - (1 + 2⁻¹¹) is 2⁻²⁴, which a product that is a float has lost."""
    bodies = {1: "out[0] = x[0] * x[0] + y[0];"}
    for n in (2, 16, 32, 64):
        bodies[n] = f"simd::store<float, {n}>(out, simd::load<float, {n}>(x) * simd::load<float, {n}>(x) + "
        bodies[n] += f"simd::load<float, {n}>(y));"
    declared = parameters(x=reads(F32), y=reads(F32), out=writes(F32))
    kernels = [kernel(f"product_{n}", declared, body) for n, body in bodies.items()]
    x, y = (any_device.array(np.full(64, value, np.float32)) for value in (1 + 2.0**-12, -1 - 2.0**-11))
    sums = [any_device.array(np.ones(64, np.float32)) for _ in kernels]
    any_device.run(any_device.bind(launch(each, x=x, y=y, out=out) for each, out in zip(kernels, sums, strict=True)))
    assert [np.count_nonzero(out.read(np.float32, 64)) for out in sums] == [64 - n for n in bodies]


def test_quotients_are_rounded_once(any_device: Device) -> None:
    body = """for (int i = 0; i < 256; ++i) {
        quotients[i] = simd::divide(x[i], y[i]);
        shares[i] = simd::divide(x[i], 127.0f);
    }"""
    declared = parameters(x=reads(F32), y=reads(F32), quotients=writes(F32), shares=writes(F32))
    x, y = np.random.default_rng(1).uniform(0.5, 2, (2, 256)).astype(np.float32)
    quotients, shares = any_device.zeros(1024), any_device.zeros(1024)
    divide, device_x, device_y = kernel("divide", declared, body), any_device.array(x), any_device.array(y)
    division = launch(divide, x=device_x, y=device_y, quotients=quotients, shares=shares)
    any_device.run(any_device.bind([division]))
    np.testing.assert_array_equal(quotients.read(np.float32, 256), x / y)
    np.testing.assert_array_equal(shares.read(np.float32, 256), x / np.float32(127))


def test_a_source_with_packed_parameters_takes_one_struct() -> None:
    text = source_text([kernel("two", parameters(x=reads(I32), y=FLOAT), "use(x, y);")], packed=True)
    assert "struct two_arguments { const int * x; float y; };" in text
    assert "ARCMTP_KERNEL(two)(two_arguments arguments)" in text
    assert "const auto [x, y] = arguments;" in text
