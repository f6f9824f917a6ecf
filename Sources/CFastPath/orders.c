/* orders — what Swift decides, carried out: fp_link_*, fp_answer*, fp_pin*, fp_fill, fp_drop*, fp_trust and their like.
 * An order that names what is gone by now (its id's generation is over) does nothing.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "engine.h"
#include "serve/flight.h"
#include "serve/lookup.h"
#include "serve/read.h"
#include "serve/write.h"

/* ---- orders to links ---- */

fp_link fp_link_open(fp_engine *engine, const void *address, uint32_t address_length) {
    return link_open(&engine->links, address, address_length);
}

void fp_link_tls(fp_engine *engine, fp_tls *tls) {
    CHECK(tls);
    fp_tls_free(engine->links.tls);
    engine->links.tls = tls;
}

void fp_link_send(fp_engine *engine, fp_link id, const void *bytes, size_t length) {
    struct link *link = link_at(&engine->links, id);
    if (link) link_send(&engine->links, link, bytes, length);
}

void fp_link_send_bulk(fp_engine *engine, fp_link id, const void *bytes, size_t length) {
    struct link *link = link_at(&engine->links, id);
    if (link) link_send_bulk(&engine->links, link, bytes, length);
}

void fp_upstream_took(fp_engine *engine, uint64_t duration_ns) {
    histogram_add(&engine->serve.stats.upstream_duration, duration_ns, 1);
}

size_t fp_link_backlog(const fp_engine *engine, fp_link id) {
    const struct link *link = table_at(&engine->links.table, id);
    return link ? link->out.bytes + link->sealed.bytes : 0;
}

uint64_t fp_link_arriving(const fp_engine *engine, fp_link id) {
    const struct link *link = table_at(&engine->links.table, id);
    return link && (inbox_left(&link->in) || link->skipping) ? link->heard_ns : 0;
}

void fp_link_close(fp_engine *engine, fp_link id) {
    struct link *link = link_at(&engine->links, id);
    if (link) link_close(&engine->links, link);
}

void fp_link_abort(fp_engine *engine, fp_link id) {
    struct link *link = link_at(&engine->links, id);
    if (link) link_abort(&engine->links, link);
}

void fp_link_reset_at_end(fp_engine *engine, fp_link id) {
    struct link *link = link_at(&engine->links, id);
    if (link) loop_reset_at_end(engine->links.loop, &link->conn);
}

void fp_link_finish(fp_engine *engine, fp_link id) {
    struct link *link = link_at(&engine->links, id);
    if (link) link_finish(&engine->links, link);
}

/* ---- orders to clients ---- */

static struct session *session_at(fp_engine *engine, fp_client id) {
    struct client *client = table_at(&engine->clients.table, id);
    return client ? &client->session : NULL;
}

static struct slot *slot_at(fp_engine *engine, fp_slot id) {
    struct slot *slot = table_at(&engine->serve.slots, id);
    return slot && !slot->answered ? slot : NULL;
}

void fp_answer(fp_engine *engine, fp_slot id, const void *reply, size_t length, bool from_resp3, fp_fence fence) {
    struct slot *slot = slot_at(engine, id);
    if (slot) slot_answer(&engine->serve, slot, reply, length, from_resp3, fence);
}

void fp_answer_error(fp_engine *engine, fp_slot id, const void *error, size_t length) {
    struct slot *slot = slot_at(engine, id);
    if (slot) slot_answer_error(&engine->serve, slot, error, length);
}

void fp_silent_mark(fp_engine *engine, fp_client id) {
    struct session *session = session_at(engine, id);
    if (session) session_mark_silent(session);
}

void fp_silent_settle(fp_engine *engine, fp_client id) {
    struct session *session = session_at(engine, id);
    if (session) session_settle_silent(&engine->serve, session);
}

void fp_answer_more(fp_engine *engine, fp_slot id, const void *reply, size_t length, bool fenced) {
    struct slot *slot = slot_at(engine, id);
    if (slot) slot_answer_more(&engine->serve, slot, reply, length, fenced);
}

void fp_tell(fp_engine *engine, fp_client id, const void *bytes, size_t length, fp_fence fence) {
    struct session *session = session_at(engine, id);
    if (session && !session->closing) session_tell(&engine->serve, session, bytes, length, fence);
}

void fp_fence_passed(fp_engine *engine, fp_fence fence) { fence_passed(&engine->serve, fence); }

static void forget_link(fp_engine *engine, struct session *session) {
    if (!session->link) return;
    session->link = 0;
    engine->serve.stats.clients_pinned--;
}

