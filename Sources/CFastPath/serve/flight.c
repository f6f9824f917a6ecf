/* flight — one fetch of one missing key; see flight.h for the rules. */
#include "serve/flight.h"

#include <string.h>

#include "resp/frame.h"
#include "serve/lookup.h"
#include "serve/value.h"

static uint32_t *bucket_of(struct serve *serve, uint64_t hash) {
    return &serve->flight_buckets[hash % SERVE_FLIGHT_BUCKETS];
}

static struct flight *flight_record(struct serve *serve, uint32_t index) {
    return index == TABLE_NONE ? NULL : table_record(&serve->flights, index);
}

struct flight *flight_start(struct serve *serve, const struct store_key *key, enum flight_role role) {
    bool is_long = key->length > FLIGHT_KEY_INLINE;
    if (is_long && !budget_take(serve->budget, BUDGET_FLIGHTS, key->length)) return NULL;
    struct flight *flight = table_take(&serve->flights);
    if (!flight) {
        if (is_long) budget_give(serve->budget, BUDGET_FLIGHTS, key->length);
        return NULL;
    }
    flight->key = is_long ? malloc(key->length) : flight->key_inline;
    CHECK(flight->key);
    memcpy(flight->key, key->bytes, key->length);
    flight->key_length = key->length;
    flight->hash = key->hash;
    flight->group_next = TABLE_NONE;
    flight->role = role;
    flight->era = serve->flight_era;
    flight->rule = rules_find(&serve->rules, key->bytes, key->length);
    flight->started_ns = serve->now_ns;
    uint32_t *bucket = bucket_of(serve, key->hash);
    flight->bucket_next = *bucket;
    *bucket = flight->item.index;
    serve->stats.flights_started++;
    return flight;
}

void flight_announce(struct serve *serve, struct flight *flight, fp_event_kind kind) {
    fp_event *event = serve_event(serve, kind);
    event->ticket = table_id(&flight->item);
    event->bytes = flight->key; /* the argument may lie in the parser's scratch, which lasts one request */
    event->length = flight->key_length;
    event->uncached = !flight->rule->caches;
    serve->request_bytes += 2 * flight->key_length; /* of PTTL, and of GET or EXISTS */
}

static struct flight *send_unasked(struct serve *serve, const struct store_key *key, fp_trace_kind why) {
    struct flight *flight = flight_start(serve, key, FLIGHT_SINGLE);
    if (!flight) return NULL;
    flight->unasked = true;
    trace_note(serve->trace, key->hash, why, 0);
    flight_announce(serve, flight, FP_EVENT_MISS);
    return flight;
}

bool flight_send(struct serve *serve, const struct store_key *key, fp_trace_kind why) {
    return send_unasked(serve, key, why);
}

uint64_t flight_digest(const struct serve *serve, const uint8_t *bytes, uint32_t length, bool absent) {
    return absent ? 0 : store_hash(serve->store, bytes, length) | 1;
}

bool flight_audit(struct serve *serve, const struct store_key *key, uint64_t served, uint64_t served_until_ms) {
    struct flight *flight = send_unasked(serve, key, FP_TRACE_AUDIT);
    if (!flight) return false;
    /* The copy is registered already: a push from now on tells of a change that was under way. */
    flight->audits = flight->armed = true;
    flight->served = served;
    flight->served_until_ms = served_until_ms;
    return true;
}

uint64_t flight_since(struct serve *serve, const struct store_key *key) {
    uint64_t since_ns = 0;
    struct flight *flight = flight_record(serve, *bucket_of(serve, key->hash));
    for (; flight; flight = flight_record(serve, flight->bucket_next))
        if (flight->hash == key->hash) since_ns = flight->started_ns; /* newest first */
    return since_ns;
}

static void end_one(struct serve *serve, struct flight *flight) {
    uint32_t *at = bucket_of(serve, flight->hash);
    while (*at != flight->item.index) at = &flight_record(serve, *at)->bucket_next;
    *at = flight->bucket_next;
    if (flight->key != flight->key_inline) {
        budget_give(serve->budget, BUDGET_FLIGHTS, flight->key_length);
        free(flight->key);
    }
    serve->ahead.under_way -= flight->ahead;
    table_give(&serve->flights, flight);
}

static void flight_end(struct serve *serve, struct flight *flight) {
    while (flight) {
        struct flight *next = flight_record(serve, flight->group_next);
        end_one(serve, flight);
        flight = next;
    }
}

