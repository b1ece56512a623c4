"""Sources made of kernels, and what is said when they do not compile."""

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
