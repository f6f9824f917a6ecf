/* clock — the only source of time in CFastPath, so that the simulator can be another.
 *
 * Monotonic nanoseconds; zero is never returned. Read once a turn and handed down. */
#ifndef FERRITE_BASE_CLOCK_H
#define FERRITE_BASE_CLOCK_H

#include <stdint.h>

#define NS_PER_MS 1000000ull
#define NS_PER_S 1000000000ull

struct clock {
    uint64_t (*read)(void *context);
    void *context;
};

static inline uint64_t clock_now(const struct clock *clock) { return clock->read(clock->context); }

/* CLOCK_MONOTONIC. */
struct clock clock_real(void);

#endif