/* An MGET's flights take nobody, and leave their mark in the filter of who has asked. */
static struct flight *newest(struct serve *serve, const struct store_key *key) {
    struct flight *flight = flight_record(serve, *bucket_of(serve, key->hash));
    for (; flight; flight = flight_record(serve, flight->bucket_next)) {
        if (flight->role == FLIGHT_SINGLE && flight->hash == key->hash && flight->key_length == key->length &&
            memcmp(flight->key, key->bytes, key->length) == 0)
            return flight;
    }
    return NULL;
}

bool flight_is_under_way(struct serve *serve, const struct store_key *key) { return newest(serve, key); }

struct flight *flight_find(struct serve *serve, const struct store_key *key) {
    /* The newest decides: an older one is behind what closed this. */
    struct flight *flight = newest(serve, key);
    if (!flight) return NULL;
    bool takes = !flight->closed && flight->era == serve->flight_era;
    /* Rule 7. At read_timeout, unless it is arriving, its waiters are given an error: only what it brings is of use. */
    uint64_t join_ms = flight->rule->ttl_ms < serve->join_ms ? flight->rule->ttl_ms : serve->join_ms;
    bool is_young = serve->now_ns - flight->started_ns < join_ms * NS_PER_MS;
    return takes && is_young ? flight : NULL;
}

void flight_wait(struct serve *serve, struct flight *flight, struct slot *slot) {
    (void)serve;
    slot->flight = flight->item.index;
    slot->outcome = FP_OUTCOME_MISS;
    slot->wait_prev = flight->last_waiter;
    if (flight->last_waiter) flight->last_waiter->wait_next = slot;
    else flight->first_waiter = slot;
    flight->last_waiter = slot;
}

void flight_forget(struct serve *serve, struct slot *slot) {
    struct flight *flight = flight_record(serve, slot->flight);
    slot->flight = TABLE_NONE;
    if (slot->wait_prev) slot->wait_prev->wait_next = slot->wait_next;
    else flight->first_waiter = slot->wait_next;
    if (slot->wait_next) slot->wait_next->wait_prev = slot->wait_prev;
    else flight->last_waiter = slot->wait_prev;
}

static struct flight *send_later(struct serve *serve, const struct store_key *key, fp_trace_kind why) {
    struct flight *flight = flight_start(serve, key, FLIGHT_SINGLE);
    if (!flight) return NULL;
    flight->unasked = true;
    trace_note(serve->trace, key->hash, why, 0);
    flight->fetch_next = TABLE_NONE;
    if (serve->fetch_last == TABLE_NONE) serve->fetch_first = flight->item.index;
    else flight_record(serve, serve->fetch_last)->fetch_next = flight->item.index;
    serve->fetch_last = flight->item.index;
    return flight;
}

bool flight_send_later(struct serve *serve, const struct store_key *key, fp_trace_kind why) {
    return send_later(serve, key, why);
}

bool flight_send_ahead(struct serve *serve, const struct store_key *key) {
    struct flight *flight = send_later(serve, key, FP_TRACE_PREFETCH);
    if (!flight) return false;
    flight->ahead = true;
    serve->ahead.under_way++;
    return true;
}

void flights_announce(struct serve *serve) {
    while (serve->fetch_first != TABLE_NONE && serve_events_fit(serve, 1 + SERVE_EVENTS_SPARE)) {
        struct flight *flight = flight_record(serve, serve->fetch_first);
        serve->fetch_first = flight->fetch_next;
        if (serve->fetch_first == TABLE_NONE) serve->fetch_last = TABLE_NONE;
        flight_announce(serve, flight, FP_EVENT_MISS);
    }
}

void flight_arm(struct serve *serve, struct flight *flight, int64_t pttl_ms, uint64_t sent_ns, fp_keep keep) {
    (void)serve;
    flight->armed = true;
    flight->keep = keep;
    flight->missing = pttl_ms == FP_TTL_MISSING;
    flight->expire_at_ms = pttl_ms < 0 ? STORE_NEVER : sent_ns / NS_PER_MS + (uint64_t)pttl_ms;
}

static bool is_null(const struct resp_element *element) {
    return element->type == '_' || (element->number < 0 && (element->type == '$' || element->type == '*'));
}

/* A value with a time to live, or none of either: an answer whose two parts fit together. */
static bool is_keepable(const struct flight *flight, const struct resp_element *value) {
    if (!flight->rule->caches) return false;
    if (flight->missing) return flight->keep == FP_KEEP_ANSWER && is_null(value);
    return flight->keep != FP_KEEP_NOTHING && value->type == '$' && value->number >= 0;
}

