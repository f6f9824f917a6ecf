/* slots — the order of replies; see slots.h. */
#include "serve/slots.h"

#include <malloc.h>
#include <string.h>

#include "serve/flight.h"
#include "serve/value.h"

/* NULL: in front of all. Only what is behind the last slot still grows: see slot_sink. */
static void link_behind(struct session *session, struct slot *before, struct slot *slot) {
    if (before && before == session->last) {
        before->after_held = true;
        session->held_bytes += before->after.bytes;
    }
    slot->after_held = before != session->last;
    slot->next = before ? before->next : session->first;
    *(before ? &before->next : &session->first) = slot;
    if (before == session->last) session->last = slot;
    session->slot_count++;
}

static fp_outcome outcome_by(fp_lane lane, const struct command *command) {
    if (lane == FP_LANE_PINNED) return FP_OUTCOME_PINNED;
    bool writes = command && (command->kind == COMMAND_WRITE || command->kind == COMMAND_UNKEYED);
    return writes ? FP_OUTCOME_WRITTEN : FP_OUTCOME_PASSED;
}

struct slot *slot_open(struct serve *serve, struct session *session, fp_lane lane, const struct command *command) {
    struct slot *slot = table_take(&serve->slots);
    if (!slot) return NULL;
    slot->command = command ? command->id : FP_COMMAND_UNKNOWN;
    slot->resp2 = command ? command_resp2(command, serve->args.count) : RESP2_SAME;
    slot->protocol = session->protocol;
    slot->lane = lane;
    slot->outcome = outcome_by(lane, command);
    slot->session = session;
    slot->number = ++session->slots_opened;
    slot->started_ns = serve->now_ns;
    slot->flight = TABLE_NONE;
    link_behind(session, session->last, slot);
    session->lane_count++;
    return slot;
}

bool slot_note_hash(struct serve *serve, struct slot *slot, uint64_t hash) {
    if (slot->hash_count == 0) {
        slot->hash = hash;
        slot->hash_count = 1;
        return true;
    }
    /* Room doubles at each power of two, so its size follows from the count. */
    uint32_t count = slot->hash_count;
    if ((count & (count - 1)) == 0) {
        size_t old_bytes = count == 1 ? 0 : (size_t)count * sizeof(uint64_t);
        size_t new_bytes = (size_t)count * 2 * sizeof(uint64_t);
        if (!budget_take(serve->budget, BUDGET_SLOTS, new_bytes - old_bytes)) return false;
        uint64_t *hashes = realloc(slot->hashes, new_bytes);
        CHECK(hashes);
        if (count == 1) hashes[0] = slot->hash;
        slot->hashes = hashes;
    }
    slot->hashes[count] = hash;
    slot->hash_count++;
    return true;
}

void slot_sweep(struct serve *serve, struct slot *slot, bool announced) {
    slot->drops_all = true;
    if (announced || slot->sweeps) return;
    slot->sweeps = true;
    serve->sweeps++;
}

static void free_hashes(struct serve *serve, struct slot *slot) {
    if (!slot->hashes) return;
    uint32_t room = 2;
    while (room < slot->hash_count) room *= 2;
    budget_give(serve->budget, BUDGET_SLOTS, (size_t)room * sizeof(uint64_t));
    free(slot->hashes);
    slot->hashes = NULL;
}

static uint64_t hash_of(const struct slot *slot, uint32_t index) {
    return slot->hashes ? slot->hashes[index] : slot->hash;
}

/* Rule 6: what was read may be newer than a suspect copy of it, which must not be served behind it. A copy that is
 * trusted has heard of the change before the reply may go: by the tracked link's order, or by the fence. */
static void drop_looked_at(struct serve *serve, struct slot *slot) {
    for (uint32_t i = slot->written_count; i < slot->hash_count; i++) {
        uint64_t hash = hash_of(slot, i);
        uint32_t dropped = serve->trusted ? store_drop_hash_of_others(serve->store, hash, serve->epoch)
                                          : store_drop_hash(serve->store, hash);
        if (dropped) trace_note(serve->trace, hash, FP_TRACE_LOOKED_AT, dropped);
    }
}

/* The same for keys that we do not know. While the epoch is suspended its own copies are suspect as well. */
static void forget_suspects(struct serve *serve) {
    trace_note_all(serve->trace, FP_TRACE_LOOKED_AROUND);
    if (serve->trusted) serve->suspect_from = serve->epoch;
    else store_drop_all(serve->store);
}

