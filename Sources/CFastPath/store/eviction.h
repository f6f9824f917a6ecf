/* eviction — which entry goes when there is no memory.
 *
 * Every policy is a measure of coldness (the colder, the sooner it goes) and the same search:
 *
 *   hand ─► the next ten entries of the class ─► the coldest of them goes
 *
 * as Redis samples (antirez, "Random notes on improving the Redis LRU algorithm", 2016: ten samples come close to true
 * LRU), but with a hand that goes from run to run and so comes to every entry of the class once a round. What lies side
 * by side in a run came at one time and would make a poor sample.
 *
 *   lru     coldness is age on the store's clock, which advances with every 64th of the slabs' bytes put: fast enough
 *           to order what competes, slow enough that a hot entry is written to once in a while only.
 *   lfu     a logarithmic counter of 8 bits, as in Redis 4 (Morris 1978): a use raises it with a falling probability,
 *           and it falls by one with each half turnover of the cache. Among equals the older goes.
 *   random  any.
 *
 * Classes compete for memory: each keeps a running mean of the coldness of what its hand finds. When a class needs
 * memory and another's finds are clearly colder, a whole run of that other is drained: what is hot there moves to the
 * places of colder entries, the rest goes. Where a class has more freed places than a run holds, a run is drained into
 * them first, and nothing goes.
 * An entry that is held is never evicted. Loop thread only. */
#ifndef FERRITE_STORE_EVICTION_H
#define FERRITE_STORE_EVICTION_H

#include "store/inside.h"

/* A use. Writes to the entry only when that changes something. */
void eviction_touch_lfu(struct store *store, struct entry *entry);

static inline void eviction_touch(struct store *store, struct entry *entry) {
    if (store->eviction == STORE_LRU) {
        if (entry->used != store->clock) entry->used = store->clock;
    } else if (store->eviction == STORE_LFU) {
        eviction_touch_lfu(store, entry);
    }
}

/* Marks a new entry; `heir_of`: the frequency of the entry that it replaces, or 0. */
void eviction_begin(struct store *store, struct entry *entry, size_t bytes, uint8_t heir_of);

/* Makes progress towards a place of the class for `bytes`: one entry or one run goes. False when nothing can go. */
bool eviction_make_room(struct store *store, uint32_t slab_class, size_t bytes);

/* Empties one run, so that its frames can be returned; one of the class `except` only if there is no other
 * (SLAB_CLASS_MAX: any). False when nothing can go. */
bool eviction_free_run(struct store *store, uint32_t except);

#endif
