/* store — the cache itself: keys, values and two times, strictly inside the budget.
 *
 *   index (hash -> entry) ─► slab page [ entry | entry | … ]
 *
 * An entry is header, key bytes, value bytes, in one piece. Memory is a reserved range (the arena) from which pages
 * are committed as the budget allows and given back with madvise; nothing here calls malloc after store_create.
 * Keys above 65,535 bytes and databases above 65,535 are not kept (store_put refuses them).
 * Databases: an entry belongs to one database, but the hash covers the name only, so that a push, which carries no
 * database, can drop the name everywhere.
 * Times are monotonic milliseconds (clock_now / 1e6). Loop thread only. */
#ifndef FERRITE_STORE_STORE_H
#define FERRITE_STORE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/budget.h"
#include "base/trace.h"

struct store;

enum store_eviction { STORE_LRU, STORE_LFU, STORE_RANDOM };

struct store_key {
    const uint8_t *bytes;
    uint32_t length;
    uint32_t database;
    uint64_t hash; /* store_hash(bytes, length) */
};

/* Seeded at store_create, so that clients cannot choose collisions. */
uint64_t store_hash(const struct store *store, const uint8_t *bytes, uint32_t length);

#define STORE_NEVER UINT64_MAX

struct store_options {
    size_t arena_bytes;     /* the most that index and slabs may hold, at most 8 GiB */
    size_t arena_bytes_max; /* what store_resize may raise it to, reserved, not committed; less: no more */
    enum store_eviction eviction;
    uint32_t value_bytes_max; /* larger values are refused: 1 MiB by default */
    uint64_t seed;            /* hash and random eviction */
};

/* NULL when the address range cannot be reserved or the index does not fit the budget. The budget's reclaim is for the
 * caller to set, afterwards. */
struct store *store_create(const struct store_options *options, struct budget *budget);
/* From now on index and slabs may hold so many bytes, or as many as addresses were reserved for; returns that. What is
 * too much is evicted. */
size_t store_resize(struct store *store, size_t arena_bytes);

void store_destroy(struct store *store);

/* What store_get found. */
enum store_found {
    STORE_MISS, /* not there, or past its upstream expiry (then it is dropped) */
    STORE_HIT
};

struct store_value {
    const uint8_t *bytes; /* valid until the next put, give_back, tick or drop*. give_back, which any budget_take of
                             another owner may cause, spares what the last get found: a reply may be made from these
                             bytes at once. Whoever gathers several values before replying must hold them. */
    uint32_t length;
    uint32_t epoch;       /* as put */
    uint64_t fresh_until; /* as put */
    uint64_t expire_at;   /* as put */
    uint64_t hash;        /* of the key */
    bool absent;          /* the upstream does not have the key: there is no value */
    void *entry;          /* for store_hold */
};

/* A lookup counts as a use for the eviction policy. O(1), no allocation. */
enum store_found store_get(struct store *store, const struct store_key *key, uint64_t now_ms,
                           struct store_value *value);

/* Puts a copy, replacing what was there; no bytes (NULL): that the upstream does not have the key. False when it is too
 * large for the budget or value_bytes_max: then an older entry of the key is removed all the same, for what was not
 * stored must not leave something older behind. expire_at: the upstream's own expiry, never outlived (STORE_NEVER:
 * none). fresh_until: past it the value is stale, goes first when memory is needed, and is dropped after
 * store_keep_stale's time. */
bool store_put(struct store *store, const struct store_key *key, const uint8_t *bytes, uint32_t length,
               uint64_t expire_at, uint64_t fresh_until, uint32_t epoch, uint64_t now_ms);

/* How long a stale entry is kept, if memory allows; for ever by default. */
void store_keep_stale(struct store *store, uint64_t ms);

/* Drops the name in every database; returns how many entries went. */
uint32_t store_drop(struct store *store, const uint8_t *bytes, uint32_t length, uint64_t hash);
/* Drops every entry with this hash: at worst too many, never too few. */
uint32_t store_drop_hash(struct store *store, uint64_t hash);
/* The same, but for entries of this epoch. */
uint32_t store_drop_hash_of_others(struct store *store, uint64_t hash, uint32_t epoch);
/* Drops entries whose names match a pattern, of `steps` places from `cursor` on, which is 0 at first and at the end.
 * What is moved meanwhile may be missed. Counts into *dropped. */
uint64_t store_drop_matching(struct store *store, const uint8_t *pattern, size_t length, uint64_t cursor,
                             uint32_t steps, uint64_t *dropped);
/* What an entry is called, and how hot it is: how lately it was used (lru; 255: since the clock advanced), or how
 * often (lfu). With random eviction nothing tells, and all are 255. */
struct store_name {
    const uint8_t *bytes; /* until the next put */
    uint32_t length;
    uint8_t heat;
};
/* Names of entries that are at least so hot, of `steps` places from `cursor` on, as above; `names` has room for as
 * many. Returns where to go on. */
uint64_t store_names(const struct store *store, uint8_t heat, uint64_t cursor, uint32_t steps, struct store_name *names,
                     uint32_t *count);
/* Drops everything in O(1); the memory comes back in slices by store_tick or when a put needs it. */
void store_drop_all(struct store *store);

/* Keeps an entry's bytes in place until store_release, though it be dropped, replaced or evicted meanwhile: for
 * values that are sent from where they lie. At most 2^16-1 holds an entry; false when that is reached. */
bool store_hold(struct store *store, void *entry);
void store_release(struct store *store, void *entry);

/* Frees whole pages until `bytes` have gone back to the budget or nothing is left; returns the bytes freed.
 * Evicts what lies there by the policy as well as it can. */
size_t store_give_back(struct store *store, size_t bytes);

/* A bounded slice of background work (at most `steps` entries looked at): expired entries, remains of drop_all, pages
 * and index that are not needed any more. */
void store_tick(struct store *store, uint64_t now_ms, uint32_t steps);

/* The life of one key here; where there is more to say of it than the store knows, its callers note it too. */
struct trace *store_trace(struct store *store);

struct store_stats {
    uint64_t entries; /* live now (an upper bound right after drop_all) */
    uint64_t absent;  /* of which say that there is no such key */
    uint64_t evicted_total;
    uint64_t expired_total;
    uint64_t refused_total; /* puts that did not fit */
    size_t index_bytes;
    size_t slab_bytes;  /* committed pages */
    size_t entry_bytes; /* header + key + value of live entries */
};
void store_read_stats(const struct store *store, struct store_stats *stats);

#endif
