/* flight — one fetch of one missing key; see flight.h for the rules. */
#include "serve/flight.h"

#include <string.h>

#include "resp/frame.h"
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
    flight->started_ns = serve->now_ns;
    uint32_t *bucket = bucket_of(serve, key->hash);
    flight->bucket_next = *bucket;
    *bucket = flight->item.index;
    serve->stats.flights_started++;
    trace_note(serve->trace, key->hash, FP_TRACE_FETCH, 0);
    return flight;
}

static void end_one(struct serve *serve, struct flight *flight) {
    uint32_t *at = bucket_of(serve, flight->hash);
    while (*at != flight->item.index) at = &flight_record(serve, *at)->bucket_next;
    *at = flight->bucket_next;
    if (flight->key != flight->key_inline) {
        budget_give(serve->budget, BUDGET_FLIGHTS, flight->key_length);
        free(flight->key);
    }
    table_give(&serve->flights, flight);
}

static void flight_end(struct serve *serve, struct flight *flight) {
    while (flight) {
        struct flight *next = flight_record(serve, flight->group_next);
        end_one(serve, flight);
        flight = next;
    }
}

struct flight *flight_find(struct serve *serve, const struct store_key *key) {
    struct flight *flight = flight_record(serve, *bucket_of(serve, key->hash));
    for (; flight; flight = flight_record(serve, flight->bucket_next)) {
        bool same = flight->hash == key->hash && flight->key_length == key->length &&
                    memcmp(flight->key, key->bytes, key->length) == 0;
        if (!same || flight->role != FLIGHT_SINGLE) continue;
        /* The newest decides: an older one is behind what closed this. */
        bool takes = !flight->closed && flight->era == serve->flight_era;
        /* Rule 7. At read_timeout its waiters are given an error, and only what it brings is still of use. */
        bool is_young = serve->now_ns - flight->started_ns < serve->join_ms * NS_PER_MS;
        return takes && is_young ? flight : NULL;
    }
    return NULL;
}

void flight_wait(struct serve *serve, struct flight *flight, struct slot *slot) {
    (void)serve;
    slot->flight = flight->item.index;
    slot->is_read = true;
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

void flight_arm(struct serve *serve, struct flight *flight, int64_t pttl_ms, uint64_t sent_ns, bool keep) {
    (void)serve;
    flight->armed = true;
    flight->keep = keep && pttl_ms != FP_TTL_MISSING;
    flight->expire_at_ms = pttl_ms < 0 ? STORE_NEVER : sent_ns / NS_PER_MS + (uint64_t)pttl_ms;
}

/* Stores what came if it may be kept: true then. What may not leaves nothing older behind (rule 4). */
static bool keep_or_drop(struct serve *serve, struct flight *flight, const struct resp_element *value) {
    bool spoiled = flight->spoiled || flight->era != serve->flight_era || serve->sweeps;
    bool may_keep = flight->armed && flight->keep && !spoiled && value->type == '$' && value->number >= 0;
    if (spoiled) serve->stats.flights_spoiled++;
    if (!may_keep) {
        trace_note(serve->trace, flight->hash, spoiled ? FP_TRACE_SPOILED : FP_TRACE_NOT_KEPT, 0);
        store_drop(serve->store, flight->key, flight->key_length, flight->hash);
        return false;
    }
    struct store_key key = {.bytes = flight->key, .length = flight->key_length, .hash = flight->hash};
    uint64_t fresh_until = flight->started_ns / NS_PER_MS + serve->ttl_default_ms;
    bool kept = store_put(serve->store, &key, value->bytes, value->length, flight->expire_at_ms, fresh_until,
                          serve->epoch, serve->now_ms);
    serve->stats.fills += kept;
    trace_note(serve->trace, flight->hash, kept ? FP_TRACE_FILLED : FP_TRACE_NOT_KEPT, (uint64_t)value->length);
    return kept;
}

static bool is_null(const struct resp_element *element) {
    return element->type == '_' || (element->number < 0 && (element->type == '$' || element->type == '*'));
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
static bool answer_from_store(struct serve *serve, struct flight *flight) {
    struct store_key key = {.bytes = flight->key, .length = flight->key_length, .hash = flight->hash};
    struct store_value value;
    if (store_get(serve->store, &key, serve->now_ms, &value) != STORE_HIT) return false;
    if (!store_hold(serve->store, value.entry)) return false;
    while (flight->first_waiter) {
        struct slot *slot = flight->first_waiter;
        flight_forget(serve, slot);
        slot_answer_value(serve, slot, &value);
    }
    store_release(serve->store, value.entry);
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

static void fill_single(struct serve *serve, struct flight *flight, const uint8_t *reply, size_t length) {
    struct resp_element element;
    bool whole = resp_element(reply, length, &element);
    if (!whole) element = (struct resp_element){.type = '-'};
    bool kept = keep_or_drop(serve, flight, &element);
    if (!kept || length < VALUE_LENT_BYTES || !answer_from_store(serve, flight))
        answer_waiters(serve, flight, reply, length, whole && is_null(&element));
}

void flight_fill(struct serve *serve, struct flight *flight, const uint8_t *reply, size_t length) {
    if (flight->role == FLIGHT_FOLLOWS) return;
    if (flight->role == FLIGHT_SINGLE) fill_single(serve, flight, reply, length);
    else {
        fill_group(serve, flight, reply, length);
        answer_waiters(serve, flight, reply, length, false);
    }
    flight_end(serve, flight);
}

void flight_fail(struct serve *serve, struct flight *flight, const uint8_t *error, size_t length, bool ends) {
    if (flight->role == FLIGHT_FOLLOWS) return;
    answer_waiters(serve, flight, error, length, false);
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
