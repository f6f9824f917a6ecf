/* expiry — the walk of expiry.h. */
#include "store/expiry.h"

/* Free frames that store_tick leaves paid for, so that a busy store does not return and fault the same pages. */
#define WARM_FRAMES_KEPT 16u
#define TRIM_FRAMES_A_TICK 16u
#define STEPS_A_MERGE 8u /* merging two buckets of the index is as much work as looking at some places */

bool expiry_drop_if_dead(struct store *store, struct entry *entry, uint64_t now_ms) {
    if (!entry_is_current(store, entry)) {
        store_unlink(store, entry);
        return true;
    }
    if (entry_has_expired(entry, now_ms)) {
        store->expired_total++;
        trace_note(&store->trace, entry->hash, FP_TRACE_EXPIRED, 0);
        store_unlink(store, entry);
        return true;
    }
    uint64_t fresh_until = entry_time(entry->fresh_until);
    if (fresh_until <= now_ms && now_ms - fresh_until >= store->stale_ms) {
        store->expired_total++;
        trace_note(&store->trace, entry->hash, FP_TRACE_STALE_OVER, 0);
        store_unlink(store, entry);
        return true;
    }
    return false;
}

/* Begins the next pass. What was put before this one began is of this generation or newer. */
static void pass_end(struct store *store) {
    store->sweep.oldest = store->sweep.pass_generation;
    store->sweep.pass_generation = store->generation;
    store->sweep.frame = 0;
    store->sweep.place = 0;
}

/* One step: a place of the run at hand, or on to the next run. */
static void sweep_step(struct store *store, uint64_t now_ms) {
    struct slab *slab = &store->slab;
    if (store->sweep.frame >= slab->frame_high) {
        pass_end(store);
        return;
    }
    const struct run *run = &slab->runs[store->sweep.frame];
    if (run->state != RUN_HEAD || store->sweep.place >= run->fresh) {
        store->sweep.frame++;
        store->sweep.place = 0;
        return;
    }
    struct entry *entry = slab_entry(slab, store->sweep.frame, store->sweep.place++);
    if (entry->flags & ENTRY_LINKED) expiry_drop_if_dead(store, entry, now_ms);
}

void expiry_sweep(struct store *store, uint64_t now_ms, uint32_t steps) {
    uint32_t merges = steps / STEPS_A_MERGE;
    for (; steps > 0; steps--) sweep_step(store, now_ms);
    if (store->slab.warm_count > WARM_FRAMES_KEPT) {
        uint32_t frames = store->slab.warm_count - WARM_FRAMES_KEPT;
        if (frames > TRIM_FRAMES_A_TICK) frames = TRIM_FRAMES_A_TICK;
        slab_trim(&store->slab, (size_t)frames * FRAME_BYTES);
    }
    for (; merges > 0 && index_wants_shrinking(&store->index); merges--)
        if (!index_shrink(&store->index)) break;
}

void expiry_sweep_all(struct store *store, uint64_t now_ms) {
    store->sweep.frame = 0;
    store->sweep.place = 0;
    store->sweep.pass_generation = store->generation;
    do {
        sweep_step(store, now_ms);
    } while (store->sweep.frame != 0 || store->sweep.place != 0);
}
