"""The house keeps its plan: imports point down, heavy modules wait, and the exported names are the real ones.

The plan is docs/design.md. The checks read source text with ``ast``; only the tests on names import anything.
"""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import asyncq

ROOT = Path(asyncq.__file__).parent
DESIGN = Path(__file__).parents[1] / "docs" / "design.md"

LAYERS: dict[str, int] = {
    stem: layer
    for layer, stems in enumerate(
        (
            "errors",
            "scenario plan_table mistakes overrides starter protocols state graphs network machines clients "
            "distributions staleness spelling estimate",
            "engines variates theory",
            "run findings replications timeline statistics",
            "sgd papers verification",
            "planner advice",
            "plots chart",
            "cli report briefing plan_report files __main__",
        )
    )
    for stem in stems.split()
}
HEAVY = ("numba", "statsmodels", "matplotlib", "scipy.stats", "joblib", "rich", "pandas")
MAY_BE_HEAVY = {
    ("asyncq.engines.compiled", "numba"),
    ("asyncq.engines.kernel", "numba"),
    ("asyncq.engines.machine_code", "numba"),
    ("asyncq.sgd.kernels", "numba"),
}


@dataclass(frozen=True)
class Import:
    """One imported module: its full name, its line, and whether importing the file imports it too."""

    target: str
    line: int
    at_top: bool


