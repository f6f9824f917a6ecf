/* ahead — see ahead.h. */
#include "serve/ahead.h"

#define WINDOW_FIRST 4u
#define WINDOW_MAX 64u
#define QUEUE_NS (3 * NS_PER_MS) /* what answers may take longer than the fastest */
#define DRIFT 1024u              /* of the fastest, an answer */
#define FREE_SHARE_ASKED 16
#define FREE_SHARE_KEPT 64

void ahead_init(struct ahead *ahead) {
    ahead->window = WINDOW_FIRST;
    ahead->fastest_ns = UINT64_MAX;
}

bool ahead_fits(const struct ahead *ahead) { return ahead->under_way < ahead->window; }

static bool is_room_free(const struct ahead *ahead, const struct budget *budget, size_t bytes, uint32_t share) {
    size_t held = budget->used_by[BUDGET_INDEX] + budget->used_by[BUDGET_SLABS];
    return held < ahead->bytes_max && budget->used + bytes + budget->total / share < budget->total;
}

bool ahead_may_ask(const struct ahead *ahead, const struct budget *budget) {
    return is_room_free(ahead, budget, 0, FREE_SHARE_ASKED);
}

bool ahead_may_keep(const struct ahead *ahead, const struct budget *budget, size_t bytes) {
    return is_room_free(ahead, budget, bytes, FREE_SHARE_KEPT);
}

void ahead_heard(struct ahead *ahead, uint64_t took_ns) {
    if (ahead->fastest_ns > took_ns) ahead->fastest_ns = took_ns;
    else ahead->fastest_ns += ahead->fastest_ns / DRIFT;
    bool queues = took_ns > ahead->fastest_ns + QUEUE_NS;
    if (queues && ahead->window > 1) ahead->window--;
    if (!queues && ahead->window < WINDOW_MAX) ahead->window++;
}
