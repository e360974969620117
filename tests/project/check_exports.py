"""libregard.so exports regard's symbols and nothing else, and the ones that a program needs are there."""
import subprocess
import sys

REGARD_PREFIXES = ("regard_", "_ZN6regard", "_ZNK6regard", "_ZTIN6regard", "_ZTSN6regard", "_ZTVN6regard")
# Mangled up to the parameters: Attention is 9 letters, Select and Launch are 6.
NEEDED = ("regard_version", "_ZTIN6regard5ErrorE", "_ZN6regard9AttentionE", "_ZN6regard6SelectE", "_ZN6regard6LaunchE")


def main(nm, library):
    lines = subprocess.run([nm, "-D", "--defined-only", library], check=True, capture_output=True, text=True).stdout
    names = [line.split()[-1].split("@")[0] for line in lines.splitlines()]
    strangers = sorted(name for name in names if not name.startswith(REGARD_PREFIXES))
    absent = sorted(need for need in NEEDED if not any(name.startswith(need) for name in names))
    for name in strangers:
        print(f"exported, and not regard's: {name}")
    for name in absent:
        print(f"not exported: {name}")
    print(f"{library}: {len(names)} exported symbols, {len(strangers)} strangers, {len(absent)} absent")
    return 1 if strangers or absent or not names else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
