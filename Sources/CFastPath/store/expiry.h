/* expiry — entries whose time has come, and what store_drop_all has left behind.
 *
 * Expired entries are dropped when they are read, when eviction meets them, and by a slow walk over the slabs' pages
 * in the order in which they lie (store_tick). */
#ifndef FERRITE_STORE_EXPIRY_H
#define FERRITE_STORE_EXPIRY_H

#include "store/inside.h"

/* An upstream would not know the key any more. */
static inline bool entry_has_expired(const struct entry *entry, uint64_t now_ms) {
    return entry_time(entry->expire_at) <= now_ms;
}

/* ttl_default, or its rule's, is over: it is served only while the upstream does not answer. */
static inline bool entry_is_stale(const struct entry *entry, uint64_t now_ms) {
    return entry_time(entry->fresh_until) <= now_ms;
}

/* Unlinks an entry that has expired, has been stale for too long, or was dropped; false, and nothing done, for any
 * other. */
bool expiry_drop_if_dead(struct store *store, struct entry *entry, uint64_t now_ms);

/* Walks over at most `steps` places and frames, then goes on there next time. */
void expiry_sweep(struct store *store, uint64_t now_ms, uint32_t steps);

/* Walks over everything: no entry of an older generation is left. */
void expiry_sweep_all(struct store *store, uint64_t now_ms);

#endif
