/* lookup — whether a copy may answer: rules 6 and 7.
 *
 * A copy is vouched for while its epoch is the present one and trusted; otherwise it is suspect, and served only while
 * the upstream is unreachable. It is fresh until its rule's ttl is over, and stale after that: served for a while
 * longer, and only where the upstream does not answer. */
#ifndef FERRITE_SERVE_LOOKUP_H
#define FERRITE_SERVE_LOOKUP_H

#include "serve/serve.h"

#define LOOKUP_DRAW_MAX 20u /* times a fetch before its end nobody draws yet: one in a million would win */

/* A copy that answers instead of the upstream. */
bool lookup(struct serve *serve, const struct store_key *key, struct store_value *value);
/* A copy that answers because the upstream has not: a stale one too. */
bool lookup_stale(struct serve *serve, const struct store_key *key, struct store_value *value);
/* What was found is the answer, or part of it; `times`: to how many. Returns what that makes of the command: of several
 * keys the greatest counts. */
fp_outcome lookup_note(struct serve *serve, const struct store_value *value, uint32_t times);

/* The answer is `value`, and its time is nearly over: whether to fetch it again now, behind the answer. Each reader
 * draws by itself, the more likely to win the nearer the end is in units of what a fetch takes, so that a key is
 * fetched once, in time, by one of many readers (Vattani, Chierichetti, Lowenstein: Optimal Probabilistic Cache
 * Stampede Prevention, VLDB 2015). */
static inline bool lookup_is_ripe(struct serve *serve, const struct store_value *value) {
    uint64_t rest_ns = (value->fresh_until - serve->now_ms) * NS_PER_MS;
    if (likely(rest_ns > LOOKUP_DRAW_MAX * serve->fetch_ns)) return false;
    /* Leading zeros of a random word: minus its binary logarithm. */
    serve->random = serve->random * 6364136223846793005u + 1442695040888963407u;
    uint64_t drawn = (uint64_t)__builtin_clzll(serve->random | UINT64_C(1) << (63 - LOOKUP_DRAW_MAX));
    return serve->trusted && !serve->held && drawn * serve->fetch_ns >= rest_ns;
}

#endif