def modules() -> dict[str, Path]:
    """Every module of the package that can be imported: dotted name to file."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        if path.stem == "__main__":
            continue
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def is_type_checking(test: ast.expr) -> bool:
    return ast.unparse(test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}


def imports_by_call(node: ast.AST) -> bool:
    """Whether this is ``import_module("a.b")`` or the like, with the name written out."""
    if not (isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant)):
        return False
    return ast.unparse(node.func).split(".")[-1] in {"import_module", "__import__"}


def imports(source: str, module: str, *, is_package: bool = False) -> Iterator[Import]:
    """The imports of a source text, those under ``if TYPE_CHECKING:`` left out."""

    def walk(node: ast.AST, at_top: bool) -> Iterator[Import]:
        if isinstance(node, ast.If) and is_type_checking(node.test):
            for child in node.orelse:
                yield from walk(child, at_top)
            return
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, at_top)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module.split(".") if is_package else module.split(".")[:-1]
                base = ".".join([*package[: len(package) - node.level + 1], *filter(None, [base])])
            for alias in node.names:
                yield Import(f"{base}.{alias.name}", node.lineno, at_top)
        elif imports_by_call(node):
            yield Import(str(node.args[0].value), node.lineno, at_top)
        inside = at_top and not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for child in ast.iter_child_nodes(node):
            yield from walk(child, inside)

    yield from walk(ast.parse(source), True)


def home(target: str) -> str | None:
    """The part of asyncq, as a key of ``LAYERS``, that an imported name belongs to; None if it has no layer.

    ``from asyncq import simulate`` is an import of ``run``: the lazy exports are no way round the rule.
    """
    parts = target.split(".")
    if parts[0] != "asyncq" or len(parts) == 1:
        return None
    stem = asyncq._HOMES.get(parts[1], parts[1])
    if stem in LAYERS or (ROOT / f"{stem}.py").exists() or (ROOT / stem).is_dir():
        return stem
    return None  # a name of asyncq/__init__.py itself, such as __version__


def problems(source: str, module: str, *, is_package: bool = False) -> list[str]:
    """What a source text does against the plan, one line each."""
    found = []
    own = module.split(".")[1] if "." in module else "errors"  # the package itself stands on the ground
    if own not in LAYERS:
        return [f"{module} has no layer: give it one here and in docs/design.md"]
    for item in imports(source, module, is_package=is_package):
        where = f"{module}:{item.line}"
        other = home(item.target)
        if other is not None and other not in LAYERS:
            found.append(f"{where}: {item.target} has no layer")
        elif other is not None and LAYERS[other] > LAYERS[own]:
            found.append(f"{where}: imports up, {own} ({LAYERS[own]}) -> {other} ({LAYERS[other]})")
        if {own, other} == {"engines", "theory"}:
            found.append(f"{where}: engines and theory never import each other")
        for heavy in HEAVY:
            matches = item.target == heavy or item.target.startswith(f"{heavy}.")
            if item.at_top and matches and (module, heavy) not in MAY_BE_HEAVY:
                found.append(f"{where}: {heavy} is imported where it is used, not at the top")
    return found


def reached(start: str) -> set[str]:
    """Every module that the modules of a part import, directly or through others, types apart."""
    known = modules()

    def loaded(name: str) -> Iterator[str]:
        path = known[name]
        for item in imports(path.read_text(encoding="utf-8"), name, is_package=path.stem == "__init__"):
            parts = item.target.split(".")
            if len(parts) > 1 and parts[0] == "asyncq":
                parts[1] = asyncq._HOMES.get(parts[1], parts[1])
            yield from (prefix for n in range(2, len(parts) + 1) if (prefix := ".".join(parts[:n])) in known)

    found: set[str] = set()
    waiting = [name for name in known if name.split(".")[1:2] == [start]]
    while waiting:
        new = set(loaded(waiting.pop())) - found
        found |= new
        waiting.extend(new)
    return found


def order_of_names(name: str) -> tuple[int, str]:
    """Constants, then classes, then the rest, each in alphabetical order: the order that ruff (RUF022) keeps."""
    return (0 if name.isupper() and len(name) > 1 else 1 if name[0].isupper() else 2, name)


# -- the plan is kept -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", modules())
def test_imports_point_down_and_heavy_modules_wait(module: str) -> None:
    path = modules()[module]
    assert problems(path.read_text(encoding="utf-8"), module, is_package=path.stem == "__init__") == []


def test_theory_reaches_no_engine_even_through_others() -> None:
    assert [name for name in sorted(reached("theory")) if name.startswith("asyncq.engines")] == []


def test_the_search_through_others_finds_what_is_there() -> None:
    assert {"asyncq.variates", "asyncq.network", "asyncq.protocols", "asyncq.state"} <= reached("engines")
    assert "asyncq.estimate" in reached("statistics")


def test_the_design_page_names_every_module() -> None:
    text = DESIGN.read_text(encoding="utf-8")
    stems = {path.parent.name if path.stem == "__init__" else path.stem for path in modules().values()}
    assert [stem for stem in sorted(stems) if not re.search(rf"\b{stem}\b", text)] == []


# -- the check can fail -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("asyncq.staleness", "from asyncq.run import simulate"),
        ("asyncq.staleness", "from .run import simulate"),
        ("asyncq.staleness", "from . import run"),
        ("asyncq.staleness", "from asyncq import simulate"),
        ("asyncq.staleness", "def f():\n    import asyncq.cli"),
        ("asyncq.staleness", "import importlib\nimportlib.import_module('asyncq.plots')"),
        ("asyncq.theory.momentum", "from ..statistics import goodness"),
        ("asyncq.theory.momentum", "from asyncq.engines.process import ProcessEngine"),
        ("asyncq.engines.process", "def f():\n    from asyncq.theory import momentum"),
        ("asyncq.plots", "import matplotlib.pyplot as plt"),
        ("asyncq.distributions", "from scipy import stats"),
        ("asyncq.distributions", "try:\n    import pandas\nexcept ImportError:\n    pass"),
        ("asyncq.distributions", "class Law:\n    import joblib"),
        ("asyncq.engines.process", "import numba"),
        ("asyncq.engines.compiled", "import matplotlib"),
        ("asyncq.cli", "if TYPE_CHECKING:\n    pass\nelse:\n    import rich.console"),
        ("asyncq.attic", "import math"),
    ],
)
def test_the_check_sees_a_wrong_import(module: str, source: str) -> None:
    assert len(problems(source, module)) >= 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("asyncq.scenario", "from asyncq.protocols import KINDS\nfrom asyncq.errors import ScenarioError"),
        ("asyncq.staleness", "if TYPE_CHECKING:\n    from asyncq.run import Run\n    import pandas"),
        ("asyncq.statistics.fitting", "from . import goodness"),
        ("asyncq.run", "from asyncq import __version__, StalenessLaw"),
        ("asyncq.plots", "def staleness():\n    import matplotlib.pyplot as plt"),
        ("asyncq.engines.compiled", "import numba"),
        ("asyncq.distributions", "import scipy.special\nimport richness"),
        ("asyncq.statistics.fitting", "from asyncq.theory.momentum import is_momentum"),
    ],
)
def test_the_check_lets_a_right_import_pass(module: str, source: str) -> None:
    assert problems(source, module) == []


# -- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", modules())
def test_exported_names_are_sorted_and_exist(module: str) -> None:
    loaded = importlib.import_module(module)
    names = getattr(loaded, "__all__", None)
    if names is None and modules()[module].stem in {"__init__", "__main__"}:
        pytest.skip("a package that exports nothing")
    assert names is not None, f"{module} has no __all__"
    assert list(names) == sorted(set(names), key=order_of_names)
    assert [name for name in names if not hasattr(loaded, name)] == []


def test_the_package_exports_what_it_can_load() -> None:
    assert set(asyncq.__all__) == set(asyncq._HOMES)
    assert set(asyncq.__all__) <= set(dir(asyncq))
    for name, stem in asyncq._HOMES.items():
        assert getattr(asyncq, name) is getattr(importlib.import_module(f"asyncq.{stem}"), name)
        assert name in importlib.import_module(f"asyncq.{stem}").__all__


def test_the_package_shows_type_checkers_the_same_names() -> None:
    tree = ast.parse((ROOT / "__init__.py").read_text(encoding="utf-8"))
    blocks = [node for node in tree.body if isinstance(node, ast.If) and is_type_checking(node.test)]
    shown = {
        alias.name: str(statement.module).removeprefix("asyncq.")
        for block in blocks
        for statement in block.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }
    assert shown == asyncq._HOMES


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'sumulate'"):
        _ = asyncq.sumulate
