# Shared by the scripts in this folder; sourced, not run. Sets the working directory to the repository root.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# One clear last line, then exit 1.
die() {
  printf '%s: %s\n' "$(basename "$0")" "$*" >&2
  exit 1
}

# Prints a command as a person would type it, then runs it. Words with blanks or brackets get quotes.
run() {
  local shown="" word
  for word in "$@"; do
    case "$word" in
      *[!a-zA-Z0-9_./=,:+@%-]*) shown+=" \"$word\"" ;;
      *) shown+=" $word" ;;
    esac
  done
  printf '\n$%s\n' "$shown"
  "$@"
}

jobs_count() { nproc 2>/dev/null || echo 2; }

# The first clang++ (14 or newer) there is; empty where there is none.
find_clang() {
  local name
  for name in clang++ clang++-{14..30}; do
    if command -v "$name" >/dev/null 2>&1 && [ "$("$name" -dumpversion | cut -d. -f1)" -ge 14 ]; then
      echo "$name"
      return
    fi
  done
}
