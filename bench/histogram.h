/* Durations in buckets of 10 µs up to 2 s, and their greatest. */
#ifndef BENCH_HISTOGRAM_H
#define BENCH_HISTOGRAM_H

#include <stdint.h>
#include <stdio.h>

#define HISTOGRAM_STEP_NS 10000
#define HISTOGRAM_SIZE 200000

struct histogram {
    uint32_t buckets[HISTOGRAM_SIZE];
    uint64_t count;
    int64_t max_ns;
};

static inline void histogram_add(struct histogram *histogram, int64_t ns)
{
    const int64_t bucket = ns < 0 ? 0 : ns / HISTOGRAM_STEP_NS;
    histogram->buckets[bucket < HISTOGRAM_SIZE ? bucket : HISTOGRAM_SIZE - 1]++;
    histogram->count++;
    if (ns > histogram->max_ns)
        histogram->max_ns = ns;
}

/* In milliseconds: the upper edge of the bucket that a share of all is below; never above max. */
static inline double histogram_at(const struct histogram *histogram, double share)
{
    uint64_t below = 0;
    for (int i = 0; i < HISTOGRAM_SIZE; i++) {
        below += histogram->buckets[i];
        if (below && (double)below >= share * (double)histogram->count) {
            const int64_t edge = (int64_t)(i + 1) * HISTOGRAM_STEP_NS;
            return (double)(edge < histogram->max_ns ? edge : histogram->max_ns) / 1e6;
        }
    }
    return 0;
}

static inline void histogram_print(const char *name, const struct histogram *histogram)
{
    printf(",\n \"%s\": {\"count\": %llu, \"p50\": %.3f, \"p90\": %.3f, \"p99\": %.3f, "
           "\"p999\": %.3f, \"max\": %.3f}",
           name, (unsigned long long)histogram->count, histogram_at(histogram, 0.5),
           histogram_at(histogram, 0.9), histogram_at(histogram, 0.99),
           histogram_at(histogram, 0.999), (double)histogram->max_ns / 1e6);
}

#endif
