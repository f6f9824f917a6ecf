/* inside — what the store's own files share: the whole struct, and the ways of an entry out of it. */
#ifndef FERRITE_STORE_INSIDE_H
#define FERRITE_STORE_INSIDE_H

#include "store/hash.h"
#include "store/index.h"
#include "store/slab.h"
#include "store/store.h"

/* Entries beyond these are not kept. */
#define STORE_DATABASE_MAX UINT16_MAX
#define STORE_KEY_BYTES_MAX UINT16_MAX

struct store {
    struct index index;
    struct trace trace;
    struct hash_secrets secrets;
    uint64_t generation; /* of entries put now; an entry keeps the low half */
    uint16_t clock;      /* advances with each 64th of the slabs' bytes put: see eviction.h */
    uint8_t eviction;
    uint32_t value_bytes_max;
    uint64_t random;
    uint64_t now_ms;    /* of the last put or tick */
    uint64_t stale_ms;  /* how long an entry is kept past its fresh_until */
    struct entry *lent; /* what the last store_get has found, as long as its bytes may be read */
    size_t clock_bytes; /* put since the clock advanced */
    struct budget *budget;
    struct arena arena;
    size_t arena_bytes_max;
    struct slab slab;
    struct {
        uint32_t peek_class; /* the next class to look at */
        uint32_t peek_turn;
    } evict;
    struct {
        uint32_t frame; /* where store_tick goes on */
        uint32_t place;
        uint64_t pass_generation; /* the store's when this pass began */
        uint64_t oldest;          /* no entry is of an older generation */
    } sweep;
    uint64_t evicted_total;
    uint64_t expired_total;
    uint64_t refused_total;
    uint64_t absent; /* entries of keys that do not exist */
    size_t entry_bytes;
};

/* Takes an entry out of the index; its place is free once nobody holds it. */
void store_unlink(struct store *store, struct entry *entry);

static inline bool entry_is_current(const struct store *store, const struct entry *entry) {
    return entry->generation == (uint16_t)store->generation;
}

static inline uint32_t store_random(struct store *store) {
    store->random ^= store->random << 13;
    store->random ^= store->random >> 7;
    store->random ^= store->random << 17;
    return (uint32_t)(store->random >> 16);
}

#endif