/* Rule 2, second half: the keys of a write that travelled elsewhere than on the tracked link. Between its parsing and
 * its answer another client's flight, on the tracked link, may have read and stored the value before the write: the two
 * links have no order. On the tracked link this cannot be, since every flight begun after the parsing is behind the
 * write on the wire; so there a slot notes no hashes. */
static void drop_written(struct serve *serve, struct slot *slot) {
    if (slot->drops_all) {
        trace_note_all(serve->trace, FP_TRACE_FLUSHED);
        store_drop_all(serve->store);
        flights_close_all(serve);
    }
    for (uint32_t i = 0; i < slot->written_count; i++) {
        trace_note(serve->trace, hash_of(slot, i), FP_TRACE_ANSWERED, store_drop_hash(serve->store, hash_of(slot, i)));
        flights_close(serve, hash_of(slot, i));
    }
}

/* CLIENT REPLY OFF: the slot is answered before the upstream has seen its command. What it writes is kept until
 * something behind it has been answered, which shows that it has been carried out; of what it reads nobody is told. */
#define SILENT_BYTES_MAX 65536u

struct silent_write {
    uint64_t hash;
    uint32_t slot; /* its number */
};

static bool keep_hashes(struct serve *serve, struct slot *slot) {
    struct buffer *kept = &slot->session->silent_writes;
    if (slot->drops_all || slot->written_count > (SILENT_BYTES_MAX - kept->length) / sizeof(struct silent_write))
        return false;
    for (uint32_t i = 0; i < slot->written_count; i++) {
        struct silent_write write = {.hash = hash_of(slot, i), .slot = slot->number};
        if (!buffer_append(kept, serve->budget, BUDGET_SLOTS, &write, sizeof write)) return false;
    }
    return true;
}

static void keep_silent(struct serve *serve, struct slot *slot) {
    struct session *session = slot->session;
    session->silent_last = slot->number;
    if (keep_hashes(serve, slot)) return;
    buffer_free(&session->silent_writes, serve->budget, BUDGET_SLOTS);
    session->silent_all = true;
    session->silent_all_slot = slot->number;
}

/* Numbers of slots wrap; those of one session that are alive are close to each other. */
static bool is_behind(uint32_t number, uint32_t slot) { return (int32_t)(number - slot) >= 0; }

/* What was written in silence up to this slot; returns the bytes that are kept of it. */
static size_t drop_silent(struct serve *serve, struct session *session, uint32_t number) {
    struct buffer *kept = &session->silent_writes;
    if (session->silent_all) {
        trace_note_all(serve->trace, FP_TRACE_FLUSHED);
        store_drop_all(serve->store);
        flights_close_all(serve);
    }
    size_t at = 0;
    for (; at < kept->length; at += sizeof(struct silent_write)) {
        struct silent_write write;
        memcpy(&write, kept->bytes + at, sizeof write);
        if (!is_behind(number, write.slot)) break;
        trace_note(serve->trace, write.hash, FP_TRACE_ANSWERED, store_drop_hash(serve->store, write.hash));
        flights_close(serve, write.hash);
    }
    return at;
}

/* It has been carried out: its outcome is known. */
static void settle_silent(struct serve *serve, struct session *session, uint32_t number) {
    struct buffer *kept = &session->silent_writes;
    size_t settled = drop_silent(serve, session, number);
    if (is_behind(number, session->silent_all_slot)) session->silent_all = false;
    if (!settled) return;
    kept->length -= settled;
    if (kept->length) memmove(kept->bytes, kept->bytes + settled, kept->length);
    else buffer_free(kept, serve->budget, BUDGET_SLOTS);
}

static void drop_again(struct serve *serve, struct slot *slot) {
    if (slot->looks_around) forget_suspects(serve);
    drop_looked_at(serve, slot);
    drop_written(serve, slot);
    settle_silent(serve, slot->session, slot->number);
}

void session_mark_silent(struct session *session) { session->silent_marked = session->silent_last; }

void session_settle_silent(struct serve *serve, struct session *session) {
    settle_silent(serve, session, session->silent_marked);
}

/* Without an answer of the upstream a write may have been carried out, but of what is read nobody has been told. */
void session_drop_unresolved(struct serve *serve, struct session *session) {
    for (struct slot *slot = session->first; slot; slot = slot->next)
        if (!slot->answered) drop_written(serve, slot);
    drop_silent(serve, session, session->silent_last);
}

/* Before the slot's chains are moved or cleared. */
static void release_held(struct session *session, struct slot *slot) {
    session->held_bytes -= slot->answer.bytes;
    if (slot->after_held) session->held_bytes -= slot->after.bytes;
}

/* ---- the fence ---- */

