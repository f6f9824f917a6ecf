/* read — GET and MGET from the store, or by a flight.
 *
 * Rule 5: a read is not answered from the store, and joins no flight, while an earlier command of the same client that
 * touches its key is unanswered: that command runs upstream later than now, so what the store says now may be older
 * than what that command's reply will show. Such a read starts a flight of its own, behind it on the same link. When
 * the earlier command is itself a GET in flight, the read joins it, unless that flight takes nobody any more. */
#include "serve/read.h"

#include "serve/flight.h"
#include "serve/lookup.h"
#include "serve/value.h"
#include "serve/write.h"

static struct store_key key_of(struct serve *serve, const struct resp_arg *arg) {
    return (struct store_key){
        .bytes = arg->bytes, .length = arg->length, .hash = store_hash(serve->store, arg->bytes, arg->length)};
}

static bool is_filtered(const struct session *session, uint64_t hash) {
    return session->filtered && (session->filter >> (hash & 63) & 1);
}

/* What is in the air will be newer than what the store has. When it is an earlier read of the same client, answering
 * from the store would show that client the newer value first: it joins instead. */
static struct flight *flight_ahead(struct serve *serve, const struct session *session, const struct store_key *key) {
    return unlikely(session->first) ? flight_find(serve, key) : NULL;
}

/* An earlier command of the client that touches the key is unanswered, and the read cannot share its answer. Whether
 * the client itself waits for a flight that takes nobody is not looked up: it may. */
static bool is_behind(struct serve *serve, const struct session *session, const struct store_key *key) {
    if (is_filtered(session, key->hash)) return true;
    return unlikely(session->first) && flight_is_under_way(serve, key) && !flight_find(serve, key);
}

static enum dispatched short_of_memory(struct serve *serve, struct session *session) {
    session_starve(serve, session);
    return DISPATCH_CLOSE;
}

/* False when memory is short. */
static bool append_value(struct serve *serve, struct session *session, const struct store_value *value) {
    return value_append(serve, slot_sink(session), value, session->protocol);
}

/* What it has sent on another link may come behind the write, and show what is newer than it. */
static bool is_elsewhere(const struct session *session) {
    return session->lane_count && session->lane != FP_LANE_TRACKED;
}

/* What is written answers for its key, but not where only the upstream may: under bypass, and for a key that is never
 * kept. Such a read goes when that write is upstream, so it shows no less. */
static bool must_ask(const struct serve *serve, const struct store_key *key) {
    return serve->bypass || !rules_find(&serve->rules, key->bytes, key->length)->caches;
}

/* For the writes that `write_must_wait` has named; or hears that nobody takes them. */
static enum dispatched wait_for_writes(struct serve *serve, struct session *session, const struct command *command) {
    if (!serve->refusal.length) return dispatch_stall(serve, session, STALL_WRITES);
    serve_count_at_once(serve, command->id, FP_OUTCOME_ERROR);
    bool fits = chain_append(slot_sink(session), &serve->blocks, serve->refusal.bytes, serve->refusal.length);
    return fits ? DISPATCH_DONE : short_of_memory(serve, session);
}

/* A command of the client that touches the key is unanswered, and was sent behind that write (what it waited for came
 * before it): it may show what is newer. */
static bool is_passed(const struct session *session, const struct written *written) {
    if (is_elsewhere(session)) return true;
    return unlikely(session->filtered) && written->place < session->passed_place && is_filtered(session, written->hash);
}

static fp_outcome outcome_of_written(const struct store_value *value) {
    return value->absent ? FP_OUTCOME_NEGATIVE : FP_OUTCOME_HIT;
}

static enum dispatched answer_own(struct serve *serve, struct session *session, struct written *written) {
    struct store_value value = write_value(serve, written);
    trace_note(serve->trace, value.hash, FP_TRACE_OWN, 0);
    serve->stats.keyspace_hits++;
    serve_count_at_once(serve, COMMAND_ID_GET, outcome_of_written(&value));
    return append_value(serve, session, &value) ? DISPATCH_DONE : short_of_memory(serve, session);
}

/* How many hits until the next audit: evenly between one and nearly twice the mean, lest it fall in with the
 * application's own period. */
