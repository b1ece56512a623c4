"""Sources made of kernels, and what is said when they do not compile."""

import numpy as np
import pytest

from arcmtp.errors import ArcmtpError
from arcmtp.runtime import _host
from arcmtp.runtime.compiler import Kernel, source_text
from arcmtp.runtime.device import Device

GOOD = Kernel("good", "formats.hpp", "int *x", "x[0] = 1;")
BROKEN = Kernel("broken", "formats.hpp", "int *x", "x[0] = no_such_name;")


def test_a_source_holds_each_kernel_and_includes_its_header_once() -> None:
    text = source_text([GOOD, BROKEN])
    assert text.count('#include "formats.hpp"') == 1
    assert text.count("ARCMTP_KERNEL(") == 2


def test_kernels_that_do_not_compile_are_one_line_with_the_compilers_reason() -> None:
    with pytest.raises(ArcmtpError, match=r"does not compile the kernels: .*no_such_name") as failure:
        Device("cpu").program([GOOD, BROKEN])
    assert "\n" not in str(failure.value)


def test_two_kernels_of_one_name_are_refused() -> None:
    other = Kernel("good", "formats.hpp", "int *x", "x[0] = 2;")
    with pytest.raises(ValueError, match="two different kernels are called good"):
        Device("cpu").program([GOOD, other])


def test_a_kernel_of_another_program_is_not_launched() -> None:
    program = Device("cpu").program([GOOD])
    with pytest.raises(ValueError, match="kernel broken is not part of this program"):
        program.launch(_host.LaunchList(), BROKEN, 1)


def test_arguments_of_all_kinds_arrive_whatever_their_order() -> None:
    """On the CPU they are one struct, with gaps before pointers and at its end."""
    parameters = "int first, const float *x, float scale, int offset, float *out, int last"
    mixed = Kernel("mixed", "formats.hpp", parameters, "out[offset] = x[1] * scale + first * 10000 + last * 1000;")
    device = Device("cpu")
    x, out, launches = device.array(np.array([2, 3], np.float32)), device.zeros(16), _host.LaunchList()
    device.program([mixed]).launch(launches, mixed, 1, 5, x, 0.5, 2, out, 7)
    device.run(launches)
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
    parameters = "const float *x, const float *y, float *out"
    kernels = [Kernel(f"product_{n}", "formats.hpp", parameters, body) for n, body in bodies.items()]
    program, launches = any_device.program(kernels), _host.LaunchList()
    x, y = (any_device.array(np.full(64, value, np.float32)) for value in (1 + 2.0**-12, -1 - 2.0**-11))
    sums = [any_device.array(np.ones(64, np.float32)) for _ in kernels]
    for kernel, out in zip(kernels, sums, strict=True):
        program.launch(launches, kernel, 1, x, y, out)
    any_device.run(launches)
    assert [np.count_nonzero(out.read(np.float32, 64)) for out in sums] == [64 - n for n in bodies]


def test_quotients_are_rounded_once(any_device: Device) -> None:
    body = """for (int i = 0; i < 256; ++i) {
        quotients[i] = simd::divide(x[i], y[i]);
        shares[i] = simd::divide(x[i], 127.0f);
    }"""
    kernel = Kernel("divide", "formats.hpp", "const float *x, const float *y, float *quotients, float *shares", body)
    x, y = np.random.default_rng(1).uniform(0.5, 2, (2, 256)).astype(np.float32)
    quotients, shares, launches = any_device.zeros(1024), any_device.zeros(1024), _host.LaunchList()
    given = any_device.array(x), any_device.array(y), quotients, shares
    any_device.program([kernel]).launch(launches, kernel, 1, *given)
    any_device.run(launches)
    np.testing.assert_array_equal(quotients.read(np.float32, 256), x / y)
    np.testing.assert_array_equal(shares.read(np.float32, 256), x / np.float32(127))


def test_a_source_with_packed_parameters_takes_one_struct() -> None:
    text = source_text([Kernel("two", "formats.hpp", "const int *x, float y", "use(x, y);")], packed=True)
    assert "struct two_arguments { const int *x; float y; };" in text
    assert "ARCMTP_KERNEL(two)(two_arguments arguments)" in text
    assert "const auto [x, y] = arguments;" in text
