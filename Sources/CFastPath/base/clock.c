/* clock — CLOCK_MONOTONIC behind the interface of clock.h. */
#include "base/clock.h"

#include <time.h>

static uint64_t read_monotonic(void *context) {
    (void)context;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

struct clock clock_real(void) {
    return (struct clock){.read = read_monotonic, .context = 0};
}
