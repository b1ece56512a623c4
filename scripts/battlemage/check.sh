#!/usr/bin/env bash
# What can be proved for Battlemage without a card, on the B70 unless CARD says otherwise:
#   - code report: no kernel of Qwen3.6-35B-A3B or Qwen3.6-27B spills or uses private memory, and those with 4-bit weights
#     feed them to dpas from loads of at least 256 bytes; their floats are computed as the sources say: IEEE quotients and
#     roots, and no product fused with a sum but by fma
#   - forms: each form of instruction and message in that assembly has a test of the emulator (tests/emulator/)
#   - dry run: the bundled model and a dense sibling load, prompts, decoding and drafts run through the driver without an
#     error, and the kernels in each captured graph are those of its launch list, name by name
#
#   [PREFIX=FOLDER] [CARD=b70] [PYTHON=.venv/bin/python] check.sh
#
# Exit status 1: a check failed. 3: the tools cannot be fetched here (see install.sh).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
export PYTHONPATH=$root PYTHONUNBUFFERED=1

"$here/install.sh"
cd "$root"
work=$(mktemp -d)
mkdir "$work/dump"

step() { # name, command
    local name=$1 begin=$SECONDS result=passed
    shift
    "$@" || result=FAILED
    printf '%-12s %s %5d s\n' "$name" "$result" $((SECONDS - begin)) >>"$work/summary"
}

compile() {
    IGC_ShaderDumpEnable=1 IGC_DumpToCustomDir="$work/dump/" NEO_CACHE_PERSISTENT=0 SYCL_CACHE_PERSISTENT=0 \
        "$here/run.sh" "$python" "$here/compile_kernels.py" 2>&1 | sed -u 's/^/compilation: /'
}

dry_run() {
    "$here/run.sh" "$python" "$here/dry_run.py" 2>&1 | sed -u 's/^/dry run: /'
}

set -m # the job gets a process group, so that nothing of it outlives this script
step "compilation" compile &
trap 'kill -- -'$!' 2>/dev/null || true; rm -rf "$work"' EXIT
set +m
step "dry run" dry_run
wait
step "code report" "$python" "$here/isa.py" "$work/dump"
step "forms" env ARCMTP_EMULATOR=1 ARCMTP_KERNEL_ASSEMBLY="$work/dump" "$python" -m pytest -q tests/emulator/test_forms.py

echo "Battlemage (${CARD:-b70}, no hardware)"
cat "$work/summary"
printf '%-19s %5d s\n' total $SECONDS
[ "$(grep -c passed "$work/summary")" = 4 ]
