"""Renews the terminal output that pages show: every text block right after a console block with a single command.

Run it from the root after a change to a report: ``python docs/generate/shown.py``. ``tests/test_docs.py`` checks that
what is shown is the real output.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from click.testing import CliRunner

from asyncq.cli import main

DOCS = Path(__file__).parents[1]
PAGES = ("quickstart.md", "choosing-momentum.md")
PAIR = re.compile(r"(^```console\n\$ (asyncq [^\n]*)\n```\n\n```text\n)(.*?)(^```$)", re.MULTILINE | re.DOTALL)


def renewed(match: re.Match[str]) -> str:
    """The two blocks with the output of today."""
    before, command, _, after = match.groups()
    done = CliRunner().invoke(main, shlex.split(command)[1:], catch_exceptions=False)
    return before + done.stdout + after


if __name__ == "__main__":
    for name in PAGES:
        page = DOCS / name
        page.write_text(PAIR.sub(renewed, page.read_text(encoding="utf-8")), encoding="utf-8")
