#!/usr/bin/env bash
# Proves and measures regard on a machine with a GPU, in 8 minutes at most:
#   scripts/gpu_check.sh [OUT_DIR]         # default: build/gpu_check
#   scripts/gpu_check.sh --plan [OUT_DIR]  # only prints the commands
# REGARD_BUILD names a folder with the program `regard`, brought along; without it the program is built, in build/release
# where that is, else in build/gpu; where nothing can be built, a program that lies there is taken as it is.
# Then: info; kernels compiled ahead; every kernel held to the reference, the quick grid first, then as much of the whole
# one as time allows; compute-sanitizer on some cases where it is there; the bench suite `gpu`; other libraries where Python
# has torch (PYTHON names it); a report. What came out lies in OUT_DIR: info.txt, check.txt, bench.json, peers.json,
# results.json, report.html.
# Exit code: 0 the check passed, 1 it missed or could not run, 3 there is no GPU.
source "$(dirname "$0")/common.sh"

plan_only=false
if [ "${1:-}" = --plan ]; then
  plan_only=true
  shift
fi
out=${1:-build/gpu_check}
total_seconds=460
python=${PYTHON:-python3}
jobs=$(jobs_count)
check_failed=0

# Seconds that a stage may take: its own budget, or what is left of the whole.
budget() {
  local left=$((total_seconds - SECONDS))
  [ "$left" -ge 1 ] || left=1
  echo $(($1 < left ? $1 : left))
}

# stage NAME SECONDS FILE COMMAND...: runs it with Ctrl-C after its time, output into FILE of OUT_DIR and its end on the
# terminal. With --plan only prints it.
stage() {
  local name=$1 seconds=$2 file=$3 status=0
  shift 3
  if "$plan_only"; then
    printf '%-10s %3d s  ' "$name" "$seconds"
    printf ' %q' "$@"
    printf '\n'
    return 0
  fi
  seconds=$(budget "$seconds")
  printf '[%3d s] %s (at most %d s)\n' "$SECONDS" "$name" "$seconds"
  timeout --preserve-status --signal=INT --kill-after=15 "$seconds" "$@" >"$out/$file" 2>&1 </dev/null || status=$?
  tail -n 12 "$out/$file" | sed 's/^/        /'
  return "$status"
}

# A driver's device node, a driver named by hand, or WSL's.
may_have_gpu() {
  [ -e /dev/nvidiactl ] || [ -e /dev/dxg ] || [ -n "${REGARD_LIBCUDA:-}" ] || nvidia-smi -L >/dev/null 2>&1
}

no_gpu() {
  printf 'gpu_check: no GPU: %s\n' "$1"
  exit 3
}

# The first of these folders with the program in it; empty where there is none.
find_program() {
  local folder
  for folder in "$@"; do
    if [ -n "$folder" ] && [ -f "$folder/regard" ] && [ -x "$folder/regard" ]; then
      echo "$folder/regard"
      return
    fi
  done
}

build() {
  [ "$tree" != build/gpu ] ||
    cmake -S . -B "$tree" -DCMAKE_BUILD_TYPE=Release -DREGARD_BUILD_TESTS=OFF -DREGARD_BUILD_BENCH=OFF
  cmake --build "$tree" --target regard_cli -j "$jobs"
}

# The kernels of the quick grid and of the suite, into the cache, so that no check waits for the compiler.
warm() {
  { "$regard" check --quick --list; "$regard" bench --suite gpu --list; } |
    xargs -d '\n' -n 1 -P "$jobs" "$regard" cuda warm 2>&1 | grep -c . | sed 's/$/ lines/' || true
}

# Counts what a check said: a miss fails it; a run that its time ended counts as far as it came.
judge() {
  local status=$1 file=$2
  if grep -q '^MISS' "$out/$file" || { [ "$status" -ne 0 ] && [ "$status" -ne 130 ]; }; then check_failed=1; fi
}

"$plan_only" || may_have_gpu || no_gpu "neither /dev/nvidiactl nor nvidia-smi is there"
"$plan_only" || mkdir -p "$out"

regard=$(find_program "${REGARD_BUILD:-}")
if [ -z "$regard" ]; then
  tree=build/gpu
  [ ! -e build/release/CMakeCache.txt ] || tree=build/release
  export tree jobs
  export -f build
  if { "$plan_only" || { command -v cmake && command -v c++; } >/dev/null; } &&
    stage build 200 build.txt bash -ec build; then
    regard=$tree/regard
  else
    regard=$(find_program build/release build/gpu)
    [ -n "$regard" ] || die "nothing to run and nothing built: set REGARD_BUILD to a folder with the program regard"
    printf 'build: none; %s is taken as it is\n' "$regard"
  fi
fi
export regard jobs
export -f warm

status=0
stage info 30 info.txt "$regard" info || die "regard info failed ($out/info.txt)"
"$plan_only" || grep -q '^cuda:0' "$out/info.txt" || no_gpu "$(sed -n 's/^gpus *//p' "$out/info.txt")"
stage warm 70 warm.txt bash -c warm || true
stage quick 80 check.txt "$regard" check --backend cuda --quick || status=$?
"$plan_only" || judge "$status" check.txt
[ "$status" -ne 130 ] || check_failed=1  # the quick grid must come to its end
status=0
stage check 90 check-all.txt "$regard" check --backend cuda --all || status=$?
if ! "$plan_only"; then
  judge "$status" check-all.txt
  cat "$out/check-all.txt" >>"$out/check.txt"
fi

sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null || true)
if [ -n "$sanitizer" ]; then
  status=0
  stage sanitizer 45 sanitizer.txt "$sanitizer" --error-exitcode 9 "$regard" check --backend cuda \
    "prefill b=2 sq=70 skv=130 hq=4 hkv=2 d=64 dtype=f16 causal" "decode b=3 sq=1 skv=200 hq=4 hkv=2 d=64 dtype=f16 page=16" ||
    status=$?
  [ "$status" -ne 9 ] || check_failed=1
else
  printf '%s\n' "sanitizer: no compute-sanitizer here, left out"
fi

status=0
stage bench 110 bench.txt "$regard" bench --suite gpu --min-time 0.15 --json "$out/bench.json" || status=$?
"$plan_only" || judge "$status" bench.txt  # the suite checks the outputs of what it measures
if "$plan_only" || "$python" -c 'import torch' >/dev/null 2>&1; then
  stage cases 20 cases.txt "$regard" bench --suite gpu --list || true
  stage peers 110 peers.txt "$python" -B bench/peers/gpu_peers.py --cases "$out/cases.txt" --seconds "$(budget 90)" \
    --json "$out/peers.json" || true
else
  printf '%s\n' "peers: $python has no torch, left out (PYTHON names another)"
fi
if "$plan_only" || command -v "$python" >/dev/null; then
  stage report 20 table.txt "$python" -B bench/gpu_report.py "$out" || true
fi

"$plan_only" && exit 0
[ ! -e "$out/table.txt" ] || cat "$out/table.txt"
grep -h ' cases, ' "$out/check.txt" || true
if [ "$check_failed" -ne 0 ]; then
  grep -h '^MISS\|^REPRO' "$out/check.txt" "$out/bench.txt" | head -n 20 || true
  printf '[%3d s] gpu_check: FAILED; see check.txt and bench.txt in %s\n' "$SECONDS" "$out"
  exit 1
fi
printf '[%3d s] gpu_check: passed; results in %s\n' "$SECONDS" "$out"
