/* dispatch — one parsed request: which way it goes.
 *
 * A client's unanswered commands all travel on one lane, so that they run in the order in which they were sent; a
 * command that needs another waits until they are answered. Rule 2 begins here: a write's keys are dropped, and their
 * flights closed, when it is parsed, before the next command of any client. */
#include "serve/dispatch.h"

#include <string.h>

#include "serve/flight.h"
#include "serve/local.h"
#include "serve/read.h"
#include "serve/slots.h"
#include "serve/write.h"

#define REPLIES_SHARE 16        /* of the budget, for replies still to come */
#define REPLY_BYTES_LEAST 2048u /* expected of each, however small the last ones were: sizes change without a warning */

enum dispatched dispatch_stall(struct serve *serve, struct session *session, enum stall why) {
    session->stall = why;
    serve->stats.clients_stalled++;
    if (why == STALL_EVENTS) session_mark_runnable(serve, session);
    return DISPATCH_STALL;
}

/* What the unanswered commands of all clients may bring must have room. One a client is always let through, so that
 * everybody gets on; a client with more waits for its own answers. */
static bool replies_fit(const struct serve *serve, const struct session *session) {
    if (session->slot_count == 0) return true;
    uint64_t each = serve->reply_bytes_mean_x64 / 64;
    uint64_t replies = serve->slots.live > serve->flights.live ? serve->slots.live : serve->flights.live;
    return replies * (each > REPLY_BYTES_LEAST ? each : REPLY_BYTES_LEAST) < serve->budget->total / REPLIES_SHARE;
}

static bool may_go(struct serve *serve, struct session *session, fp_lane lane, bool held) {
    if (held) dispatch_stall(serve, session, STALL_HELD);
    else if (session->slot_count >= SERVE_SLOTS_A_CLIENT || !replies_fit(serve, session))
        dispatch_stall(serve, session, STALL_SLOTS);
    else if (session->lane_count && session->lane != lane) dispatch_stall(serve, session, STALL_LANE);
    else {
        session->lane = lane;
        return true;
    }
    return false;
}

bool dispatch_may_travel(struct serve *serve, struct session *session, fp_lane lane) {
    return may_go(serve, session, lane, lane != FP_LANE_PINNED && serve->held != FP_HOLD_NOTHING);
}

bool dispatch_may_fetch(struct serve *serve, struct session *session) {
    return may_go(serve, session, FP_LANE_TRACKED, serve->held == FP_HOLD_ALL);
}

/* A key of a command that MULTI queues; of more than can be kept, all keys. False when memory is short. */
static bool note_queued(struct serve *serve, struct session *session, uint64_t hash, bool writes) {
    struct buffer *kept = writes ? &session->multi_written : &session->multi_looked;
    bool *all = writes ? &session->multi_all : &session->multi_looks_around;
    *all |= kept->length >= SERVE_MULTI_HASH_BYTES;
    return *all || buffer_append(kept, serve->budget, BUDGET_SLOTS, &hash, sizeof hash);
}

/* Drops what the command makes untrue, and notes it to be dropped again when it travels on a link that has no order
 * with the tracked one. In MULTI the keys count again when EXEC has answered. */
static bool drop_keys(struct serve *serve, struct session *session, struct slot *slot, const struct command *command) {
    uint32_t cursor = 0, index;
    bool elsewhere = slot->lane != FP_LANE_TRACKED;
    bool writes = command->drops == COMMAND_DROPS_KEYS;
    while (command_next_key(command, serve->args.args, serve->args.count, &cursor, &index)) {
        const struct resp_arg *key = &serve->args.args[index];
        uint64_t hash = store_hash(serve->store, key->bytes, key->length);
        session->filter |= 1ull << (hash & 63);
        /* Rule 6: what a read brings may be newer than the copy; not on the tracked link while all is of its epoch. */
        if (!writes && !elsewhere && serve->trusted && !serve->has_others) continue;
        if (writes) {
            uint32_t dropped = store_drop(serve->store, key->bytes, key->length, hash);
            trace_note(serve->trace, hash, FP_TRACE_WRITTEN, dropped);
            flights_close(serve, hash);
        }
        if ((elsewhere || !writes) && !slot_note_hash(serve, slot, hash)) return false;
        if (writes) slot->written_count = slot->hash_count;
        if (session->in_multi && !note_queued(serve, session, hash, writes)) return false;
    }
    return true;
}

