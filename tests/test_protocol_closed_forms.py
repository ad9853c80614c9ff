"""Every protocol against the closed forms of docs/theory/conservation.md, renewal.md and closed_network.md, and
the costs of waiting and cancelling.

Chance: a figure is a Student t over 32 batches of a run, or over 16 independent runs, and a right program passes its
limit with probability 1e-6; about 250 figures: false alarm of the file below 1e-3. What is exact is asserted exactly.
"""

from __future__ import annotations

from collections import deque
from math import comb

import numpy as np
import pytest
from cases import LAWS, scenario
from scipy import integrate, stats
from textbook import Figure, from_interval, over_runs, ratio

from asyncq import simulate

CHANCE = 1e-6
SEED = 3
GRADIENTS = 20_000
WORKERS = 6
CONTINUOUS = ["exponential", "gamma", "uniform", "lognormal", "pareto", "hyperexponential"]
SERVER = {"service_time": {"law": "gamma", "mean": 0.1, "cv": 0.5}, "seats": 2}
SYNCHRONOUS = [
    {"kind": "synchronous"},
    {"kind": "k-sync", "k": 4},
    {"kind": "backup-workers", "k": 4},
    {"kind": "k-batch-sync", "k": 9},
]


def close(figure: Figure, exact: float) -> bool:
    return figure.excess(exact, CHANCE) <= 1


def harmonic(first: int, last: int) -> float:
    """1/first + ... + 1/last."""
    return sum(1 / i for i in range(first, last + 1))


