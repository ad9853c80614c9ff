// Two hand-written simulations of asynchronous SGD, the yardsticks of benchmarks/engines.py.
//
//     loops queue|tree asynchronous|stale-synchronous|k-async PARAMETER SERVICE_MEAN (WORKERS MEAN CV)...
//
// "queue" keeps (time, worker) in a std::priority_queue. "tree" is a packed branch-free winner tree: a worker has one
// pending event, so its leaf is replaced in place; a key is the bits of the time with the worker in the lowest ones,
// and the smaller of two keys wins every match on the way up. The server's completion is kept outside the tree.
// Variates: xoshiro256++ with ziggurats (256 layers) and Marsaglia-Tsang gammas. Both count the staleness histogram and
// nothing else: no rows, no statistics, no exact order of near-ties.
//
// For every line "UPDATES SEED" on stdin: CPU seconds, wall seconds, mean staleness, rows, 1 (cold start), peak KiB.
#include <sys/resource.h>

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <memory>
#include <queue>
#include <string>
#include <utility>
#include <vector>

using std::uint32_t;
using std::uint64_t;

// -- variates ---------------------------------------------------------------------------------------------------------

struct Random {
    uint64_t s[4];

    explicit Random(uint64_t seed) {
        for (auto& word : s) {  // splitmix64
            uint64_t z = (seed += 0x9E3779B97F4A7C15ull);
            z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
            z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
            word = z ^ (z >> 31);
        }
    }
    uint64_t bits() {
        const uint64_t result = std::rotl(s[0] + s[3], 23) + s[0], t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = std::rotl(s[3], 45);
        return result;
    }
    double uniform() { return (bits() >> 11) * 0x1p-53; }
};

struct Ziggurat {  // edges x[0] > x[1] = r > ... > x[256] = 0 of layers of equal area, and the density at them
    double x[257], y[257];

    template <class Density, class Inverse>
    Ziggurat(double r, double area, Density density, Inverse inverse) {
        x[0] = area / density(r);
        x[1] = r;
        for (int i = 2; i < 256; ++i) x[i] = inverse(area / x[i - 1] + density(x[i - 1]));
        x[256] = 0;
        for (int i = 0; i <= 256; ++i) y[i] = density(x[i]);
    }
};

static const Ziggurat exponentials(
    7.69711747013104972, 0.0039496598225815571993, [](double x) { return std::exp(-x); },
    [](double y) { return -std::log(y); });
static const Ziggurat normals(
    3.6541528853610088, 0.00492867323399, [](double x) { return std::exp(-0.5 * x * x); },
    [](double y) { return std::sqrt(-2 * std::log(y)); });

__attribute__((noinline, cold)) static double exponential_rarely(Random& random, unsigned layer, double x, bool& again) {
    again = false;
    if (layer == 0) return 7.69711747013104972 - std::log1p(-random.uniform());
    const auto& z = exponentials;
    again = z.y[layer] + random.uniform() * (z.y[layer + 1] - z.y[layer]) >= std::exp(-x);
    return x;
}

static inline double exponential(Random& random) {
    while (true) {
        const uint64_t bits = random.bits();
        const unsigned layer = bits & 255;
        const double x = (bits >> 11) * 0x1p-53 * exponentials.x[layer];
        if (__builtin_expect(x < exponentials.x[layer + 1], 1)) return x;
        bool again;
        const double value = exponential_rarely(random, layer, x, again);
        if (!again) return value;
    }
}

static inline double normal(Random& random) {
    while (true) {
        const uint64_t bits = random.bits();
        const unsigned layer = bits & 255;
        const double sign = bits & 256 ? -1.0 : 1.0, x = (bits >> 11) * 0x1p-53 * normals.x[layer];
        if (__builtin_expect(x < normals.x[layer + 1], 1)) return sign * x;
        if (layer == 0) {
            const double r = normals.x[1];
            double a, b;
            do {
                a = -std::log1p(-random.uniform()) / r;
                b = -std::log1p(-random.uniform());
            } while (2 * b < a * a);
            return sign * (r + a);
        }
        if (normals.y[layer] + random.uniform() * (normals.y[layer + 1] - normals.y[layer]) < std::exp(-0.5 * x * x))
            return sign * x;
    }
}

struct Pool {
    double mean, d, c, scale;

    Pool(double mean, double cv) : mean(mean) {
        const double shape = 1 / (cv * cv);  // at least 1 here
        d = shape - 1.0 / 3;
        c = 1 / std::sqrt(9 * d);
        scale = mean / shape;
    }
};