static void drop_all(struct serve *serve, struct session *session, struct slot *slot, bool announced) {
    trace_note_all(serve->trace, FP_TRACE_FLUSHED);
    store_drop_all(serve->store);
    flights_close_all(serve);
    if (slot->lane != FP_LANE_TRACKED) slot_sweep(serve, slot, announced);
    if (!session->in_multi) return;
    session->multi_all = true;
    session->multi_sweeps |= !announced;
}

/* Reads of keys that it does not name: their values, or that they are there. */
static bool looks_around(const struct command *command) {
    switch (command->id) {
    case COMMAND_ID_SORT:
    case COMMAND_ID_SORT_RO:
    case COMMAND_ID_KEYS:
    case COMMAND_ID_SCAN:
    case COMMAND_ID_DBSIZE:
    case COMMAND_ID_RANDOMKEY: return true;
    default: return false;
    }
}

/* Unknown commands, and those that do not name all their keys, stand in the filter with every bit. */
static bool note_effects(struct serve *serve, struct session *session, struct slot *slot,
                         const struct command *command) {
    slot->filtered = true;
    session->filtered++;
    session->passed_place = serve->behind.next_place;
    if (!command || !command_names_its_keys(command)) session->filter = UINT64_MAX;
    if (!command) return true;
    slot->looks_around = looks_around(command);
    if (session->in_multi) session->multi_looks_around |= slot->looks_around;
    if (command->drops != COMMAND_DROPS_ALL) return drop_keys(serve, session, slot, command);
    drop_all(serve, session, slot, command->id != COMMAND_ID_SWAPDB);
    return true;
}

/* Behind them the key holds a string, or nothing has been written. */
static bool leaves_strings(const struct command *command) {
    switch (command->id) {
    case COMMAND_ID_SET:
    case COMMAND_ID_SETEX:
    case COMMAND_ID_PSETEX:
    case COMMAND_ID_SETNX:
    case COMMAND_ID_GETSET:
    case COMMAND_ID_MSET:
    case COMMAND_ID_MSETNX:
    case COMMAND_ID_APPEND:
    case COMMAND_ID_SETRANGE:
    case COMMAND_ID_INCR:
    case COMMAND_ID_INCRBY:
    case COMMAND_ID_INCRBYFLOAT:
    case COMMAND_ID_DECR:
    case COMMAND_ID_DECRBY: return true;
    default: return false;
    }
}

/* Write-through: what the upstream has behind the write becomes the copy. The flights' events stand behind the write's,
 * so that they are sent behind it on the same link. Under bypass nothing would be kept. */
static void fetch_behind(struct serve *serve, const struct command *command) {
    if (serve->bypass) return;
    uint32_t cursor = 0, index;
    for (uint32_t i = 0; i < SERVE_MGET_KEYS; i++) {
        if (!command_next_key(command, serve->args.args, serve->args.count, &cursor, &index)) return;
        const struct resp_arg *arg = &serve->args.args[index];
        if (!rules_find(&serve->rules, arg->bytes, arg->length)->fills_behind) continue;
        struct store_key key = {
            .bytes = arg->bytes, .length = arg->length, .hash = store_hash(serve->store, arg->bytes, arg->length)};
        /* MSET may name a key twice: the first flight is behind the whole of it. */
        if (flight_find(serve, &key)) continue;
        if (!flight_send(serve, &key, FP_TRACE_BEHIND_WRITE)) return;
        serve->stats.fetches_behind++;
    }
}

static void send_event(struct serve *serve, struct session *session, struct slot *slot, fp_event_kind kind,
                       const struct command *command, const uint8_t *raw, size_t length) {
    fp_event *event = serve_event(serve, kind);
    event->ticket = table_id(&slot->item);
    event->lane = slot->lane;
    event->link = slot->lane == FP_LANE_PINNED ? session->link : 0;
    event->client = session->id;
    event->protocol = session->protocol;
    event->command = slot->command;
    event->command_kind = command ? command->kind : COMMAND_STATE;
    event->bytes = raw;
    event->length = (uint32_t)length;
    serve->request_bytes += length;
}