def run_of(law="exponential", *, workers=WORKERS, gradients=GRADIENTS, seed=None, per_update=1, **tables):
    work = LAWS[law] if isinstance(law, str) else law
    seed = SEED if seed is None else seed
    return simulate(scenario(work, workers=workers, **tables), updates=gradients // per_update, seed=seed, trace=True)


def committed(run, *, cold=True):
    """Staleness of committed gradients, without the first twentieth."""
    kept = run.trace.staleness[run.trace.fate == list(run.gradients).index("committed")]
    return kept[kept.size // 20 if cold else 0 :]


def two_workers(fast: float, slow: float, *, bound: int, **options):
    """Two exponential workers of these rates under the stale-synchronous protocol."""
    pools = [
        {"name": name, "workers": 1, "work_time": {"law": "exponential", "mean": 1 / rate}}
        for name, rate in (("fast", fast), ("slow", slow))
    ]
    return run_of(pools=pools, protocol={"kind": "stale-synchronous", "bound": bound}, **options)


# -- section 2: mean staleness ----------------------------------------------------------------------------------------


class TestMeanStaleness:
    @pytest.mark.parametrize("server", [None, SERVER], ids=["no server", "server"])
    @pytest.mark.parametrize("law", CONTINUOUS)
    @pytest.mark.parametrize(
        ("protocol", "mean"),
        [
            ({"kind": "asynchronous"}, WORKERS - 1),
            ({"kind": "k-async", "k": 1}, WORKERS - 1),
            ({"kind": "k-async", "k": 4}, WORKERS / 4 - 1),
            ({"kind": "k-batch-async", "k": 4}, (WORKERS - 1) / 4),
            ({"kind": "k-batch-async", "k": 10}, (WORKERS - 1) / 10),
        ],
        ids=lambda value: " ".join(map(str, value.values())) if isinstance(value, dict) else "",
    )
    def test_the_mean_is_that_of_the_conservation_law(self, protocol, mean, law, server):
        tables = {} if server is None else {"server": server}
        run = run_of(law, protocol=protocol, per_update=protocol.get("k", 1), gradients=4_000, **tables)
        assert close(ratio(committed(run)), mean)

    @pytest.mark.parametrize("batch", ["split", "replicated"])
    @pytest.mark.parametrize("law", CONTINUOUS)
    def test_of_groups_it_is_one_less_than_their_number(self, law, batch):
        run = run_of(law, workers=8, groups={"count": 4, "batch": batch, "all_reduce": 0.2}, gradients=4_000)
        assert close(ratio(committed(run)), 3)

    @pytest.mark.parametrize("law", [*CONTINUOUS, "deterministic", "empirical"])
    def test_round_robin_is_always_one_round_old(self, law):
        run = run_of(law, protocol={"kind": "round-robin"}, gradients=3_000)
        assert run.trace.staleness.tolist() == [*range(WORKERS), *[WORKERS - 1] * (run.trace.time.size - WORKERS)]
        assert np.array_equal(run.trace.worker, np.arange(run.trace.time.size) % WORKERS)

    @pytest.mark.parametrize("law", [*CONTINUOUS, "deterministic", "empirical"])
    @pytest.mark.parametrize("protocol", SYNCHRONOUS, ids=lambda table: table["kind"])
    def test_the_synchronous_family_is_never_stale(self, protocol, law):
        run = run_of(law, protocol=protocol, gradients=3_000, per_update=6)
        per_update = protocol.get("k", WORKERS)
        assert not committed(run, cold=False).any()
        assert committed(run, cold=False).size == run.updates * per_update

    @pytest.mark.parametrize("bound", [0, 1, 4])
    @pytest.mark.parametrize("rates", [(1.0, 1.0), (1.5, 1.0)])
    def test_two_stale_synchronous_workers(self, rates, bound):
        """1 - P(the other is blocked at an update): (2s+1)/(2s+2) for equal rates."""
        lead, chance = lead_law(*rates, bound)
        rate = chance @ (rates[0] * (lead <= bound) + rates[1] * (lead >= -bound))
        blocked = (chance[-1] * rates[1] + chance[0] * rates[0]) / rate
        if rates[0] == rates[1]:
            assert 1 - blocked == pytest.approx((2 * bound + 1) / (2 * bound + 2))
        assert close(ratio(committed(two_workers(*rates, bound=bound))), 1 - blocked)

    @pytest.mark.parametrize("law", CONTINUOUS)
    def test_with_bound_0_a_round_is_0_1_2_up_to_all_others(self, law):
        """Nobody starts a clock before all ended the last one; gradients are applied one by one."""
        trace = run_of(law, protocol={"kind": "stale-synchronous", "bound": 0}, gradients=3_000).trace
        assert np.array_equal(trace.staleness, np.arange(3_000) % WORKERS)


def lead_law(fast: float, slow: float, bound: int):
    """By how many commits the first of two exponential workers leads, and with which probability (3.4)."""
    lead = np.arange(-bound - 1, bound + 2)
    weight = (fast / slow) ** lead.astype(float)
    return lead, weight / weight.sum()


class TestReadsFollowFromTheOrderOfCommits:
    """Who commits when in the order decides every version read, whatever the times: recomputed without a clock."""

    LAWS = ("exponential", "gamma", "lognormal", "infinite-variance")

    @pytest.mark.parametrize("server", [None, SERVER], ids=["no server", "server"])
    @pytest.mark.parametrize("k", [1, 2, 6])
    @pytest.mark.parametrize("law", LAWS)
    def test_k_async_reads_as_its_update_is_made(self, law, k, server):
        tables = {} if server is None else {"server": server}
        trace = run_of(law, protocol={"kind": "k-async", "k": k}, per_update=k, gradients=1_500, **tables).trace
        version = np.arange(trace.time.size) // k
        last = np.zeros(WORKERS, dtype=int)
        for update in range(trace.time.size // k):
            who = trace.worker[update * k : update * k + k]
            assert len(set(who.tolist())) == k
            assert np.array_equal(trace.read[update * k : update * k + k], last[who])
            last[who] = update + 1
        assert np.array_equal(trace.staleness, version - trace.read)

    @pytest.mark.parametrize("server", [None, SERVER], ids=["no server", "server"])
    @pytest.mark.parametrize("k", [1, 2, 7])
    @pytest.mark.parametrize("law", LAWS)
    def test_k_batch_async_reads_as_it_pushes(self, law, k, server):
        tables = {} if server is None else {"server": server}
        trace = run_of(law, protocol={"kind": "k-batch-async", "k": k}, per_update=k, gradients=1_500, **tables).trace
        last = np.zeros(WORKERS, dtype=int)
        for push, who in enumerate(trace.worker.tolist()):
            assert trace.read[push] == last[who]
            assert trace.staleness[push] == push // k - last[who]
            last[who] = (push + 1) // k

    @pytest.mark.parametrize("server", [None, SERVER], ids=["no server", "server"])
    @pytest.mark.parametrize("bound", [0, 1, 3])
    @pytest.mark.parametrize("law", LAWS)
    def test_stale_synchronous_reads_as_soon_as_the_slowest_allows(self, law, bound, server):
        tables = {} if server is None else {"server": server}
        protocol = {"kind": "stale-synchronous", "bound": bound}
        trace = run_of(law, protocol=protocol, gradients=1_500, **tables).trace
        clock, read, open_ = np.zeros(WORKERS, dtype=int), np.zeros(WORKERS, dtype=int), np.ones(WORKERS, dtype=bool)
        for version, who in enumerate(trace.worker.tolist()):
            assert open_[who]
            assert trace.read[version] == read[who]
            clock[who] += 1
            open_[who] = False
            released = ~open_ & (clock.min() >= clock - bound)
            read[released], open_[released] = version + 1, True

    @pytest.mark.parametrize("policy", ["reject", "downweight"])
    @pytest.mark.parametrize("maximum", [0, 3, 8])
    @pytest.mark.parametrize("law", LAWS)
    def test_bounded_judges_each_gradient_by_its_staleness(self, law, maximum, policy):
        protocol = {"kind": "bounded", "maximum_staleness": maximum, "policy": policy}
        run = run_of(law, protocol=protocol, gradients=1_000, run={"warmup": "none"})
        trace, kinds = run.trace, list(run.gradients)
        other = kinds.index({"reject": "dropped", "downweight": "downweighted"}[policy])
        last, version = np.zeros(WORKERS, dtype=int), 0
        for row, who in enumerate(trace.worker.tolist()):
            late = version - last[who] > maximum
            assert (trace.read[row], trace.staleness[row]) == (last[who], version - last[who])
            assert trace.fate[row] == (other if late else kinds.index("committed"))
            version += not (late and policy == "reject")
            last[who] = version
        counts = dict(zip(kinds, np.bincount(trace.fate, minlength=len(kinds)).tolist(), strict=True))
        assert run.gradients == counts
        assert version == run.updates == 1_000
        assert 0 < counts[kinds[other]] < trace.time.size


# -- sections 3.1 and 3.3: staleness laws -----------------------------------------------------------------------------


def assert_law(run, pmf):
    """Every cell that is expected at least 100 times, and the rest together."""
    seen = committed(run)
    alone = int(np.argmin(np.append(pmf, 0.0) * seen.size >= 100))
    assert alone >= 1
    for cell in range(alone):
        assert close(ratio(seen == cell), pmf[cell]), cell
    assert close(ratio(seen >= alone), 1 - pmf[:alone].sum())


class TestStalenessLaw:
    @pytest.mark.parametrize("k", [1, 2, 5])
    def test_of_k_async_is_geometric(self, k):
        q = k / WORKERS
        run = run_of(protocol={"kind": "k-async", "k": k}, per_update=k, gradients=30_000)
        assert_law(run, q * (1 - q) ** np.arange(200))

    @pytest.mark.parametrize("k", [1, 2, 5, 9])
    def test_of_k_batch_async(self, k):
        u = 1 - 1 / WORKERS
        j = np.arange(1, 200)
        first = 1 - u * (1 - u**k) / (k * (1 - u))
        rest = u ** ((j - 1) * k + 1) * (1 - u**k) ** 2 / (k * (1 - u))
        pmf = np.append(first, rest)
        assert pmf.sum() == pytest.approx(1)
        assert np.arange(200) @ pmf == pytest.approx((WORKERS - 1) / k)
        assert_law(run_of(protocol={"kind": "k-batch-async", "k": k}, per_update=k, gradients=30_000), pmf)

    def test_of_unequal_exponential_workers_mixes_geometric_laws(self):
        """q_0 = sum p_i^2."""
        rates = np.repeat([3.0, 1.0, 0.3], [1, 2, 3])
        pools = [
            {"name": f"of rate {i}", "workers": n, "work_time": {"law": "exponential", "mean": 1 / rate}}
            for i, (rate, n) in enumerate([(3.0, 1), (1.0, 2), (0.3, 3)])
        ]
        share = (rates / rates.sum())[:, None]
        assert_law(run_of(pools=pools, gradients=60_000), (share**2 * (1 - share) ** np.arange(300)).sum(axis=0))

    @pytest.mark.parametrize(("seats", "mean"), [(1, 0.1), (1, 0.3), (2, 0.4), (3, 0.8)])
    def test_behind_an_exponential_server(self, seats, mean):
        pmf = served_law(WORKERS, 1 / mean, seats)
        assert pmf.sum() == pytest.approx(1)
        assert np.arange(pmf.size) @ pmf == pytest.approx(WORKERS - 1)
        server = {"service_time": {"law": "exponential", "mean": mean}, "seats": seats}
        assert_law(run_of(server=server, gradients=40_000), pmf)

    @pytest.mark.parametrize("law", ["exponential", "gamma", "uniform"])
    def test_a_gradient_is_fresh_if_no_equilibrium_renewal_is_shorter(self, law):
        """q_0 = E[(1 - F_e(W))^(M-1)], F_e the equilibrium law of the work (3.1)."""
        fresh = fresh_share(WORK[law], WORKERS)
        if law == "exponential":
            assert fresh == pytest.approx(1 / WORKERS)
        assert close(ratio(committed(run_of(law, gradients=40_000)) == 0), fresh)

    def test_of_groups_it_is_that_of_the_slowest_machine(self):
        """The same q_0 for a group's law, F^m: not 1/G, as for exponential work."""
        fresh = fresh_share(Slowest(WORK["exponential"], 4), 3)
        run = run_of(workers=12, groups={"count": 3, "batch": "replicated"}, gradients=40_000)
        assert fresh < 0.25
        assert close(ratio(committed(run) == 0), fresh)


WORK = {
    "exponential": stats.expon(),
    "gamma": stats.gamma(a=4, scale=0.25),  # cases.LAWS: mean 1, cv .5
    "uniform": stats.uniform(loc=0.5, scale=1.0),
}


class Slowest:
    """The maximum of ``count`` independent times."""

    def __init__(self, law, count):
        self.law, self.count = law, count

    def sf(self, x):
        return 1 - self.law.cdf(x) ** self.count

    def pdf(self, x):
        return self.count * self.law.cdf(x) ** (self.count - 1) * self.law.pdf(x)


def served_law(workers, mu, seats, size=300):
    """The staleness behind an exponential server of ``seats``, work of mean 1 (3.2). The others are n = M - 1; vectors
    hold the chance of j of them at the server. What happens to a tagged job: it works while others leave at rate
    min(j, c) mu, queues until j - c + 1 of them have left at rate c mu, is served beside min(j, c - 1) others."""
    n, j = workers - 1, np.arange(workers)

    def stage(leaving, ending):
        """(-A)^-1 and D: the tagged job's stage ends at rate ``ending``, others leave it at rates ``leaving``."""
        stay = np.diag((n - j[:-1]).astype(float), 1) - np.diag(n - j + leaving + ending)
        return np.linalg.inv(-stay), np.diag(leaving[1:], -1)

    weight = np.cumprod(np.append(1.0, (n - j[:-1]) / (np.minimum(j[1:], seats) * mu)))
    work, work_left = stage(np.minimum(j, seats) * mu, 1.0)
    queue, queue_left = stage(np.where(j > 0, seats * mu, 0.0), 0.0)
    serve, serve_left = stage(np.minimum(j, seats - 1) * mu, mu)

    served = np.zeros((workers, size))  # by j at the start of the service: chance of so many leaving in it
    chance = serve.sum(axis=1) * mu
    for left in range(size):
        served[:, left] = chance
        chance = serve @ serve_left @ chance
    joined = np.zeros((workers, size))  # by j as the tagged job joins: chance of so many leaving until it leaves
    for k in range(workers):
        ahead = max(k - seats + 1, 0)
        seated = np.eye(workers)[k] @ np.linalg.matrix_power(queue @ queue_left, ahead)
        joined[k, ahead:] = (seated @ served)[: size - ahead]
    pmf, now = np.zeros(size), weight / weight.sum() @ work
    for left in range(size):
        pmf[left:] += (now @ joined)[: size - left]
        now = now @ work_left @ work
    return pmf


def fresh_share(law, workers):
    grid = np.linspace(0, 40, 400_001)
    left = law.sf(grid)
    mean = integrate.trapezoid(left, grid)
    equilibrium = integrate.cumulative_trapezoid(left, grid, initial=0) / mean
    return float(integrate.trapezoid(law.pdf(grid) * (1 - equilibrium) ** (workers - 1), grid))


def order_statistic(law, k, count):
    """E X_{k:count}: the integral of P(fewer than k of count are over by x)."""
    grid = np.linspace(0, 40, 400_001)
    over = law.cdf(grid)
    fewer = sum(comb(count, j) * over**j * (1 - over) ** (count - j) for j in range(k))
    return float(integrate.trapezoid(fewer, grid))


# -- section 3.4: time per update -------------------------------------------------------------------------------------


class TestTimePerUpdate:
    def test_the_quadrature_is_right(self):
        assert order_statistic(WORK["exponential"], 4, 6) == pytest.approx(harmonic(3, 6), rel=1e-6)
        assert order_statistic(WORK["uniform"], 4, 6) == pytest.approx(0.5 + 4 / 7, rel=1e-6)

    @pytest.mark.parametrize("law", WORK)
    def test_of_synchronous_is_the_slowest_worker(self, law):
        run = run_of(law, protocol={"kind": "synchronous"}, per_update=WORKERS, gradients=30_000)
        assert close(from_interval(run.throughput), 1 / order_statistic(WORK[law], WORKERS, WORKERS))
        assert close(from_interval(run.gradient_rate), WORKERS / order_statistic(WORK[law], WORKERS, WORKERS))

    @pytest.mark.parametrize("kind", ["k-sync", "backup-workers"])
    @pytest.mark.parametrize("k", [1, 2, 5])
    @pytest.mark.parametrize("law", WORK)
    def test_of_k_sync_is_an_order_statistic(self, law, k, kind):
        run = run_of(law, protocol={"kind": kind, "k": k}, per_update=k, gradients=3_000 * k)
        assert close(from_interval(run.throughput), 1 / order_statistic(WORK[law], k, WORKERS))

    @pytest.mark.parametrize("k", [1, 2, 5])
    def test_of_k_async_is_an_order_statistic_for_exponential_work(self, k):
        run = run_of(protocol={"kind": "k-async", "k": k}, per_update=k)
        assert close(from_interval(run.throughput), 1 / harmonic(WORKERS - k + 1, WORKERS))

    def test_of_k_async_is_not_one_for_other_work(self):
        run = run_of("gamma", protocol={"kind": "k-async", "k": 2}, per_update=2)
        assert not close(from_interval(run.throughput), 1 / order_statistic(WORK["gamma"], 2, WORKERS))

    @pytest.mark.parametrize("k", [1, 4, 9])
    def test_of_k_batch_sync_is_k_of_all_rates_for_exponential_work(self, k):
        run = run_of(protocol={"kind": "k-batch-sync", "k": k}, per_update=k)
        assert close(from_interval(run.throughput), WORKERS / k)

    @pytest.mark.parametrize("k", [1, 4, 9])
    @pytest.mark.parametrize("law", ["exponential", "gamma", "uniform", "lognormal", "hyperexponential"])
    def test_of_those_who_never_wait_is_k_times_the_work_over_the_workers(self, law, k):
        run = run_of(law, protocol={"kind": "k-batch-async", "k": k}, per_update=k)
        assert close(from_interval(run.throughput), WORKERS / k)
        if k == 1:
            assert close(from_interval(run_of(law).throughput), WORKERS)

    @pytest.mark.parametrize("k", [1, 4])
    def test_unequal_workers_add_their_rates(self, k):
        means = [0.5, 0.5, 1.0, 2.5]
        pools = [
            {"name": f"w{i}", "workers": 1, "work_time": {**LAWS["gamma"], "mean": m}} for i, m in enumerate(means)
        ]
        run = run_of(pools=pools, protocol={"kind": "k-batch-async", "k": k}, per_update=k)
        assert close(from_interval(run.throughput), sum(1 / mean for mean in means) / k)

    @pytest.mark.parametrize("bound", [0, 1, 4])
    @pytest.mark.parametrize("rates", [(1.0, 1.0), (1.5, 1.0)])
    def test_of_two_stale_synchronous_workers(self, rates, bound):
        """Their lead is a birth-and-death process on -(s+1) .. s+1."""
        lead, chance = lead_law(*rates, bound)
        rate = chance @ (rates[0] * (lead < bound + 1) + rates[1] * (lead > -bound - 1))
        if rates[0] == rates[1]:
            assert rate == pytest.approx(2 * (2 * bound + 2) / (2 * bound + 3))
        assert close(from_interval(two_workers(*rates, bound=bound).gradient_rate), rate)

    @pytest.mark.parametrize("law", WORK)
    def test_stale_synchronous_with_bound_0_keeps_the_pace_of_synchronous(self, law):
        run = run_of(law, protocol={"kind": "stale-synchronous", "bound": 0})
        assert close(from_interval(run.gradient_rate), WORKERS / order_statistic(WORK[law], WORKERS, WORKERS))

    def test_of_two_round_robin_workers_is_two_thirds_of_their_exponential_work(self):
        """The gap D between updates obeys D' = max(0, W - D): 0 with probability 1/3, exponential otherwise."""
        run = run_of(workers=2, protocol={"kind": "round-robin"})
        gaps = np.diff(run.trace.time)[1_000:]
        assert close(from_interval(run.throughput), 3 / 2)
        assert close(ratio(gaps == 0), 1 / 3)
        assert close(ratio(gaps**2), 2 / 3 * 2)

    @pytest.mark.parametrize("law", ["exponential", "gamma", "uniform"])
    def test_of_round_robin_is_a_recursion(self, law):
        """Update n is made at max(update n-1, update n-M plus a work time)."""
        rng = np.random.default_rng(99)
        times = deque([0.0] * WORKERS, maxlen=WORKERS)
        ends = [
            times.append(max(times[-1], times[0] + work)) or times[-1]
            for work in WORK[law].rvs(GRADIENTS, random_state=rng).tolist()
        ]
        oracle = ratio(np.diff(ends)[1_000:])
        run = run_of(law, protocol={"kind": "round-robin"})
        assert oracle.excess(ratio(np.diff(run.trace.time)[1_000:]), CHANCE) <= 1

    @pytest.mark.parametrize(("batch", "share"), [("split", 0.25), ("replicated", 1.0)])
    def test_of_groups_is_that_of_the_slowest_machine_and_the_all_reduce(self, batch, share):
        run = run_of(workers=12, groups={"count": 3, "batch": batch, "all_reduce": 0.2})
        assert close(from_interval(run.throughput), 3 / (harmonic(1, 4) * share + 0.2))


# -- groups are not exponential ---------------------------------------------------------------------------------------


class TestGroupsOfFourExponentialMachines:
    def test_vary_by_0_573(self):
        work = scenario({"law": "maximum", "of": LAWS["exponential"], "count": 4}).pool[0].work_time
        assert work.mean == pytest.approx(harmonic(1, 4))
        assert work.cv == pytest.approx(sum(1 / i**2 for i in range(1, 5)) ** 0.5 / harmonic(1, 4))
        assert work.cv == pytest.approx(0.573, abs=5e-4)

    @pytest.mark.parametrize("batch", ["split", "replicated"])
    def test_are_not_geometric(self, batch):
        """q_0 is 0.19 of 20,000 gradients instead of 1/3: missed with probability 0 for all that matters."""
        run = run_of(workers=12, groups={"count": 3, "batch": batch})
        assert run.fit.verdict == "rejected"
        assert run.momentum.basis == "first order only"


# -- what waiting and cancelling cost ---------------------------------------------------------------------------------


def shares_of(case=run_of, **options):
    """The shares of machine time by category, each over 16 independent runs."""
    runs = [case(seed=16 * SEED + i, run={"warmup": "none"}, **options) for i in range(16)]
    for run in runs:
        assert sum(run.machine_time) == pytest.approx(run.seconds * run.scenario.workers)
    shares = [np.array(run.machine_time) / sum(run.machine_time) for run in runs]
    return {name: over_runs([share[i] for share in shares]) for i, name in enumerate(runs[0].machine_time._fields)}


class TestMachineTime:
    """Shares of all machine time. A round of the synchronous family starts afresh, so no run has a start-up bias."""

    @pytest.mark.parametrize("kind", ["k-sync", "backup-workers"])
    @pytest.mark.parametrize("law", [*CONTINUOUS, "deterministic"])
    def test_the_cancelled_of_k_sync_computed_to_the_end_of_the_round(self, law, kind):
        """M - K of M workers compute all the time and for nothing: (M-K)/M, whatever the law, in every run."""
        spent = run_of(law, protocol={"kind": kind, "k": 4}, gradients=3_000, per_update=4).machine_time
        assert spent.cancelled / sum(spent) == pytest.approx(2 / 6, rel=1e-9)

    @pytest.mark.parametrize("k", [2, 4, 6])
    def test_the_first_of_exponential_k_sync_wait(self, k):
        """A round lasts H_M - H_{M-K} in mean. In it K work times end, so that K means of work are computed (the hazard
        of those who compute, cancelled ones included, adds up to K): the others wait, 1 - K/(M(H_M - H_{M-K}))."""
        exact = 1 - k / (WORKERS * harmonic(WORKERS - k + 1, WORKERS))
        shares = shares_of(protocol={"kind": "k-sync", "k": k}, gradients=1_000 * k, per_update=k)
        assert close(shares["blocked"], exact)
        assert close(shares["work"], 1 - exact - (WORKERS - k) / WORKERS)

    def test_waiting_of_exponential_synchronous_workers(self):
        exact = 1 - 1 / harmonic(1, WORKERS)
        options = {"protocol": {"kind": "synchronous"}, "gradients": 800 * WORKERS, "per_update": WORKERS}
        assert close(shares_of(**options)["blocked"], exact)

    @pytest.mark.parametrize("law", ["gamma", "uniform"])
    def test_waiting_of_synchronous_workers_is_the_slowest_less_the_mean(self, law):
        exact = 1 - 1 / order_statistic(WORK[law], WORKERS, WORKERS)
        options = {"protocol": {"kind": "synchronous"}, "gradients": 600 * WORKERS, "per_update": WORKERS}
        assert close(shares_of(law=law, **options)["blocked"], exact)

    @pytest.mark.parametrize("k", [1, 4, 9])
    def test_the_cancelled_of_exponential_k_batch_sync(self, k):
        """At the k-th push a worker has computed in vain since its last one. Gap i of the k between pushes counts for
        every worker without a push i .. k, of which there are M u^(k-i+1) in mean: u(1-u^k)/(k(1-u)), u = 1-1/M."""
        u = 1 - 1 / WORKERS
        exact = u * (1 - u**k) / (k * (1 - u))
        options = {"protocol": {"kind": "k-batch-sync", "k": k}, "gradients": 600 * k, "per_update": k}
        shares = shares_of(**options)
        assert close(shares["cancelled"], exact)
        assert close(shares["work"], 1 - exact)

    @pytest.mark.parametrize("k", [2, 5])
    def test_the_contributors_of_exponential_k_async_wait(self, k):
        """All M compute after every update, K work times end in a round: 1 - K/(M(H_M - H_{M-K})), as for K-sync."""
        exact = 1 - k / (WORKERS * harmonic(WORKERS - k + 1, WORKERS))
        shares = shares_of(protocol={"kind": "k-async", "k": k}, gradients=800 * k, per_update=k)
        assert close(shares["blocked"], exact)

    @pytest.mark.parametrize("bound", [0, 2])
    def test_two_exponential_stale_synchronous_workers_wait_at_the_ends_of_their_lead(self, bound):
        """One of two waits in 2 of 2s+3 states: 1/(2s+3). Both start level: a bias of the order of (s+2)^2 / 6000."""
        shares = shares_of(lambda **options: two_workers(1.0, 1.0, bound=bound, **options), gradients=6_000)
        assert close(shares["blocked"], 1 / (2 * bound + 3))

    @pytest.mark.parametrize("kind", ["asynchronous", "k-batch-async"])
    def test_nobody_waits_who_reads_at_once(self, kind):
        spent = run_of("gamma", protocol={"kind": kind, **({"k": 3} if kind != "asynchronous" else {})}).machine_time
        assert spent.blocked == pytest.approx(0, abs=1e-9 * sum(spent))
        assert spent.cancelled == spent.dropped == 0


class TestDropping:
    @pytest.mark.parametrize("law", CONTINUOUS)
    def test_the_machine_time_of_the_dropped_is_what_their_work_took(self, law):
        """Without a wire or a queue a gradient took the time since its worker's last one."""
        protocol = {"kind": "bounded", "maximum_staleness": 4, "policy": "reject"}
        run = run_of(law, protocol=protocol, gradients=3_000, run={"warmup": "none"})
        trace, took = run.trace, np.zeros(run.trace.time.size)
        for one in range(WORKERS):
            took[trace.worker == one] = np.diff(trace.time[trace.worker == one], prepend=0.0)
        dropped = trace.fate == list(run.gradients).index("dropped")
        assert run.machine_time.dropped == pytest.approx(took[dropped].sum(), rel=1e-9)
        assert run.machine_time.work == pytest.approx(took[~dropped].sum(), rel=1e-9)

    @pytest.mark.parametrize("maximum", [0, 1, 3])
    def test_two_exponential_workers_drop_one_in_two_to_the_power_of_the_bound(self, maximum):
        """One of two has always just read. The age a of the other: up by 1, or to 1 as it commits, or to 0 as it is
        dropped (a > m), with probability 1/2 each way: dropped share 1/(2^(m+1) + 1) of all gradients."""
        protocol = {"kind": "bounded", "maximum_staleness": maximum, "policy": "reject"}
        run = run_of(workers=2, protocol=protocol)
        dropped = run.trace.fate == list(run.gradients).index("dropped")
        assert close(ratio(dropped[1_000:]), 1 / (2 ** (maximum + 1) + 1))

    @pytest.mark.parametrize("law", CONTINUOUS)
    def test_staleness_is_conserved_whoever_is_dropped(self, law):
        """Each update ages the M - 1 others: all the staleness, of dropped gradients too, is M - 1 an update."""
        run = run_of(law, protocol={"kind": "bounded", "maximum_staleness": 4, "policy": "reject"}, gradients=4_000)
        kept = run.trace.fate == list(run.gradients).index("committed")
        assert close(ratio(run.trace.staleness[500:], kept[500:]), WORKERS - 1)

    def test_down_weighting_changes_no_staleness(self):
        table = {"kind": "bounded", "maximum_staleness": 4, "policy": "downweight"}
        marked, plain = run_of(protocol=table).trace, run_of().trace
        assert np.array_equal(marked.staleness, plain.staleness)
        assert np.array_equal(marked.time, plain.time)
