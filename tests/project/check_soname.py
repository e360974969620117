"""libregard.so carries the SONAME that its version promises."""
import re
import subprocess
import sys


def main(readelf, library, expected):
    dynamic = subprocess.run([readelf, "-d", library], check=True, capture_output=True, text=True).stdout
    found = re.search(r"SONAME.*\[(.*)\]", dynamic)
    soname = found.group(1) if found else "none"
    print(f"{library}: SONAME {soname}, expected {expected}")
    return 0 if soname == expected else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4]))
