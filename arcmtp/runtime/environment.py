"""What the SYCL runtime reads from the process environment once, when libsycl loads: `import arcmtp` sets it before.

Nothing that the user has set is changed, and nothing is printed.

| variable | set to | why |
|---|---|---|
| `OCL_ICD_FILENAMES` | the environment's `libintelocl.so` | the OpenCL loader does not look into Python environments |
| `SYCL_CACHE_PERSISTENT` | `1` | a small kernel takes 0.4 s to compile, 1.1 s for a GPU, 0.1 s from the cache |
| `CL_CONFIG_CPU_VECTORIZER_MODE` | `1` (off) | kernels are explicit SIMD; with it a source took 187 s, not 3.3 |
| `SYCL_CACHE_DIR` | `~/.cache/arcmtp/sycl-<CPU>` (or under `XDG_CACHE_HOME`) | see `_cpu_tag` |
"""

import os
import tempfile
import zlib
from importlib.util import find_spec
from pathlib import Path

from arcmtp.errors import ArcmtpError


def prepare() -> None:
    """Set the variables of the table above where the user has not."""
    if not {"OCL_ICD_FILENAMES", "OCL_ICD_VENDORS"} & os.environ.keys():
        driver = runtime_lib_dir() / "libintelocl.so"
        if driver.is_file():
            os.environ["OCL_ICD_FILENAMES"] = str(driver)
    os.environ.setdefault("SYCL_CACHE_PERSISTENT", "1")
    os.environ.setdefault("CL_CONFIG_CPU_VECTORIZER_MODE", "1")
    if "SYCL_CACHE_DIR" not in os.environ:
        os.environ["SYCL_CACHE_DIR"] = str(cache_dir() / f"sycl-{_cpu_tag()}")


def check() -> None:
    """Raises ArcmtpError where libsycl, once loaded, would read /proc/self/maps without end because it is not there."""
    if not os.access("/proc/self/maps", os.R_OK):
        raise ArcmtpError("/proc is not mounted, which the SYCL runtime needs: mount -t proc proc /proc")


def runtime_lib_dir() -> Path:
    """The `lib` folder of the environment that holds the SYCL runtime.

    Raises ModuleNotFoundError when dpctl, and with it the runtime, is not installed.
    """
    # dpctl's place and not sys.prefix: the two differ under --user and where PYTHONPATH brings the packages.
    dpctl = find_spec("dpctl")
    if dpctl is None or dpctl.origin is None:
        raise ModuleNotFoundError("no module named 'dpctl', which brings the SYCL runtime: pip install dpctl")
    return Path(dpctl.origin).resolve().parents[3]


def cache_dir() -> Path:
    """Where arcmtp keeps what it can make again: `arcmtp` in the user's cache folder."""
    configured = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if configured.is_absolute():
        return configured / "arcmtp"
    try:
        return Path.home() / ".cache" / "arcmtp"
    except RuntimeError:  # a user without a home folder
        return Path("/nonexistent/.cache/arcmtp")


def cache_problem() -> str | None:
    """Why the SYCL runtime cannot keep compiled kernels, with the folder; None if it can, or is told not to."""
    folder = os.environ.get("SYCL_CACHE_DIR")
    if not folder or os.environ.get("SYCL_CACHE_PERSISTENT") != "1":
        return None
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return f"{folder}: {error.strerror}"


def state_dir() -> Path:
    """Where arcmtp keeps what a user would miss: `arcmtp` in the user's state folder."""
    configured = Path(os.environ.get("XDG_STATE_HOME", ""))
    return (configured if configured.is_absolute() else Path.home() / ".local" / "state") / "arcmtp"


def _cpu_tag() -> str:
    """The instruction set that the CPU driver compiles for.

    The runtime's cache key lacks it, and a binary cached for another one fails to load ("invalid binary"), be it
    after a change of CL_CONFIG_CPU_TARGET_ARCH or on another machine with the same home folder and CPU name.
    """
    target = os.environ.get("CL_CONFIG_CPU_TARGET_ARCH")
    if target:
        return Path(target).name
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            flags = next((line for line in lines if line.startswith("flags")), "")
    except OSError:  # no /proc, as in some sandboxes
        flags = ""
    return f"{zlib.crc32(flags.encode()):08x}"
