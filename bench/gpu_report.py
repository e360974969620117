"""A table and an HTML page of what scripts/gpu_check.sh measured: regard's own figures, other libraries', the roofs.

    python bench/gpu_report.py FOLDER      # reads bench.json, peers.json, info.txt and check.txt there, as far as they exist

Writes FOLDER/report.html and FOLDER/results.json and prints the table. Needs nothing but Python.
"""
import html
import json
import os
import sys

PREFILL_GOAL = ("prefill", "dtype=bf16", "d=128", "causal")
DECODE_GOAL = ("decode b=16 ", "skv=32768", "dtype=bf16")
DECODE_SHARE = 80  # per cent of the copy's bandwidth
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; color: #1c2430 }
table { border-collapse: collapse; width: 100%; margin: 1rem 0 }
th, td { padding: .25rem .6rem; text-align: right } td:first-child, th:first-child { text-align: left }
th { border-bottom: 2px solid #8893a5 } td { border-bottom: 1px solid #dfe4ec }
.best { font-weight: 600 } .missed { color: #a61b1b } .met { color: #0a6b3d } .bar { background: #3a6ea5; height: .5rem }
pre { background: #f3f5f9; padding: .8rem; overflow-x: auto } td.bars { width: 14rem }
"""


def read_json(folder, name):
    path = os.path.join(folder, name)
    if not os.path.exists(path) or os.path.getsize(path) == 0:
        return None
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def read_text(folder, name):
    path = os.path.join(folder, name)
    if not os.path.exists(path):
        return ""
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def has_words(case, words):
    padded = case + " "
    return all(word in padded if word.endswith(" ") else f" {word} " in f" {padded}" for word in words)


def merged(bench, peers):
    """One entry a case: name, whether it reads, {library: (ms, rate)} with regard's own launch as `regard`."""
    by_case = {}
    for result in (bench or {}).get("results", []):
        reads = result["case"].startswith("decode")
        rate = result["gbps"] if reads else result["gflops"] / 1e3
        by_case[result["case"]] = {"case": result["case"], "name": result.get("row") or result["case"], "reads": reads,
                                   "kernel": result["kernel"], "max_error": result.get("max_error"),
                                   "rates": {"regard": (result["median_ms"], rate)}}
    for result in (peers or {}).get("results", []):
        entry = by_case.setdefault(result["case"], {"case": result["case"], "name": result["case"], "kernel": "",
                                                    "reads": result["reads"], "rates": {}, "max_error": None})
        for library in result["libraries"]:
            name = "regard in Python" if library["name"] == "regard" else library["name"]
            entry["rates"][name] = (library["median_ms"], library["gbps" if entry["reads"] else "tflops"])
    return list(by_case.values())


def regards(rates):
    """regard's best rate: of its own launch, or of its Python call beside the others."""
    return max((rate for name, (_, rate) in rates.items() if name.startswith("regard")), default=None)


def goals(entries, copy_gbps):
    """(words, met) of every goal that the figures decide."""
    found = []
    for entry in entries:
        mine, rates = regards(entry["rates"]), entry["rates"]
        if mine is None:
            continue
        if has_words(entry["case"], PREFILL_GOAL) and "torch-flash" in rates:
            theirs = rates["torch-flash"][1]
            found.append((f"{entry['name']}: {mine:.0f} TFLOP/s, torch's flash {theirs:.0f}", mine >= theirs))
        plain = " page=" not in entry["case"] and " kv=" not in entry["case"]
        if has_words(entry["case"], DECODE_GOAL) and plain and copy_gbps:
            share = 100 * mine / copy_gbps
            found.append((f"{entry['name']}: {mine:.0f} GB/s, {share:.0f} % of the copy's {copy_gbps:.0f}, "
                          f"goal {DECODE_SHARE} %", share >= DECODE_SHARE))
    return found


def libraries(entries):
    names = dict.fromkeys(name for entry in entries for name in entry["rates"])
    return sorted(names, key=lambda name: (not name.startswith("regard"), list(names).index(name)))


def text_table(entries):
    names = libraries(entries)
    rows = [["case", "unit", *names]]
    for entry in entries:
        cells = [f"{entry['rates'][n][1]:.0f}" if n in entry["rates"] else "-" for n in names]
        rows.append([entry["name"], "GB/s" if entry["reads"] else "TFLOP/s", *cells])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths)))
                     for row in rows)


