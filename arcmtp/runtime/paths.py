"""Where the package's own files lie: inside an installed wheel, or in the source tree of an editable installation."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


def _folder(name: str) -> Path:
    installed = _PACKAGE / name
    return installed if installed.is_dir() else _PACKAGE.parent / name


def kernel_dir() -> Path:
    """The folder of the kernels' SYCL headers."""
    return _folder("sycl_kernels")


def profile_dir() -> Path:
    """The folder of the card profiles, one TOML file each."""
    return _folder("profiles")


def data_dir() -> Path:
    """The folder of the bundled model and of the page."""
    return _PACKAGE / "data"
