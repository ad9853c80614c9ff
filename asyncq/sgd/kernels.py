"""The update itself, compiled: every step size and momentum of one replication at once, a block of updates at a time.

Like the compiled engine this module imports numba at its top, and is imported only when it is used. `asyncq.sgd.plain`
does the same in numpy, for gradients that are Python and as a check.
"""

from __future__ import annotations

import numba
import numpy as np

__all__ = ["LEAST_SQUARES", "LOGISTIC", "MODES", "PCA", "advance", "slots"]

MODES, LEAST_SQUARES, LOGISTIC, PCA = range(4)  # what a gradient is; see `advance`


@numba.njit(cache=True, nogil=True)
def slots(first, read):  # type: ignore[no-untyped-def]
    """Where versions are kept until their last read: (slot of version t or -1 if nobody reads it, slot that each row
    reads, slots in all). A version frees its slot with its last read, so no more are kept than are held at once."""
    updates = first.size - 1
    last = np.full(updates, -1, np.int64)
    for t in range(updates):
        for i in range(first[t], first[t + 1]):
            last[read[i]] = t
    keep, row = np.full(updates, -1, np.int64), np.empty(read.size, np.int64)
    free, spare, count = np.empty(updates, np.int64), 0, 0
    for t in range(updates):
        if last[t] >= 0:
            if spare > 0:
                spare -= 1
                keep[t] = free[spare]
            else:
                keep[t] = count
                count += 1
        for i in range(first[t], first[t + 1]):
            version = read[i]
            row[i] = keep[version]
        for i in range(first[t], first[t + 1]):
            version = read[i]
            if last[version] == t:
                last[version] = -1
                free[spare] = keep[version]
                spare += 1
    return keep, row, count


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract"}, error_model="numpy")
def _add(  # type: ignore[no-untyped-def]
    gradient, weight, where, s, c, line, kind, curvature, ridge, multiplicative, table, target, index
):
    """Add ``weight`` times the gradient of the row ``line`` of the block at ``where[s, c]``."""
    d = gradient.size
    if kind == MODES:
        if multiplicative.shape[0] > 0:
            for m in range(d):
                gradient[m] += weight * (1.0 + multiplicative[line, m]) * curvature[m] * where[s, c, m]
        else:
            for m in range(d):
                gradient[m] += weight * curvature[m] * where[s, c, m]
        return
    if index.shape[0] == 1:
        line = 0
    weight /= index.shape[1]
    for j in range(index.shape[1]):
        sample = index[line, j]
        z = 0.0
        for m in range(d):
            z += table[sample, m] * where[s, c, m]
        if kind == LEAST_SQUARES:
            along, shrink = z - target[sample], ridge
        elif kind == LOGISTIC:
            y = target[sample]
            along, shrink = -y / (1.0 + np.exp(y * z)), ridge
        else:
            along, shrink = -z, z * z
        along, shrink = weight * along, weight * shrink
        for m in range(d):
            gradient[m] += along * table[sample, m] + shrink * where[s, c, m]


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract"}, error_model="numpy")
def advance(  # type: ignore[no-untyped-def]
    begin,
    end,
    first,
    row_slot,
    row_weight,
    keep,
    kind,
    curvature,
    ridge,
    additive,
    multiplicative,
    table,
    target,
    index,
    step,
    momentum,
    back,
    shifted,
    control,
    w,
    velocity,
    last_gradient,
    smooth,
    past,
    past_velocity,
    points,
    at,
    recorded,
    diverged,
    limit,
):
    """Updates ``begin`` .. ``end`` - 1 of all C configurations; state arrays are changed in place; the next point to
    record is returned. ``w`` has shape (1, C, d), ``past`` (slots, C, d).

    The gradient at u, by ``kind``: MODES curvature u (1 + xi) + noise; otherwise s x + r u with z = x.u:
    LEAST_SQUARES s = z - y, r = ridge; LOGISTIC s = -y / (1 + exp(y z)), r = ridge; PCA s = -z, r = z^2.
    G = sum over the rows of an update of weight times gradient; d = (G - back G_last) / (1 - back);
    velocity = momentum velocity' - step d, velocity' the last one, or as read if ``shifted``; w += velocity.
    ``control`` = (gain, target, memory) moves the momenta after each update; gain 0: not at all.
    """
    configurations, d = w.shape[1], w.shape[2]
    gradient, fresh = np.empty(d), np.empty(d)
    noisy, base, undo = additive.shape[0] > 0, first[begin], 1.0 / (1.0 - back)
    gain, goal, memory = control
    for t in range(begin, end):
        if keep[t] >= 0:
            s = keep[t]
            for c in range(configurations):
                for m in range(d):
                    past[s, c, m] = w[0, c, m]
                if shifted:
                    for m in range(d):
                        past_velocity[s, c, m] = velocity[c, m]
        i0, i1 = first[t], first[t + 1]
        square = 0.0
        for i in range(i0, i1):
            square += row_weight[i] * row_weight[i]
        spread = np.sqrt(square)
        for c in range(configurations):
            if diverged[c] >= 0:
                continue
            if noisy:
                for m in range(d):
                    gradient[m] = spread * additive[t - begin, m]
            else:
                for m in range(d):
                    gradient[m] = 0.0
            if gain > 0.0:  # what the same samples say of the version as it is
                for m in range(d):
                    fresh[m] = gradient[m]
                for i in range(i0, i1):
                    _add(fresh, row_weight[i], w, 0, c, i - base, kind, curvature, ridge, multiplicative, table,
                         target, index)  # fmt: skip
            for i in range(i0, i1):
                _add(gradient, row_weight[i], past, row_slot[i], c, i - base, kind, curvature, ridge, multiplicative,
                     table, target, index)  # fmt: skip
            if back != 0.0:
                for m in range(d):
                    raw = gradient[m]
                    gradient[m] = undo * (raw - back * last_gradient[c, m])
                    last_gradient[c, m] = raw
            a, mu = step[c], momentum[c]
            if shifted:
                share = mu / (i1 - i0)
                for m in range(d):
                    velocity[c, m] = 0.0
                for i in range(i0, i1):
                    s = row_slot[i]
                    for m in range(d):
                        velocity[c, m] += share * past_velocity[s, c, m]
                for m in range(d):
                    velocity[c, m] -= a * gradient[m]
            else:
                for m in range(d):
                    velocity[c, m] = mu * velocity[c, m] - a * gradient[m]
            if gain > 0.0:
                for m in range(d):  # without the explicit part the step is -a times the stale gradient
                    pull = a * fresh[m]
                    smooth[c, 0, m] = memory * smooth[c, 0, m] + (1.0 - memory) * (pull - a * gradient[m])
                    smooth[c, 1, m] = memory * smooth[c, 1, m] + (1.0 - memory) * (pull + smooth[c, 2, m])
                    smooth[c, 2, m] = -a * gradient[m]
                    fresh[m] = smooth[c, 0, m] / smooth[c, 1, m]
                if t * (1.0 - memory) > 1.0:
                    implicit = np.median(fresh)
                    if np.isfinite(implicit):
                        momentum[c] = min(0.99, max(-0.99, mu + gain * (goal - mu - implicit)))
            size = 0.0
            for m in range(d):
                w[0, c, m] += velocity[c, m]
                size += w[0, c, m] * w[0, c, m]
            if not size <= limit:
                diverged[c] = t + 1
        if at < points.size and points[at] == t + 1:
            for c in range(configurations):
                for m in range(d):
                    recorded[at, c, m] = w[0, c, m] if diverged[c] < 0 else np.nan
            at += 1
    return at