bool fp_unpin(fp_engine *engine, fp_client id) {
    struct session *session = session_at(engine, id);
    bool is_free = session && session->lane == FP_LANE_PINNED && !session->lane_count && !session->in_multi;
    if (!is_free) return false;
    session->gives_back = true;
    session_mark_dirty(&engine->serve, session);
    return true;
}

void fp_pin_lost(fp_engine *engine, fp_client id) {
    struct session *session = session_at(engine, id);
    if (!session) return;
    if (session->lane == FP_LANE_PINNED && !session->gives_back) {
        session_close(&engine->serve, session);
        return;
    }
    forget_link(engine, session);
    /* It may have ended its side, and have waited for the link's end. */
    session_mark_dirty(&engine->serve, session);
}

void fp_pin(fp_engine *engine, fp_client id, fp_link link) {
    struct session *session = session_at(engine, id);
    if (!session || session->stall != STALL_PIN) return;
    session->lane = FP_LANE_PINNED;
    if (!session->link) engine->serve.stats.clients_pinned++;
    session->link = link;
    session->link_fits = true;
    struct link *own = link_at(&engine->links, link);
    if (own) own->session = session;
    session_mark_runnable(&engine->serve, session);
}

void fp_pin_fail(fp_engine *engine, fp_client id, const void *error, size_t length) {
    struct session *session = session_at(engine, id);
    if (!session || session->stall != STALL_PIN) return;
    forget_link(engine, session);
    session->pin_refused = true;
    if (!buffer_append(&session->pin_error, &engine->budget, BUDGET_CLIENTS, error, length))
        session_close(&engine->serve, session);
    session_mark_runnable(&engine->serve, session);
}

void fp_client_close(fp_engine *engine, fp_client id) {
    struct session *session = session_at(engine, id);
    if (session) session_close(&engine->serve, session);
}

void fp_slot_close(fp_engine *engine, fp_slot id) {
    struct slot *slot = slot_at(engine, id);
    if (slot) session_close(&engine->serve, slot->session);
}

void fp_hold(fp_engine *engine, fp_hold_kind what) {
    if (engine->serve.held > what) clients_release(&engine->clients, STALL_HELD);
    engine->serve.held = what;
}

void fp_refuse(fp_engine *engine, const void *error, size_t length) {
    struct buffer *refusal = &engine->serve.refusal;
    refusal->length = 0;
    engine->serve.write_moved = true; /* who waits for writes hears that nobody will take them, or goes on */
    if (!buffer_append(refusal, &engine->budget, BUDGET_SLOTS, error, length))
        buffer_free(refusal, &engine->budget, BUDGET_SLOTS);
}

/* ---- orders to the store ---- */

static struct flight *flight_at(fp_engine *engine, fp_flight id) { return table_at(&engine->serve.flights, id); }

void fp_arm(fp_engine *engine, fp_flight id, int64_t pttl_ms, uint64_t sent_ns, fp_keep keep) {
    struct flight *flight = flight_at(engine, id);
    if (flight) flight_arm(&engine->serve, flight, pttl_ms, sent_ns, keep);
}

void fp_fill(fp_engine *engine, fp_flight id, const void *reply, size_t length) {
    struct flight *flight = flight_at(engine, id);
    if (flight) flight_fill(&engine->serve, flight, reply, length);
}

void fp_flight_timeout(fp_engine *engine, fp_flight id, const void *error, size_t length) {
    struct flight *flight = flight_at(engine, id);
    if (flight) flight_fail(&engine->serve, flight, error, length, false);
}

void fp_flight_fail(fp_engine *engine, fp_flight id, const void *error, size_t length) {
    struct flight *flight = flight_at(engine, id);
    if (flight) flight_fail(&engine->serve, flight, error, length, true);
}

fp_ahead fp_fetch(fp_engine *engine, const void *name, size_t length) {
    struct serve *serve = &engine->serve;
    struct store_key key = {.bytes = name, .length = (uint32_t)length};
    key.hash = store_hash(serve->store, key.bytes, key.length);
    if (!rules_find(&serve->rules, key.bytes, key.length)->caches) return FP_AHEAD_NEVER;
    struct store_value value;
    bool needless = flight_is_under_way(serve, &key) || write_find(serve, &key) || lookup(serve, &key, &value);
    if (needless) return FP_AHEAD_BEGUN;
    if (!ahead_may_ask(&serve->ahead, &engine->budget)) return FP_AHEAD_FULL;
    if (!ahead_fits(&serve->ahead)) return FP_AHEAD_LATER;
    return flight_send_ahead(serve, &key) ? FP_AHEAD_BEGUN : FP_AHEAD_FULL;
}

void fp_flights_close(fp_engine *engine) { flights_close_all(&engine->serve); }

