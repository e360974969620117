"""The documentation names things that exist, and its commands work.

  paths       every repository path in backticks or links exists
  example     the C++ example of the README is examples/attention.cc, letter by letter, and the Python one
              examples/quickstart.py
  presets     every `cmake --preset NAME` names a preset
  commands    every `regard ...` in a code block has known options; `explain`, `list` and `--help` are run
              (exit 2 where the text shows the refusal "regard: ..."), and every case in quotes parses
  comments    every docs/*.md that a source file points to exists
"""
import json
import os
import re
import shlex
import subprocess
import sys

PATH = re.compile(r"^\.?/?(?:include|src|cli|tests|bench|docs|cmake|scripts|examples|python|\.ci)/[\w./*-]*$")
TOP_LEVEL = re.compile(r"^[A-Z][\w.]*\.(?:md|txt|json)$")
PROGRAM = re.compile(r"^(?:\./)?(?:build/release/)?regard$")
CASE = re.compile(r"^(?:prefill|decode|mixed|backward)(?: |$)")
NO_CASE_AFTER = ("--suite", "--rows", "--kernel", "--json")  # options that take a word
HARMLESS = ("explain", "list")
GROUPS = ("cuda",)  # commands that have commands of their own


def documents(root):
    docs = os.path.join(root, "docs")
    names = [n for n in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md") if os.path.exists(os.path.join(root, n))]
    if os.path.isdir(docs):
        names += sorted(os.path.join("docs", n) for n in os.listdir(docs) if n.endswith(".md"))
    return names


def read(root, name):
    with open(os.path.join(root, name), encoding="utf-8") as file:
        return file.read()


def blocks(text):
    """(language, body) of every fenced block."""
    return re.findall(r"^```(\w*)\n(.*?)^```", text, re.M | re.S)


def missing_paths(root, name):
    text = re.sub(r"^```.*?^```", "", read(root, name), flags=re.M | re.S)
    words = set(re.findall(r"`([^`\s]+)`", text))
    links = set(re.findall(r"\]\(([^)#\s]+)[^)]*\)", text))
    found = []
    for word in sorted(words):
        if (PATH.match(word) or TOP_LEVEL.match(word)) and "*" not in word and not exists(root, word):
            found.append(f"{name}: `{word}` does not exist")
    for link in sorted(links):
        if "://" not in link and not exists(os.path.join(root, os.path.dirname(name)), link):
            found.append(f"{name}: link {link} leads nowhere")
    return found


def exists(root, path):
    return os.path.exists(os.path.join(root, path.rstrip("/")))


def example_differs(root):
    found = []
    for kind, name in (("cpp", "examples/attention.cc"), ("python", "examples/quickstart.py")):
        example = read(root, name)
        if not any(body == example for language, body in blocks(read(root, "README.md")) if language == kind):
            found.append(f"README.md: no {kind} block equals {name}")
    return found


def unknown_presets(root, name):
    known = {p["name"] for p in json.loads(read(root, "CMakePresets.json"))["configurePresets"]}
    used = set(re.findall(r"--preset[ =]([\w-]+)", read(root, name)))
    return [f"{name}: preset {p} does not exist" for p in sorted(used - known)]


def commands(text):
    """(words, shown output) of every `regard ...` line in shell and console blocks; lines may continue with a backslash."""
    found = []
    for language, body in blocks(text):
        if language not in ("", "sh", "console", "bash"):
            continue
        lines = body.replace("\\\n", " ").split("\n")
        for number, line in enumerate(lines):
            prompt = line.startswith("$ ")
            line = line[2:] if prompt else line
            if not re.match(r"(?:\./)?(?:build/release/)?regard\s", line) or line.startswith("regard:"):
                continue
            words = shlex.split(line, comments=True)
            shown = lines[number + 1] if prompt and number + 1 < len(lines) else ""
            if PROGRAM.match(words[0]):
                found.append((words[1:], shown))
    return found


def failed_commands(root, name, program, run=subprocess.run):
    def call(*words):
        return run([program, *words], capture_output=True, text=True, cwd=root, timeout=300)

    found = []
    for words, shown in commands(read(root, name)):
        line = "regard " + " ".join(words)
        usage = call(*words[:2 if words[0] in GROUPS else 1], "--help")
        if usage.returncode != 0:
            found.append(f"{name}: `{line}`: no such command")
            continue
        options = set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", usage.stdout))
        for word in words[1:]:
            option = word.split("=")[0]
            if word.startswith("-") and option not in options:
                found.append(f"{name}: `{line}`: no option {option}")
        wanted = 2 if shown.startswith("regard: ") else 0
        if words[0] in HARMLESS:
            status = call(*words).returncode
            if status != wanted:
                found.append(f"{name}: `{line}`: exit {status}, expected {wanted}")
        elif wanted == 0:
            for case in (w for before, w in zip(words, words[1:]) if CASE.match(w) and before not in NO_CASE_AFTER):
                if call("explain", case).returncode != 0:
                    found.append(f"{name}: `{line}`: the case is refused")
    return found


def dangling_comments(root):
    found = []
    for top in ("include", "src", "cli", "python", "tests", "bench", "cmake"):
        for folder, _, files in os.walk(os.path.join(root, top)):
            for file in files:
                if not file.endswith((".h", ".cc", ".cmake", ".py", ".pyi", ".txt")) or file.startswith("check_docs"):
                    continue
                path = os.path.relpath(os.path.join(folder, file), root)
                for target in set(re.findall(r"\bdocs/[\w-]+\.md\b", read(root, path))):
                    if not exists(root, target):
                        found.append(f"{path}: points to {target}, which does not exist")
    return found


def main(root, program=None):
    found = example_differs(root) + dangling_comments(root)
    checked = 0
    for name in documents(root):
        found += missing_paths(root, name) + unknown_presets(root, name)
        if program:
            checked += len(commands(read(root, name)))
            found += failed_commands(root, name, program)
    for line in found:
        print(line)
    print(f"{len(documents(root))} documents, {checked} commands: {len(found)} mistakes")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(*[a for a in sys.argv[1:3] if a]))
