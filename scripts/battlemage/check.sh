#!/usr/bin/env bash
# What can be proved for Battlemage without a card, on the B70 unless CARD says otherwise:
#   - code report: no kernel spills, uses private memory or loads its 4-bit weights in small pieces
#   - dry run: the model loads, and a prompt and decoding run through the driver without an error
#
#   [PREFIX=FOLDER] [CARD=b70] [PYTHON=.venv/bin/python] check.sh
#
# Exit status 1: a check failed. 3: the tools cannot be fetched here (see install.sh).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
dump=$(mktemp -d)
trap 'rm -rf "$dump"' EXIT
summary=()
failed=0

step() {
    local name=$1 begin=$SECONDS result=passed
    shift
    echo "== $name"
    "$@" || result=FAILED failed=1
    summary+=("$(printf '%-12s %s %5d s' "$name" "$result" $((SECONDS - begin)))")
}

compile_and_dump() {
    IGC_ShaderDumpEnable=1 IGC_DumpToCustomDir="$dump/" NEO_CACHE_PERSISTENT=0 SYCL_CACHE_PERSISTENT=0 \
        "$here/run.sh" "$python" "$here/compile_kernels.py"
}

export PYTHONPATH=$root
"$here/install.sh"
step "compilation" compile_and_dump
step "code report" "$python" "$here/isa.py" "$dump"
step "dry run" "$here/run.sh" "$python" "$here/dry_run.py"
echo "== Battlemage (${CARD:-b70}, no hardware)"
printf '%s\n' "${summary[@]}" "$(printf "%-19s %5d s" total $SECONDS)"
exit $failed