void fp_drop(fp_engine *engine, const void *key, size_t length) {
    struct serve *serve = &engine->serve;
    uint64_t hash = store_hash(serve->store, key, (uint32_t)length);
    trace_note(serve->trace, hash, FP_TRACE_CHANGED, store_drop(serve->store, key, (uint32_t)length, hash));
    flights_spoil_armed(serve, hash);
    serve->stats.invalidations++;
}

void fp_drop_all(fp_engine *engine) {
    trace_note_all(engine->serve.trace, FP_TRACE_FLUSHED);
    store_drop_all(engine->store);
    flights_close_all(&engine->serve);
}

void fp_bypass(fp_engine *engine, bool on) {
    engine->serve.bypass = on;
    if (on) fp_drop_all(engine);
}

uint64_t fp_drop_matching(fp_engine *engine, const void *pattern, size_t length, uint64_t cursor, uint32_t steps,
                          uint64_t *dropped) {
    flights_close_all(&engine->serve);
    return store_drop_matching(engine->store, pattern, length, cursor, steps, dropped);
}

static void drop_unresolved(fp_engine *engine) {
    for (uint32_t i = 0; i < engine->clients.table.used; i++) {
        struct client *client = table_record(&engine->clients.table, i);
        if (client->item.generation & 1) session_drop_unresolved(&engine->serve, &client->session);
    }
}

void fp_trust(fp_engine *engine, uint32_t epoch, bool trusted, uint64_t until_ns, bool serve_suspect) {
    struct serve *serve = &engine->serve;
    if (serve->epoch != 0 && epoch != serve->epoch) serve->has_others = true;
    serve->epoch = epoch;
    if (serve_suspect && !serve->serve_suspect) {
        drop_unresolved(engine);
        /* What they asked for may be here, and is served from now on. */
        clients_release(&engine->clients, STALL_HELD);
        serve->write_moved = true;
    }
    serve->serve_suspect = serve_suspect;
    engine->trusted = trusted;
    engine->trusted_until_ns = until_ns;
    engine_see_trust(engine);
}

void fp_joinable(fp_engine *engine, uint64_t joinable_ms) { engine->serve.join_ms = joinable_ms; }

void fp_audit(fp_engine *engine, uint64_t every) { read_audit(&engine->serve, every); }

void fp_rules(fp_engine *engine, const fp_rule *rules, uint32_t count) {
    rules_set(&engine->serve.rules, rules, count);
    store_keep_stale(engine->store, engine->serve.rules.stale_ms_max);
}

/* ---- write-behind ---- */

fp_behind fp_behind_look(const fp_engine *engine) {
    const struct behind *behind = &engine->serve.behind;
    return (fp_behind){.queued = behind->queued, .flying = behind->flying};
}

static void send_text(fp_engine *engine, struct link *link, const char *text) {
    link_send(&engine->links, link, text, strlen(text));
}

static void send_written(fp_engine *engine, struct link *link, const struct written *written) {
    struct links *links = &engine->links;
    const uint8_t *value = written->bytes + written->key_length;
    bool expires = written->expire_at_ms != STORE_NEVER;
    if (written->deletes) {
        send_text(engine, link, "*2\r\n$3\r\nDEL\r\n");
        link_send_bulk(links, link, written->bytes, written->key_length);
        return;
    }
    send_text(engine, link, expires ? "*5\r\n$3\r\nSET\r\n" : "*3\r\n$3\r\nSET\r\n");
    link_send_bulk(links, link, written->bytes, written->key_length);
    link_send_bulk(links, link, value, written->value_length);
    if (!expires) return;
    char ttl[24];
    int length = snprintf(ttl, sizeof ttl, "%" PRIu64, written->expire_at_ms - engine->serve.now_ms);
    send_text(engine, link, "$2\r\nPX\r\n");
    link_send_bulk(links, link, (const uint8_t *)ttl, (size_t)length);
}

/* Somebody reads the key: what the upstream has behind the write is to be the copy. */
static void fetch_behind(fp_engine *engine, const struct written *written) {
    struct serve *serve = &engine->serve;
    struct store_key key = {.bytes = written->bytes, .length = written->key_length, .hash = written->hash};
    const struct rule *rule = rules_find(&serve->rules, key.bytes, key.length);
    if (serve->bypass || !written->is_read || !rule->fills_behind || flight_find(serve, &key)) return;
    serve->stats.fetches_behind += flight_send_later(serve, &key, FP_TRACE_BEHIND_WRITE);
}

/* What was fetched before is older, though it may come later: who had waited for an earlier write of the key has read
 * it, or written it, meanwhile. Once this one is confirmed nothing stands before the store any more. */
static void overtake(struct serve *serve, const struct written *written) {
    trace_note(serve->trace, written->hash, FP_TRACE_SENT, 0);
    store_drop(serve->store, written->bytes, written->key_length, written->hash);
    flights_close(serve, written->hash);
}

