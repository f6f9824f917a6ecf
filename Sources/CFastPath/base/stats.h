/* stats — the numbers of stats.def as one struct: bumped on the loop thread, read between turns. */
#ifndef FERRITE_BASE_STATS_H
#define FERRITE_BASE_STATS_H

#include <stdint.h>

#include "base/histogram.h"

#define STATS_FIELD_COUNTER(id) uint64_t id;
#define STATS_FIELD_GAUGE(id) uint64_t id;
#define STATS_FIELD_SECONDS(id) uint64_t id;
#define STATS_FIELD_HISTOGRAM(id) struct histogram id;

struct stats {
#define METRIC(id, name, labels, kind, help) STATS_FIELD_##kind(id)
#include "base/stats.def"
#undef METRIC
};

/* Of commands by how they were answered: an fp_outcome. */
static inline struct histogram *stats_duration(struct stats *stats, uint32_t outcome) {
    return &stats->duration_negative + outcome; /* the rows stand in the order of the outcomes */
}

_Static_assert(sizeof(struct histogram) == (HISTOGRAM_BUCKETS + 1) * sizeof(uint64_t),
               "struct stats is an array of 64-bit values, as fp_stats_read hands it out");

#endif