def html_table(entries):
    names = libraries(entries)
    escape = html.escape
    lines = ["<table><tr><th>case</th><th>unit</th>" + "".join(f"<th>{escape(n)}</th>" for n in names) +
             "<th>regard, of the best</th></tr>"]
    for entry in entries:
        rates = {name: rate for name, (_, rate) in entry["rates"].items()}
        best = max(rates.values(), default=0)
        cells = "".join(f"<td class='{'best' if rates.get(n) == best else ''}'>"
                        f"{'' if n not in rates else format(rates[n], '.0f')}</td>" for n in names)
        share = 100 * (regards(entry["rates"]) or 0) / best if best else 0
        lines.append(f"<tr><td title='{escape(entry['case'])}'>{escape(entry['name'])}</td>"
                     f"<td>{'GB/s' if entry['reads'] else 'TFLOP/s'}</td>{cells}"
                     f"<td class='bars'><div class='bar' style='width:{share:.0f}%'></div></td></tr>")
    return "\n".join(lines) + "</table>"


def about(bench, peers):
    lines = []
    for source, name in ((bench, "regard"), (peers, "libraries")):
        if not source:
            continue
        machine = dict(source.get("machine", {}))
        for key in ("version", "commit", "compiler"):
            if source.get(key):
                machine[key] = source[key]
        machine |= {f"gpu {key}": value for key, value in (machine.pop("gpu", None) or {}).items()}
        lines.append((name, ", ".join(f"{k} {v}" for k, v in machine.items() if v not in (None, ""))))
    return lines


def page(folder, entries, decided, facts, roofs):
    escape = html.escape
    goal_lines = "".join(f"<li class='{'met' if met else 'missed'}'>{escape(words)}: {'met' if met else 'missed'}</li>"
                         for words, met in decided)
    fact_lines = "".join(f"<p><b>{escape(name)}</b> {escape(words)}</p>" for name, words in facts)
    roof_line = ", ".join(f"{name} {value:.0f}" for name, value in (roofs or {}).items())
    blocks = "".join(f"<h2>{title}</h2><pre>{escape(read_text(folder, name))}</pre>"
                     for title, name in (("This machine", "info.txt"), ("Check against the reference", "check.txt"))
                     if read_text(folder, name))
    return (f"<!doctype html><html lang='en'><meta charset='utf-8'><title>regard on a GPU</title><style>{STYLE}</style>"
            f"<h1>regard on a GPU</h1>{fact_lines}<p>roofs: {escape(roof_line) or 'not measured'}</p>"
            f"<h2>Goals</h2><ul>{goal_lines or '<li>nothing measured decides one</li>'}</ul>"
            f"<h2>Figures</h2><p>Medians of launches. TFLOP/s count visible pairs of query and key, GB/s each byte of K and "
            f"V once; bold is the best.</p>{html_table(entries)}{blocks}</html>\n")


def main(folder):
    bench, peers = read_json(folder, "bench.json"), read_json(folder, "peers.json")
    entries = merged(bench, peers)
    roofs = (peers or {}).get("roofs")
    decided = goals(entries, (roofs or {}).get("copy_gbps"))
    print(text_table(entries) if entries else "nothing was measured")
    for words, met in decided:
        print(f"goal {'met   ' if met else 'missed'}  {words}")
    with open(os.path.join(folder, "report.html"), "w", encoding="utf-8") as file:
        file.write(page(folder, entries, decided, about(bench, peers), roofs))
    with open(os.path.join(folder, "results.json"), "w", encoding="utf-8") as file:
        goal_json = [{"goal": words, "met": met} for words, met in decided]
        json.dump({"machine": (peers or {}).get("machine"), "roofs": roofs, "goals": goal_json, "regard": bench,
                   "libraries": peers}, file, indent=1)
        file.write("\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
