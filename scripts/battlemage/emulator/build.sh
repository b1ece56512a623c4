#!/usr/bin/env bash
# Build the emulator for run.sh --execute where it is older than its sources: PREFIX/libze_emulated_battlemage.so.
#
#   PREFIX=FOLDER build.sh
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
library="$PREFIX/libze_emulated_battlemage.so"
driver="$PREFIX/root/usr/lib/x86_64-linux-gnu"
[ ! -e "$library" ] || [ -n "$(find "$here" -newer "$library" -print -quit)" ] || exit 0
objects=$(mktemp -d "$PREFIX/emulator.XXXXXX")
trap 'rm -rf "$objects"' EXIT
cxx=(${CXX:-c++} -std=c++17 -O3 -march=native -fno-strict-aliasing -fwrapv -ffp-contract=off -frounding-math -fPIC -fvisibility=hidden -pthread
    -Wall -Wextra -Wno-psabi -Wno-missing-field-initializers -isystem "$PREFIX/root/usr/include")
export objects here
printf '%s\n' "$here"/*.cpp | xargs -P "$(nproc)" -I{} sh -c '"$@" -c "{}" -o "$objects/$(basename "{}").o"' - "${cxx[@]}"
# Under a name of its own until it is whole: another process may be about to load it.
"${cxx[@]}" -shared "$objects"/*.o -o "$objects/library" -L"$driver" -Wl,--no-as-needed -l:libze_intel_gpu.so.1 \
    -Wl,-rpath,"$driver" -Wl,--allow-shlib-undefined -ldl
mv "$objects/library" "$library"