template <bool Gamma>
static inline double draw(Random& random, const Pool& pool) {
    if constexpr (!Gamma) return pool.mean * exponential(random);
    while (true) {
        const double x = normal(random), t = 1 + pool.c * x;
        if (t <= 0) continue;
        const double v = t * t * t, u = 1 - random.uniform();
        if (__builtin_expect(u < 1 - 0.0331 * x * x * x * x, 1)) return pool.scale * pool.d * v;
        if (std::log(u) < 0.5 * x * x + pool.d * (1 - v + std::log(v))) return pool.scale * pool.d * v;
    }
}

// -- calendars --------------------------------------------------------------------------------------------------------

struct Event {
    double time;
    uint32_t slot;
};

struct Queue {  // slots up to the number of workers, which stands for the server
    struct Later {
        bool operator()(const Event& a, const Event& b) const { return a.time > b.time; }
    };
    std::priority_queue<Event, std::vector<Event>, Later> events;
    uint32_t server;

    explicit Queue(uint32_t workers) : server(workers) {}
    Event next() {
        const Event event = events.top();
        events.pop();
        return event;
    }
    void put(uint32_t slot, double time) { events.push({time, slot}); }
    void park(uint32_t) {}
    void serve(double time) { put(server, time); }
    void serve_nobody() {}
};

template <int Levels>  // known when compiled, so that the way up is unrolled
struct Tree {
    static constexpr uint32_t leaves = 1u << Levels;
    static constexpr uint64_t mask = leaves - 1, never = 0x7FF0000000000000ull;
    alignas(64) uint64_t keys[2 * leaves];
    double served = INFINITY;  // when the server is done
    uint32_t server;

    explicit Tree(uint32_t workers) : server(workers) { std::fill(keys, keys + 2 * leaves, never); }
    Event next() const {
        const uint64_t key = keys[1];
        const double time = std::bit_cast<double>(key & ~mask);
        if (served < time) return {served, server};
        return {time, static_cast<uint32_t>(key & mask)};
    }
    void climb(uint32_t slot, uint64_t key) {
        uint32_t node = leaves + slot;
        keys[node] = key;
#pragma GCC unroll 32
        for (int level = 0; level < Levels; ++level) {
            key = std::min(key, keys[node ^ 1]);
            node >>= 1;
            keys[node] = key;
        }
    }
    void put(uint32_t slot, double time) { climb(slot, (std::bit_cast<uint64_t>(time) & ~mask) | slot); }
    void park(uint32_t slot) { climb(slot, never | slot); }
    void serve(double time) { served = time; }
    void serve_nobody() { served = INFINITY; }
};

// -- the simulation ---------------------------------------------------------------------------------------------------

enum { ASYNCHRONOUS, STALE_SYNCHRONOUS, K_ASYNC };

struct Setting {
    int protocol;
    uint32_t parameter;  // the bound or k
    double service;
    std::vector<Pool> pools;
    std::vector<uint8_t> pool_of;
    bool gamma;
};

struct Result {
    double mean;
    uint64_t rows;
};

template <class Calendar, int Protocol, bool Gamma, bool Server>
static Result simulate(const Setting& setting, uint64_t updates, uint64_t seed) {
    constexpr uint64_t cells = 1 << 16;
    const uint32_t workers = setting.pool_of.size();
    Random random(seed);
    auto calendar_on_heap = std::make_unique<Calendar>(workers);
    Calendar& calendar = *calendar_on_heap;
    std::vector<uint64_t> histogram(cells), read(workers);
    std::vector<uint32_t> waiting;  // workers that wait for an update or at the gate
    waiting.reserve(workers);
    const uint8_t* pool_of = setting.pool_of.data();
    const Pool* pools = setting.pools.data();
    const auto work = [&](uint32_t worker) { return draw<Gamma>(random, pools[Gamma ? pool_of[worker] : 0]); };
    for (uint32_t worker = 0; worker < workers; ++worker) calendar.put(worker, work(worker));
    uint64_t version = 0;
    const auto count = [&](uint32_t worker) { ++histogram[std::min(version - read[worker], cells - 1)]; };

    std::vector<uint32_t> ring(Server ? workers : 0);  // who is at the server, the one being served first
    uint32_t head = 0, length = 0;
    std::vector<uint32_t> clock(workers), at_clock(setting.parameter + 2);
    at_clock[0] = workers;
    uint32_t slowest = 0;

    while (version < updates) {
        auto [now, worker] = calendar.next();
        if constexpr (Server) {
            if (worker < workers) {
                ring[head + length < workers ? head + length : head + length - workers] = worker;
                calendar.park(worker);
                if (length++ == 0) calendar.serve(now + setting.service * exponential(random));
                continue;
            }
            worker = ring[head];
            head = head + 1 < workers ? head + 1 : 0;
            if (--length)
                calendar.serve(now + setting.service * exponential(random));
            else
                calendar.serve_nobody();
        }
        if constexpr (Protocol == ASYNCHRONOUS) {
            count(worker);
            read[worker] = ++version;
            calendar.put(worker, now + work(worker));
        } else if constexpr (Protocol == K_ASYNC) {
            waiting.push_back(worker);
            if (waiting.size() < setting.parameter) {
                calendar.park(worker);
            } else {
                for (const uint32_t other : waiting) count(other);
                ++version;
                for (const uint32_t other : waiting) {
                    read[other] = version;
                    calendar.put(other, now + work(other));
                }
                waiting.clear();
            }
        } else {
            count(worker);
            ++version;
            const uint32_t size = setting.parameter + 2, done = clock[worker]++;
            --at_clock[done % size];
            ++at_clock[(done + 1) % size];
            const bool opened = done == slowest && at_clock[done % size] == 0;
            slowest += opened;
            if (done + 1 - slowest <= setting.parameter) {
                read[worker] = version;
                calendar.put(worker, now + work(worker));
            } else {
                waiting.push_back(worker);
                calendar.park(worker);
            }
            if (opened) {
                for (const uint32_t other : waiting) {
                    read[other] = version;
                    calendar.put(other, now + work(other));
                }
                waiting.clear();
            }
        }
    }
    double sum = 0, rows = 0;
    for (uint64_t staleness = 0; staleness < cells; ++staleness) {
        sum += static_cast<double>(staleness) * histogram[staleness];
        rows += histogram[staleness];
    }
    return {sum / rows, static_cast<uint64_t>(rows)};
}

