"""Results that show themselves: the terminal's report, a single line, a table with a figure.

The words are written in ``asyncq.text`` and the figures drawn in ``asyncq.plots``, layers above; they are found by name
when somebody asks, and never imported from below.
"""

from __future__ import annotations

import importlib
import io
from html import escape
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Shown"]


class Shown:
    """A result whose ``str`` is the terminal's report and ``repr`` a single line; in notebooks a table with its figure.

    A subclass names the function of ``asyncq.text`` that writes it (``text="module.function"``), and if it has a figure
    the function of ``asyncq.plots`` that draws it on axes (``figure=``, likewise); :meth:`facts` is the table.
    """

    _text: ClassVar[str]
    _figure: ClassVar[str | None] = None

    def __init_subclass__(cls, *, text: str, figure: str | None = None) -> None:
        super().__init_subclass__()
        cls._text, cls._figure = text, figure

    def facts(self) -> dict[str, str]:
        """The few facts that a line or a small table holds, by name; the first is the title."""
        raise NotImplementedError

    def __str__(self) -> str:
        return str(_above("text", self._text)(self)).rstrip("\n")

    def __repr__(self) -> str:
        (_, title), *facts = self.facts().items()
        return f"<{type(self).__name__} {title}: " + "; ".join(f"{name} {value}" for name, value in facts) + ">"

    def _repr_html_(self) -> str:
        cells = ((escape(name), escape(value)) for name, value in self.facts().items())
        rows = "".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in cells)
        return f"<table>{rows}</table>{self._svg() if self._is_drawn else ''}"

    @property
    def _is_drawn(self) -> bool:
        """Whether there is something to draw."""
        return self._figure is not None

    def _svg(self) -> str:
        from matplotlib.figure import Figure

        figure, file = Figure(figsize=(7, 3.6), layout="constrained"), io.StringIO()
        self._draw(figure.subplots())
        figure.savefig(file, format="svg")
        picture = file.getvalue()
        return picture[picture.index("<svg") :]

    def _draw(self, axes: Axes) -> None:
        if self._figure is None:
            raise TypeError(f"a {type(self).__name__} has no figure")
        _above("plots", self._figure)(self, axes)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the result on ``ax``, by default on a new figure of pyplot; return the axes."""
        if ax is None:
            from matplotlib import pyplot

            ax = pyplot.figure(figsize=(7, 3.6), layout="constrained").subplots()
        self._draw(ax)
        return ax


def _above(folder: str, name: str) -> Any:
    """A function of ``text`` or ``plots`` by the name "module.function": the only call upwards."""
    module, function = name.split(".")
    return getattr(importlib.import_module(f"asyncq.{folder}.{module}"), function)
