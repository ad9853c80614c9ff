"""Sphinx configuration. The build needs no network: ``python -m sphinx -W -b html docs docs/_build``."""

import sys
from pathlib import Path

import asyncq

sys.path.insert(0, str(Path(__file__).parent / "generate"))
import drawings  # the timelines of the protocol pages
import imports  # of the design page
import laws  # the figures of the theory pages
import preemption_figure  # a preemption over wall-clock time
import replay_figure  # replay against Theorem 5
import stability_figure  # expectation against mean square
import staleness_budget_figure  # what a staleness budget buys

project = "asyncq"
author = "The asyncq developers"
copyright = author
version = release = asyncq.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.mathjax"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build", "_generated", "generate"]

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"

html_theme = "furo"
html_title = "asyncq"
html_copy_source = False


def setup(app):
    """Draw what the pages include before they are read."""
    app.connect("builder-inited", drawings.draw_all)
    app.connect("builder-inited", stability_figure.draw)
    app.connect("builder-inited", preemption_figure.draw)
    app.connect("builder-inited", staleness_budget_figure.draw)
    app.connect("builder-inited", imports.draw)
    app.connect("builder-inited", laws.draw_all)
    app.connect("builder-inited", replay_figure.draw)