/* Up to a tenth less than its ttl, so that what was filled in one moment is not fetched again in one. */
static uint64_t fresh_until(const struct flight *flight) {
    uint64_t ttl_ms = flight->rule->ttl_ms;
    uint64_t earlier = (flight->hash >> 32 ^ flight->started_ns) % (ttl_ms / 10 + 1);
    return flight->started_ns / NS_PER_MS + ttl_ms - earlier;
}

static bool takes_a_place(const struct serve *serve, const struct flight *flight, const struct resp_element *value) {
    return flight->ahead && !flight->first_waiter && !ahead_may_keep(&serve->ahead, serve->budget, value->length);
}

/* Stores what came if it may be kept: true then. What may not leaves nothing older behind (rule 4). */
static bool keep_or_drop(struct serve *serve, struct flight *flight, const struct resp_element *value) {
    bool spoiled = flight->spoiled || flight->era != serve->flight_era || serve->sweeps;
    if (spoiled) serve->stats.flights_spoiled++;
    if (spoiled || !flight->armed || serve->bypass || !is_keepable(flight, value) ||
        takes_a_place(serve, flight, value)) {
        trace_note(serve->trace, flight->hash, spoiled ? FP_TRACE_SPOILED : FP_TRACE_NOT_KEPT, 0);
        store_drop(serve->store, flight->key, flight->key_length, flight->hash);
        return false;
    }
    struct store_key key = {.bytes = flight->key, .length = flight->key_length, .hash = flight->hash};
    const uint8_t *bytes = flight->missing ? NULL : value->bytes;
    uint32_t length = flight->missing ? 0 : value->length;
    bool kept = store_put(serve->store, &key, bytes, length, flight->expire_at_ms, fresh_until(flight), serve->epoch,
                          serve->now_ms);
    serve->stats.fills += kept;
    fp_trace_kind what = flight->missing ? FP_TRACE_ABSENT : FP_TRACE_FILLED;
    trace_note(serve->trace, flight->hash, kept ? what : FP_TRACE_NOT_KEPT, length);
    return kept;
}

static void answer_waiters(struct serve *serve, struct flight *flight, const uint8_t *reply, size_t length, bool null) {
    while (flight->first_waiter) {
        struct slot *slot = flight->first_waiter;
        flight_forget(serve, slot);
        if (null) slot_answer_null(serve, slot);
        else slot_answer(serve, slot, reply, length, flight->role == FLIGHT_LEADS, 0);
    }
}

/* A large value is sent to all from its one place in the store. Held meanwhile, since a reply may make the store give
 * memory back. False when it is not there (its time may have run out as it came). */
static bool answer_from_store(struct serve *serve, struct flight *flight, const struct store_value *value,
                              fp_outcome outcome) {
    if (!store_hold(serve->store, value->entry)) return false;
    while (flight->first_waiter) {
        struct slot *slot = flight->first_waiter;
        flight_forget(serve, slot);
        slot->outcome = outcome;
        slot_answer_value(serve, slot, value);
    }
    store_release(serve->store, value->entry);
    return true;
}

static bool answer_large(struct serve *serve, struct flight *flight) {
    struct store_key key = {.bytes = flight->key, .length = flight->key_length, .hash = flight->hash};
    struct store_value value;
    return store_get(serve->store, &key, serve->now_ms, &value) == STORE_HIT &&
           answer_from_store(serve, flight, &value, FP_OUTCOME_MISS);
}

/* The upstream does not answer. A copy that is there has been announced as changed by nothing, nor written, and is as
 * true as ever but for its time. Not for who has asked the upstream for more of this key before. */
static bool find_stale(struct serve *serve, const struct flight *flight, struct store_value *value) {
    struct store_key key = {.bytes = flight->key, .length = flight->key_length, .hash = flight->hash};
    return !flight->behind && lookup_stale(serve, &key, value);
}

static bool answer_stale(struct serve *serve, struct flight *flight) {
    struct store_value value;
    if (!flight->first_waiter || !find_stale(serve, flight, &value)) return false;
    uint32_t waiters = 0;
    for (const struct slot *slot = flight->first_waiter; slot; slot = slot->wait_next) waiters++;
    fp_outcome outcome = lookup_note(serve, &value, waiters);
    return answer_from_store(serve, flight, &value, outcome);
}

