"""Writes docs/reproduced.md and its pictures: every claim of the papers that ``asyncq reproduce`` computes.

Run it after a change to the theory, to replay or to a claim: ``python docs/generate/reproduced.py`` (some minutes),
or with names to renew only those sections. The page is the same for the same seed.
"""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

from asyncq.papers import CLAIMS, reproduce
from asyncq.papers.claim import Comparison, Reproduction
from asyncq.plots import panels

PAGE = Path(__file__).parents[1] / "reproduced.md"
IMAGES = Path(__file__).parents[1] / "images" / "reproduced"
SEED = 1
RELATIONS = {"=": "", "<=": "at most ", ">=": "at least "}
HEAD = """\
# Reproduced

This page compares the results of the three papers with those of asyncq. `docs/generate/reproduced.py` writes it from
the output of `asyncq reproduce`, seed 1; no number and no verdict is written by hand. Figures that need the papers'
clusters or networks are left out, or an analogue on a small problem replaces them; the section then says so.

```console
$ asyncq reproduce
$ asyncq reproduce giladi-fig6
$ asyncq reproduce all --out reproduced
```

A verdict compares our number with the paper's, within a tolerance whose origin is given beside it:

- **reproduced**: the two agree.
- **analogue**: the two agree, but ours is of a small problem that stands in for the paper's network. The paper's
  statement holds there too; its figure is not reproduced.
- **differs**: the paper's number does not hold; ours is the one that the theory pages, or a derivation beside the
  claim, put in its place. It must agree with that one.
- **failed**: neither. `asyncq reproduce` then exits with 1; with the other verdicts it exits with 0.
- *reported*: a number without a counterpart in the paper, judged by nobody.

Where the papers give a number only in a drawing, theory stands in for it or the claim is an order, a slope or a
straight line. An order must hold for the whole 95 % interval.
"""


def image(seen: Reproduction) -> bytes:
    """The figure as a small PNG, of 256 colours."""
    from PIL import Image

    raw, small = io.BytesIO(), io.BytesIO()
    panels.draw(seen).savefig(raw, format="png", dpi=80)
    Image.open(raw).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(small, format="png", optimize=True)
    return small.getvalue()


def section(seen: Reproduction) -> str:
    """What the page says of one claim."""
    claim = seen.claim
    chance = "Exact; no chance is involved." if claim.exact else f"Seed {seen.seed}."
    text = f"## {claim.name}\n\n{claim.paper} {claim.place}: **{seen.verdict}**. {claim.says}\n\n"
    text += f"{claim.setting} {chance}\n\n"
    text += f"![{claim.paper} {claim.place}](images/reproduced/{claim.name}.png)\n\n"
    text += "| what | paper | theory | ours | tolerance | verdict |\n|---|---:|---:|---:|---|---|\n"
    text += "".join(row(comparison) for comparison in seen.comparisons)
    return text + "".join(f"\n{note}\n" for note in seen.findings.notes)


def row(value: Comparison) -> str:
    """One number, in the page's table."""
    paper = "" if value.paper is None else f"{RELATIONS[value.relation]}{number(value.paper)}"
    theory = "" if value.theory is None else number(value.theory)
    ours = number(value.ours)
    if value.interval is not None:
        ours += f" [{number(value.interval[0])}, {number(value.interval[1])}]"
    tolerance = f"{value.tolerance:.2g}: {value.basis}" if value.tolerance else value.basis
    return f"| {value.what} | {paper} | {theory} | {ours} | {tolerance} | {value.verdict} |\n"


def number(value: float) -> str:
    """Four digits; what is 0 but for rounding is given by its size only."""
    return "below 1e-9" if 0 < abs(value) < 1e-9 else f"{value:.4g}"


def contents(sections: dict[str, str]) -> str:
    """The list of all claims with their verdicts."""
    lines = "".join(
        f"| [{name}](#{name}) | {claim.paper} {claim.place} | {verdict_of(sections[name])} |\n"
        for name, claim in CLAIMS.items()
    )
    return f"| name | where | verdict |\n|---|---|---|\n{lines}"


def verdict_of(text: str) -> str:
    """The verdict that a section gives."""
    found = re.search(r": \*\*(\w+)\*\*\. ", text)
    return found[1] if found else "missing"


def sections_of(page: str) -> dict[str, str]:
    """The sections of a page by their names."""
    parts = re.split(r"^(?=## )", page, flags=re.MULTILINE)[1:]
    return {part.split("\n", 1)[0].removeprefix("## "): part for part in parts}


def page(sections: dict[str, str]) -> str:
    """The text of the page."""
    return f"{HEAD}\n{contents(sections)}\n" + "\n".join(sections[name].rstrip() + "\n" for name in CLAIMS)


if __name__ == "__main__":
    wanted = sys.argv[1:] or list(CLAIMS)
    written = sections_of(PAGE.read_text(encoding="utf-8")) if PAGE.exists() else {}
    IMAGES.mkdir(parents=True, exist_ok=True)
    for name in wanted:
        result = reproduce(name, seed=SEED)
        written[name] = section(result)
        (IMAGES / f"{name}.png").write_bytes(image(result))
        print(name, result.verdict, flush=True)
    PAGE.write_text(page(written), encoding="utf-8")
    sys.exit(any(verdict_of(written[name]) == "failed" for name in CLAIMS))
