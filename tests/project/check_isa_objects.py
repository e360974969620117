"""Objects compiled for one instruction set (isa_NAME.cc, probe_NAME.cc under src/cpu) leak no weak symbols.

A weak definition is a promise that any copy will do: the linker keeps one for the whole program, and if it keeps the
copy with AVX-512 in it, a CPU without crashes in code that never asked for it. Harmless are symbols that belong to the
set's own namespace, NAME, because no other object defines them.
"""
import os
import re
import subprocess
import sys

ISA_OBJECT = re.compile(r"src/cpu/(?:probe/)?(?:isa|probe)_([a-z0-9_]+)\.cc\.o$")
# Pointer-sized data that the compiler emits for exception tables; holds no instruction.
POINTER_PREFIX = "DW.ref."


def leaks_of(nm, path, isa):
    lines = subprocess.run([nm, "--defined-only", path], check=True, capture_output=True, text=True).stdout.splitlines()
    found = []
    for line in lines:
        _, kind, name = line.split(maxsplit=2)
        own_namespace = f"{len(isa)}{isa}"  # as mangled: 4avx2
        if kind in "WVu" and own_namespace not in name and not name.startswith(POINTER_PREFIX):
            found.append(name)
    return found


def main(nm, list_file):
    with open(list_file, encoding="utf-8") as lines:
        objects = lines.read().split("\n")
    checked = leaks = 0
    for path in objects:
        isa = ISA_OBJECT.search(path)
        if not isa:
            continue
        checked += 1
        for name in leaks_of(nm, path, isa.group(1)):
            leaks += 1
            shown = subprocess.run(["c++filt", name], capture_output=True, text=True).stdout.strip() or name
            print(f"{os.path.basename(path)}: weak {shown}")
    print(f"{checked} ISA objects checked, {leaks} weak symbols")
    return 1 if leaks or checked == 0 else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
