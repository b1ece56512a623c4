#!/usr/bin/env python3
"""Tabulate and check what Intel's compiler made of each kernel, from the assembly that it dumped (see run.sh).

usage: isa.py DUMP_DIR

Exit status 1 when a kernel spills registers, uses private memory, multiplies 4-bit weights otherwise than by 4-bit
dpas, or feeds that from block loads under 256 bytes (one 32 x 16 tile of 4-bit weights; 128 where weights have 3 bits,
since no block load has 192); and when its floats are not
those that the sources ask for: approximate maths, a division by `/`, a multiply-add that no fma asks for, or the leave
to make some.
"""

import re
import sys
from dataclasses import dataclass, fields
from pathlib import Path

REGISTER_BYTES = 64
TILE_BYTES = 256
INSTRUCTION = re.compile(r"(?:\(\S+\)\s*)?([a-z]\w*)((?:\.\w+)*)")
BLOCK_LOAD = re.compile(r"d(\d+)x(\d+)t$")
GATHER = re.compile(r"d(\d+)(?:u32)?(?:x(\d+))?$")
# By the names that arcmtp.ops gives them. Codes that are places in a list of levels become 4-bit weights.
INT4_PRODUCT = re.compile(r"(mul_mat|experts|feed_forward)_\w*_(w4|iq|mxfp4|q3_k)")
THREE_BIT = re.compile(r"_(q3_k|iq1|iq2)")
DESTINATION = re.compile(r"\br\d+:(\d+)")
NO_FUSING = "-ffp-contract=off"
IEEE_MATHS = ("invm", "rsqtm")  # first steps of the exact quotient and square root
FLOAT_LANES = re.compile(r"\((\d+)\|M\d+\)\s+(?:\(\w+\)f\d\.\d\s+)?\S+:(?:f|hf|bf|df)\b")
# The compiler's subroutines for integers: they correct what an approximate reciprocal gives, so that it is exact.
INTEGER_DIVISION = re.compile(r"^__vc_builtin_[su](?:div|rem)_i\d+\S*:$.*?^\s*ret\b", re.MULTILINE | re.DOTALL)
FUNCTION = re.compile(r"define .*@(\w+)\(")
FMA = re.compile(r"\bcall\b.* @llvm\.fma\.(?:v(\d+))?b?f\d+\(")
DIVISION = re.compile(r"= f(?:div|rem)\b")


@dataclass
class Kernel:
    """Static counts of one kernel; the field names are the table's headings."""

    name: str
    grf: int = 0  # registers per thread
    instr: int = 0
    spill_bytes: int = 0  # per thread, like private_bytes
    private_bytes: int = 0
    dpas: int = 0
    dpas_4bit: int = 0
    dp4a: int = 0
    mad: int = 0
    math: int = 0  # approximate maths
    fused: int = 0  # lanes of floating-point multiply-adds
    fma: int = 0  # lanes of them that the sources ask for
    fdiv: int = 0  # divisions by `/` in the sources, without those that are exact products
    loads: int = 0  # from global memory, without the thread's arguments and its scratch space
    load_bytes: int = 0  # the longest contiguous piece of global memory that one message reads
    stores: int = 0
    slm: int = 0
    barriers: int = 0
    branches: int = 0

    def defects(self) -> list[str]:
        found = []
        if self.spill_bytes:
            found.append(f"spills {self.spill_bytes} bytes a thread")
        if self.private_bytes:
            found.append(f"uses {self.private_bytes} bytes of private memory a thread")
        if INT4_PRODUCT.match(self.name) and not self.dpas_4bit:
            found.append("multiplies 4-bit weights without 4-bit dpas")
        if self.dpas_4bit and self.load_bytes < (128 if THREE_BIT.search(self.name) else TILE_BYTES):
            found.append(f"loads at most {self.load_bytes} bytes at a time for 4-bit dpas")
        if self.math:
            found.append(f"has {self.math} instructions of approximate maths")
        if self.fused > self.fma:
            found.append(f"fuses {self.fused - self.fma} lanes of products and sums that no fma joins")
        if self.fdiv:
            found.append(f"divides floats {self.fdiv} times by /, which is not IEEE on a GPU: simd::divide is")
        return found


def load_bytes(line: str, parts: list[str]) -> int:
    """The contiguous bytes that a load message reads: `d32x64t` is a block of 256, `d32x4` takes 16 for each lane."""
    for part in parts:
        if block := BLOCK_LOAD.match(part):
            return int(block[1]) // 8 * int(block[2])
        if gather := GATHER.match(part):
            return int(gather[1]) // 8 * int(gather[2] or 1)
    raise ValueError(f"cannot tell how much this load reads: {line.strip()}")


def count_memory(kernel: Kernel, operation: str, parts: list[str], line: str) -> None:
    if parts[0] == "slm":
        kernel.slm += 1
    elif parts[0] in ("ugm", "tgm") and "bti[255]" not in line and "ss[" not in line:
        if operation.startswith("store"):
            kernel.stores += 1
        elif operation.startswith("load_block2d"):
            kernel.loads += 1
            kernel.load_bytes = max(kernel.load_bytes, int(DESTINATION.findall(line)[0]) * REGISTER_BYTES)
        elif operation.startswith("load"):
            kernel.loads += 1
            kernel.load_bytes = max(kernel.load_bytes, load_bytes(line, parts))


