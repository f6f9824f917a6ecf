/* histogram — durations in nanoseconds, four buckets an octave from 256 ns to about 17 s, as in HDR histograms with
 * two significant bits. Recording is an index and two adds. Loop thread only. */
#ifndef FERRITE_BASE_HISTOGRAM_H
#define FERRITE_BASE_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_BUCKETS 108u

struct histogram {
    uint64_t counts[HISTOGRAM_BUCKETS];
    uint64_t sum_ns;
};

static inline uint32_t histogram_bucket(uint64_t ns) {
    if (ns < 256) return 0;
    uint32_t octave = 63u - (uint32_t)__builtin_clzll(ns); /* >= 8 */
    uint32_t bucket = (octave - 8) * 4 + (uint32_t)((ns >> (octave - 2)) & 3) + 1;
    return bucket < HISTOGRAM_BUCKETS ? bucket : HISTOGRAM_BUCKETS - 1;
}

/* Upper bound (exclusive) of a bucket in nanoseconds; UINT64_MAX for the last. */
static inline uint64_t histogram_bound(uint32_t bucket) {
    if (bucket + 1 >= HISTOGRAM_BUCKETS) return UINT64_MAX;
    return (uint64_t)(4 + bucket % 4) << (bucket / 4 + 6);
}

/* Records `times` observations of the same duration. */
static inline void histogram_add(struct histogram *histogram, uint64_t ns, uint64_t times) {
    histogram->counts[histogram_bucket(ns)] += times;
    histogram->sum_ns += ns * times;
}

#endif
