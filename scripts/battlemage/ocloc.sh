#!/usr/bin/env bash
# Intel's offline compiler for its GPUs.
#
#   [PREFIX=FOLDER] ocloc.sh compile -spirv_input -device bmg-g31 -file k.spv -output k
#
# bmg-g31 is the B70, bmg-g21 the others. SPIR-V of explicit SIMD kernels needs -options -vc-codegen.
set -euo pipefail
prefix=${PREFIX:-${XDG_CACHE_HOME:-$HOME/.cache}/arcmtp/battlemage}
[ -e "$prefix/ocloc" ] || { echo "no Battlemage tools in $prefix: run install.sh first" >&2; exit 2; }
root="$prefix/root/usr"
exec "$root/lib64/ld-linux-x86-64.so.2" --library-path "$root/lib/x86_64-linux-gnu" "$prefix/ocloc" "$@"
