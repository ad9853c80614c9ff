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
    tuned,
    diverged,
    limit,
):
    """Updates ``begin`` .. ``end`` - 1 of all configurations; state arrays are changed in place; the next point to
    record is returned.

    The gradient at u, by ``kind``: MODES curvature u (1 + xi) + noise, a sample each; otherwise s x + r u with
    z = x.u: LEAST_SQUARES s = z - y, r = ridge; LOGISTIC s = -y / (1 + exp(y z)), r = ridge; PCA s = -z, r = z^2.
    G = sum over the rows of an update of weight times gradient; d = (G - back G_last) / (1 - back);
    velocity = momentum velocity' - step d, velocity' the last one, or as read if ``shifted``; w += velocity.
    ``control`` = (gain, target, memory) moves the momenta after each update; gain 0: not at all.
    """
    configurations, d = w.shape
    gradient, ratio = np.empty(d), np.empty(d)
    noisy, wild = additive.shape[0] > 0, multiplicative.shape[0] > 0
    base, batch = first[begin], index.shape[1]
    undo = 1.0 / (1.0 - back)
    gain, goal, memory = control
    for t in range(begin, end):
        if keep[t] >= 0:
            s = keep[t]
            for c in range(configurations):
                for m in range(d):
                    past[s, c, m] = w[c, m]
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
            for i in range(i0, i1):
                s, weight = row_slot[i], row_weight[i]
                if kind == MODES:
                    if wild:
                        for m in range(d):
                            factor = weight * (1.0 + multiplicative[i - base, m])
                            gradient[m] += factor * curvature[m] * past[s, c, m]
                    else:
                        for m in range(d):
                            gradient[m] += weight * curvature[m] * past[s, c, m]
                else:
                    line = i - base if index.shape[0] > 1 else 0
                    weight /= batch
                    for j in range(batch):
                        sample = index[line, j]
                        z = 0.0
                        for m in range(d):
                            z += table[sample, m] * past[s, c, m]
                        if kind == LEAST_SQUARES:
                            along, shrink = z - target[sample], ridge
                        elif kind == LOGISTIC:
                            y = target[sample]
                            along, shrink = -y / (1.0 + np.exp(y * z)), ridge
                        else:
                            along, shrink = -z, z * z
                        along, shrink = weight * along, weight * shrink
                        for m in range(d):
                            gradient[m] += along * table[sample, m] + shrink * past[s, c, m]
            if back != 0.0:
                for m in range(d):
                    fresh = gradient[m]
                    gradient[m] = undo * (fresh - back * last_gradient[c, m])
                    last_gradient[c, m] = fresh
            if gain > 0.0:
                for m in range(d):
                    ratio[m] = velocity[c, m]
            a, mu = step[c], momentum[c]
            if shifted:
                share = 1.0 / (i1 - i0)
                for m in range(d):
                    velocity[c, m] = 0.0
                for i in range(i0, i1):
                    s = row_slot[i]
                    for m in range(d):
                        velocity[c, m] += mu * share * past_velocity[s, c, m]
                for m in range(d):
                    velocity[c, m] -= a * gradient[m]
            else:
                for m in range(d):
                    velocity[c, m] = mu * velocity[c, m] - a * gradient[m]
            if gain > 0.0:
                momentum[c] = _controlled(
                    c, t, kind, curvature, ridge, table, target, index, i0 - base, a, mu, w, velocity, ratio, smooth,
                    gain, goal, memory,
                )
            size = 0.0
            for m in range(d):
                w[c, m] += velocity[c, m]
                size += w[c, m] * w[c, m]
            if not size <= limit:
                diverged[c] = t + 1
        if at < points.size and points[at] == t + 1:
            for c in range(configurations):
                for m in range(d):
                    recorded[at, c, m] = w[c, m] if diverged[c] < 0 else np.nan
                tuned[at, c] = momentum[c]
            at += 1
    return at


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _controlled(c, t, kind, curvature, ridge, table, target, index, line, a, mu, w, velocity, before, smooth, gain,
                goal, memory):  # type: ignore[no-untyped-def]  # fmt: skip
    """The closed-loop controller's next momentum, from averages of d_t = the step less mu times the one before, of
    d_{t-1} and of the undelayed gradient; see `asyncq.sgd.replay.Controller`."""
    d = w.shape[1]
    if kind == MODES:
        z, along, shrink, sample = 0.0, 0.0, 0.0, 0
    else:
        sample, z = index[line if index.shape[0] > 1 else 0, 0], 0.0
        for m in range(d):
            z += table[sample, m] * w[c, m]
        if kind == LEAST_SQUARES:
            along, shrink = z - target[sample], ridge
        elif kind == LOGISTIC:
            y = target[sample]
            along, shrink = -y / (1.0 + np.exp(y * z)), ridge
        else:
            along, shrink = -z, z * z
    for m in range(d):
        if kind == MODES:
            slope = curvature[m] * w[c, m]
        else:
            slope = along * table[sample, m] + shrink * w[c, m]
        own = velocity[c, m] - mu * before[m]
        smooth[c, 0, m] = memory * smooth[c, 0, m] + (1.0 - memory) * (own + a * slope)
        smooth[c, 1, m] = memory * smooth[c, 1, m] + (1.0 - memory) * (smooth[c, 2, m] + a * slope)
        smooth[c, 2, m] = own
        before[m] = smooth[c, 0, m] / smooth[c, 1, m]
    if t * (1.0 - memory) < 1.0:
        return mu
    implicit = np.median(before)
    if not np.isfinite(implicit):
        return mu
    return min(0.99, max(-0.99, mu + gain * (goal - mu - implicit)))
