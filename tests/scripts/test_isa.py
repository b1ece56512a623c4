"""The excerpts are from dumps of Intel's compiler 26.27 for the B70."""

import subprocess
import sys
from pathlib import Path

import pytest

ISA = Path(__file__).parents[2] / "scripts" / "battlemage" / "isa.py"

HEAD = """\
//.kernel __sycl_kernel_{name}
//.platform XE2
//.thread_config numGRF=128, numAcc=4, numSWSB=16
//.instCount 35
"""
CODE = """\
(W)     load.ugm.d32x16t.a32.ca.cc (1|M0)  r1:1 bti[255][r127:1]   {A@1,$0} // ex_desc:0xFF000000; desc:0x6219D500 //
        load.ugm.d32x64t.a64 (1|M0)  r8:4       [r3:1]             {I@2,$3} // ex_desc:0x0; desc:0x240F580 // $13
        load.ugm.d32x32t.a64 (1|M0)  r13:2      [r12:1]            {I@1,$4} // ex_desc:0x0; desc:0x220E580 // $17
        load.ugm.d32x4.a64 (16|M0)  r43:4       [r41:2]            {$12} // ex_desc:0x0; desc:0x4403580 // $83
        dpas.8x4 (16|M0)         r4:d          r4:d              r8:u4             r13.0:b          {$2} // $18
        load.slm.d32x16t.a32 (1|M0)  r20:1      [r21:1]            {$5} // $20
(W)     send.gtwy (1|M0)         null     r75   null:0  0x0            0x02000004           {$6} // signal barrier; $21
        store.ugm.d64x32t.a64 (1|M0)  [r2:1]    r4:4               {$2} // ex_desc:0x0; desc:0x200E784 // $24
(W&~f0.0) jmpi                               L208                                                //  ALU pipe: int; $12
(W)     send.gtwy (1|M0)         null     r127  null:0  0x0            0x02000010  {EOT,F@1,$2} // end of thread
"""
FUSED = """\
        mad (16|M0)              acc0.0<1>:f   acc0.0<1;0>:f     r4.0<1;0>:f       r4.0<1>:f        {Compacted,$12.dst}
        mac (16|M0)              r51.0<1>:f    r50.0<1;1,0>:f    r6.0<1;1,0>:f                      {Compacted,F@1}
"""
# Exact: integers, and the steps that make an IEEE quotient of its first one.
EXACT = """\
(W)     mad (1|M0)               r127.0<1>:ud  r127.2<0;0>:ud    r127.0<0;0>:uw    0x40:uw              {I@1}
        math.invm (16|M0) (eo)f0.0  r58.mme0:f  r52.nomme<1;1,0>:f  r49.nomme<1;1,0>:f {A@1}
        madm (16|M0)             r60.mme1:f    r47.nomme:f       r52.nomme:f       r58.mme0:f       {M@1}
"""
INTEGER_DIVISION = """\
(W)     call (16|M0)             r45.8         __vc_builtin_srem_i32__rtz__BB_2 {A@1}
(W)     send.gtwy (1|M0)         null     r127  null:0  0x0            0x02000010           {EOT,F@1,$12}
__vc_builtin_srem_i32__rtz__BB_2:
_L_k13_9_origEntry:
        math.inv (1|M0)          r11.0<1>:f    r5.0<0;1,0>:f                    {F@2}
        mad (1|M0)               r11.0<1>:f    r11.0<0;0>:f      r12.0<0;0>:f      r11.0<0>:f       {A@1}
        ret (16|M0)                          r45.8                            {A@1}
"""
FMA = "  %26 = tail call <16 x float> @llvm.fma.v16f32(<16 x float> %25, <16 x float> %25, <16 x float> %21)\n"
SPILL = "(W)     store.ugm.d32x64t.a32 (1|M0)  ss[a0.2][r70:1-0xFF40] r57:4  {$12} //  spill to offset[3*64] of V39\n"
ZEINFO = """\
kernels:
  - name:            __sycl_kernel_{name}
    payload_arguments:
      - arg_type:        arg_bypointer
        size:            8
"""
BUFFER = """\
    per_thread_memory_buffers:
      - type:            {type}
        usage:           {usage}
        size:            {size}
"""
IR = """\
define dllexport spir_kernel void @__sycl_kernel_{name}(ptr addrspace(1) nocapture readonly align 4 %0) {{
{body}  ret void
}}

declare <16 x float> @llvm.fma.v16f32(<16 x float>, <16 x float>, <16 x float>)
"""
OPTIONS = "-ffp-contract=off -vc-codegen -disable-finalizer-msg"
MISC = """\
kernels_misc_info:
  - name:            __sycl_kernel_{name}
"""


