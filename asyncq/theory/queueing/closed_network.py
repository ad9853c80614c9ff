"""Workers that share one first-come-first-served server: exact staleness, and throughput by product form.

The closed machine-repair model: each of M workers thinks (works) for an exponential time of rate lambda, then queues
for an exponential service of rate mu at one of c seats. Source: docs/theory/closed_network.md,
equations (C.1) to (C.10).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import special
from scipy.fft import irfft, next_fast_len, rfft
from scipy.linalg.lapack import dtbtrs

from asyncq.errors import NoExactLaw
from asyncq.staleness import StalenessLaw

__all__ = ["at_server", "mean_value_analysis", "product_form_throughput", "server_staleness"]

FloatArray = NDArray[np.float64]

_MAX_WORK = 2.5e8  # numbers computed, a step of the slowest loop counted as 1,000: some ten seconds
_ROUNDING = 1e-17
_BLOCK = 4096  # rows in memory at once


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
    The error is that of rounding, below 1e-12.

    Raises :class:`~asyncq.errors.NoExactLaw`, at once, where the sums would be too long.
    """
    if workers < 1 or seats < 1 or work_mean <= 0 or service_mean <= 0:
        raise ValueError("workers and seats must be 1 or more, the means positive")
    if workers == 1:
        return StalenessLaw.constant(0)
    station = _Station(workers - 1, 1.0 / work_mean, 1.0 / service_mean, min(seats, workers))
    if station.work > _MAX_WORK:
        raise NoExactLaw(
            f"the law of {workers} workers at a server with {seats} seats needs too many states",
            "the same scenario with fewer workers" + (" or one seat" if seats > 1 else ""),
        )
    pmf = _joined_later(station.while_working(), station.until_served())
    pmf = np.where(pmf > _ROUNDING, pmf, 0.0)
    pmf = pmf[: int(np.flatnonzero(pmf)[-1]) + 1]
    return StalenessLaw(pmf / pmf.sum(), source="exact", name="closed network", error=1e-12)


class _Station:
    """The other jobs at the server, seen from a tagged job that works, waits and is served.

    States that a job finds with a probability below 1e-19 are left out: ``low`` to ``high`` while it works, 0 to
    ``top`` afterwards."""

    def __init__(self, others: int, rate: float, service: float, seats: int) -> None:
        self.rate, self.service, self.seats = rate, service, seats
        found = at_server(others=others, work_mean=1.0 / rate, service_mean=1.0 / service, seats=seats)
        likely = np.flatnonzero(found > 1e-19)
        self.low, self.high = int(likely[0]), int(likely[-1]) + 1
        self.top = min(others + 1, self.high + (self.high - self.low) // 2 + 8)
        self.found = found[self.low : self.high]
        self.join = (others - np.arange(self.top)) * rate
        waits = max(0, self.high - seats)  # departures before the tagged service, at most
        leaves = 40.0 * (seats - 1) + 1.0  # of the others while it is served
        self.work = 40.0 * others * (self.high - self.low + 1000) + waits * self.top * leaves

    def while_working(self) -> Iterator[FloatArray]:
        """P(a others leave while the tagged job works, k others are at the server when it joins), (C.2): blocks of
        rows a = 0, 1, ..., with columns k from ``low`` to ``high``."""
        states = slice(self.low, self.high)
        leave = np.minimum(np.arange(self.low, self.high), self.seats) * self.service
        join = self.join[states]
        bands = np.asfortranarray([leave + join + self.rate, -join])
        rows, left = [], 1.0
        state = self.found
        while left > 1e-16:
            state = dtbtrs(bands, state, uplo="L")[0]
            rows.append(state * self.rate)
            gone = float(rows[-1].sum())
            left = left - gone if gone > 1e-19 else 0.0
            state = np.append(state[1:] * leave[1:], 0.0)
            if len(rows) == _BLOCK:
                yield np.array(rows)
                rows = []
        if rows:
            yield np.array(rows)

    def until_served(self) -> FloatArray:
        """P(b others leave between the tagged job's joining behind k others and the end of its service), (C.4) and
        (C.5): rows k from ``low`` to ``high``."""
        last, waits = self._in_service(), max(0, self.high - self.seats)
        width = last.shape[1]
        found = np.zeros((self.high - self.low, waits + width))
        for k in range(self.low, min(self.high, self.seats)):
            found[k - self.low, :width] = last[k]
        last = last[self.seats - 1 :]
        bands = np.asfortranarray([np.append(0.0, -self.join[:-1]), self.seats * self.service + self.join])
        for r in range(1, waits + 1):  # departures before its service; at least r + seats - 1 others are there
            k = r + self.seats - 1
            last = dtbtrs(bands[:, k:], self.seats * self.service * last[:-1], uplo="U")[0]
            if k >= self.low:
                found[k - self.low, r : r + width] = last[0]
        return found

    def _in_service(self) -> FloatArray:
        """P(b others leave while the tagged job is served), rows by how many others are there when it begins."""
        leave = np.minimum(np.arange(self.top), self.seats - 1) * self.service
        bands = np.asfortranarray([np.append(0.0, -self.join[:-1]), leave + self.join + self.service])
        columns: list[FloatArray] = []
        right = np.full(self.top, self.service)
        while not columns or columns[-1].max() > 1e-17:
            columns.append(dtbtrs(bands, right, uplo="U")[0])
            right = np.append(0.0, leave[1:] * columns[-1][:-1])
        return np.asfortranarray(np.array(columns).T)


def _joined_later(blocks: Iterator[FloatArray], later: FloatArray) -> FloatArray:
    """The law of a + b from P(a, k), in blocks of rows, and P(b given k): for every k a convolution."""
    total, first = np.zeros(0), 0
    for block in blocks:
        size = block.shape[0] + later.shape[1] - 1
        points = next_fast_len(size, real=True)
        spectrum = np.zeros(points // 2 + 1, dtype=np.complex128)
        for some in np.array_split(np.arange(later.shape[0]), 1 + later.shape[0] // 64):
            spectrum += np.sum(rfft(block[:, some].T, points) * rfft(later[some], points), axis=0)
        total = np.pad(total, (0, first + size - total.size))
        total[first:] += irfft(spectrum, points)[:size]
        first += block.shape[0]
    return total


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