template <class Calendar>
static Result pick(const Setting& setting, uint64_t updates, uint64_t seed) {
    const bool server = setting.service > 0;
    if (setting.protocol == ASYNCHRONOUS && server && !setting.gamma)
        return simulate<Calendar, ASYNCHRONOUS, false, true>(setting, updates, seed);
    if (setting.protocol == ASYNCHRONOUS && !server)
        return (setting.gamma ? simulate<Calendar, ASYNCHRONOUS, true, false>
                              : simulate<Calendar, ASYNCHRONOUS, false, false>)(setting, updates, seed);
    if (setting.protocol == STALE_SYNCHRONOUS && !server && !setting.gamma)
        return simulate<Calendar, STALE_SYNCHRONOUS, false, false>(setting, updates, seed);
    if (setting.protocol == K_ASYNC && !server && !setting.gamma)
        return simulate<Calendar, K_ASYNC, false, false>(setting, updates, seed);
    std::fprintf(stderr, "no loop for this setting\n");
    std::exit(2);
}

static double seconds(clockid_t clock) {
    timespec time;
    clock_gettime(clock, &time);
    return time.tv_sec + 1e-9 * time.tv_nsec;
}

static long peak_kib() {  // getrusage would report the peak of the process that started this one, if that is larger
    char line[256];
    long value = -1;
    if (std::FILE* status = std::fopen("/proc/self/status", "r")) {
        while (value < 0 && std::fgets(line, sizeof line, status))
            if (!std::strncmp(line, "VmHWM:", 6)) value = std::atol(line + 6);
        std::fclose(status);
    }
    if (value >= 0) return value;
    rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss;
}

int main(int count, char** words) {
    if (count < 8) return 2;
    const std::string contender = words[1], protocol = words[2];
    Setting setting;
    setting.protocol = protocol == "asynchronous"        ? ASYNCHRONOUS
                       : protocol == "stale-synchronous" ? STALE_SYNCHRONOUS
                                                         : K_ASYNC;
    setting.parameter = std::atoi(words[3]);
    setting.service = std::atof(words[4]);
    setting.gamma = false;
    for (int i = 5; i + 2 < count; i += 3) {
        const double cv = std::atof(words[i + 2]);
        setting.gamma |= cv != 1;
        setting.pool_of.insert(setting.pool_of.end(), std::atoi(words[i]), setting.pools.size());
        setting.pools.emplace_back(std::atof(words[i + 1]), cv);
    }
    const size_t workers = setting.pool_of.size();
    unsigned long long updates, seed;
    while (std::scanf("%llu %llu", &updates, &seed) == 2) {
        const double cpu = seconds(CLOCK_PROCESS_CPUTIME_ID), wall = seconds(CLOCK_MONOTONIC);
        const auto run = contender == "queue" ? pick<Queue>
                         : workers <= 8       ? pick<Tree<3>>
                         : workers <= 64      ? pick<Tree<6>>
                                              : pick<Tree<10>>;
        const Result result = run(setting, updates, seed);
        std::printf("%.9f %.9f %.9f %llu 1 %ld\n", seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu,
                    seconds(CLOCK_MONOTONIC) - wall, result.mean, static_cast<unsigned long long>(result.rows),
                    peak_kib());
        std::fflush(stdout);
    }
}
