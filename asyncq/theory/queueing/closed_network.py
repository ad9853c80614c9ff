"""Workers that share one first-come-first-served server: exact staleness, and throughput by product form.

The closed machine-repair model: each of M workers thinks (works) for an exponential time of rate lambda, then queues
for an exponential service of rate mu at one of c seats. Source: theory.md section 3.2; docs/theory/closed_network.md,
equations (C.1) to (C.10).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import special

from asyncq.errors import NoExactLaw
from asyncq.staleness import StalenessLaw

__all__ = ["at_server", "mean_value_analysis", "product_form_throughput", "server_staleness"]

FloatArray = NDArray[np.float64]
ComplexArray = NDArray[np.complex128]

_MAX_CELLS = 1 << 20
_MAX_WORK = 4e9  # complex numbers computed with several seats: workers squared times cells
_ROUNDING = 1e-17
_BLOCK = 1 << 17  # complex numbers in memory at once: what stays in the cache


def at_server(*, others: int, work_mean: float, service_mean: float, seats: int = 1) -> FloatArray:
    """P(k of ``others`` jobs are at the server), shape (others + 1,): the steady state of the network without the
    tagged job, which is what a job finds that leaves or joins (arrival theorem). Exact for exponential service and
    any work law.
    """
    k = np.arange(others + 1)
    busy = np.minimum(np.maximum(k, 1), seats)
    steps = np.log(others - k[:-1]) + math.log(service_mean / work_mean) - np.log(busy[1:])
    logs = np.concatenate([[0.0], np.cumsum(steps)])
    weights = np.exp(logs - logs.max())
    return np.asarray(weights / weights.sum())


def server_staleness(*, workers: int, work_mean: float, service_mean: float, seats: int = 1) -> StalenessLaw:
    """The staleness law of ``workers`` alike, with exponential work and one FIFO server of exponential service.

    One seat: as many as have left the server since the tagged job did, and those it then queues behind. Several seats
    let jobs overtake, and the others that leave while the tagged job waits and is served are counted one by one.
    The error is that of rounding and of aliasing, below 1e-12.

    Raises :class:`~asyncq.errors.NoExactLaw` where the sums would be too long.
    """
    if workers < 1 or seats < 1 or work_mean <= 0 or service_mean <= 0:
        raise ValueError("workers and seats must be 1 or more, the means positive")
    if workers == 1:
        return StalenessLaw.constant(0)
    seats = min(seats, workers)
    cells = 1 << max(6, math.ceil(math.log2(16 * workers)))
    while True:
        if cells > _MAX_CELLS or (seats > 1 and float(workers) ** 2 * cells > _MAX_WORK):
            raise NoExactLaw(
                f"the law of {workers} workers at a server with {seats} seats needs too many states",
                "the same scenario with fewer workers" + (" or one seat" if seats > 1 else ""),
            )
        pmf = _by_transform(workers, 1.0 / work_mean, 1.0 / service_mean, seats, cells)
        if float(pmf[-cells // 8 :].max()) * cells < 1e-11:  # so has the tail that would wrap around
            break
        cells *= 2
    pmf = np.where(pmf > _ROUNDING, pmf, 0.0)
    pmf = pmf[: int(np.flatnonzero(pmf)[-1]) + 1]
    return StalenessLaw(pmf / pmf.sum(), source="exact", name="closed network", error=1e-12)


def _by_transform(workers: int, rate: float, service: float, seats: int, cells: int) -> FloatArray:
    """The law from its generating function at the roots of unity, half of which are the conjugates of the others."""
    parts = []
    points = np.exp(-2j * np.pi * np.arange(cells // 2 + 1) / cells)
    for block in np.array_split(points, math.ceil(points.size * workers / _BLOCK)):
        joined = _while_working(workers - 1, rate, service, seats, block)
        if seats == 1:
            parts.append(np.sum(joined * block ** np.arange(workers)[:, None], axis=0))
        else:
            parts.append(_while_at_server(joined, rate, service, seats, block))
    return np.fft.irfft(np.concatenate(parts), cells)


def _while_working(others: int, rate: float, service: float, seats: int, x: ComplexArray) -> ComplexArray:
    """[pi (-A - xD)^{-1}]_k lambda: a departures of the others, weighted with x^a, and k others at the server at the
    end.

    Shape (others + 1, x.size). A is the others' generator without departures and with the end of the tagged work, D the
    departures; both move k by one, so the system is tridiagonal (theory.md section 3.2).
    """
    k = np.arange(others + 1.0)
    leave, join = np.minimum(k, seats) * service, (others - k) * rate
    start = at_server(others=others, work_mean=1.0 / rate, service_mean=1.0 / service, seats=seats)
    return _tridiagonal(start[:, None] * np.ones_like(x) * rate, leave + join + rate, leave, join, x)


def _while_at_server(joined: ComplexArray, rate: float, service: float, seats: int, x: ComplexArray) -> ComplexArray:
    """The generating function, from the states in which the tagged job joins: it waits for k - c + 1 departures, then
    it is served while the others leave from the other seats."""
    others = joined.shape[0] - 1
    served = joined.copy()  # by j others at the server when the tagged service begins
    served[seats:] = 0.0
    waiting = np.zeros_like(joined)  # by j others at the server, r departures before its service, r falling
    for r in range(others - seats + 1, 0, -1):
        left = np.zeros_like(waiting)
        left[:-1] = waiting[1:] * (seats * service * x)  # those for which one more has left
        left[r + seats - 1] += joined[r + seats - 1]
        waiting = np.zeros_like(joined)
        flow = np.zeros_like(x)
        for j in range(r + seats - 1, others + 1):  # the others only arrive until the next departure
            waiting[j] = (left[j] + flow) / (seats * service + (others - j) * rate)
            flow = waiting[j] * ((others - j) * rate)
    served[:-1] += waiting[1:] * (seats * service * x)
    still = np.arange(others + 1.0)
    leave, join = np.minimum(still, seats - 1) * service, (others - still) * rate
    return np.asarray(_tridiagonal(served * service, leave + join + service, leave, join, x).sum(axis=0))


def _tridiagonal(
    right: ComplexArray, total: FloatArray, leave: FloatArray, join: FloatArray, x: ComplexArray
) -> ComplexArray:
    """y with y_k total_k - y_{k-1} join_{k-1} - y_{k+1} leave_{k+1} x = right_k, for every x at once, by
    elimination."""
    n = total.size
    solution = np.array(right, dtype=np.complex128)
    pivots = np.empty_like(solution)
    pivots[0] = total[0]
    for k in range(1, n):
        factor = join[k - 1] / pivots[k - 1]
        pivots[k] = total[k] - factor * (leave[k] * x)
        solution[k] += factor * solution[k - 1]
    solution[n - 1] /= pivots[n - 1]
    for k in range(n - 2, -1, -1):
        solution[k] = (solution[k] + solution[k + 1] * (leave[k + 1] * x)) / pivots[k]
    return solution


# -- throughput -------------------------------------------------------------------------------------------------------


def mean_value_analysis(*, workers: int, think: float, service: float) -> float:
    """Jobs per second of ``workers`` that think ``think`` seconds (any law) and are served ``service`` seconds on
    average by one FIFO server with exponential service: R_n = s (1 + L_{n-1}), X_n = n / (Z + R_n), L_n = X_n R_n.
    """
    length = throughput = 0.0
    for n in range(1, workers + 1):
        response = service * (1.0 + length)
        throughput = n / (think + response)
        length = throughput * response
    return throughput


def product_form_throughput(
    *, workers: Sequence[int], think: Sequence[float], service: float, seats: int = 1
) -> tuple[float, ...]:
    """Jobs per second of each pool: ``workers[i]`` workers that think ``think[i]`` seconds on average (any law), and
    share a FIFO server of ``seats`` with exponential service of ``service`` seconds. Exact (Baskett, Chandy, Muntz
    and Palacios 1975).

    X_i = G(M - e_i) / G(M), with the normalising constant G summed over the number of jobs at the server.
    """
    full = _log_constant(workers, think, service, seats)
    rates = []
    for pool, size in enumerate(workers):
        fewer = [n - (i == pool) for i, n in enumerate(workers)]
        rates.append(math.exp(_log_constant(fewer, think, service, seats) - full) if size else 0.0)
    return tuple(rates)


def _log_constant(workers: Sequence[int], think: Sequence[float], service: float, seats: int) -> float:
    """log G: ways to have m jobs at the server, m! s^m / (product of min(i, c)), over all m and pools."""
    logs = np.zeros(1)
    for size, mean in zip(workers, think, strict=True):
        k = np.arange(size + 1)
        own = special.xlogy(size - k, mean) - special.gammaln(size - k + 1.0) - special.gammaln(k + 1.0)
        logs = _log_convolution(logs, np.asarray(own))
    m = np.arange(logs.size)
    queue = special.gammaln(m + 1.0) + m * math.log(service)
    queue[1:] -= np.cumsum(np.log(np.minimum(m[1:], seats)))
    return float(special.logsumexp(logs + queue))


def _log_convolution(a: FloatArray, b: FloatArray) -> FloatArray:
    """log of the convolution of exp(a) and exp(b)."""
    total = np.full(a.size + b.size - 1, -np.inf)
    if a.size < b.size:
        a, b = b, a
    for shift, value in enumerate(b):
        part = total[shift : shift + a.size]
        np.logaddexp(part, a + value, out=part)
    return total