def dump(
    folder: Path, code: str = CODE, buffers: str = "", name: str = "mul_mat", ir: str = "", options: str = OPTIONS
) -> None:
    (folder / f"VC_asm1___sycl_kernel_{name}.asm").write_text(HEAD.format(name=name) + code)
    (folder / "VC_asm1_optimized.ll").write_text(IR.format(name=name, body=ir))
    (folder / "VC_asm1_options.txt").write_text(options)
    (folder / "VC_asm1.zeinfo").write_text((ZEINFO + buffers + MISC).format(name=name))


def report(folder: Path) -> tuple[int, dict[str, str], str]:
    """Exit status, the columns of the only kernel, and everything printed."""
    done = subprocess.run([sys.executable, str(ISA), str(folder)], capture_output=True, text=True, check=False)
    heading, row = done.stdout.splitlines()[:2]
    return done.returncode, dict(zip(heading.split(), row.split(), strict=True)), done.stdout


def test_instructions_are_counted_and_the_threads_own_arguments_are_not(tmp_path: Path) -> None:
    dump(tmp_path)
    status, kernel, text = report(tmp_path)
    expected = {"name": "mul_mat", "grf": "128", "instr": "35", "dpas": "1", "dpas_4bit": "1", "loads": "3"}
    expected |= {"load_bytes": "256", "stores": "1", "slm": "1", "barriers": "1", "branches": "1", "spill_bytes": "0"}
    assert expected.items() <= kernel.items()
    assert status == 0
    assert "1 kernels, no spills, no private memory" in text


@pytest.mark.parametrize(
    ("message", "nbytes"),
    [
        ("load.ugm.d64x64t.a64 (1|M0)  r8:8       [r3:1]", "512"),
        ("load.ugm.d32x1t.a64 (1|M0)  r8:1       [r3:1]", "4"),
        ("load.ugm.d32.a64 (32|M0)  r29:2         [r25:4]", "4"),
        ("load.ugm.d8u32.a64 (1|M0)  r5:1         [r4:2]", "1"),
        ("load.ugm.d32x4.a64 (16|M0)  r43:4       [r41:2]", "16"),
        ("load_block2d.ugm.d32.a64 (1|M0)  r51:8  [r63:1]", "512"),
    ],
)
def test_the_load_width_is_the_contiguous_piece_that_one_message_reads(
    tmp_path: Path, message: str, nbytes: str
) -> None:
    dump(tmp_path, f"        {message}            {{$3}} // ex_desc:0x0\n")
    assert report(tmp_path)[1]["load_bytes"] == nbytes


def test_spills_fail_and_are_no_loads_or_private_memory(tmp_path: Path) -> None:
    spilled = BUFFER.format(type="scratch", usage="single_space", size=16960)
    dump(tmp_path, "//.spill size 16960\n" + CODE + SPILL, spilled)
    status, kernel, text = report(tmp_path)
    assert (status, kernel["spill_bytes"], kernel["private_bytes"], kernel["stores"]) == (1, "16960", "0", "1")
    assert "defect: mul_mat spills 16960 bytes a thread" in text


@pytest.mark.parametrize(("kind", "usage"), [("global", "private_space"), ("scratch", "single_space")])
def test_private_memory_fails_however_the_compiler_calls_it(tmp_path: Path, kind: str, usage: str) -> None:
    dump(tmp_path, buffers=BUFFER.format(type=kind, usage=usage, size=8200))
    status, kernel, text = report(tmp_path)
    assert (status, kernel["private_bytes"]) == (1, "8200")
    assert "defect: mul_mat uses 8200 bytes of private memory a thread" in text