void read_audit(struct serve *serve, uint64_t every) {
    serve->audit_every = every;
    serve->random = serve->random * 6364136223846793005u + 1442695040888963407u;
    serve->audit_left = every ? 1 + (serve->random >> 20) % (2 * every - 1) : UINT64_MAX;
}

/* A copy that is suspect says of itself that it may be old. */
static void audit(struct serve *serve, const struct store_key *key, uint64_t served, uint64_t until_ms) {
    read_audit(serve, serve->audit_every);
    if (serve->trusted && !serve->held && !flight_find(serve, key)) flight_audit(serve, key, served, until_ms);
}

static void refresh(struct serve *serve, const struct store_key *key) {
    if (!flight_find(serve, key)) serve->stats.refreshes += flight_send(serve, key, FP_TRACE_REFRESH);
}

enum dispatched read_get(struct serve *serve, struct session *session, const struct command *command) {
    struct store_key key = key_of(serve, &serve->args.args[1]);
    struct written *written = write_find(serve, &key);
    if (unlikely(written)) {
        if (is_passed(session, written)) return dispatch_stall(serve, session, STALL_LANE);
        if (!must_ask(serve, &key)) return answer_own(serve, session, written);
        if (write_must_wait(serve, session, command)) return wait_for_writes(serve, session, command);
    }
    bool behind = is_behind(serve, session, &key);
    struct flight *flight = behind ? NULL : flight_ahead(serve, session, &key);
    struct store_value value;
    if (likely(!behind && !flight && lookup(serve, &key, &value))) {
        serve_count_at_once(serve, COMMAND_ID_GET, lookup_note(serve, &value, 1));
        serve->stats.keyspace_hits++;
        bool ripe = lookup_is_ripe(serve, &value);
        bool is_audited = --serve->audit_left == 0;
        uint64_t served = unlikely(is_audited) ? flight_digest(serve, value.bytes, value.length, value.absent) : 0;
        if (unlikely(!append_value(serve, session, &value))) return short_of_memory(serve, session);
        if (unlikely(is_audited)) audit(serve, &key, served, value.expire_at);
        if (unlikely(ripe)) refresh(serve, &key);
        return DISPATCH_DONE;
    }
    if (!dispatch_may_fetch(serve, session)) return DISPATCH_STALL;
    if (!flight && !behind) flight = flight_find(serve, &key);
    bool joined = flight;
    if (!flight) flight = flight_start(serve, &key, FLIGHT_SINGLE);
    if (!flight) return short_of_memory(serve, session);
    flight->behind |= behind;
    struct slot *slot = slot_open(serve, session, FP_LANE_TRACKED, command);
    if (!slot) {
        /* Nobody would fetch it, and those who joined it would wait for ever. */
        if (!joined) flight_fail(serve, flight, NULL, 0, true);
        return short_of_memory(serve, session);
    }
    flight_wait(serve, flight, slot);
    serve->stats.keyspace_misses++;
    if (joined) {
        serve->stats.flights_joined++;
        trace_note(serve->trace, key.hash, FP_TRACE_JOIN, 0);
        return DISPATCH_DONE;
    }
    trace_note(serve->trace, key.hash, FP_TRACE_FETCH, 0);
    flight_announce(serve, flight, FP_EVENT_MISS);
    return DISPATCH_DONE;
}

/* All keys at one instant, or none: the keys hit so far are not a reason to ask in part. Each is held, since writing
 * one into the reply may make the store give memory back, and with it the next. */
static bool hold_all(struct serve *serve, struct session *session, uint32_t count, struct store_value *values) {
    for (uint32_t i = 0; i < count; i++) {
        struct store_key key = key_of(serve, &serve->args.args[1 + i]);
        struct written *written = write_find(serve, &key);
        if (unlikely(written) && !is_passed(session, written) && !must_ask(serve, &key)) {
            values[i] = write_value(serve, written);
            continue;
        }
        bool hit = !written && !is_behind(serve, session, &key) && !flight_ahead(serve, session, &key) &&
                   lookup(serve, &key, &values[i]) && store_hold(serve->store, values[i].entry);
        if (hit) continue;
        values_release(serve, values, i);
        return false;
    }
    return true;
}