static enum dispatched refuse_travel(struct serve *serve, struct session *session, const struct command *command,
                                     const void *error, size_t length) {
    session->multi_refused |= session->in_multi;
    serve_count_at_once(serve, command ? command->id : FP_COMMAND_UNKNOWN, FP_OUTCOME_ERROR);
    if (chain_append(slot_sink(session), &serve->blocks, error, length)) return DISPATCH_DONE;
    session_starve(serve, session);
    return DISPATCH_CLOSE;
}

static enum dispatched travel(struct serve *serve, struct session *session, fp_lane lane, fp_event_kind kind,
                              const struct command *command, const uint8_t *raw, size_t length) {
    static const char spent[] = "-ERR local_memory is spent: the request cannot be held\r\n";
    /* What is not sent changes nothing: no copy is dropped for it. */
    bool refused = serve->refusal.length && lane != FP_LANE_PINNED && kind == FP_EVENT_COMMAND;
    if (unlikely(refused)) return refuse_travel(serve, session, command, serve->refusal.bytes, serve->refusal.length);
    if (!dispatch_may_travel(serve, session, lane)) return DISPATCH_STALL;
    bool waits = kind == FP_EVENT_COMMAND && write_must_wait(serve, session, command);
    if (unlikely(waits)) return dispatch_stall(serve, session, STALL_WRITES);
    if (!serve_request_fits(serve, length)) return refuse_travel(serve, session, command, spent, sizeof spent - 1);
    struct slot *slot = slot_open(serve, session, lane, command);
    if (!slot || !note_effects(serve, session, slot, command)) {
        session_starve(serve, session);
        return DISPATCH_CLOSE;
    }
    if (command && command->kind == COMMAND_READ) serve->stats.keyspace_misses += serve->args.count - 1;
    send_event(serve, session, slot, kind, command, raw, length);
    if (lane == FP_LANE_TRACKED && command && leaves_strings(command)) fetch_behind(serve, command);
    return DISPATCH_DONE;
}

static bool note_all(struct serve *serve, struct slot *slot, const struct buffer *hashes) {
    for (size_t at = 0; at < hashes->length; at += sizeof(uint64_t)) {
        uint64_t hash;
        memcpy(&hash, hashes->bytes + at, sizeof hash);
        if (!slot_note_hash(serve, slot, hash)) return false;
    }
    return true;
}

/* MULTI, EXEC and what is between, seen from outside: the upstream decides what they really do. */
static bool follow_multi(struct serve *serve, struct session *session, const struct command *command) {
    if (!command) return true;
    struct slot *slot = session->last;
    if (command->id == COMMAND_ID_MULTI && serve->args.count == 1) session->in_multi = true;
    bool ends = command->id == COMMAND_ID_EXEC ||
                ((command->id == COMMAND_ID_DISCARD || command->id == COMMAND_ID_RESET) && serve->args.count == 1);
    if (!ends) return true;
    bool fits = true;
    if (command->id == COMMAND_ID_EXEC) {
        if (session->multi_all) slot_sweep(serve, slot, !session->multi_sweeps);
        slot->looks_around = session->multi_looks_around;
        fits = note_all(serve, slot, &session->multi_written);
        slot->written_count = slot->hash_count;
        fits = fits && note_all(serve, slot, &session->multi_looked);
    }
    buffer_free(&session->multi_written, serve->budget, BUDGET_SLOTS);
    buffer_free(&session->multi_looked, serve->budget, BUDGET_SLOTS);
    session->in_multi = session->multi_refused = session->multi_looks_around = false;
    session->multi_all = session->multi_sweeps = false;
    return fits;
}

/* A pinned client's link speaks the client's protocol, and changes with it. */
static void follow_protocol(struct serve *serve, struct session *session, const struct command *command) {
    if (!command) return;
    if (command->id == COMMAND_ID_RESET && serve->args.count == 1) {
        session->protocol = 2;
        session->name_length = 0;
    }
    const struct resp_arg *version = &serve->args.args[1];
    bool named = command->id == COMMAND_ID_HELLO && serve->args.count > 1 && version->length == 1;
    if (named && (version->bytes[0] == '2' || version->bytes[0] == '3')) session->protocol = version->bytes[0] - '0';
}

