"""IEEE division and square root, as the compiler writes them: a seed, a jump for channels that are done, seven madm.

Sources: vISA's pages DIVM and SQRTM ("IEEE compliant result"), INVM and RSQTM (the seed and the flags of channels that
need no refinement). Between numbers the result is the exact one, rounded to nearest even.
"""

import numpy as np
import pytest

from tests.emulator.cases import GROUPS, KEEP_DENORMALS
from tests.emulator.machine import CR0, REGISTER, Fault, State, run
from tests.emulator.values import reals, same

pytestmark = pytest.mark.emulated

ZERO, ONE, HALF = "r40", "r41", "r42"
CONSTANTS = (
    f"mov (16|M0) {ZERO}.0<1>:f 0x0:f",
    f"mov (16|M0) {ONE}.0<1>:f 0x3F800000:f",
    f"mov (16|M0) {HALF}.0<1>:f 0x3F000000:f",
)


def begin(flag: str) -> list[str]:
    return [
        "(W) mov (1|M0) r1.3<1>:ud cr0.0<0;1,0>:ud",
        "(W) or (1|M0) r1.2<1>:ud r1.3<0;1,0>:ud 0xC0:ud",
        "(W) and (1|M0) cr0.0<1>:ud r1.2<0;1,0>:ud 0xFFFFFFCF:ud",
        f"(W) mov (1|M0) {flag}<1>:ud 0xFFFFFFFF:ud",
    ]


def end(label: str) -> list[str]:
    return [f"{label}:", "join (32|M0) L_after_" + label, f"L_after_{label}:",
            "(W) mov (1|M0) cr0.0<1>:ud r1.3<0;1,0>:ud"]  # fmt: skip


def divide(target: str, a: str, b: str, flag: str = "f0.0") -> list[str]:
    label = f"L_{target}"
    return [
        *begin(flag),
        f"math.invm (16|M0) (eo){flag} {target}.mme0:f {a}.nomme<1;1,0>:f {b}.nomme<1;1,0>:f",
        f"({flag}) goto (32|M0) {label} {label}",
        f"madm (16|M0) r4.mme1:f {ZERO}.nomme:f {a}.nomme:f {target}.mme0:f",
        f"madm (16|M0) r5.mme2:f {ONE}.nomme:f -{b}.nomme:f {target}.mme0:f",
        f"madm (16|M0) r6.mme3:f {target}.mme0:f r5.mme2:f {target}.mme0:f",
        f"madm (16|M0) r7.mme4:f {a}.nomme:f -{b}.nomme:f r4.mme1:f",
        "madm (16|M0) r4.mme5:f r4.mme1:f r7.mme4:f r6.mme3:f",
        f"madm (16|M0) r8.mme6:f {a}.nomme:f -{b}.nomme:f r4.mme5:f",
        "(W) mov (1|M0) cr0.0<1>:ud r1.2<0;1,0>:ud",
        f"madm (16|M0) {target}.nomme:f r4.mme5:f r8.mme6:f r6.mme3:f",
        *end(label),
    ]


def root(target: str, a: str, flag: str = "f1.0") -> list[str]:
    label = f"L_{target}"
    return [
        *begin(flag),
        f"math.rsqtm (16|M0) (eo){flag} {target}.mme0:f {a}.nomme<1;1,0>:f",
        f"({flag}) goto (32|M0) {label} {label}",
        f"madm (16|M0) r4.mme1:f {ZERO}.nomme:f {HALF}.nomme:f {target}.mme0:f",
        f"madm (16|M0) r5.mme2:f {ZERO}.nomme:f {a}.nomme:f {target}.mme0:f",
        f"madm (16|M0) r6.mme3:f {HALF}.nomme:f -r5.mme2:f r4.mme1:f",
        "madm (16|M0) r4.mme4:f r4.mme1:f r6.mme3:f r4.mme1:f",
        f"madm (16|M0) {target}.mme5:f r5.mme2:f r6.mme3:f r5.mme2:f",
        f"madm (16|M0) r6.mme6:f {a}.nomme:f -{target}.mme5:f {target}.mme5:f",
        "(W) mov (1|M0) cr0.0<1>:ud r1.2<0;1,0>:ud",
        f"madm (16|M0) {target}.nomme:f {target}.mme5:f r4.mme4:f r6.mme6:f",
        *end(label),
    ]


def operands(seed: int) -> tuple[State, np.ndarray, np.ndarray]:
    state = State(4 * GROUPS)
    rng = np.random.default_rng(seed)
    a, b = (reals(rng, "f", state.groups * 16).reshape(-1, 1, 16) for _ in range(2))
    state.put(10 * REGISTER, a)
    state.put(11 * REGISTER, b)
    return state, a, b


def test_quotients_are_the_exact_ones_rounded() -> None:
    state, a, b = operands(1)
    run([*KEEP_DENORMALS, *CONSTANTS, *divide("r20", "r10", "r11")], state)
    with np.errstate(all="ignore"):
        assert same(state.get(20 * REGISTER, 16, np.float32), a / b).all()


def test_roots_are_the_exact_ones_rounded() -> None:
    state, a, _ = operands(2)
    run([*KEEP_DENORMALS, *CONSTANTS, *root("r20", "r10")], state)
    with np.errstate(all="ignore"):
        assert same(state.get(20 * REGISTER, 16, np.float32), np.sqrt(a)).all()


def test_macros_follow_each_other_with_other_flags_and_leave_the_control_register_as_it_was() -> None:
    state, a, _ = operands(3)
    one = "mov (16|M0) r12.0<1>:f 0x3F800000:f"
    run([*KEEP_DENORMALS, *CONSTANTS, one, *root("r20", "r10", "f3.0"), *divide("r21", "r12", "r20", "f2.0")], state)
    with np.errstate(all="ignore"):
        assert same(state.get(21 * REGISTER, 16, np.float32), np.float32(1) / np.sqrt(a)).all()
    assert (np.ascontiguousarray(state.special[..., CR0 : CR0 + 4]).view(np.uint32) == 0x4000_04C0).all()


@pytest.mark.parametrize(
    ("part", "other"),
    [
        ("r6.mme3:f r20.mme0:f r5.mme2:f", "r6.mme3:f r5.mme2:f r5.mme2:f"),
        ("(f0.0) goto", "(f1.0) goto"),
        ("-r11.nomme:f r4.mme5:f", "r11.nomme:f r4.mme5:f"),
    ],
)
def test_another_sequence_behind_the_seed_is_refused(part: str, other: str) -> None:
    code = "\n".join([*CONSTANTS, *divide("r20", "r10", "r11")])
    assert part in code
    with pytest.raises(Fault, match=r"^emulator: code at 0x\w+: .*math\.invm"):
        run(code.replace(part, other).splitlines(), State())
