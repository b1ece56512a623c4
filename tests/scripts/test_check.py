"""check.sh with stand-ins for the driver's loader and for python: what it makes of their results."""

import os
import re
import subprocess
from pathlib import Path

import pytest

CHECK = Path(__file__).parents[2] / "scripts" / "battlemage" / "check.sh"
LOADER = '#!/bin/sh\n# --library-path FOLDERS PROGRAM ARGUMENTS...\nshift 2\nexec "$@"\n'
PYTHON = """\
#!/bin/sh
script=$(basename "$1")
[ "$1" != -m ] || script=$2
echo "$script speaks"
case $script in
compile_kernels.py) touch "$IGC_DumpToCustomDir/assembly" ;;
isa.py) test -e "$2/assembly" ;;
pytest) test -e "$ARCMTP_KERNEL_ASSEMBLY/assembly" ;;
esac || exit 1
[ "$script" != "$FAILING" ]
"""


def executable(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def check(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    tools = {"PREFIX": str(folder / "tools"), "PYTHON": str(executable(folder / "python", PYTHON))}
    return subprocess.run(
        [CHECK],
        env=os.environ | {"TMPDIR": str(folder)} | tools | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A folder with an installation in `tools`."""
    executable(tmp_path / "tools" / "root" / "usr" / "lib64" / "ld-linux-x86-64.so.2", LOADER)
    layout = re.search(r"^layout=\d+", CHECK.with_name("install.sh").read_text(), re.MULTILINE)
    assert layout
    (tmp_path / "tools" / "complete").write_text(layout[0].removeprefix("layout="))
    return tmp_path


def test_success_ends_with_a_table_of_the_checks_and_leaves_nothing_behind(tools: Path) -> None:
    done = check(tools, FAILING="")
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert "compilation: compile_kernels.py speaks" in lines
    assert "dry run: dry_run.py speaks" in lines
    assert lines[-6] == "Battlemage (b70, no hardware)"
    assert sorted(line.split("  ")[0] for line in lines[-5:-1]) == ["code report", "compilation", "dry run", "forms"]
    assert [line.split()[-3] for line in lines[-5:-1]] == ["passed"] * 4
    assert lines[-1].startswith("total ")
    assert sorted(path.name for path in tools.iterdir()) == ["python", "tools"]


@pytest.mark.parametrize(
    ("script", "check_name"),
    [
        ("compile_kernels.py", "compilation"), ("dry_run.py", "dry run"), ("isa.py", "code report"),
        ("pytest", "forms"),
    ],
)
def test_a_check_that_fails_fails_the_whole_and_the_others_still_run(tools: Path, script: str, check_name: str) -> None:
    done = check(tools, FAILING=script)
    assert done.returncode == 1
    results = {line[:12].strip(): line[12:].split()[0] for line in done.stdout.splitlines()[-5:-1]}
    checks = dict.fromkeys(("compilation", "dry run", "code report", "forms"), "passed")
    assert results == checks | {check_name: "FAILED"}


def test_where_the_tools_cannot_be_fetched_the_status_is_3_and_one_line_says_why(tmp_path: Path) -> None:
    programs = executable(tmp_path / "programs" / "uname", "#!/bin/sh\necho riscv64\n").parent
    done = check(tmp_path, PATH=f"{programs}:{os.environ['PATH']}")
    assert done.returncode == 3
    assert done.stdout == ""
    assert done.stderr == "Battlemage tools: Intel's driver exists for x86_64 only, this machine is riscv64\n"