/* Behind a hit that is in the reply, and whose value is still held. */
static void look_behind(struct serve *serve, const struct resp_arg *arg, const struct store_value *value) {
    bool ripe = lookup_is_ripe(serve, value), is_audited = --serve->audit_left == 0;
    if (likely(!ripe && !is_audited)) return;
    struct store_key key = key_of(serve, arg);
    uint64_t served = flight_digest(serve, value->bytes, value->length, value->absent);
    if (is_audited) audit(serve, &key, served, value->expire_at);
    if (ripe) refresh(serve, &key);
}

/* The leader of a new group, a flight a key; NULL when memory is short. */
static struct flight *start_group(struct serve *serve, const struct session *session, uint32_t count) {
    struct flight *leader = NULL, *previous = NULL;
    for (uint32_t i = 0; i < count; i++) {
        struct store_key key = key_of(serve, &serve->args.args[1 + i]);
        bool behind = is_behind(serve, session, &key) || flight_ahead(serve, session, &key);
        struct flight *flight = flight_start(serve, &key, leader ? FLIGHT_FOLLOWS : FLIGHT_LEADS);
        if (!flight) {
            if (leader) flight_fail(serve, leader, NULL, 0, true);
            return NULL;
        }
        flight->behind = behind;
        trace_note(serve->trace, key.hash, FP_TRACE_FETCH, 0);
        if (previous) previous->group_next = flight->item.index;
        else leader = flight;
        previous = flight;
    }
    return leader;
}

static void announce_group(struct serve *serve, struct session *session, struct flight *leader, const uint8_t *raw,
                           size_t length) {
    struct flight *flight = leader;
    while (flight) {
        session->filter |= 1ull << (flight->hash & 63);
        flight_announce(serve, flight, FP_EVENT_MGET_KEY);
        flight = flight->group_next == TABLE_NONE ? NULL : table_record(&serve->flights, flight->group_next);
    }
    fp_event *event = serve_event(serve, FP_EVENT_MGET);
    event->ticket = table_id(&leader->item);
    event->bytes = raw;
    event->length = (uint32_t)length;
    serve->request_bytes += length;
}

enum dispatched read_mget(struct serve *serve, struct session *session, const struct command *command,
                          const uint8_t *raw, size_t length, bool *handled) {
    uint32_t count = serve->args.count - 1;
    *handled = count <= SERVE_MGET_KEYS;
    if (!*handled) return DISPATCH_DONE;
    struct store_value values[SERVE_MGET_KEYS];
    if (hold_all(serve, session, count, values)) {
        struct chain *chain = slot_sink(session);
        bool fits = reply_aggregate(chain, &serve->blocks, '*', count);
        fp_outcome outcome = FP_OUTCOME_NEGATIVE;
        for (uint32_t i = 0; i < count && fits; i++) {
            fits = append_value(serve, session, &values[i]);
            bool is_queued = !values[i].entry;
            fp_outcome one = is_queued ? outcome_of_written(&values[i]) : lookup_note(serve, &values[i], 1);
            if (one > outcome) outcome = one;
            if (is_queued) continue;
            look_behind(serve, &serve->args.args[1 + i], &values[i]);
        }
        values_release(serve, values, count);
        serve->stats.keyspace_hits += count;
        serve_count_at_once(serve, COMMAND_ID_MGET, outcome);
        return fits ? DISPATCH_DONE : short_of_memory(serve, session);
    }
    if (!dispatch_may_fetch(serve, session)) return DISPATCH_STALL;
    /* Only the upstream can read them all at one instant, and it must know of the writes. */
    if (write_must_wait(serve, session, command)) return wait_for_writes(serve, session, command);
    struct flight *leader = start_group(serve, session, count);
    if (!leader) return short_of_memory(serve, session);
    struct slot *slot = slot_open(serve, session, FP_LANE_TRACKED, command);
    if (!slot) {
        flight_fail(serve, leader, NULL, 0, true);
        return short_of_memory(serve, session);
    }
    flight_wait(serve, leader, slot);
    /* The reply is the upstream's at a later instant than now: later reads of these keys must not be older. */
    slot->filtered = true;
    session->filtered++;
    session->passed_place = serve->behind.next_place;
    serve->stats.keyspace_misses += count;
    announce_group(serve, session, leader, raw, length);
    return DISPATCH_DONE;
}