/* An MGET, which one client waits for: all its keys at this instant, or none. */
static bool answer_group_stale(struct serve *serve, struct flight *leader) {
    struct store_value values[SERVE_MGET_KEYS];
    struct slot *slot = leader->first_waiter;
    uint32_t count = 0;
    if (!slot) return false;
    for (struct flight *flight = leader; flight; flight = flight_record(serve, flight->group_next)) {
        if (!find_stale(serve, flight, &values[count]) || !store_hold(serve->store, values[count].entry)) {
            values_release(serve, values, count);
            return false;
        }
        count++;
    }
    flight_forget(serve, slot);
    slot->outcome = FP_OUTCOME_NEGATIVE;
    for (uint32_t i = 0; i < count; i++) {
        fp_outcome one = lookup_note(serve, &values[i], 1);
        if (one > slot->outcome) slot->outcome = one;
    }
    slot_answer_values(serve, slot, values, count);
    values_release(serve, values, count);
    return true;
}

/* Walks the array beside the MGET's flights: one element a key, in order. */
static void fill_group(struct serve *serve, struct flight *leader, const uint8_t *reply, size_t length) {
    struct resp_element element;
    if (!resp_element(reply, length, &element) || element.type != '*') return;
    size_t at = element.size;
    for (struct flight *flight = leader; flight; flight = flight_record(serve, flight->group_next)) {
        if (!resp_element(reply + at, length - at, &element)) return;
        keep_or_drop(serve, flight, &element);
        at += element.size;
    }
}

/* A change that was announced meanwhile may have been made before or behind the answer: it says nothing. Nor does the
 * end of a time that was known: it is announced behind the answer that shows it. */
static void audit(struct serve *serve, const struct flight *flight, const struct resp_element *value) {
    bool absent = is_null(value);
    if (!absent && value->type != '$') return; /* an error tells nothing */
    if (flight->served == flight_digest(serve, value->bytes, value->length, absent)) serve->stats.audits_same++;
    else if (flight->spoiled || flight->era != serve->flight_era ||
             (absent && flight->served_until_ms <= serve->now_ms))
        serve->stats.audits_changed++;
    else {
        serve->stats.audits_stale++;
        trace_note(serve->trace, flight->hash, FP_TRACE_AUDIT_STALE, 0);
    }
}

static void fill_single(struct serve *serve, struct flight *flight, const uint8_t *reply, size_t length) {
    struct resp_element element;
    bool whole = resp_element(reply, length, &element);
    if (!whole) element = (struct resp_element){.type = '-'};
    if (unlikely(flight->audits)) audit(serve, flight, &element);
    bool kept = keep_or_drop(serve, flight, &element);
    if (!kept || length < VALUE_LENT_BYTES || !answer_large(serve, flight))
        answer_waiters(serve, flight, reply, length, whole && is_null(&element));
}

/* A mean over some eight fetches. One that came late tells of a fault, and not of what fetches take. */
static void note_time(struct serve *serve, uint64_t took_ns) {
    uint64_t counted = took_ns < NS_PER_S / 10 ? took_ns : NS_PER_S / 10;
    serve->fetch_ns += counted / 8 - serve->fetch_ns / 8;
}

void flight_fill(struct serve *serve, struct flight *flight, const uint8_t *reply, size_t length) {
    if (flight->role == FLIGHT_FOLLOWS) return;
    note_time(serve, serve->now_ns - flight->started_ns);
    if (unlikely(flight->ahead)) ahead_heard(&serve->ahead, serve->now_ns - flight->started_ns);
    if (flight->role == FLIGHT_SINGLE) fill_single(serve, flight, reply, length);
    else {
        fill_group(serve, flight, reply, length);
        answer_waiters(serve, flight, reply, length, false);
    }
    flight_end(serve, flight);
}

void flight_fail(struct serve *serve, struct flight *flight, const uint8_t *error, size_t length, bool ends) {
    if (flight->role == FLIGHT_FOLLOWS) return;
    bool is_answered = flight->role == FLIGHT_SINGLE ? answer_stale(serve, flight) : answer_group_stale(serve, flight);
    if (!is_answered) answer_waiters(serve, flight, error, length, false);
    if (ends) flight_end(serve, flight);
}

void flights_spoil_armed(struct serve *serve, uint64_t hash) {
    struct flight *flight = flight_record(serve, *bucket_of(serve, hash));
    for (; flight; flight = flight_record(serve, flight->bucket_next))
        if (flight->hash == hash && flight->armed) flight->spoiled = true;
}

void flights_close(struct serve *serve, uint64_t hash) {
    struct flight *flight = flight_record(serve, *bucket_of(serve, hash));
    for (; flight; flight = flight_record(serve, flight->bucket_next))
        if (flight->hash == hash) flight->closed = flight->spoiled = true;
}

void flights_close_all(struct serve *serve) { serve->flight_era++; }
