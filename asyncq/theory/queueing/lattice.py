"""Lattice cycles: workers that have them never forget the phases they start with.

Source: docs/theory/renewal.md, section "Where no law is known".
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from asyncq.distributions import Empirical, Law, Maximum, Mixture, Scaled, Shifted
from asyncq.errors import NoExactLaw
from asyncq.theory.queueing.renewal_counts import Duration

__all__ = ["are_related", "common_span", "lattice_error", "span_of"]

FloatArray = NDArray[np.float64]


def lattice_error(workers: Sequence[int], cycles: Sequence[Duration], *, refused_above: float) -> float:
    """A bound on what ties change if the phases can only lie on a lattice; 0 if they cannot.

    Two workers with lattice cycles meet on the lattice of their common span, whatever the cycles of the others are. If
    it is long their relative phase stays for ever. If it is short against the time between commits, ties are rare.

    Raises :class:`~asyncq.errors.NoExactLaw` where the phases of two workers, or of three and more together, stay.
    """
    spans: list[float] = []
    common = 0.0
    for count, cycle in zip(workers, cycles, strict=True):
        span = span_of(cycle)
        if span is not None:
            pairs = [common_span([span, other]) for other in spans] + [span] * (count > 1)
            common = max([common, *pairs])
            spans.append(span)
    rate = sum(n / cycle.mean for n, cycle in zip(workers, cycles, strict=True))
    error = 2.0 * common * rate
    long = [span for span in spans if 2.0 * span * rate > refused_above]
    related = len(long) > 2 and (len(long) > 4 or are_related(long))
    if error <= refused_above and not related:
        return error
    reason = (
        f"the times of two or more workers are multiples of {common:.6g} s"
        if error > refused_above
        else "the constant or lattice times of three or more workers are commensurable"
    )
    raise NoExactLaw(
        f"{reason}, so that they keep their initial phases and tie: the long-run law depends on how they start",
        "work times with a density (for instance gamma of small cv), or equal constant times (round robin)",
    )


def _atoms(law: Law) -> FloatArray | None:
    """The values of a law that has finitely many, else None."""
    if law.is_constant:
        return np.array([law.mean])
    if isinstance(law, Empirical):
        return np.unique(law.times)
    if isinstance(law, Scaled | Shifted):
        inner = _atoms(law.of if isinstance(law, Scaled) else law.plus)
        if inner is None:
            return None
        return law.factor * inner if isinstance(law, Scaled) else law.minimum + inner
    if isinstance(law, Mixture | Maximum):
        parts = [_atoms(part) for part in (law.laws if isinstance(law, Mixture) else law.members)]
        known = [part for part in parts if part is not None]
        return np.unique(np.concatenate(known)) if len(known) == len(parts) else None
    return None


def span_of(duration: Duration) -> float | None:
    """The largest time of which every duration is a multiple, to nine digits; None for a law that is not made of atoms.

    That is the greatest common divisor of one sum of atoms and of the differences of the atoms of each leg.
    """
    shortest, differences = duration.offset, list[float]()
    for leg in duration.random:
        atoms = _atoms(leg)
        if atoms is None:
            return None
        shortest += float(atoms[0])
        differences += np.diff(atoms).tolist()
    return common_span([shortest, *differences])


def common_span(times: Sequence[float]) -> float:
    """The greatest common divisor of times; of incommensurable ones, less than a billionth of the longest.

    Euclid's algorithm on floats: a remainder below a millionth of the divisor is none.
    """
    longest = max(times)
    divisor = longest
    for time in times:
        a, b = time, divisor
        while b > 1e-6 * a and a > 1e-9 * longest:
            a, b = b, abs(a - b * round(a / b))
        divisor = divisor / max(1, round(divisor / a)) if a > 1e-9 * longest else a
        if divisor <= 1e-9 * longest:
            break
    return divisor


def are_related(periods: Sequence[float], largest: int = 6) -> bool:
    """Whether whole numbers up to ``largest``, not all 0, make the sum of n_i / period_i vanish (to twelve digits)."""
    rates = 1.0 / np.array(periods)
    numbers = itertools.product(range(-largest, largest + 1), repeat=len(periods))
    sums = np.abs(np.array(list(numbers)) @ rates)
    return int(np.count_nonzero(sums < 1e-12 * rates.max())) > 1
