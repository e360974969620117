#!/usr/bin/env bash
# scripts/gpu_check.sh without a GPU: the plan, the refusal, and with a stand-in for the command `regard` its verdicts.
#   gpu_check_test.sh GPU_CHECK_SCRIPT
set -euo pipefail
script=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset REGARD_LIBCUDA REGARD_BUILD PYTHON

# check NAME EXPECTED_STATUS PATTERN [ENVIRONMENT...] -- [ARGUMENT...]
check() {
  local name=$1 expected=$2 pattern=$3 environment=() status=0
  shift 3
  while [ "$1" != -- ]; do environment+=("$1"); shift; done
  shift
  env "${environment[@]}" bash "$script" "$@" >"$work/out" 2>&1 </dev/null || status=$?
  if [ "$status" -ne "$expected" ] || ! grep -Eq -- "$pattern" "$work/out"; then
    echo "FAILED: $name: status $status, expected $expected and a line like '$pattern'; got:"
    cat "$work/out"
    exit 1
  fi
  echo "ok: $name"
}

check "the plan names every command and runs none" 0 'check --backend cuda --all$' REGARD_BUILD=/absent -- --plan "$work/plan"
[ ! -e "$work/plan" ] || { echo "FAILED: --plan wrote into its folder"; exit 1; }
for words in 'info$' 'check --backend cuda --quick$' 'bench --suite gpu' 'gpu_peers.py' 'gpu_report.py'; do
  grep -q -- "$words" "$work/out" || { echo "FAILED: the plan has no '$words'"; exit 1; }
done

if [ ! -e /dev/nvidiactl ] && [ ! -e /dev/dxg ] && ! nvidia-smi -L >/dev/null 2>&1; then
  check "no GPU is said, and has an exit code of its own" 3 '^gpu_check: no GPU: ' -- "$work/none"
fi

# The stand-in answers as the words in $FAKE say: none (info finds no GPU), miss, broken (the quick grid dies), cut (the
# whole grid is stopped by its time), wrong (the suite's output is wrong).
mkdir "$work/build"
cat >"$work/build/regard" <<'FAKE_REGARD'
#!/bin/bash
case "$*" in
  info) [[ $FAKE == *none* ]] && echo "gpus      none: no CUDA driver found" || echo "cuda:0    A pretended GPU" ;;
  *--list) echo "decode b=1 sq=1 skv=32 hq=2 hkv=1 d=64 dtype=f16" ;;
  *--quick) [[ $FAKE == *broken* ]] && { echo "regard: it broke"; exit 2; }
            echo "7 cases, 7 runs, 0.1 s: all within the accuracy rule" ;;
  *--all) [[ $FAKE == *miss* ]] && { echo "MISS cuda.sm80.decode.f16: out"; echo "REPRO: regard check CASE"; exit 1; }
          echo "90 cases, 90 runs, 9.0 s: interrupted"; [[ $FAKE == *cut* ]] && exit 130 ;;
  bench*--json*) [[ $FAKE == *wrong* ]] && echo "MISS: 3.00 x the bound, out[0]"
          echo '{"results": []}' >"${*: -1}" ;;
esac
exit 0
FAKE_REGARD
chmod +x "$work/build/regard"
fake=(REGARD_BUILD="$work/build" REGARD_LIBCUDA=pretended PYTHON=false)

check "a driver without a GPU is no GPU" 3 '^gpu_check: no GPU: none: no CUDA driver found$' "${fake[@]}" FAKE=none -- "$work/a"
check "a check that passes" 0 'gpu_check: passed; results in ' "${fake[@]}" FAKE= -- "$work/b"
grep -q '^7 cases' "$work/out" && grep -q '^90 cases' "$work/out" || { echo "FAILED: no counts of cases"; exit 1; }
check "a miss fails, and is shown" 1 '^MISS cuda.sm80.decode.f16: out$' "${fake[@]}" FAKE=miss -- "$work/c"
check "a command that breaks fails" 1 'gpu_check: FAILED' "${fake[@]}" FAKE=broken -- "$work/d"
check "the whole grid counts as far as time allowed" 0 'gpu_check: passed' "${fake[@]}" FAKE=cut -- "$work/e"
check "a wrong output of the suite fails" 1 '^MISS: 3.00 x the bound' "${fake[@]}" FAKE=wrong -- "$work/i"
check "the report is made where Python is" 0 'gpu_check: passed' "${fake[@]}" FAKE= PYTHON=python3 -- "$work/f"
grep -q '90 cases' "$work/f/report.html" || { echo "FAILED: no report"; exit 1; }

# A copy of the project whose build fails: the program that lies in build/release is taken as it is, and said to be.
mkdir -p "$work/copy/scripts" "$work/copy/build/release" "$work/tools"
cp "$script" "$(dirname "$script")/common.sh" "$work/copy/scripts"
cp "$work/build/regard" "$work/copy/build/release"
printf '#!/bin/bash\nexit 1\n' >"$work/tools/cmake"
chmod +x "$work/tools/cmake"
script=$work/copy/scripts/gpu_check.sh
check "a program that lies there serves where nothing can be built" 0 '^build: none; build/release/regard is taken as it is$' \
  PATH="$work/tools:$PATH" REGARD_LIBCUDA=pretended PYTHON=false FAKE= -- "$work/g"
rm "$work/copy/build/release/regard"
check "nothing to run is said" 1 'set REGARD_BUILD to a folder' \
  PATH="$work/tools:$PATH" REGARD_LIBCUDA=pretended PYTHON=false FAKE= -- "$work/h"
