/* serve — what the folder's files share: one struct, made by the engine, passed to every function.
 *
 *   dispatch ─► read ─► store ──► hit ─► slots ─► session.out
 *      │          └─► flight ─► event MISS
 *      ├─► local ───────────────────────► slots
 *      └─► event COMMAND | ASK | PIN
 *
 * Nothing here knows a socket: replies go to a session's `out`, and the session onto the `dirty` list; net/ takes it
 * from there. Loop thread only. */
#ifndef FERRITE_SERVE_SERVE_H
#define FERRITE_SERVE_SERVE_H

#include "CFastPath.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "base/stats.h"
#include "base/table.h"
#include "resp/commands.h"
#include "resp/parse.h"
#include "serve/ahead.h"
#include "serve/behind.h"
#include "serve/rules.h"
#include "store/store.h"

struct session;
struct slot;

#define SERVE_EVENTS 4096u      /* the most of one batch */
#define SERVE_EVENTS_SPARE 512u /* kept by dispatch and frames for what cannot wait: a link or a client that is gone */
#define SERVE_MGET_KEYS 128u    /* an MGET of more keys is passed on, not cached */
#define SERVE_SLOTS_A_CLIENT 256u /* unanswered commands of one client: more in the air make nothing faster */
#define SERVE_MULTI_HASH_BYTES ((size_t)65536) /* of the keys of one MULTI; with more its EXEC drops everything */
#define SERVE_FLIGHT_BUCKETS 4096u
#define SERVE_REQUEST_BYTES (1u << 20) /* of a batch's requests, unless the first alone is larger */
/* Looked at for whether there is memory to send it on; a read this large (of its keys) is passed, not cached. */
#define SERVE_LARGE_BYTES 16384u

struct serve {
    struct budget *budget;
    struct store *store;
    struct commands *commands;
    struct resp_args args;
    struct block_pool blocks;

    struct table slots;
    struct table flights;
    uint32_t flight_buckets[SERVE_FLIGHT_BUCKETS]; /* by key hash: index of the newest flight, TABLE_NONE */

    uint32_t fetch_first, fetch_last; /* flights whose events are for the next batch; TABLE_NONE */

    struct behind behind;
    uint32_t write_waiters; /* times a session has stalled for it since all were let go on */
    bool write_moved;       /* something has been carried out since */
    bool write_taken;       /* something is to be sent, so the turn ends */

    uint32_t flight_era; /* counts what made everything untrue: FLUSHALL, a null push */

    /* SWAPDBs under way on links without order to the tracked one: nothing announces what they change, so what is
     * fetched meanwhile answers who waits and is not kept. */
    uint32_t sweeps;

    struct slot_list {
        struct slot *first, *last;
    } fenced, journaled; /* slots that wait for a fence, or for a batch of the journal; the lowest number first */

    fp_event *events;
    uint32_t event_count;
    size_t request_bytes; /* of this batch's events: what Swift's orders will copy */

    struct trace *trace; /* the store's */

    struct buffer refusal; /* what a command for a shared link is answered with, because it could not be sent */

    struct session *dirty;    /* have something to send */
    struct session *runnable; /* were stalled and may go on */

    uint64_t now_ns; /* of this turn */
    uint64_t now_ms;

    uint32_t epoch;
    bool trusted;
    bool has_others;       /* there may be entries of other epochs */
    uint32_t suspect_from; /* entries of epochs before are not served at all: somebody may have read what is newer */
    bool serve_suspect;
    fp_hold_kind held;
    bool bypass; /* nothing is served from the store, nor kept */
    bool allow_admin;
    struct rules rules;
    struct ahead ahead;
    uint64_t join_ms;  /* how long a flight takes readers */
    uint64_t fetch_ns; /* how long fetches take, a mean over the last ones */
    uint64_t random;
    uint64_t audit_every, audit_left; /* one hit in so many is audited, on average; hits until the next */
    size_t out_bytes_high;            /* a client with this much unsent is not read from; 0: nobody is */
    size_t out_bytes_max;             /* a client with this much due to it is closed, lest it take everybody's memory */
    /* upstream replies, a mean that leans to the large, in 64ths: what an unanswered command may bring */
    uint64_t reply_bytes_mean_x64;

    const char *username; /* the sidecar's own identity, NULL if none */
    const char *password;
    char upstream_version[32], upstream_mode[16], upstream_role[16]; /* what HELLO says */
    uint8_t upstream_protocol;                                       /* 2 or 3: the most that HELLO may choose */

    struct stats stats;
    /* By row of the table; the last is of all that it does not have. Of replies that were given. */
    struct serve_calls {
        uint64_t outcomes[FP_OUTCOME_COUNT];
    } calls[COMMAND_ID_COUNT + 1];
    bool told_error;                             /* by the sidecar itself, in the answer to the command in hand */
    uint32_t answered_at_once[FP_OUTCOME_COUNT]; /* of them in this turn, which is what they took */
};

/* Of a zeroed struct. False when the budget cannot hold the fixed parts. */
bool serve_init(struct serve *serve, struct budget *budget, struct store *store, uint32_t clients_max,
                uint64_t behind_bytes_max);
/* Every session must be gone. */
void serve_deinit(struct serve *serve);

/* The next event of the batch, zeroed. dispatch makes sure that there is room. */
static inline fp_event *serve_event(struct serve *serve, fp_event_kind kind) {
    CHECK(serve->event_count < SERVE_EVENTS);
    fp_event *event = &serve->events[serve->event_count++];
    *event = (fp_event){.kind = kind, .command = FP_COMMAND_UNKNOWN};
    return event;
}

/* A command has been answered. `command`: its row, FP_COMMAND_UNKNOWN. */
static inline void serve_count(struct serve *serve, uint16_t command, fp_outcome outcome) {
    serve->calls[command < COMMAND_ID_COUNT ? command : COMMAND_ID_COUNT].outcomes[outcome]++;
}

/* The same, in the turn in which it came. */
static inline void serve_count_at_once(struct serve *serve, uint16_t command, fp_outcome outcome) {
    serve_count(serve, command, outcome);
    serve->answered_at_once[outcome]++;
}

/* Whether a link could take a request of so many bytes behind what this batch has asked to be sent: one that finds no
 * memory in the midst of a command is lost. */
bool serve_request_fits(const struct serve *serve, size_t length);

static inline bool serve_events_fit(const struct serve *serve, uint32_t count) {
    return serve->event_count + count <= SERVE_EVENTS;
}

#endif