static struct slot_list *list_of(struct serve *serve, const struct slot *slot) {
    return slot->journaled ? &serve->journaled : &serve->fenced;
}

/* Fences come in their order but for those of the tracked link's own replies, whose PING was sent with the command. */
static void wait_for_fence(struct serve *serve, struct slot *slot, uint64_t fence) {
    struct slot_list *list = list_of(serve, slot);
    struct slot *before = list->last;
    while (before && before->fence > fence) before = before->wait_prev;
    slot->fence = fence;
    slot->wait_prev = before;
    slot->wait_next = before ? before->wait_next : list->first;
    *(before ? &before->wait_next : &list->first) = slot;
    *(slot->wait_next ? &slot->wait_next->wait_prev : &list->last) = slot;
}

static void leave_fence(struct serve *serve, struct slot *slot) {
    struct slot_list *list = list_of(serve, slot);
    *(slot->wait_prev ? &slot->wait_prev->wait_next : &list->first) = slot->wait_next;
    *(slot->wait_next ? &slot->wait_next->wait_prev : &list->last) = slot->wait_prev;
    slot->wait_prev = slot->wait_next = NULL;
    slot->fence = 0;
}

static void slot_free(struct serve *serve, struct slot *slot) {
    struct session *session = slot->session;
    if (slot->flight != TABLE_NONE) flight_forget(serve, slot);
    if (slot->fence) leave_fence(serve, slot);
    if (slot->sweeps) serve->sweeps--;
    if (!slot->answered) session->lane_count--;
    if (slot->filtered && --session->filtered == 0) session->filter = 0;
    release_held(session, slot);
    session->slot_count--;
    free_hashes(serve, slot);
    chain_clear(&slot->answer, &serve->blocks);
    chain_clear(&slot->after, &serve->blocks);
    table_give(&serve->slots, slot);
}

static void unstall(struct serve *serve, struct session *session) {
    bool go = (session->stall == STALL_LANE && session->lane_count == 0) ||
              (session->stall == STALL_SLOTS && session->slot_count < SERVE_SLOTS_A_CLIENT / 2);
    if (go) session_mark_runnable(serve, session);
}

static void took(struct serve *serve, const struct slot *slot) {
    if (slot->is_message) return;
    histogram_add(stats_duration(&serve->stats, slot->outcome), serve->now_ns - slot->started_ns, 1 + slot->shared_by);
}

/* Everything at the front that is answered and waits for no fence becomes due. */
static void deliver(struct serve *serve, struct session *session) {
    while (session->first && session->first->answered && !session->first->fence) {
        struct slot *slot = session->first;
        release_held(session, slot);
        chain_move(&session->out, &slot->answer, &serve->blocks);
        chain_move(&session->out, &slot->after, &serve->blocks);
        session->first = slot->next;
        if (!session->first) session->last = NULL;
        if (session->ripe == slot) session->ripe = NULL;
        slot_free(serve, slot);
    }
    session_mark_dirty(serve, session);
    unstall(serve, session);
}

/* Straight to `out` if nothing is to come before it, and it waits for nothing. */
static struct chain *place_of(struct slot *slot, bool fenced) {
    bool is_due = slot->session->first == slot && !fenced && !slot->answer.bytes;
    return is_due ? &slot->session->out : &slot->answer;
}

static bool append_reply(struct serve *serve, struct slot *slot, const uint8_t *reply, size_t length, bool from_resp3,
                         bool fenced) {
    struct session *session = slot->session;
    struct chain *chain = place_of(slot, fenced);
    size_t before = chain->bytes;
    bool convert = from_resp3 && slot->protocol == 2 && slot->resp2 != RESP2_SAME;
    static const char spent[] = "-ERR local_memory is spent: the reply cannot be held\r\n";
    bool fits = convert ? resp2_append(chain, &serve->blocks, slot->resp2, reply, length)
                        : chain_append(chain, &serve->blocks, reply, length) ||
                              chain_append(chain, &serve->blocks, spent, sizeof spent - 1);
    if (chain == &slot->answer) session->held_bytes += chain->bytes - before;
    return fits;
}

bool session_reads(const struct serve *serve, const struct session *session) {
    return session->out.bytes + session->held_bytes <= serve->out_bytes_max;
}

/* Answered slots at the front are those that a message comes behind, and that an end of the session leaves. */
static void ripen(struct session *session) {
    struct slot *next = session->ripe ? session->ripe->next : session->first;
    for (; next && next->answered; next = next->next) session->ripe = next;
}