static enum dispatched travel_pinned(struct serve *serve, struct session *session, const struct command *command,
                                     const uint8_t *raw, size_t length) {
    static const char discard[] = "*1\r\n$7\r\nDISCARD\r\n";
    /* As Redis does behind what it has refused. The upstream knows nothing of what was refused here. */
    bool aborts = session->multi_refused && command && command->id == COMMAND_ID_EXEC && serve->args.count == 1;
    if (aborts) {
        raw = (const uint8_t *)discard;
        length = sizeof discard - 1;
    }
    uint32_t sent = session->lane_count;
    enum dispatched done = travel(serve, session, FP_LANE_PINNED, FP_EVENT_COMMAND, command, raw, length);
    if (done != DISPATCH_DONE || session->lane_count == sent) return done; /* the latter: refused for want of memory */
    session->gives_back = false;
    if (aborts) session->last->aborts = true;
    follow_protocol(serve, session, command);
    if (follow_multi(serve, session, command)) return DISPATCH_DONE;
    session_starve(serve, session);
    return DISPATCH_CLOSE;
}

static enum dispatched pin(struct serve *serve, struct session *session, const struct command *command,
                           const uint8_t *raw, size_t length) {
    if (session->pin_refused) {
        serve_count_at_once(serve, command ? command->id : FP_COMMAND_UNKNOWN, FP_OUTCOME_ERROR);
        session->pin_refused = false;
        bool fits =
            chain_append(slot_sink(session), &serve->blocks, session->pin_error.bytes, session->pin_error.length);
        buffer_free(&session->pin_error, serve->budget, BUDGET_CLIENTS);
        if (fits) return DISPATCH_DONE;
        session_starve(serve, session);
        return DISPATCH_CLOSE;
    }
    if (serve->held) return dispatch_stall(serve, session, STALL_HELD);
    /* While the upstream cannot be reached a link to it is worth nothing: it is given up, and the client told. */
    bool is_reachable = !serve->serve_suspect && !serve->refusal.length;
    bool has_link = session->link && session->link_fits && is_reachable;
    if (session->lane_count) return dispatch_stall(serve, session, STALL_LANE);
    if (has_link) {
        session->lane = FP_LANE_PINNED;
        enum dispatched done = travel_pinned(serve, session, command, raw, length);
        if (!session->lane_count) session->lane = FP_LANE_TRACKED; /* it waits, or was refused: nothing was sent */
        return done;
    }
    fp_event *event = serve_event(serve, FP_EVENT_PIN);
    event->client = session->id;
    event->link = session->link;
    event->ticket = session->number;
    event->protocol = session->protocol;
    event->bytes = (const uint8_t *)session->name;
    event->length = session->name_length;
    return dispatch_stall(serve, session, STALL_PIN);
}

static void refuse_admin(struct serve *serve, struct session *session, const struct command *command) {
    char reply[160];
    bool sub = command->subcommand[0];
    snprintf(reply, sizeof reply,
             "-ERR '%s%s%s' is refused by the sidecar: set allow_admin = true to pass it to the upstream\r\n",
             command->name, sub ? "|" : "", command->subcommand);
    session->multi_refused |= session->in_multi;
    serve_count_at_once(serve, command->id, FP_OUTCOME_ERROR);
    local_reply(serve, session, reply);
}

static void refuse_arity(struct serve *serve, struct session *session, const struct command *command) {
    char reply[160];
    bool sub = command->subcommand[0];
    const char *ends = command->id == COMMAND_ID_EXEC ? "EXECABORT Transaction discarded because of:" : "ERR";
    snprintf(reply, sizeof reply, "-%s wrong number of arguments for '%s%s%s' command\r\n", ends, command->name,
             sub ? "|" : "", command->subcommand);
    serve_count_at_once(serve, command->id, FP_OUTCOME_ERROR);
    local_reply(serve, session, reply);
}

static enum dispatched answer_locally(struct serve *serve, struct session *session, const struct command *command,
                                      const uint8_t *raw, size_t length) {
    if (command->id == COMMAND_ID_INFO)
        return travel(serve, session, FP_LANE_TRACKED, FP_EVENT_ASK, command, raw, length);
    serve->told_error = false;
    if (!local_answer(serve, session, command)) return pin(serve, session, command, raw, length);
    serve_count_at_once(serve, command->id, serve->told_error ? FP_OUTCOME_ERROR : FP_OUTCOME_LOCAL);
    return session->closing ? DISPATCH_CLOSE : DISPATCH_DONE;
}

static fp_lane shared_lane(const struct serve *serve, const struct session *session, const struct command *command) {
    bool separate = session->protocol == 2 && command_resp2(command, serve->args.count) == RESP2_SEPARATE;
    return separate ? FP_LANE_RESP2 : FP_LANE_TRACKED;
}

