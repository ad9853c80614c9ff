"""Writes docs/networks.md from docs/networks.json: what each rule costs in real training.

``python docs/generate/networks.py`` renews the page. With a folder that `python -m asyncq.papers.networks.opened`
filled it first takes the opened problems from there into the JSON: ``python docs/generate/networks.py FOLDER``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

DOCS = Path(__file__).parents[1]
NEVER = 10.0  # what a setting that never arrives, or takes longer than that, counts as
SPLITS = {"development": "Development", "kept back": "Kept back, opened once"}
HEAD = """\
# Advice on real networks

What does each rule cost in real training? One worker is tuned at momentum 0.9. Then 4, 8 or 16 asynchronous workers
train the same network, with the momentum and the rate that a rule names. Its *regret* is its updates to the
target loss over those of the best point of a grid, geometric mean over the seeds. `docs/generate/networks.py` writes
this page from `docs/networks.json`. See also the [theory](theory/networks.md) and [how to measure](measuring.md).
"""


def summary(rows: list[dict[str, Any]]) -> dict[str, tuple[float, float, float, int, int]]:
    """By rule: the mean regret, the shares within 10 and 25 %, how many never arrive, and of how many."""
    found = {}
    for rule in dict.fromkeys(row["rule"] for row in rows):
        regrets = [row["regret"] for row in rows if row["rule"] == rule]
        counted = np.minimum([NEVER if regret is None else regret for regret in regrets], NEVER)
        found[rule] = (
            float(np.exp(np.log(counted).mean())),
            float(np.mean(counted <= 1.1)),
            float(np.mean(counted <= 1.25)),
            sum(regret is None for regret in regrets),
            len(regrets),
        )
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """The rules, by regret."""
    lines = ["| rule | regret | within 10 % | within 25 % | some seed never arrives |", "|---|--:|--:|--:|--:|"]
    for rule, (mean, ten, quarter, never, count) in sorted(summary(rows).items(), key=lambda item: item[1][0]):
        name = f"**{rule}**" if rule.startswith("advice") else rule
        lines.append(f"| {name} | {mean:.2f} | {ten:.0%} | {quarter:.0%} | {never} of {count} |")
    return "\n".join(lines)


def by_problem(rows: list[dict[str, Any]]) -> str:
    """Regret of the advice and of the two best known rules of thumb, each problem apart."""
    rules = ["advice, measured", "advice, two edges", "advice, nothing measured", "rate / M", "rate / sqrt(M)"]
    lines = ["| problem | configurations | " + " | ".join(rules) + " |", "|---|--:|" + "--:|" * len(rules)]
    for problem in dict.fromkeys(row["problem"] for row in rows):
        found = summary([row for row in rows if row["problem"] == problem])
        cells = [f"{found[rule][0]:.2f}" + (f" ({found[rule][3]} never)" if found[rule][3] else "") for rule in rules]
        lines.append(f"| {problem} | {found[rules[0]][4]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def verdicts(rows: list[dict[str, Any]]) -> str:
    """Each aim for the problems kept back, and whether it is met."""
    found = summary(rows)
    measured, edges, alone = (found[f"advice, {known}"] for known in ("measured", "two edges", "nothing measured"))
    rules = {rule: values for rule, values in found.items() if rule[:6] not in ("advice", "best g", "edge o")}
    best = min(rules, key=lambda rule: rules[rule][0])
    kept = [row for row in rows if row["rule"] == "keep" and row["regret"] is not None and row["regret"] <= 1.1]
    here = {(row["problem"], row["workers"], row["work"]): row["regret"] for row in rows
            if row["rule"] == "advice, nothing measured"}  # fmt: skip
    against = [
        (here[row["problem"], row["workers"], row["work"]] or NEVER) / row["regret"] for row in kept
    ]
    aims = [
        ("measured: regret at most 1.15", f"{measured[0]:.2f}", measured[0] <= 1.15),
        ("measured: within 10 % in half of the configurations", f"{measured[1]:.0%}", measured[1] >= 0.5),
        ("measured: within 25 % in nine of ten", f"{measured[2]:.0%}", measured[2] >= 0.9),
        ("measured: every seed arrives", f"{measured[3]} of {measured[4]} do not", measured[3] == 0),
        (f"measured: better than every rule of thumb (best: {best})", f"{measured[0]:.2f}, {rules[best][0]:.2f}",
         measured[0] < rules[best][0]),
        ("nothing measured: better than rate / sqrt(M)", f"{alone[0]:.2f}, {rules['rate / sqrt(M)'][0]:.2f}",
         alone[0] < rules["rate / sqrt(M)"][0]),
        ("nothing measured: at most 5 % worse than keep where keep is within 10 %",
         f"{max(against):.2f} times at worst, {len(against)} cases" if against else "keep never is",
         max(against) <= 1.05 if against else None),
        ("two edges: between the other two", f"{measured[0]:.2f}, {edges[0]:.2f}, {alone[0]:.2f}",
         measured[0] <= edges[0] <= alone[0]),
    ]  # fmt: skip
    lines = ["| aim | found | met |", "|---|---|---|"]
    words = {True: "yes", False: "**no**", None: "untested"}
    return "\n".join(lines + [f"| {aim} | {value} | {words[met]} |" for aim, value, met in aims])


def page(data: dict[str, Any]) -> str:
    """The whole page."""
    rows = {split: [row for row in data["rows"] if row["split"] == split] for split in SPLITS}
    parts = [HEAD]
    for split, title in SPLITS.items():
        parts += [f"## {title}\n", data["notes"][split] + "\n", table(rows[split]) + "\n",
                  by_problem(rows[split]) + "\n"]  # fmt: skip
    parts += ["## Aims\n", "On the problems kept back:\n", verdicts(rows["kept back"]) + "\n"]
    parts += ["## How it was measured\n", "\n".join(f"- {line}" for line in data["method"]) + "\n"]
    parts += ["## Limits\n", "\n".join(f"- {line}" for line in data["limits"]) + "\n"]
    return "\n".join(parts)


def taken(folder: Path) -> list[dict[str, Any]]:
    """The rows of every opened problem in a folder."""
    rows = []
    for path in sorted(folder.glob("*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        for setting in found.get("settings", []):
            rows += [
                {"split": "kept back", "problem": found["problem"], "workers": setting["workers"],
                 "work": setting["work"], "rule": rule, "momentum": round(got["momentum"], 4),
                 "learning_rate": float(f"{got['learning_rate']:.4g}"),
                 "regret": None if got["regret"] is None else round(got["regret"], 3)}
                for rule, got in setting["rules"].items() if rule != "best grid point"
            ]  # fmt: skip
    return rows


def main(arguments: list[str]) -> None:
    """Renew the page, and first the JSON where a folder is given."""
    source = DOCS / "networks.json"
    data = json.loads(source.read_text(encoding="utf-8"))
    if arguments:
        data["rows"] = [row for row in data["rows"] if row["split"] != "kept back"] + taken(Path(arguments[0]))
        rows = ",\n".join(json.dumps(row) for row in data.pop("rows"))
        rest = json.dumps(data, indent=1, ensure_ascii=False)[:-2]
        source.write_text(f'{rest},\n "rows": [\n{rows}\n ]\n}}\n', encoding="utf-8")
        data = json.loads(source.read_text(encoding="utf-8"))
    (DOCS / "networks.md").write_text(page(data), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