/* The reply stands in the slot's chain, or memory was short. */
static void answered(struct serve *serve, struct slot *slot, size_t length, bool failed, bool fits, uint64_t fence) {
    struct session *session = slot->session;
    if (failed) slot->outcome = FP_OUTCOME_ERROR;
    serve_count(serve, slot->command, slot->outcome);
    /* Up at once, down slowly: large replies come in bursts. */
    if (length > serve->reply_bytes_mean_x64 / 64) serve->reply_bytes_mean_x64 = length * 64;
    else serve->reply_bytes_mean_x64 += length - serve->reply_bytes_mean_x64 / 64;
    if (!fits || !session_reads(serve, session)) {
        session_starve(serve, session);
        return;
    }
    slot->answered = true;
    session->lane_count--;
    if (unlikely(fence)) wait_for_fence(serve, slot, fence);
    else took(serve, slot);
    ripen(session);
    if (session->first == slot && !fence) deliver(serve, session);
    else unstall(serve, session);
}

void slot_answer(struct serve *serve, struct slot *slot, const uint8_t *reply, size_t length, bool from_resp3,
                 uint64_t fence) {
    static const char aborted[] = "-EXECABORT Transaction discarded because of previous errors.\r\n";
    if (unlikely(length == 0)) keep_silent(serve, slot);
    else drop_again(serve, slot);
    if (unlikely(slot->aborts && length && reply[0] == '+')) {
        reply = (const uint8_t *)aborted;
        length = sizeof aborted - 1;
    }
    bool failed = length > 0 && (reply[0] == '-' || reply[0] == '!');
    answered(serve, slot, length, failed, append_reply(serve, slot, reply, length, from_resp3, fence != 0), fence);
}

void slot_answer_error(struct serve *serve, struct slot *slot, const uint8_t *error, size_t length) {
    drop_written(serve, slot);
    answered(serve, slot, length, true, append_reply(serve, slot, error, length, false, false), 0);
}

void slot_answer_more(struct serve *serve, struct slot *slot, const uint8_t *reply, size_t length, bool fenced) {
    bool fits = append_reply(serve, slot, reply, length, false, fenced) && session_reads(serve, slot->session);
    if (!fits) session_starve(serve, slot->session);
    else session_mark_dirty(serve, slot->session);
}

/* Where a message goes that must wait: with those of the same fence before it, or in a slot of its own. */
static struct slot *message_slot(struct serve *serve, struct session *session, uint64_t fence) {
    struct slot *ripe = session->ripe;
    if (ripe && ripe->is_message && ripe->fence == fence && !ripe->after.bytes) return ripe;
    struct slot *slot = table_take(&serve->slots);
    if (!slot) return NULL;
    slot->session = session;
    slot->flight = TABLE_NONE;
    slot->is_message = slot->answered = true;
    link_behind(session, ripe, slot);
    session->ripe = slot;
    if (fence) wait_for_fence(serve, slot, fence);
    return slot;
}

void session_tell(struct serve *serve, struct session *session, const uint8_t *bytes, size_t length, uint64_t fence) {
    struct slot *slot = NULL;
    struct chain *chain = &session->out;
    bool waits = fence || session->ripe;
    if (waits) {
        slot = message_slot(serve, session, fence);
        chain = slot ? &slot->answer : NULL;
    }
    size_t before = chain ? chain->bytes : 0;
    bool fits = chain && chain_append(chain, &serve->blocks, bytes, length);
    if (slot) session->held_bytes += chain->bytes - before;
    if (!fits || !session_reads(serve, session)) session_starve(serve, session);
    else if (!waits) session_mark_dirty(serve, session);
}

static void pass(struct serve *serve, struct slot_list *list, uint64_t fence) {
    while (list->first && list->first->fence <= fence) {
        struct slot *slot = list->first;
        leave_fence(serve, slot);
        drop_looked_at(serve, slot);
        if (slot->looks_around) forget_suspects(serve);
        took(serve, slot);
        if (slot->session->first == slot) deliver(serve, slot->session);
    }
}

void fence_passed(struct serve *serve, uint64_t fence) { pass(serve, &serve->fenced, fence); }

/* ---- the journal ---- */

/* The last slot when it waits for the same batch and nothing is behind it. */
static struct slot *same_batch(const struct session *session, uint64_t number) {
    struct slot *last = session->last;
    return last && last->journaled && last->fence == number && !last->after.bytes ? last : NULL;
}

bool slot_may_acknowledge(const struct session *session, uint64_t number) {
    return session->slot_count < SERVE_SLOTS_A_CLIENT || same_batch(session, number);
}

