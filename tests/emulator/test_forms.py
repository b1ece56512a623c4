"""The tables of what occurs are complete: a kernel that holds anything else has no test."""

import os
from collections.abc import Set
from pathlib import Path

import pytest

from tests.emulator.forms import FORMS, LANES, REGIONS, WITHOUT_OPERANDS, every_form, messages, what_occurs

FOLDER = "ARCMTP_KERNEL_ASSEMBLY"  # of the files that IGC_DumpToCustomDir names (see scripts/battlemage/run.sh)
Sets = tuple[Set[str | int], ...]  # forms, messages, lane counts, regions


def test_every_opcode_of_the_table_is_named_by_a_test() -> None:
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    assert [opcode for opcode in FORMS if f'"{opcode}"' not in tests and f"{opcode} (" not in tests] == []


def test_an_instruction_is_told_apart_by_opcode_types_message_lanes_and_regions() -> None:
    text = """
/* [0210]  */         mad (16|M0)              acc0.0<1>:f   r1.10<0;0>:f      -r4.0<1;0>:f       r4.0<1>:f   {$3.dst}
/* [0220]  */ (W&f2.0) jmpi                                48
/* [0230]  */         cmp (1|M0)    (lt)f2.0   null<1>:uw    r1.0<0;1,0>:uw    0x8:uw
/* [0240]  */         math.inv (1|M0)          r2.0<1>:f     r1.0<0;1,0>:f                    {F@1}
/* [0250]  */         dpas.8x8 (16|M0)         r3:d          r3:d              r11:u4            r27.0:b   {$8}
/* [0260]  */ (W)     send.ugm (1|M0) r3 r127 null:0 0xFF040000 0x6219C500 {$2} // wr:1+0; load.ugm.d32x8t.a32.ca.cc.bti[255][A+0x40]
/* [0270]  */ (W)     send.gtwy (1|M0) null r75 null:0 0x0 0x02000004 {I@2,$7} // wr:1+0, rd:0; signal barrier
"""  # noqa: E501
    forms, sent, lanes, regions = what_occurs(text)
    assert forms == {"mad f,f,f,f", "jmpi", "cmp uw,uw,uw", "math.inv f,f", "dpas d,d,u4,b"}
    assert sent == {"load.ugm.d32x8t.bti[255]", "signal barrier"}
    assert lanes == {1, 16}
    assert regions == {"<1>", "<0;0>", "<1;0>", "<0;1,0>"}


def test_kernels_hold_nothing_that_has_no_test() -> None:
    folder = os.environ.get(FOLDER)
    if folder is None:
        pytest.skip(f"needs the kernels' assembly in the folder {FOLDER}")
    files = [path for path in Path(folder).iterdir() if path.suffix in (".asm", ".iga")]
    assert files, f"no assembly in {folder}"
    tested: Sets = every_form() | set(WITHOUT_OPERANDS), messages(), set(LANES), set(REGIONS)
    missing: dict[str | int, str] = {}  # and a kernel that holds it
    for path in files:
        occurring: Sets = what_occurs(path.read_text())
        for found, known in zip(occurring, tested, strict=True):
            missing |= dict.fromkeys(found - known, path.stem)
    assert not missing, "no test of:\n" + "\n".join(f"  {what}  in {kernel}" for what, kernel in missing.items())