def count(kernel: Kernel, line: str) -> None:
    instruction = INSTRUCTION.match(line.strip())
    if line.startswith("//") or not instruction:
        return
    operation, parts = instruction[1], instruction[2].split(".")[1:]
    if operation.startswith(("load", "store")) and parts:
        count_memory(kernel, operation, parts, line)
    elif operation in ("dpas", "dpasw"):
        kernel.dpas += 1
        kernel.dpas_4bit += bool(re.search(r":[us]4\b", line))
    elif operation == "dp4a":
        kernel.dp4a += 1
    elif operation == "math":
        kernel.math += parts[0] not in IEEE_MATHS
    elif operation in ("mad", "madm", "mac"):
        kernel.mad += 1
        if operation != "madm" and (lanes := FLOAT_LANES.search(line)):
            kernel.fused += int(lanes[1])
    elif operation == "send" and "gtwy" in parts and "EOT" not in line:
        kernel.barriers += 1
    elif operation in ("jmpi", "goto", "while", "if", "brc", "brd"):
        kernel.branches += 1


def header(text: str, pattern: str) -> int:
    return sum(int(n) for n in re.findall(pattern, text, re.MULTILINE))


def thread_memory(zeinfo: Path) -> dict[str, int]:
    """Bytes of memory per thread and kernel, spills included, from the compiler's description of a module.

    Explicit-SIMD kernels list spills as `single_space`, arrays as `private_space`; others have both in `single_space`.
    """
    found: dict[str, int] = {}
    kernel, in_buffers = "", False
    for line in zeinfo.read_text(errors="replace").splitlines():
        if line.startswith("kernels_misc_info"):
            break
        if name := re.match(r"  - name:\s+(\S+)", line):
            kernel, in_buffers = name[1], False
            found[kernel] = 0
        elif section := re.match(r"    (\w+):", line):
            in_buffers = section[1] == "per_thread_memory_buffers"
        elif in_buffers and (size := re.match(r"\s+size:\s+(\d+)", line)):
            found[kernel] += int(size[1])
    return found


def asked(ir: Path) -> dict[str, tuple[int, int]]:
    """Lanes of fma and divisions by `/` of each kernel, from the IR of which the compiler then generates code.

    Fusing is code generation's work, so a lane of a multiply-add more than these was fused unasked. That is seen in
    each kernel as it is compiled; a rule for sources would not do, as nearly all of them ask for some fma. Fewer are no
    defect: where few lanes of an fma are used, only these are computed. Such a kernel could hide a fused lane from the
    count, so the option that forbids fusing is demanded as well, and the others show that the compiler heeds it.
    Divisions are looked for here since code shows one by a constant as a product with its rounded reciprocal.
    """
    found: dict[str, tuple[int, int]] = {}
    kernel, fma, divisions = "", 0, 0
    for line in ir.read_text(errors="replace").splitlines():
        if function := FUNCTION.match(line):
            kernel, fma, divisions = function[1], 0, 0
        elif call := FMA.search(line):
            fma += int(call[1] or 1)
        elif DIVISION.search(line):
            divisions += 1
        if kernel:
            found[kernel] = fma, divisions
    return found


def read_kernel(path: Path, memory: dict[str, int], arithmetic: dict[str, tuple[int, int]]) -> Kernel:
    text = path.read_text(errors="replace")
    symbol = re.search(r"^//\.kernel (\S+)", text, re.MULTILINE)
    if not symbol:
        raise ValueError(f"{path} names no kernel")
    kernel = Kernel(symbol[1].removeprefix("__sycl_kernel_"))
    kernel.grf = header(text, r"numGRF=(\d+)")
    kernel.instr = header(text, r"^//\.instCount (\d+)")
    kernel.spill_bytes = header(text, r"^//\.spill size (\d+)")
    kernel.private_bytes = max(0, memory[symbol[1]] - kernel.spill_bytes)
    kernel.fma, kernel.fdiv = arithmetic[symbol[1]]
    for line in INTEGER_DIVISION.sub("", text).splitlines():
        count(kernel, line)
    return kernel


def read_dump(dump: Path) -> tuple[list[Kernel], list[str]]:
    """All kernels of a dump, by name, and the defects of modules, whose files share their names' beginning."""
    kernels, defects = [], []
    for zeinfo in dump.glob("*.zeinfo"):
        if NO_FUSING not in (dump / f"{zeinfo.stem}_options.txt").read_text():
            defects.append(f"module {zeinfo.stem} is compiled without {NO_FUSING}")
        memory, arithmetic = thread_memory(zeinfo), asked(dump / f"{zeinfo.stem}_optimized.ll")
        kernels += [read_kernel(asm, memory, arithmetic) for asm in dump.glob(f"{zeinfo.stem}_*.asm")]
    return sorted(kernels, key=lambda kernel: kernel.name), defects


def table(kernels: list[Kernel]) -> str:
    columns = [f.name for f in fields(Kernel)]
    rows = [columns, *([str(getattr(kernel, c)) for c in columns] for kernel in kernels)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        " ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    )
    return "\n".join(lines)


def main() -> int:
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
        print("usage: isa.py DUMP_DIR", file=sys.stderr)
        return 2
    kernels, defects = read_dump(Path(sys.argv[1]))
    if not kernels:
        print(f"isa.py: {sys.argv[1]} holds no assembly of a kernel", file=sys.stderr)
        return 1
    print(table(kernels))
    defects += [f"{kernel.name} {defect}" for kernel in kernels for defect in kernel.defects()]
    print(f"{len(kernels)} kernels, " + ("no spills, no private memory" if not defects else f"{len(defects)} defects"))
    for defect in defects:
        print(f"defect: {defect}")
    return bool(defects)


if __name__ == "__main__":
    sys.exit(main())
