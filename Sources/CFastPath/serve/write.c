/* write — see write.h. */
#include "serve/write.h"

#include "serve/local.h"
#include "serve/read.h"
#include "serve/slots.h"

/* ---- what is asked ---- */

/* Redis' bound on a time to live: what would pass the end of time is for the upstream to refuse. */
#define TTL_MS_MAX (INT64_MAX / 4)

static bool read_number(const struct resp_arg *arg, int64_t *number) {
    int64_t value = 0;
    if (arg->length == 0 || arg->length > 18 || arg->bytes[0] == '0') return false;
    for (uint32_t i = 0; i < arg->length; i++) {
        if (arg->bytes[i] < '0' || arg->bytes[i] > '9') return false;
        value = value * 10 + (arg->bytes[i] - '0');
    }
    *number = value;
    return true;
}

static bool read_ttl(const struct resp_arg *arg, bool seconds, uint64_t now_ms, uint64_t *expire_at_ms) {
    int64_t ttl;
    if (!read_number(arg, &ttl) || ttl > TTL_MS_MAX / (seconds ? 1000 : 1)) return false;
    *expire_at_ms = now_ms + (uint64_t)ttl * (seconds ? 1000 : 1);
    return true;
}

static bool is_word(const struct resp_arg *arg, const char *word) {
    for (uint32_t i = 0; i < arg->length; i++)
        if ((arg->bytes[i] | 0x20) != (uint8_t)word[i]) return false;
    return word[arg->length] == 0;
}

/* The arguments of one write or several: key and value, and so on every second one from `first`. */
struct pairs {
    uint32_t first, value, count;
    uint64_t expire_at_ms;
};

static bool read_pairs(const struct serve *serve, const struct command *command, struct pairs *pairs) {
    const struct resp_arg *args = serve->args.args;
    uint32_t count = serve->args.count;
    *pairs = (struct pairs){.first = 1, .value = 2, .count = 1, .expire_at_ms = STORE_NEVER};
    switch (command->id) {
    case COMMAND_ID_SET:
        if (count == 3) return true;
        if (count != 5 || args[3].length != 2) return false;
        if (is_word(&args[3], "ex")) return read_ttl(&args[4], true, serve->now_ms, &pairs->expire_at_ms);
        return is_word(&args[3], "px") && read_ttl(&args[4], false, serve->now_ms, &pairs->expire_at_ms);
    case COMMAND_ID_SETEX:
    case COMMAND_ID_PSETEX:
        pairs->value = 3;
        return count == 4 && read_ttl(&args[2], command->id == COMMAND_ID_SETEX, serve->now_ms, &pairs->expire_at_ms);
    case COMMAND_ID_MSET: pairs->count = (count - 1) / 2; return count >= 3 && count % 2 == 1;
    default: return false;
    }
}

static const struct resp_arg *key_arg(const struct serve *serve, const struct pairs *pairs, uint32_t i) {
    return &serve->args.args[pairs->first + 2 * i];
}

static const struct resp_arg *value_arg(const struct serve *serve, const struct pairs *pairs, uint32_t i) {
    return &serve->args.args[pairs->value + 2 * i];
}

/* ---- taking it ---- */

/* Half of the least that Redis lets client-query-buffer-limit and proto-max-bulk-len be. At a larger write a server may
 * close the link without a word, and what is acknowledged is sent again and again. */
#define WRITE_BYTES_MAX (512u << 10)

static bool may_be_queued(const struct serve *serve, const struct pairs *pairs, size_t *bytes) {
    *bytes = 0;
    for (uint32_t i = 0; i < pairs->count; i++) {
        const struct resp_arg *key = key_arg(serve, pairs, i);
        if (!rules_find(&serve->rules, key->bytes, key->length)->writes_behind) return false;
        size_t length = (size_t)key->length + value_arg(serve, pairs, i)->length;
        if (length > WRITE_BYTES_MAX) return false;
        *bytes += length;
    }
    return true;
}

/* All or nothing: an MSET of which a half was taken could not be answered. */
static bool memory_fits(struct serve *serve, const struct pairs *pairs, size_t bytes) {
    size_t most = bytes + pairs->count * (64 + sizeof(struct written)) + 16384;
    if (!budget_take(serve->budget, BUDGET_BEHIND, most)) return false;
    budget_give(serve->budget, BUDGET_BEHIND, most);
    return true;
}

static void take(struct serve *serve, const struct pairs *pairs, uint32_t i) {
    const struct resp_arg *arg = key_arg(serve, pairs, i), *value = value_arg(serve, pairs, i);
    struct store_key key = {
        .bytes = arg->bytes, .length = arg->length, .hash = store_hash(serve->store, arg->bytes, arg->length)};
    /* Nobody would read it: this one stands before it, until it is sent and what is older goes for good. */
    uint32_t dropped = store_drop(serve->store, key.bytes, key.length, key.hash);
    trace_note(serve->trace, key.hash, FP_TRACE_TAKEN, dropped);
    serve->stats.behind_superseded += behind_find(&serve->behind, &key) != NULL;
    CHECK(behind_put(&serve->behind, &key, value->bytes, value->length, pairs->expire_at_ms, serve->now_ns));
    if (dropped) behind_find(&serve->behind, &key)->is_read = true;
}

