/* lookup — see lookup.h. */
#include "serve/lookup.h"

static bool is_vouched_for(const struct serve *serve, const struct store_value *value) {
    return serve->trusted && value->epoch == serve->epoch;
}

/* Suspect, and yet served. */
static bool is_all_there_is(const struct serve *serve, const struct store_value *value) {
    return serve->serve_suspect && value->epoch >= serve->suspect_from;
}

static bool is_fresh(const struct serve *serve, const struct store_value *value) {
    return likely(serve->now_ms < value->fresh_until);
}

static bool may_be_stale(const struct serve *serve, const struct store_key *key, const struct store_value *value) {
    const struct rule *rule = rules_find(&serve->rules, key->bytes, key->length);
    return serve->now_ms - value->fresh_until < rule->stale_ms;
}

bool lookup(struct serve *serve, const struct store_key *key, struct store_value *value) {
    if (unlikely(serve->bypass) || store_get(serve->store, key, serve->now_ms, value) != STORE_HIT) return false;
    bool vouched = is_vouched_for(serve, value), fresh = is_fresh(serve, value);
    if (likely(vouched && fresh)) return true;
    if (!vouched && is_all_there_is(serve, value) && (fresh || may_be_stale(serve, key, value))) return true;
    trace_note(serve->trace, key->hash, fresh ? FP_TRACE_SUSPECT : FP_TRACE_STALE, fresh ? value->epoch : 0);
    return false;
}

bool lookup_stale(struct serve *serve, const struct store_key *key, struct store_value *value) {
    return !serve->bypass && store_get(serve->store, key, serve->now_ms, value) == STORE_HIT &&
           (is_vouched_for(serve, value) || is_all_there_is(serve, value)) &&
           (is_fresh(serve, value) || may_be_stale(serve, key, value));
}

fp_outcome lookup_note(struct serve *serve, const struct store_value *value, uint32_t times) {
    bool vouched = is_vouched_for(serve, value), fresh = is_fresh(serve, value);
    if (likely(vouched && fresh)) {
        trace_note(serve->trace, value->hash, FP_TRACE_HIT, times);
    } else {
        trace_note(serve->trace, value->hash, fresh ? FP_TRACE_SUSPECT_HIT : FP_TRACE_STALE_HIT, value->epoch);
        if (!vouched) serve->stats.suspect_served += times;
        if (!fresh) serve->stats.stale_served += times;
    }
    if (unlikely(value->absent)) serve->stats.absent_served += times;
    if (unlikely(!vouched || !fresh)) return FP_OUTCOME_STALE;
    return unlikely(value->absent) ? FP_OUTCOME_NEGATIVE : FP_OUTCOME_HIT;
}
