"""Rules of the sources that no compiler checks."""

import re

from arcmtp.runtime.paths import kernel_dir

DEVICE_MACROS = re.compile(
    r"^\s*#\s*(if|ifdef|ifndef|elif|else)\b|ARCMTP_(GPU|VNNI)|\besimd\b|ext_vector_type|\basm\b", re.MULTILINE
)


def test_only_simd_hpp_and_its_two_bodies_know_which_device_it_is() -> None:
    found = {
        path.name: DEVICE_MACROS.findall(path.read_text())
        for path in kernel_dir().glob("*.hpp")
        if not path.name.startswith("simd")
    }
    assert len(found) > 8
    assert {name for name, hits in found.items() if hits} == set()
    assert DEVICE_MACROS.search((kernel_dir() / "simd.hpp").read_text())
