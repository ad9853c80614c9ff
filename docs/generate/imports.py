"""The import graph of asyncq: which module imports which, drawn with a folder as one node.

``python docs/generate/imports.py`` prints the graph; the docs draw it. ``tests/test_layers.py`` holds it to the
rules of docs/design.md. Imports inside functions count; those under ``if TYPE_CHECKING:`` do not.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import asyncq

ROOT = Path(asyncq.__file__).parent
GENERATED = Path(__file__).parents[1] / "_generated"


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
    """Whether this is the condition of a block for type checkers only."""
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


def imported_modules(name: str, known: Mapping[str, Path]) -> set[str]:
    """The modules of asyncq that a module imports; a lazy export of the package counts as its home."""
    found = set()
    for item in imports(known[name].read_text(encoding="utf-8"), name, is_package=known[name].stem == "__init__"):
        target = item.target
        if target.startswith("asyncq.") and (parts := target.split("."))[1] in asyncq._HOMES:
            target = ".".join(["asyncq", asyncq._HOMES[parts[1]], *parts[2:]])
        while target not in known and "." in target:
            target = target.rpartition(".")[0]
        if target in known and target not in (name, "asyncq"):
            found.add(target)
    return found


def module_graph() -> dict[str, set[str]]:
    """Every module and the modules that it imports."""
    known = modules()
    return {name: imported_modules(name, known) for name in known}


def node_graph() -> dict[str, set[str]]:
    """The same with a folder as one node, without the arrows inside a node."""
    found: dict[str, set[str]] = {}
    for name, targets in module_graph().items():
        if name != "asyncq":
            node = name.split(".")[1]
            found.setdefault(node, set()).update(target.split(".")[1] for target in targets)
            found[node].discard(node)
    return found


def cycles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """The groups of nodes that reach one another (Tarjan's strongly connected components of two nodes and more)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph[node]):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            at = stack.index(node)
            if len(stack) - at > 1:
                found.append(sorted(stack[at:]))
            del stack[at:]

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found


def levels(graph: Mapping[str, set[str]]) -> dict[str, int]:
    """The height of every node of a graph without cycles: 0 imports nothing, others stand above all they import."""
    found: dict[str, int] = {}

    def height(node: str) -> int:
        if node not in found:
            found[node] = 1 + max((height(other) for other in graph[node]), default=-1)
        return found[node]

    for node in graph:
        height(node)
    return found


def draw(app: object = None) -> None:
    """The graph as a figure, and a page snippet with its size."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    graph = node_graph()
    height = levels(graph)
    rows = [sorted(node for node in graph if height[node] == level) for level in range(1 + max(height.values()))]
    place = {node: ((at + 0.5) / len(row) * 10, level) for level, row in enumerate(rows) for at, node in enumerate(row)}
    figure = Figure(figsize=(8, 0.62 * len(rows) + 0.4), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    axes.axis("off")
    for node, others in graph.items():
        for other in others:
            (x, y), (to_x, to_y) = place[node], place[other]
            near = y - to_y == 1
            axes.annotate("", (to_x, to_y + 0.22), (x, y - 0.22), arrowprops={
                "arrowstyle": "-|>", "color": "0.35" if near else "0.8", "linewidth": 0.7, "shrinkA": 0, "shrinkB": 0,
                "connectionstyle": "arc3" if near else "arc3,rad=0.12"})  # fmt: skip
    for node, (x, y) in place.items():
        folder = (ROOT / node).is_dir()
        box = {"boxstyle": "round,pad=0.3", "facecolor": "#dbe9f6" if folder else "white", "edgecolor": "0.3"}
        axes.text(x, y, node, ha="center", va="center", fontsize=9, bbox=box, zorder=3)
    axes.set_xlim(-0.2, 10.2)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    GENERATED.mkdir(exist_ok=True)
    figure.savefig(GENERATED / "imports.svg", metadata={"Date": None})
    many = sum(map(len, graph.values()))
    (GENERATED / "imports.rst").write_text(
        ".. figure:: _generated/imports.svg\n"
        "   :alt: the import graph of asyncq with a folder as one node; every arrow points down\n\n"
        f"   {len(graph)} nodes (folders blue), {many} arrows, {len(rows)} levels,"
        f" {len(cycles(module_graph()))} cycles; imports point down.\n",
        encoding="utf-8",
    )


if __name__ == "__main__":
    shown = node_graph()
    for node, level in sorted(levels(shown).items(), key=lambda item: (-item[1], item[0])):
        print(f"{level:2d}  {node:14s} -> {', '.join(sorted(shown[node]))}")
    print(f"{len(shown)} nodes, {sum(map(len, shown.values()))} arrows; cycles of modules: {cycles(module_graph())}")
