#!/usr/bin/env bash
# scripts/setup with faked package tools: all installed (no apt call), some missing as root, missing without root or sudo,
# an alternative installed, apt failing.
#   setup_test.sh SETUP_SCRIPT
set -euo pipefail
setup=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export FAKE=$work FAKE_UID=0 FAKE_APT_STATUS=0
mkdir "$work/bin"

fake() {
  printf '#!/bin/bash\n%s\n' "$2" >"$work/bin/$1"
  chmod +x "$work/bin/$1"
}
# Prints a line for each asked name that is in $FAKE/installed; fails, as the real one does, if any is not.
fake dpkg-query 'status=0
for name in "${@:3}"; do grep -qx "$name" "$FAKE/installed" && echo "$name installed" || status=1; done
exit $status'
fake apt-get 'echo "$*" >>"$FAKE/apt.log"; exit "$FAKE_APT_STATUS"'
fake id 'echo "$FAKE_UID"'
for tool in bash env dirname basename grep cat; do ln -s "$(command -v $tool)" "$work/bin/$tool"; done

build="g++ cmake ninja-build ccache pkg-config libfmt-dev libcli11-dev nlohmann-json3-dev libgtest-dev libbenchmark-dev
libdlpack-dev python3"

# check NAME EXPECTED_STATUS PATTERN [ARGUMENT]: runs setup, holds status and output to what is expected.
check() {
  : >"$work/apt.log"
  local status=0
  PATH=$work/bin bash "$setup" ${4:+"$4"} >"$work/out" 2>&1 </dev/null || status=$?
  if [ "$status" -ne "$2" ] || ! grep -Eq -- "$3" "$work/out"; then
    echo "FAILED: $1: status $status, expected $2 and a line like '$3'; got:"
    cat "$work/out"
    exit 1
  fi
  echo "ok: $1"
}
apt_was_called() { grep -q -- "$1" "$work/apt.log"; }

printf '%s\n' $build >"$work/installed"
check "all there: no apt call" 0 '^setup: all 12 packages are installed$' build
[ ! -s "$work/apt.log" ] || { echo "FAILED: apt was called"; exit 1; }

printf '%s\n' ${build/pkg-config/pkgconf} >"$work/installed"
check "an alternative serves" 0 'all 12 packages' build

printf '%s\n' ${build/ninja-build/} >"$work/installed"
check "as root the missing one is installed" 0 'installing 1 packages: ninja-build' build
apt_was_called 'update' && apt_was_called 'install .*ninja-build' || { echo "FAILED: apt was not called"; exit 1; }

FAKE_UID=1000 check "neither root nor sudo" 1 '^setup: missing packages, .*: ninja-build$' build
[ ! -s "$work/apt.log" ] || { echo "FAILED: apt was called without root"; exit 1; }

FAKE_APT_STATUS=100 check "apt fails" 1 '^setup: apt-get could not install: ninja-build$' build

fake sudo 'shift; "$@"'
FAKE_UID=1000 check "through sudo" 0 'installing 1 packages' build
apt_was_called 'install .*ninja-build' || { echo "FAILED: sudo apt was not called"; exit 1; }

check "the whole set asks for the tests' tools" 0 'qemu-user.*libc6-dev-arm64-cross'
check "an unknown argument" 1 "unknown argument 'fast'" fast
