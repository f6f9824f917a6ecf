/* slots — the order of replies.
 *
 *   session:  out ◄── first ──► slot ──► last
 *                     [answer|after]     [answer|after]
 *
 * A command that cannot be answered at once takes a slot; what is answered at once behind it (a hit, a PING) is kept in
 * the last slot's `after`. When the first slot is answered its reply, its `after` and all answered slots behind it move
 * to `out`. So replies leave in the order of commands whatever order they come in, and a client without slots never
 * allocates.
 *
 * The fence (rule 3): what has come by another link than the tracked one stays in its slot until every push that the
 * upstream sent before it has been applied. A message that answers nothing takes a slot of its own meanwhile. Slots
 * that wait for a fence stand in serve.fenced, the lowest fence first.
 *
 * The journal: in the same way a write that is acknowledged here waits in serve.journaled until the batch that has it
 * is in the file. One slot holds the acknowledgements of all that a client has in a batch. */
#ifndef FERRITE_SERVE_SLOTS_H
#define FERRITE_SERVE_SLOTS_H

#include "serve/session.h"

struct slot {
    struct table_item item;
    uint16_t command; /* row, FP_COMMAND_UNKNOWN */
    uint8_t protocol; /* the client's when it asked */
    uint8_t resp2;    /* enum resp2_rule */
    fp_lane lane;
    bool answered;
    bool filtered; /* counts in session.filtered */
    bool drops_all;
    bool sweeps;        /* the same, announced by nothing: counts in serve.sweeps */
    bool looks_around;  /* SORT: reads keys that it does not name */
    fp_outcome outcome; /* unless it is an error */
    bool aborts;        /* EXEC of a transaction of which we have refused a part: a DISCARD travels instead */
    bool is_message;    /* answers nothing: waits for its fence only */
    bool after_held;    /* `after` is complete and counts in session.held_bytes */
    struct session *session;
    struct slot *next;
    struct slot *wait_prev, *wait_next; /* other waiters of `flight`; once answered, of a fence or batch */
    uint64_t fence;                     /* answered, and held until this has passed; 0: none */
    bool journaled;                     /* which is a batch of the journal */
    uint32_t shared_by;                 /* further commands that it answers */
    struct chain answer, after;
    uint64_t started_ns;
    uint32_t flight;        /* GET and MGET: the flight it waits for; TABLE_NONE */
    uint32_t hash_count;    /* keys to drop again when answered */
    uint32_t written_count; /* of which the first so many are written, the others read */
    uint32_t number;        /* counts up in its session, and wraps; 0: a message */
    uint64_t hash;          /* if one */
    uint64_t *hashes;       /* if more: malloc'd, charged to BUDGET_SLOTS */
};

/* Opens a slot behind all others of the session, counted in its lane. NULL when memory is short. */
struct slot *slot_open(struct serve *serve, struct session *session, fp_lane lane, const struct command *command);

/* Where a reply goes that is known at once: behind the last slot, or straight to `out`. */
static inline struct chain *slot_sink(struct session *session);

/* Notes a key that must be dropped again when the answer comes. False when memory is short. */
bool slot_note_hash(struct serve *serve, struct slot *slot, uint64_t hash);

/* What it makes untrue is everything. */
void slot_sweep(struct serve *serve, struct slot *slot, bool announced);

/* Rule 6, when suspect copies are about to be served: a key with a write whose outcome is not known is not served. */
void session_drop_unresolved(struct serve *serve, struct session *session);
/* CLIENT REPLY OFF: something is sent on the session's link now whose answer will show that the writes so far are
 * done. */
void session_mark_silent(struct session *session);
/* It has been answered: they are dropped again, and their outcome is known. */
void session_settle_silent(struct serve *serve, struct session *session);

/* Answers: the reply is converted by the slot's rule for RESP2 clients if from_resp3. What must be dropped is dropped
 * before (rule 2). Without a fence (0) the slot is gone afterwards; else once that has passed. */
void slot_answer(struct serve *serve, struct slot *slot, const uint8_t *reply, size_t length, bool from_resp3,
                 uint64_t fence);
/* An error of our own, for what was not sent or will not be answered: nothing has been read, and what would have been
 * written may have been. */
void slot_answer_error(struct serve *serve, struct slot *slot, const uint8_t *error, size_t length);
/* An answer with more to come for this slot: `fenced` when that will have to wait for a fence. */
void slot_answer_more(struct serve *serve, struct slot *slot, const uint8_t *reply, size_t length, bool fenced);
/* Sends what answers nothing, behind what is already there for the session and in front of what is not. */
void session_tell(struct serve *serve, struct session *session, const uint8_t *bytes, size_t length, uint64_t fence);
/* All fences up to this one: what waited for them is delivered. */
void fence_passed(struct serve *serve, uint64_t fence);
/* A write of the session is acknowledged: it hears +OK when this batch of the journal is in the file. Ask first whether
 * the client may have so much unanswered. */
bool slot_may_acknowledge(const struct session *session, uint64_t number);
void slot_acknowledge(struct serve *serve, struct session *session, const struct command *command, uint64_t number);
/* All batches up to this one are. */
void journal_passed(struct serve *serve, uint64_t number);
/* They never will be, and nobody knows what becomes of these writes: who waits for one is closed. */
void journal_forsaken(struct serve *serve);
/* A stored value, or a null if it says that there is none; and an array of such. */
void slot_answer_value(struct serve *serve, struct slot *slot, const struct store_value *value);
void slot_answer_values(struct serve *serve, struct slot *slot, const struct store_value *values, uint32_t count);
/* A null in the client's protocol. */
void slot_answer_null(struct serve *serve, struct slot *slot);

/* The session is closed once what has come for it has been sent; what is still owed to it is forgotten. */
void session_close(struct serve *serve, struct session *session);
/* At once and for want of memory: what is due is dropped, as Redis does past client-output-buffer-limit. Counted. */
void session_starve(struct serve *serve, struct session *session);
/* False for a client that leaves so much unread that it must go, lest it take everybody's memory. */
bool session_reads(const struct serve *serve, const struct session *session);

static inline struct chain *slot_sink(struct session *session) {
    return session->last ? &session->last->after : &session->out;
}

#endif
