"""The CUDA kernels keep to their layers, so that the emulator sees every access and a bare NVRTC compiles every file.

  head         every file begins with a comment and has #pragma once
  includes     only "..." files of src/cuda/kernels, by their path from there
  instructions asm, double underscores and CUDA's built-in names only in ptx/ (and base/clang.h, and the macros of base/),
               std:: nowhere
  memory       no pointer is dereferenced, indexed or followed by an arrow outside ptx/: views do that
"""
import os
import re
import sys

BUILT_IN = re.compile(r"\b(?:threadIdx|blockIdx|blockDim|gridDim|warpSize|atomic[A-Z]\w*|volatile|asm)\b")
UNDERSCORES = re.compile(r"\b__\w+")
STANDARD = re.compile(r"\bstd::")
ARROW = re.compile(r"->")
REINTERPRET = re.compile(r"\breinterpret_cast\b(?!<u64>)")  # an address as a number may be asked for its alignment
INCLUDE = re.compile(r"^\s*#\s*include\s+(.*)$")
# "const i32* name", "void* data = nullptr": the names of pointers.
POINTER = re.compile(r"\b\w+(?:\s+const)?\s*\*\s*(?:const\s+)?(\w+)\s*(?=[,;=){])")
# CUDA's built-in names for a clang without CUDA's headers.
LIKE_PTX = {"base/clang.h"}
# What base/ may say beyond the rules.
ALLOWED = {
    "base/types.h": {"__CUDACC__", "__CUDA__", "__host__", "__device__", "__forceinline__", "__noinline__"},
    "base/kernel.h": {"__CUDACC__", "__CUDA__", "__global__", "__launch_bounds__", "__grid_constant__", "__VA_ARGS__"},
    "base/float_bits.h": {"__builtin_bit_cast"},
}


def without_comments(text):
    """Comments and strings blanked, lines kept; strings of includes stay."""
    def blank(match):
        return "".join(c if c == "\n" else " " for c in match.group(0))
    text = re.sub(r"/\*.*?\*/", blank, text, flags=re.S)
    lines = []
    for line in text.split("\n"):
        if not INCLUDE.match(line):
            line = re.sub(r'"(?:\\.|[^"\\])*"', blank, line)
        lines.append(re.sub(r"//.*", blank, line))
    return "\n".join(lines)


def dereferences(line, names):
    """Names of pointers that the line indexes or dereferences."""
    found = set()
    for match in re.finditer(r"(\w+)\s*\[", line):
        if match.group(1) in names:
            found.add(match.group(1))
    # A star that has no operand at its left is a dereference; "T* name" declares, "a * name" multiplies.
    for match in re.finditer(r"(?:^|[=(,;{}!&|?:<>+\-]|\breturn\b)\s*\*\s*(?:\w+\s*\.\s*)*(\w+)", line):
        if match.group(1) in names:
            found.add(match.group(1))
    if re.search(r"(?:^|[=(,;{}!&|?:<>+\-]|\breturn\b)\s*\*\s*\(", line):
        found.add("(...)")
    return sorted(found)


def faults_of(name, text, files, pointers):
    """Faults of one file, as (line, words). `pointers`: names declared in base/params.h."""
    faults = []
    if not text.startswith("//"):
        faults.append((1, "no comment at the head says what the file is for"))
    if "#pragma once" not in text:
        faults.append((1, "no #pragma once"))
    inside = name.startswith("ptx/") or name in LIKE_PTX
    code = without_comments(text)
    names = pointers | set(POINTER.findall(code))
    for number, line in enumerate(code.split("\n"), 1):
        include = INCLUDE.match(line)
        if include:
            quoted = re.match(r'"([^"]+)"\s*$', include.group(1))
            if not quoted or quoted.group(1) not in files:
                faults.append((number, f"includes {include.group(1).strip()}, which is no file of the kernels"))
            continue
        if inside:
            continue
        for pattern, what in ((BUILT_IN, "belongs into ptx/"), (STANDARD, "is no part of the kernels"),
                              (ARROW, "follows a pointer: memory is reached through views"),
                              (REINTERPRET, "belongs into ptx/")):
            for word in sorted(set(pattern.findall(line))):
                faults.append((number, f"{word} {what}"))
        for word in sorted(set(UNDERSCORES.findall(line)) - ALLOWED.get(name, set())):
            faults.append((number, f"{word} belongs into ptx/"))
        for word in dereferences(line, names):
            faults.append((number, f"{word} is dereferenced: memory is reached through views (ptx/memory.h)"))
    return faults


def main(root):
    folder = os.path.join(root, "src", "cuda", "kernels")
    files = {}
    for place, _, found in os.walk(folder):
        for file in sorted(found):
            path = os.path.join(place, file)
            with open(path, encoding="utf-8") as opened:
                files[os.path.relpath(path, folder).replace(os.sep, "/")] = opened.read()
    if not files:
        print(f"no files in {folder}")
        return 1
    pointers = set(POINTER.findall(without_comments(files.get("base/params.h", ""))))
    count = 0
    for name, text in sorted(files.items()):
        for line, words in faults_of(name, text, files, pointers):
            print(f"src/cuda/kernels/{name}:{line}: {words}")
            count += 1
    print(f"{len(files)} files, {count} faults")
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
