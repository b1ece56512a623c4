#!/usr/bin/env bash
# Run a program against a Battlemage card that is not there.
#
#   [PREFIX=FOLDER] [CARD=b70|b60|b580|b570|b50] run.sh [--execute] PROGRAM ARGUMENTS...
#
# Intel's Level Zero driver has a mode without hardware: devices, memory, kernel compilation by the card's own compiler,
# command lists and graphs work; kernels are accepted and do not run, so memory keeps what was copied into it. It shows
# that the GPU's path builds, records, replays and respects the card's limits, and what the host spends; no numbers.
#
# With --execute an emulator runs the kernels' machine code, and copies and fills move data (docs/battlemage.md). What it
# does not know ends the program with one line and status 70. It reads
#   ARCMTP_EMULATOR_CHECKS=poison,races,lines   what nothing has written, accesses without an order, distinct cache lines
#   ARCMTP_EMULATOR_SEED=N                      run groups, and threads between barriers, in a random order of this seed
#   ARCMTP_EMULATOR_COUNTS=FILE                 write at exit what each kernel has done, as JSON
#   ARCMTP_EMULATOR_TIMELINE=KERNEL:GROUP:THREAD   with lines: write one thread's instructions to standard error, each
#                                               behind the cycle in which it begins (timeline.py)
#
# PROGRAM may be a virtual environment's python or a script of it. For the compiler's assembly of each kernel (isa.py reads it) set
# IGC_ShaderDumpEnable=1 IGC_DumpToCustomDir=FOLDER/ NEO_CACHE_PERSISTENT=0 SYCL_CACHE_PERSISTENT=0.
set -euo pipefail
prefix=${PREFIX:-${XDG_CACHE_HOME:-$HOME/.cache}/arcmtp/battlemage}
[ -e "$prefix/complete" ] || { echo "no Battlemage tools in $prefix: run install.sh first" >&2; exit 2; }
driver="$prefix/libze_null_battlemage.so"
if [ "${1:-}" = --execute ]; then
    shift
    PREFIX=$prefix "$(dirname "$0")/emulator/build.sh"
    driver="$prefix/libze_emulated_battlemage.so"
    exec {errors}>&2 # where the emulator's last line goes, whatever the program does to its own standard error
    export ARCMTP_EMULATOR=1 ARCMTP_EMULATOR_ERRORS=$errors
fi
[ $# -gt 0 ] || { echo "usage: run.sh [--execute] PROGRAM ARGUMENTS..." >&2; exit 2; }

case ${CARD:-b70} in # PCI device id; slices x Xe cores x vector engines
b70) device=e223 shape=8x4x8 ;;
b60) device=e211 shape=5x4x8 ;;
b580) device=e20b shape=5x4x8 ;;
b570) device=e20c shape=5x4x8 ;; # has 18 Xe cores, but the driver counts whole slices
b50) device=e212 shape=4x4x8 ;;
*) echo "unknown CARD $CARD; known are b70, b60, b580, b570, b50" >&2; exit 2 ;;
esac

program=$(command -v "$1") || { echo "no such program: $1" >&2; exit 2; }
shift
if [ "$(head -c 2 "$program")" = '#!' ]; then # a script, such as an environment's arcmtp: its interpreter is the program
    set -- "$program" "$@"
    program=$(head -n 1 "$program" | cut -c 3-)
fi
if [ -e "$(dirname "$program")/../pyvenv.cfg" ]; then
    # Started through another loader, an environment's python no longer finds the environment, nor what it has from here.
    packages=$("$program" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    export PYTHONPATH=${PYTHONPATH:+$PYTHONPATH:}$packages:$(cd "$(dirname "$0")/../.." && pwd)
fi

export NEOReadDebugKeys=1 ProductFamilyOverride=bmg ForceDeviceId=$device HardwareInfoOverride=$shape
export SetCommandStreamReceiver=5 UseAubStream=0 UseBindlessMode=0 UseExternalAllocatorForSshAndDsh=0
export ZE_ENABLE_ALT_DRIVERS=$driver
export ONEAPI_DEVICE_SELECTOR=${ONEAPI_DEVICE_SELECTOR:-level_zero:gpu}
root="$prefix/root/usr"
exec "$root/lib64/ld-linux-x86-64.so.2" --library-path "$root/lib/x86_64-linux-gnu" "$(readlink -f "$program")" "$@"