/* Until then nobody knows whether CLIENT REPLY behind it is queued. */
static bool awaits_multi(const struct session *session) {
    for (const struct slot *slot = session->first; slot; slot = slot->next)
        if (!slot->answered && slot->command == COMMAND_ID_MULTI) return true;
    return false;
}

static enum dispatched dispatch_request(struct serve *serve, struct session *session, const uint8_t *raw,
                                        size_t length) {
    session->stall = STALL_NONE;
    bool large = serve->request_bytes && serve->request_bytes + length > SERVE_REQUEST_BYTES;
    if (unlikely(large || !serve_events_fit(serve, SERVE_MGET_KEYS + 1 + SERVE_EVENTS_SPARE)))
        return dispatch_stall(serve, session, STALL_EVENTS);
    size_t waiting = session->out.bytes + session->held_bytes + (session->last ? session->last->after.bytes : 0);
    if (unlikely(waiting >= serve->out_bytes_high)) return dispatch_stall(serve, session, STALL_OUT);
    if (unlikely(session->lane == FP_LANE_PINNED)) session_go_back(session);
    const struct command *command = commands_find(serve->commands, serve->args.args, serve->args.count);
    bool is_get = command && command->id == COMMAND_ID_GET && serve->args.count == 2;
    if (likely(is_get && session->lane != FP_LANE_PINNED && length < SERVE_LARGE_BYTES && !session->fresh))
        return read_get(serve, session, command);
    bool arity_fits = command && command_arity_fits(command, serve->args.count);
    if (arity_fits && command->kind == COMMAND_ADMIN && !serve->allow_admin) {
        refuse_admin(serve, session, command);
        return DISPATCH_DONE;
    }
    if (session->lane == FP_LANE_PINNED) {
        /* Its link was lost when it had no more need of it. */
        if (session->gives_back && !session->link) return dispatch_stall(serve, session, STALL_LANE);
        if (command && command->id == COMMAND_ID_CLIENT_REPLY && awaits_multi(session))
            return dispatch_stall(serve, session, STALL_LANE);
        return travel_pinned(serve, session, command, raw, length);
    }
    if (!command) return pin(serve, session, command, raw, length);
    switch ((enum command_kind)command->kind) {
    case COMMAND_LOCAL:
        if (arity_fits) return answer_locally(serve, session, command, raw, length);
        refuse_arity(serve, session, command);
        return DISPATCH_DONE;
    case COMMAND_READ:
        if (arity_fits && command->id == COMMAND_ID_MGET && length < SERVE_LARGE_BYTES && !session->fresh) {
            bool handled;
            enum dispatched done = read_mget(serve, session, command, raw, length, &handled);
            if (handled) return done;
        }
        break;
    case COMMAND_WRITE: {
        enum dispatched done;
        if (arity_fits && write_is_taken(serve, session, command, &done)) return done;
        break;
    }
    case COMMAND_PASS:
    case COMMAND_UNKEYED: break;
    case COMMAND_STATE:
    case COMMAND_ADMIN:
        if (arity_fits) return pin(serve, session, command, raw, length);
        /* Never on a link that others share, whatever the upstream would make of it. */
        refuse_arity(serve, session, command);
        return DISPATCH_DONE;
    }
    /* What is left travels on a shared link; a wrong number of arguments too, for the upstream's own words. */
    return travel(serve, session, shared_lane(serve, session, command), FP_EVENT_COMMAND, command, raw, length);
}

/* Who waits for something else than the queue, its own reading even, leaves others the room that was kept for it. */
static void leave_room(struct serve *serve, const struct session *session) {
    if (session->stall == STALL_WRITES || session->stall == STALL_EVENTS) return;
    behind_give_up_room(&serve->behind, session);
    serve->write_moved = true;
}

enum dispatched dispatch(struct serve *serve, struct session *session, const uint8_t *raw, size_t length) {
    enum dispatched done = dispatch_request(serve, session, raw, length);
    if (unlikely(serve->behind.kept_for == session) && done == DISPATCH_STALL) leave_room(serve, session);
    /* What it waited for was its own: the next command waits for more. */
    if (unlikely(session->awaited_place) && done != DISPATCH_STALL) session->awaited_place = 0;
    return done;
}
