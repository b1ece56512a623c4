#!/usr/bin/env python3
"""Compare what other engines measured on Battlemage cards with what bytes and launches predict; as Markdown.

Their instructions are not known, so only memory and the time between launches of arcmtp/predict/ are tried. Bytes are
those of the weights that a token reads (and are said in the sources or follow from the file's types); launches are said
where a source counts them, otherwise a range that engines have been seen in.
"""

from dataclasses import dataclass

from arcmtp.predict.machine import CASES, hardware_of, machine
from arcmtp.predict.text import markdown
from arcmtp.predict.times import Range


@dataclass(frozen=True)
class Measured:
    """What somebody measured. launches: in the best, expected and worst case."""

    what: str
    source: str
    card: str
    megabytes: float
    launches: tuple[int, int, int]
    ms: float
    graph: bool = False

    def predicted(self) -> Range:
        """Milliseconds of bytes over bandwidth, and launches."""
        _, hardware = hardware_of(self.card)
        made = {}
        for case, launches in zip(CASES, self.launches, strict=True):
            m = machine(hardware, case)
            between = 1e-6 * (m.node_us if self.graph else m.launch_us)
            made[case] = 1e3 * (1e6 * self.megabytes / m.memory + launches * between)
        return Range(**made)

    @property
    def inside(self) -> bool:
        """Whether the range holds what was measured."""
        of = self.predicted()
        return of.best <= self.ms <= of.worst


LAB, COOKBOOK = "b70-optimization-lab", "intel-arc-pro-b70-inference-cookbook"
FOUND = (
    Measured("4-bit product, 1 row", "auto-round pull request 2331", "arc-pro-b60", 38.8, (1, 1, 1), 0.110),
    Measured("4-bit product, 2 rows", "auto-round pull request 2331", "arc-pro-b60", 38.8, (1, 1, 1), 0.107),
    Measured("35B-A3B Q4_K_M, llama.cpp SYCL", LAB, "arc-pro-b70", 2000, (592,) * 3, 7.195),
    Measured("the same, 700 launches more", LAB, "arc-pro-b70", 2000, (1292,) * 3, 9.45),
    Measured("35B-A3B GPTQ, vLLM", COOKBOOK, "arc-pro-b70", 4400, (600, 1000, 1500), 10.33, graph=True),
    Measured("27B, 4-bit, vLLM", "llama.cpp issue 23533", "arc-pro-b70", 15_500, (700, 1100, 1600), 35.46, graph=True),
    Measured("27B Q4_0, llama.cpp SYCL", "llama.cpp issue 26581", "arc-pro-b70", 15_500, (1000, 1500, 2000), 40.8),
)


def main() -> None:
    rows = [("measured", "card", "MB", "launches", "ms measured", "ms predicted", "range", "inside", "source")]
    for one in FOUND:
        of = one.predicted()
        rows.append(
            (
                one.what, one.card, f"{one.megabytes:,.0f}", " – ".join(dict.fromkeys(map(str, one.launches))),
                f"{one.ms:.3g}", f"{of.expected:.3g}", f"{of.best:.3g} – {of.worst:.3g}", "yes" if one.inside else "no",
                one.source,
            )
        )  # fmt: skip
    print(markdown(rows))


if __name__ == "__main__":
    main()