uint32_t fp_behind_send(fp_engine *engine, fp_link id, uint32_t count, size_t backlog_max) {
    struct link *link = link_at(&engine->links, id);
    uint32_t sent = 0;
    while (sent < count && link && link->out.bytes < backlog_max) {
        const struct written *written = behind_queued(&engine->serve.behind);
        if (!written || !serve_request_fits(&engine->serve, (size_t)written->key_length + written->value_length)) break;
        behind_send(&engine->serve.behind, engine->serve.now_ns);
        overtake(&engine->serve, written);
        send_written(engine, link, written);
        fetch_behind(engine, written);
        sent++;
    }
    return sent;
}

fp_name fp_behind_flying(const fp_engine *engine) {
    const struct written *written = behind_flying(&engine->serve.behind);
    if (!written || written->ghost) return (fp_name){0};
    return (fp_name){.bytes = written->bytes, .length = written->key_length, .refused_ns = written->refused_ns};
}

static void count_outcome(struct stats *stats, enum behind_outcome outcome) {
    switch (outcome) {
    case BEHIND_CONFIRMED: stats->behind_confirmed++; return;
    case BEHIND_RETRIED: stats->behind_retried++; return;
    case BEHIND_REFUSED: stats->behind_refused++; return;
    }
}

void fp_behind_done(fp_engine *engine, fp_write_outcome outcome) {
    static const enum behind_outcome outcomes[] = {BEHIND_CONFIRMED, BEHIND_RETRIED, BEHIND_REFUSED};
    struct serve *serve = &engine->serve;
    const struct written *written = behind_flying(&serve->behind);
    if (!written) return;
    if (outcome == FP_WRITE_CONFIRMED) trace_note(serve->trace, written->hash, FP_TRACE_CONFIRMED, 0);
    bool ghost = written->ghost; /* it may be gone behind that */
    enum behind_outcome became = behind_done(&serve->behind, outcomes[outcome], serve->now_ns);
    if (!ghost) count_outcome(&serve->stats, became);
    serve->write_moved = true;
}

void fp_behind_unsend(fp_engine *engine) {
    engine->serve.stats.behind_retried += engine->serve.behind.flying;
    behind_unsend(&engine->serve.behind);
    engine->serve.write_moved = true;
}

void fp_behind_close(fp_engine *engine) {
    engine->serve.behind.is_closed = true;
    engine->serve.write_moved = true; /* who waits for room travels instead */
}

/* ---- its journal ---- */

void fp_journal_on(fp_engine *engine, uint64_t next) {
    struct behind *behind = &engine->serve.behind;
    if (behind->next_place < next) behind->next_place = next;
    journal_turn_on(&behind->journal);
}

bool fp_journal_take(fp_engine *engine, fp_journal_batch *batch) {
    struct behind *behind = &engine->serve.behind;
    if (!journal_take(&behind->journal)) return false;
    *batch = (fp_journal_batch){
        .bytes = behind->journal.writing.bytes,
        .length = behind->journal.writing.length,
        .oldest = behind_oldest(behind),
        .next = behind->next_place,
    };
    return true;
}

static void noted(fp_engine *engine, uint64_t number) {
    behind_noted(&engine->serve.behind, number);
    journal_passed(&engine->serve, number);
    engine->serve.write_moved = true;
}

void fp_journal_written(fp_engine *engine) {
    struct journal *journal = &engine->serve.behind.journal;
    if (!journal->is_writing) return;
    journal_written(journal);
    noted(engine, journal->filling_number - 1);
}

bool fp_journal_is_short(const fp_engine *engine) { return engine->serve.behind.journal.is_short; }

void fp_journal_off(fp_engine *engine) {
    journal_turn_off(&engine->serve.behind.journal);
    behind_unnote(&engine->serve.behind);
    engine->serve.write_moved = true; /* who waits for room in the queue travels instead */
}

void fp_journal_gone(fp_engine *engine) { noted(engine, UINT64_MAX); }

void fp_journal_forsake(fp_engine *engine) { journal_forsaken(&engine->serve); }

bool fp_journal_restore(fp_engine *engine, uint64_t place, const void *name, size_t key_length, const void *value,
                        size_t value_length, uint64_t expire_at_ms) {
    struct serve *serve = &engine->serve;
    struct store_key key = {.bytes = name, .length = (uint32_t)key_length};
    key.hash = store_hash(serve->store, key.bytes, key.length);
    if (!behind_has_room(&serve->behind, 1, key_length + value_length)) return false;
    return behind_restore(&serve->behind, place, &key, value, (uint32_t)value_length, expire_at_ms, fp_now(engine));
}