/* False: it travels. */
static bool is_ours(struct serve *serve, const struct command *command, struct pairs *pairs, size_t *bytes) {
    struct behind *behind = &serve->behind;
    return behind->bytes_max && !behind->is_closed && behind->journal.state != JOURNAL_OFF &&
           read_pairs(serve, command, pairs) && may_be_queued(serve, pairs, bytes) &&
           behind_could_hold(behind, pairs->count, *bytes);
}

static bool take_all(struct serve *serve, struct session *session, const struct command *command,
                     enum dispatched *done) {
    struct pairs pairs;
    size_t bytes;
    struct behind *behind = &serve->behind;
    if (!is_ours(serve, command, &pairs, &bytes)) return false;
    /* What this client has sent on another link would be overtaken. */
    if (session->lane_count && session->lane != FP_LANE_TRACKED) {
        *done = dispatch_stall(serve, session, STALL_LANE);
        return true;
    }
    /* Room in the journal's batch is memory too, and what is left behind it must do. */
    bool may_note = behind_may_note(behind, session, pairs.count, bytes);
    bool is_full = !behind_finds_room(behind, session, pairs.count, bytes) || !memory_fits(serve, &pairs, bytes);
    /* The client waits, unless nothing will be taken out soon. */
    if (is_full && (serve->refusal.length || behind_is_empty(behind))) return false;
    if (!may_note && behind_is_empty(behind) && journal_is_idle(&behind->journal)) return false;
    if (is_full || !may_note) {
        behind_keep_room(behind, session, pairs.count, bytes, behind->journal.filling_puts > 0);
        *done = dispatch_stall(serve, session, STALL_WRITES);
        serve->write_waiters++;
        return true;
    }
    bool is_noted = behind->journal.state == JOURNAL_ON;
    if (is_noted && !slot_may_acknowledge(session, journal_number(&behind->journal))) {
        *done = dispatch_stall(serve, session, STALL_SLOTS);
        return true;
    }
    for (uint32_t i = 0; i < pairs.count; i++) take(serve, &pairs, i);
    serve->write_taken = true;
    session->written_place = behind->next_place;
    if (is_noted) {
        slot_acknowledge(serve, session, command, journal_number(&behind->journal));
    } else {
        serve_count_at_once(serve, command->id, FP_OUTCOME_BEHIND);
        local_reply(serve, session, "+OK\r\n");
    }
    *done = session->closing ? DISPATCH_CLOSE : DISPATCH_DONE;
    return true;
}

bool write_is_taken(struct serve *serve, struct session *session, const struct command *command,
                    enum dispatched *done) {
    bool is_taken = take_all(serve, session, command, done);
    /* It has had its room, or needs none. */
    if (!is_taken || *done != DISPATCH_STALL) behind_give_up_room(&serve->behind, session);
    return is_taken;
}

/* ---- what waits for it ---- */

static bool touches(struct serve *serve, const struct command *command) {
    uint32_t cursor = 0, index;
    while (command_next_key(command, serve->args.args, serve->args.count, &cursor, &index)) {
        const struct resp_arg *key = &serve->args.args[index];
        if (behind_has_hash(&serve->behind, store_hash(serve->store, key->bytes, key->length))) return true;
    }
    return false;
}

/* A script or EXEC may touch any key; so may whatever is unknown. Any other write, message or blocking command may tell
 * somebody of what this client has written before it. */
static bool must_follow(struct serve *serve, struct session *session, const struct command *command) {
    if (!command || command->drops == COMMAND_DROPS_ALL) return true;
    bool is_message = command->keys == COMMAND_KEYS_NONE && command->kind == COMMAND_WRITE;
    if (!is_message && !command_names_its_keys(command)) return true;
    bool tells = command->kind != COMMAND_READ && command->kind != COMMAND_PASS;
    return (tells && !behind_is_settled(&serve->behind, session->written_place)) || touches(serve, command);
}

bool write_must_wait(struct serve *serve, struct session *session, const struct command *command) {
    bool waits = !behind_is_empty(&serve->behind) && must_follow(serve, session, command);
    /* Only for what was written when it came, or it might wait for ever. */
    if (waits && session->awaited_place == 0) session->awaited_place = serve->behind.next_place;
    waits = waits && !behind_is_settled(&serve->behind, session->awaited_place);
    serve->write_waiters += waits;
    return waits;
}

struct store_value write_value(const struct serve *serve, struct written *written) {
    written->is_read = true;
    return (struct store_value){
        .bytes = written->bytes + written->key_length,
        .length = written->value_length,
        .hash = written->hash,
        .absent = written->expire_at_ms <= serve->now_ms,
    };
}
