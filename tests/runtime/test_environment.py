"""Each test imports arcmtp in a fresh process: what it checks happens once, at import."""

import json
import os
import subprocess
import sys
from pathlib import Path

from arcmtp.runtime.environment import runtime_lib_dir

NAMES = ["OCL_ICD_FILENAMES", "OCL_ICD_VENDORS", "SYCL_CACHE_PERSISTENT", "SYCL_CACHE_DIR"]
NAMES += ["CL_CONFIG_CPU_VECTORIZER_MODE"]
REPORT = f"import json, os, arcmtp; print(json.dumps({{n: os.environ.get(n) for n in {NAMES}}}))"


def run_python(code: str, **settings: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if k not in [*NAMES, "XDG_CACHE_HOME", "CL_CONFIG_CPU_TARGET_ARCH"]}
    env = clean | {"PYTHONPATH": str(Path(__file__).parents[2])} | settings
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)


def environment_after_import(**settings: str) -> dict[str, str | None]:
    return json.loads(run_python(REPORT, **settings).stdout)


def test_import_names_the_cpu_driver_and_a_kernel_cache_in_the_users_cache_folder(tmp_path: Path) -> None:
    found = environment_after_import(XDG_CACHE_HOME=str(tmp_path))
    assert found["OCL_ICD_FILENAMES"] == str(runtime_lib_dir() / "libintelocl.so")
    assert found["SYCL_CACHE_PERSISTENT"] == "1"
    assert Path(str(found["SYCL_CACHE_DIR"])).parent == tmp_path / "arcmtp"


COMPILE = """
from arcmtp.runtime.device import Device
from arcmtp.runtime.launch import parameters, writes
from arcmtp.runtime.tensor import I32
from tests.launches import kernel
body = "for (int i = 0; i < x[0]; ++i) x[i] += x[i + x[1]];"
Device("cpu").compile([kernel("sums", parameters(x=writes(I32)), body)])
"""


def test_a_second_process_finds_the_machine_code_that_the_first_one_compiled(tmp_path: Path) -> None:
    def machine_code() -> list[Path]:  # and what it was made of
        run_python(COMPILE, XDG_CACHE_HOME=str(tmp_path))
        return sorted(tmp_path.rglob("*.bin"))

    first = machine_code()
    assert first and machine_code() == first


def test_import_leaves_the_users_own_settings_alone() -> None:
    own = {"OCL_ICD_FILENAMES": "mine.so", "SYCL_CACHE_PERSISTENT": "0", "SYCL_CACHE_DIR": "/elsewhere"}
    own |= {"CL_CONFIG_CPU_VECTORIZER_MODE": "0"}
    assert environment_after_import(**own) == own | {"OCL_ICD_VENDORS": None}


def test_import_names_no_driver_where_the_user_named_a_folder_of_drivers() -> None:
    assert environment_after_import(OCL_ICD_VENDORS="/etc/OpenCL/vendors")["OCL_ICD_FILENAMES"] is None


def test_a_relative_cache_home_is_ignored_as_its_specification_demands() -> None:
    found = environment_after_import(XDG_CACHE_HOME="relative", HOME="/home/someone")
    assert str(found["SYCL_CACHE_DIR"]).startswith("/home/someone/.cache/arcmtp/")


def test_kernels_compiled_for_another_cpu_target_go_to_another_cache(tmp_path: Path) -> None:
    usual = environment_after_import(XDG_CACHE_HOME=str(tmp_path))
    avx2 = environment_after_import(XDG_CACHE_HOME=str(tmp_path), CL_CONFIG_CPU_TARGET_ARCH="core-avx2")
    assert usual["SYCL_CACHE_DIR"] != avx2["SYCL_CACHE_DIR"]


def test_import_prints_nothing_and_loads_neither_numpy_nor_the_runtime() -> None:
    done = run_python("import sys, arcmtp; assert not {'numpy', 'dpctl', 'arcmtp.engine'} & sys.modules.keys()")
    assert (done.stdout, done.stderr) == ("", "")


def test_the_cpu_device_is_found_after_import() -> None:
    done = run_python("import arcmtp, dpctl; print(dpctl.SyclDevice('opencl:cpu').is_cpu)")
    assert done.stdout == "True\n"
