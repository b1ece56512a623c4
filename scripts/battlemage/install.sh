#!/usr/bin/env bash
# Put Intel's compiler and Level Zero driver for Battlemage into a folder of their own.
#
#   [PREFIX=FOLDER] install.sh          (default ~/.cache/arcmtp/battlemage; about 350 MB, once)
#
# Debian's releases carry no Battlemage driver; its unstable branch does, with the C library that it needs. apt fetches
# those packages from the archive that this machine uses already; they are unpacked into PREFIX and the system stays as
# it is. Exit status 3: this machine cannot fetch them, and the line says why.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
prefix=${PREFIX:-${XDG_CACHE_HOME:-$HOME/.cache}/arcmtp/battlemage}
layout=2 # of PREFIX; one of another layout is filled again
packages=(intel-ocloc libigc2 libigc2-tools libigdfcl2 libze-dev libze1 libze-intel-gpu1)

cannot_fetch() {
    echo "Battlemage tools: $1" >&2
    exit 3
}

debian_archive() {
    cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null |
        grep -oE '^(URIs:|deb ).*' | grep -oE '[a-z+]+://[^ ]+/debian/?( |$)' | head -n 1 | tr -d ' ' || true
}

[ "$(cat "$prefix/complete" 2>/dev/null)" != $layout ] || exit 0
[ "$(uname -m)" = x86_64 ] || cannot_fetch "Intel's driver exists for x86_64 only, this machine is $(uname -m)"
command -v apt-get >/dev/null || cannot_fetch "no apt-get here, and the packages come from Debian"
archive=$(debian_archive)
[ -n "$archive" ] || cannot_fetch "no Debian archive among the sources in /etc/apt"

rm -rf "$prefix/root" "$prefix/complete"
mkdir -p "$prefix"/apt/{lists,archives}/partial "$prefix/root"
prefix=$(cd "$prefix" && pwd)
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
echo "deb $([ ! -e $keyring ] || echo "[signed-by=$keyring]") $archive sid main" >"$prefix/apt/sources.list"
: >"$prefix/apt/status" # an empty one: nothing counts as installed, so apt fetches the C library too
cat >"$prefix/apt/apt.conf" <<END
Dir::Etc::SourceList "$prefix/apt/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::State "$prefix/apt";
Dir::State::lists "$prefix/apt/lists";
Dir::State::status "$prefix/apt/status";
Dir::Cache "$prefix/apt";
Dir::Cache::archives "$prefix/apt/archives";
Acquire::Retries "2";
Acquire::http::Timeout "30";
Acquire::https::Timeout "30";
APT::Update::Error-Mode "any";
APT::Sandbox::User "";
Debug::NoLocking "true";
END
export APT_CONFIG="$prefix/apt/apt.conf" DEBIAN_FRONTEND=noninteractive
log="$prefix/apt/log"
apt-get update -qq >"$log" 2>&1 || cannot_fetch "$archive sid cannot be reached: $(grep -m 1 '^[EW]:' "$log")"
apt-get install -qq --yes --download-only --no-install-recommends "${packages[@]}" >"$log" 2>&1 ||
    cannot_fetch "$archive sid does not deliver ${packages[*]}: $(grep -m 1 '^E:' "$log")"

for package in "$prefix"/apt/archives/*.deb; do dpkg-deb -x "$package" "$prefix/root"; done
rm -rf "$prefix/apt"
libraries="$prefix/root/usr/lib/x86_64-linux-gnu"
${CC:-cc} -shared -fPIC -O1 "$here/null_device_shim.c" -o "$prefix/libze_null_battlemage.so" -L"$libraries" \
    -Wl,--no-as-needed -l:libze_intel_gpu.so.1 -Wl,-rpath,"$libraries" -Wl,--allow-shlib-undefined
PREFIX=$prefix "$here/emulator/build.sh"
ln -sf root/usr/bin/"$(basename "$(ls "$prefix"/root/usr/bin/ocloc-* | sort -V | tail -n 1)")" "$prefix/ocloc"
echo $layout >"$prefix/complete"
echo "Battlemage tools are in $prefix"
