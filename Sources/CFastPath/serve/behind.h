/* behind — write-behind: writes that have been acknowledged here and are still to be carried out upstream.
 *
 *   dispatch ─► behind_put ─► queued ──► flying ──► confirmed ──► done: gone when the journal says so too
 *                               ▲           │
 *                               └── retry ──┘        (a link lost, a server that refuses for now)
 *
 * A key has at most one queued write, the last one: what is written again before it was sent replaces it in its place.
 * What is written while its predecessor flies is queued behind, and the predecessor becomes a *ghost*, whose outcome is
 * of no interest any more. So writes of one key reach the upstream in their order, and the last one last.
 *
 * A ghost that was not carried out is *stuck* until a later write of its key has been: whoever waits for it waits for
 * that.
 *
 * Every write has a *place*, which counts up; queued and stuck ones each stand in the order of their places, and flying
 * ones do unless some were refused for now and sent again. So "all that was written before now has been carried out" is
 * four comparisons: behind_is_settled. Whatever is not itself written behind and may touch these keys waits for that
 * (dispatch.c), so nothing that touches a key overtakes a write of it, nor is sent between a write and its second
 * sending. With a journal it waits until that says so as well, since what the journal does not know to be carried out
 * is sent again by the process that comes after this one.
 *
 * Reads look here first: nothing that comes from the upstream is newer. Memory: owner BUDGET_BEHIND, at most bytes_max,
 * and the buckets and the table's last step, some 100 KiB. Loop thread only. */
#ifndef FERRITE_SERVE_BEHIND_H
#define FERRITE_SERVE_BEHIND_H

#include "base/table.h"
#include "serve/journal.h"
#include "store/store.h"

struct written {
    struct table_item item;
    uint32_t bucket_next; /* TABLE_NONE ends both lists */
    uint32_t next;
    uint64_t place;
    uint64_t hash;
    uint64_t expire_at_ms; /* absolute, monotonic; STORE_NEVER */
    uint64_t taken_ns;     /* when its place was taken: what it replaced was not sent yet */
    uint64_t sent_ns;      /* when it was last sent */
    uint64_t refused_ns;   /* since when the server has refused the key's writes for now; 0: it has not */
    uint32_t key_length, value_length;
    bool ghost, flies;
    bool deletes;      /* its time was over when it was last sent: as DEL */
    bool done;         /* waits for the journal only */
    uint64_t noted_by; /* done: the number of the batch that says so */
    bool is_read;      /* somebody wants it: the copy is fetched behind it */
    bool is_late;      /* was carried out so late that its time to live has been sent again */
    uint8_t *bytes;    /* key, then value */
};

struct behind {
    struct table table;
    uint32_t *buckets; /* by hash: those that are no ghosts */
    uint32_t bucket_mask;
    uint32_t queued_first, queued_last, flying_first, flying_last, stuck_first;
    uint32_t done_first, done_last; /* in the order of their places */
    uint32_t queued, flying;
    bool disordered; /* those that fly do not all stand in the order of their places */
    uint64_t next_place;
    size_t bytes, bytes_max;
    bool is_closed; /* no client's write is taken any more */
    /* Who waits for room: others leave room for so many writes with so many bytes, and the journal's batch. */
    const void *kept_for;
    uint32_t kept_count;
    size_t kept_bytes;
    bool kept_journal;
    struct budget *budget;
    struct journal journal;
};

/* Of a zeroed struct; 0: no write is ever taken. False when the budget cannot hold the fixed parts. */
bool behind_init(struct behind *behind, struct budget *budget, size_t bytes_max);
void behind_deinit(struct behind *behind);

static inline bool behind_is_empty(const struct behind *behind) {
    return behind->queued == 0 && behind->flying == 0 && behind->done_first == TABLE_NONE;
}

/* The key's last write that is not confirmed, NULL if none. Its bytes are valid until it is replaced or done. */
struct written *behind_find(const struct behind *behind, const struct store_key *key);
/* Only the hash: at worst too many. */
bool behind_has_hash(const struct behind *behind, uint64_t hash);

/* Whether so many writes with so many bytes of keys and values fit now. */
bool behind_has_room(const struct behind *behind, uint32_t count, size_t bytes);
/* The same for one of several who ask, and whether it can be noted in the journal. `who`: an address of its own. */
bool behind_finds_room(const struct behind *behind, const void *who, uint32_t count, size_t bytes);
bool behind_may_note(struct behind *behind, const void *who, uint32_t count, size_t bytes);
/* For the first that waits room is kept until it gives up: a large write would wait for ever beside small ones. */
void behind_keep_room(struct behind *behind, const void *who, uint32_t count, size_t bytes, bool in_journal);
void behind_give_up_room(struct behind *behind, const void *who);
/* Whether they could ever fit. */
bool behind_could_hold(const struct behind *behind, uint32_t count, size_t bytes);

/* Takes a write; false when the budget is spent. Copies. */
bool behind_put(struct behind *behind, const struct store_key *key, const uint8_t *value, uint32_t length,
                uint64_t expire_at_ms, uint64_t now_ns);

/* The same for one that an earlier process has taken, with the place that it had; in the order of places. */
bool behind_restore(struct behind *behind, uint64_t place, const struct store_key *key, const uint8_t *value,
                    uint32_t length, uint64_t expire_at_ms, uint64_t now_ns);

/* All writes with places below this have been carried out, or given up, and the journal says so. */
bool behind_is_settled(const struct behind *behind, uint64_t place);
/* The lowest place of those that are not done; next_place if all are. */
uint64_t behind_oldest(const struct behind *behind);
/* Since when that one has been waiting to be carried out; 0 if there is none. */
uint64_t behind_oldest_ns(const struct behind *behind);
/* The journal's file has this batch, and all before. */
void behind_noted(struct behind *behind, uint64_t number);
/* It will have no further one: those that wait for a batch wait until there is no file. */
void behind_unnote(struct behind *behind);

/* The oldest that waits to be sent, NULL if none does. */
const struct written *behind_queued(const struct behind *behind);
/* The next one to be sent, which flies from now on; NULL if none is queued. Valid until it is confirmed. */
struct written *behind_send(struct behind *behind, uint64_t now_ns);

/* What has become of the one that has flown longest. One that is confirmed is sent again all the same when its time is
 * over (to delete the key), and once when it was under way for so long that the key would live too long: a time to live
 * is sent as what is left of it, and runs from when the upstream carries it out. */
enum behind_outcome { BEHIND_CONFIRMED, BEHIND_RETRIED, BEHIND_REFUSED };
/* Returns what has become of it in truth. */
enum behind_outcome behind_done(struct behind *behind, enum behind_outcome outcome, uint64_t now_ns);
/* The one of which the next outcome will be told; NULL if none flies. */
const struct written *behind_flying(const struct behind *behind);
/* The link is lost: all that fly are to be sent again. */
void behind_unsend(struct behind *behind);

#endif
