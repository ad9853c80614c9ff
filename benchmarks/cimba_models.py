"""The workloads as Cimba models. Cimba compiles them from annotations and globals: a file of its own, evaluated."""

import cimba as cb
from cimba import random as draws

CELLS = 65_536


class Counting(cb.Model):
    target: cb.Param[int] = 1
    version: int = 0
    histogram: cb.Array[int] = cb.Array(CELLS)
    total: cb.Output[float]
    rows: cb.Output[float]

    @cb.on_end
    def measure(self):
        total = 0.0
        rows = 0.0
        for i in range(len(self.histogram)):
            total += i * self.histogram[i]
            rows += self.histogram[i]
        self.total = total
        self.rows = rows


def asynchronous(workers):
    class Asynchronous(Counting):
        @cb.process(copies=workers)
        def worker(self):
            while True:
                read = self.version
                cb.hold(draws.exponential(1.0))
                self.histogram[min(self.version - read, 65535)] += 1
                self.version += 1
                if self.version >= self.target:
                    cb.end_trial()

    return Asynchronous()


def served(workers, service):
    class Served(Counting):
        service: cb.Param[float] = 1.0
        seat: cb.Resource = cb.Resource(capacity=1)

        @cb.process(copies=workers)
        def worker(self):
            while True:
                read = self.version
                cb.hold(draws.exponential(1.0))
                self.seat.acquire()
                cb.hold(draws.exponential(self.service))
                self.seat.release()
                self.histogram[min(self.version - read, 65535)] += 1
                self.version += 1
                if self.version >= self.target:
                    cb.end_trial()

    model = Served()
    model.service = service
    return model


def three_pools(pools):
    sizes = [size for size, _, _ in pools]

    class Pools(Counting):
        shape0: cb.Param[float] = 1.0
        scale0: cb.Param[float] = 1.0
        shape1: cb.Param[float] = 1.0
        scale1: cb.Param[float] = 1.0
        shape2: cb.Param[float] = 1.0
        scale2: cb.Param[float] = 1.0

        @cb.process(copies=sizes[0])
        def first(self):
            while True:
                read = self.version
                cb.hold(draws.gamma(self.shape0, self.scale0))
                self.histogram[min(self.version - read, 65535)] += 1
                self.version += 1
                if self.version >= self.target:
                    cb.end_trial()

        @cb.process(copies=sizes[1])
        def second(self):
            while True:
                read = self.version
                cb.hold(draws.gamma(self.shape1, self.scale1))
                self.histogram[min(self.version - read, 65535)] += 1
                self.version += 1
                if self.version >= self.target:
                    cb.end_trial()

        @cb.process(copies=sizes[2])
        def third(self):
            while True:
                read = self.version
                cb.hold(draws.gamma(self.shape2, self.scale2))
                self.histogram[min(self.version - read, 65535)] += 1
                self.version += 1
                if self.version >= self.target:
                    cb.end_trial()

    model = Pools()
    for i, (_, mean, cv) in enumerate(pools):
        setattr(model, f"shape{i}", cv**-2)
        setattr(model, f"scale{i}", mean * cv**2)
    return model


def model_for(workload):
    if workload.gamma:
        return three_pools(workload.pools)
    if workload.service:
        return served(workload.workers, workload.service)
    return asynchronous(workload.workers)
