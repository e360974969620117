#!/usr/bin/env bash
# scripts/setup_cuda with a faked pip: the libraries are taken out of the package once; a failing pip leaves a word and
# exit code 0; another package than the pinned one is replaced.
#   setup_cuda_test.sh SETUP_CUDA_SCRIPT
set -euo pipefail
scripts=$(dirname "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/scripts"
cp "$1" "$scripts/common.sh" "$work/scripts/"
folder=$work/build/cuda-nvrtc

# "pip download" writes a package of four files, or fails; everything else is the real python3.
cat >"$work/python" <<'PYTHON'
#!/usr/bin/env bash
echo "$*" >>"$FAKE/calls"
case "$*" in
  "-m pip --version") ;;
  "-m pip download"*)
    [ -e "$FAKE/offline" ] && exit 1
    while [ "$1" != --dest ]; do shift; done
    exec python3 -c 'import sys, zipfile
with zipfile.ZipFile(sys.argv[1] + "/nvrtc.whl", "w") as wheel:
    for name in ("libnvrtc.so.13", "libnvrtc.alt.so.13", "libnvrtc-builtins.so.13.5", "readme.txt"):
        wheel.writestr("nvidia/cu13/lib/" + name, name)' "$2" ;;
  *) exec python3 "$@" ;;
esac
PYTHON
chmod +x "$work/python"
export FAKE=$work PYTHON=$work/python

fail() {
  echo "setup_cuda_test: $1" >&2
  exit 1
}

touch "$work/offline"
said=$("$work/scripts/setup_cuda" 2>&1) || fail "a failing pip fails the setup"
[[ $said == *"will be skipped"* ]] || fail "a failing pip leaves no word: $said"
[ ! -e "$folder" ] || fail "a failing pip leaves a folder"

rm "$work/offline"
"$work/scripts/setup_cuda" >/dev/null
[ "$(ls "$folder" | tr '\n' ' ')" = "libnvrtc-builtins.so.13.5 libnvrtc.so.13 package " ] || fail "$(ls "$folder")"
[ "$(cat "$folder/libnvrtc.so.13")" = libnvrtc.so.13 ] || fail "the library is not the package's"

: >"$work/calls"
"$work/scripts/setup_cuda" | grep -q 'is in build/cuda-nvrtc$' || fail "the second run does not say that it is there"
[ ! -s "$work/calls" ] || fail "the second run calls python"

echo older >"$folder/package"
touch "$folder/left-over"
"$work/scripts/setup_cuda" >/dev/null
[ ! -e "$folder/left-over" ] || fail "another package is not replaced"
echo "setup_cuda: good"