def test_four_bit_dpas_on_small_loads_fails(tmp_path: Path) -> None:
    dump(tmp_path, CODE.replace("d32x64t", "d32x32t"))
    status, _, text = report(tmp_path)
    assert status == 1
    assert "defect: mul_mat loads at most 128 bytes at a time for 4-bit dpas" in text


@pytest.mark.parametrize(("lanes", "status"), [(32, 0), (16, 1)])
def test_three_bit_weights_may_be_loaded_by_128_bytes(tmp_path: Path, lanes: int, status: int) -> None:
    loads = CODE.replace("d32x32t", "d32x16t").replace("d32x64t", f"d32x{lanes}t")
    dump(tmp_path, loads, name="mul_mat_4096_q3_kx128_r1")
    assert report(tmp_path)[0] == status


@pytest.mark.parametrize(
    "name",
    [
        "mul_mat_4096_w4x128_r1",
        "experts_down_512_512_256x2048_w4_k_w8_chunk",
        "mul_mat_256_iq4_xsx4_r1",
        "mul_mat_256_iq2x4_r1",
    ],
)
def test_four_bit_weights_without_four_bit_dpas_fail(tmp_path: Path, name: str) -> None:
    dump(tmp_path, CODE.replace(":u4", ":ub"), name=name)
    status, _, text = report(tmp_path)
    assert status == 1
    assert f"defect: {name} multiplies 4-bit weights without 4-bit dpas" in text


def test_multiply_adds_are_counted_by_lanes_and_those_that_an_fma_asks_for_are_no_defect(tmp_path: Path) -> None:
    dump(tmp_path, FUSED, ir=FMA * 2)
    status, kernel, _ = report(tmp_path)
    assert (status, kernel["fused"], kernel["fma"], kernel["mad"]) == (0, "32", "32", "2")


def test_a_multiply_add_that_no_fma_asks_for_fails(tmp_path: Path) -> None:
    dump(tmp_path, FUSED, ir=FMA)
    status, _, text = report(tmp_path)
    assert status == 1
    assert "defect: mul_mat fuses 16 lanes of products and sums that no fma joins" in text


def test_a_kernel_whose_unused_lanes_are_left_out_is_no_defect(tmp_path: Path) -> None:
    dump(tmp_path, FUSED, ir=FMA * 3)
    assert report(tmp_path)[0] == 0


def test_a_compiler_that_is_free_to_fuse_fails(tmp_path: Path) -> None:
    dump(tmp_path, options="-vc-codegen -disable-finalizer-msg")
    status, _, text = report(tmp_path)
    assert status == 1
    assert "defect: module VC_asm1 is compiled without -ffp-contract=off" in text


@pytest.mark.parametrize("function", ["inv", "rsqt", "sqt", "exp", "log", "sin", "cos", "fdiv", "pow"])
def test_approximate_maths_fails(tmp_path: Path, function: str) -> None:
    dump(tmp_path, f"        math.{function} (16|M0)         r10.0<1>:f    r5.0<1;1,0>:f            {{$2.dst}}\n")
    status, kernel, text = report(tmp_path)
    assert (status, kernel["math"]) == (1, "1")
    assert "defect: mul_mat has 1 instructions of approximate maths" in text


def test_integers_and_the_steps_of_an_ieee_quotient_are_exact(tmp_path: Path) -> None:
    dump(tmp_path, EXACT + INTEGER_DIVISION)
    status, kernel, _ = report(tmp_path)
    assert (status, kernel["math"], kernel["fused"], kernel["mad"]) == (0, "0", "0", "2")


def test_instructions_behind_an_integer_division_are_checked_again(tmp_path: Path) -> None:
    dump(tmp_path, INTEGER_DIVISION + FUSED)
    assert report(tmp_path)[1]["fused"] == "32"


@pytest.mark.parametrize("divisor", ["%124", "1.270000e+02"])
def test_a_division_that_is_not_ieee_fails_where_the_code_shows_a_product(tmp_path: Path, divisor: str) -> None:
    dump(tmp_path, ir=f"  %126 = fdiv float %125, {divisor}\n")
    status, kernel, text = report(tmp_path)
    assert (status, kernel["fdiv"]) == (1, "1")
    assert "defect: mul_mat divides floats 1 times by /" in text


def test_a_dump_without_kernels_fails(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, str(ISA), str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "no assembly" in done.stderr