void slot_acknowledge(struct serve *serve, struct session *session, const struct command *command, uint64_t number) {
    static const char ok[] = "+OK\r\n";
    struct slot *slot = same_batch(session, number);
    if (slot) {
        serve_count(serve, command->id, FP_OUTCOME_BEHIND);
        slot->shared_by++;
        slot_answer_more(serve, slot, (const uint8_t *)ok, sizeof ok - 1, true);
        return;
    }
    slot = slot_open(serve, session, FP_LANE_TRACKED, command);
    if (!slot) {
        session_starve(serve, session);
        return;
    }
    slot->journaled = true;
    slot->outcome = FP_OUTCOME_BEHIND;
    slot_answer(serve, slot, (const uint8_t *)ok, sizeof ok - 1, false, number);
}

void journal_passed(struct serve *serve, uint64_t number) { pass(serve, &serve->journaled, number); }

static void answer_values(struct serve *serve, struct slot *slot, const struct store_value *values, uint32_t count,
                          bool is_array) {
    struct chain *chain = place_of(slot, false);
    size_t before = chain->bytes;
    bool fits = !is_array || reply_aggregate(chain, &serve->blocks, '*', count);
    for (uint32_t i = 0; i < count && fits; i++) fits = value_append(serve, chain, &values[i], slot->protocol);
    size_t length = chain->bytes - before;
    if (chain == &slot->answer) slot->session->held_bytes += length;
    answered(serve, slot, length, false, fits, 0);
}

void slot_answer_value(struct serve *serve, struct slot *slot, const struct store_value *value) {
    answer_values(serve, slot, value, 1, false);
}

void slot_answer_values(struct serve *serve, struct slot *slot, const struct store_value *values, uint32_t count) {
    answer_values(serve, slot, values, count, true);
}

void slot_answer_null(struct serve *serve, struct slot *slot) {
    bool resp3 = slot->protocol == 3;
    slot_answer(serve, slot, (const uint8_t *)(resp3 ? "_\r\n" : "$-1\r\n"), resp3 ? 3 : 5, false, 0);
}

/* All behind `kept`, NULL for all. */
static void forget_slots(struct serve *serve, struct session *session, struct slot *kept) {
    struct slot **next = kept ? &kept->next : &session->first;
    while (*next) {
        struct slot *slot = *next;
        *next = slot->next;
        if (!slot->answered) drop_written(serve, slot);
        slot_free(serve, slot);
    }
    session->last = session->ripe = kept;
}

/* Who has left it room looks again. */
static void give_up_room(struct serve *serve, struct session *session) {
    if (serve->behind.kept_for == session) serve->write_moved = true;
    behind_give_up_room(&serve->behind, session);
}

static void close_behind(struct serve *serve, struct session *session, struct slot *kept) {
    forget_slots(serve, session, kept);
    give_up_room(serve, session);
    session->closing = true;
    session_mark_dirty(serve, session);
}

void journal_forsaken(struct serve *serve) {
    while (serve->journaled.first) close_behind(serve, serve->journaled.first->session, NULL);
}

void session_close(struct serve *serve, struct session *session) { close_behind(serve, session, session->ripe); }

void session_starve(struct serve *serve, struct session *session) {
    serve->stats.clients_starved++;
    close_behind(serve, session, NULL);
    /* It may never read what is due, and memory is what is short. */
    chain_clear(&session->out, &serve->blocks);
}

void session_init(struct session *session, fp_client id) {
    session->id = id;
    session->protocol = 2;
    session->lane = FP_LANE_TRACKED;
}

void session_deinit(struct serve *serve, struct session *session) {
    forget_slots(serve, session, NULL);
    drop_silent(serve, session, session->silent_last);
    CHECK(session->slot_count == 0 && session->lane_count == 0 && session->held_bytes == 0);
    give_up_room(serve, session);
    chain_clear(&session->out, &serve->blocks);
    buffer_free(&session->multi_written, serve->budget, BUDGET_SLOTS);
    buffer_free(&session->multi_looked, serve->budget, BUDGET_SLOTS);
    buffer_free(&session->silent_writes, serve->budget, BUDGET_SLOTS);
    buffer_free(&session->pin_error, serve->budget, BUDGET_CLIENTS);
    for (struct session **at = &serve->dirty; session->is_dirty && *at; at = &(*at)->dirty_next) {
        if (*at != session) continue;
        *at = session->dirty_next;
        break;
    }
    for (struct session **at = &serve->runnable; session->is_runnable && *at; at = &(*at)->runnable_next) {
        if (*at != session) continue;
        *at = session->runnable_next;
        break;
    }
}
