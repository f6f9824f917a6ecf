/* store — get, put, drop and the rest of store.h, over index, slab, eviction and expiry. */
#include "store/store.h"

#include <stdlib.h>
#include <unistd.h>

#include "base/check.h"
#include "base/glob.h"
#include "store/eviction.h"
#include "store/expiry.h"
#include "store/inside.h"

/* Refs are 32 bits of 8 bytes: this and what is reserved around it stay below 32 GiB. */
#define ARENA_BYTES_MAX ((size_t)8 << 30)
/* More addresses than memory, so that a megabyte in one piece is nearly always to be found. */
#define ADDRESSES_EXTRA ((size_t)8 << 20)

/* ---- life ---------------------------------------------------------------------------------------------------- */

/* Where the parts lie in the arena. */
struct plan {
    size_t bitmaps, runs, buckets, overflow, frames, end;
    size_t bitmap_bytes;
    uint32_t frame_count;
};

static struct plan make_plan(size_t limit, size_t granule) {
    struct plan plan = {.frame_count = (uint32_t)((2 * limit + ADDRESSES_EXTRA) / FRAME_BYTES)};
    plan.bitmaps = granule; /* offset 0 is no entry's */
    plan.bitmap_bytes = round_up(slab_bitmap_bytes(plan.frame_count), granule);
    plan.runs = plan.bitmaps + plan.bitmap_bytes;
    plan.buckets = plan.runs + round_up(plan.frame_count * sizeof(struct run), granule);
    /* The smallest entries take 40 bytes, at 7 to a bucket of 64: less than a quarter of the arena. */
    plan.overflow = plan.buckets + round_up(limit / 4, granule) + granule;
    plan.frames = round_up(plan.overflow + round_up(limit / 8, granule) + granule, FRAME_BYTES);
    plan.end = plan.frames + (size_t)plan.frame_count * FRAME_BYTES;
    return plan;
}

struct store *store_create(const struct store_options *options, struct budget *budget) {
    size_t granule = (size_t)sysconf(_SC_PAGESIZE);
    size_t limit = options->arena_bytes < ARENA_BYTES_MAX ? options->arena_bytes : ARENA_BYTES_MAX;
    if (granule > FRAME_BYTES) return NULL; /* kernels with pages of 64 KiB */
    size_t most = options->arena_bytes_max < ARENA_BYTES_MAX ? options->arena_bytes_max : ARENA_BYTES_MAX;
    struct plan plan = make_plan(most > limit ? most : limit, granule);

    if (!budget_take(budget, BUDGET_INDEX, sizeof(struct store))) return NULL;
    struct store *store = calloc(1, sizeof(struct store));
    if (!store) goto no_store;
    bool reserved = arena_init(&store->arena, budget, plan.end, limit, granule);
    if (!reserved && most > limit) {
        /* Where addresses count as memory (vm.overcommit_memory = 2, ulimit -v) it cannot be raised. */
        most = limit;
        plan = make_plan(limit, granule);
        reserved = arena_init(&store->arena, budget, plan.end, limit, granule);
    }
    if (!reserved) goto no_arena;
    store->arena_bytes_max = most > limit ? most : limit;
    if (!arena_take(&store->arena, BUDGET_INDEX, plan.bitmap_bytes)) goto no_bitmaps;
    uint8_t *base = store->arena.base;
    if (!index_init(&store->index, &store->arena, base + plan.buckets, plan.overflow - plan.buckets,
                    base + plan.overflow, plan.frames - plan.overflow))
        goto no_index;
    slab_init(&store->slab, &store->arena, (uint64_t *)(base + plan.bitmaps), (struct run *)(base + plan.runs),
              base + plan.frames, plan.frame_count);

    store->trace.wanted = TRACE_OFF;
    store->budget = budget;
    store->stale_ms = STORE_NEVER;
    store->eviction = (uint8_t)options->eviction;
    store->value_bytes_max = options->value_bytes_max;
    uint64_t seed = options->seed;
    for (int i = 0; i < 4; i++) store->secrets.words[i] = hash_mix_next(&seed) | 1;
    store->random = hash_mix_next(&seed) | 1;
    return store;

no_index:
    budget_give(budget, BUDGET_INDEX, plan.bitmap_bytes);
no_bitmaps:
    arena_deinit(&store->arena);
no_arena:
    free(store);
no_store:
    budget_give(budget, BUDGET_INDEX, sizeof(struct store));
    return NULL;
}

void store_destroy(struct store *store) {
    struct budget *budget = store->budget;
    size_t slabs = store->slab.taken;
    budget_give(budget, BUDGET_SLABS, slabs);
    budget_give(budget, BUDGET_INDEX, store->arena.used - slabs);
    arena_deinit(&store->arena);
    free(store);
    budget_give(budget, BUDGET_INDEX, sizeof(struct store));
}

size_t store_resize(struct store *store, size_t arena_bytes) {
    struct arena *arena = &store->arena;
    arena->limit = arena_bytes < store->arena_bytes_max ? arena_bytes : store->arena_bytes_max;
    if (arena->used > arena->limit) store_give_back(store, arena->used - arena->limit);
    return arena->limit == ARENA_BYTES_MAX ? arena_bytes : arena->limit; /* others hold what is beyond */
}

uint64_t store_hash(const struct store *store, const uint8_t *bytes, uint32_t length) {
    return hash_bytes(&store->secrets, bytes, length);
}

/* ---- finding ------------------------------------------------------------------------------------------------- */

static inline bool entry_is_named(const struct entry *entry, const uint8_t *bytes, uint32_t length, uint32_t hash) {
    return entry->hash == hash && entry->key_length == length && memcmp(entry->bytes, bytes, length) == 0;
}

static inline struct entry *find(const struct store *store, const struct store_key *key) {
    struct index_probe probe = index_probe(&store->index, key->hash);
    struct entry *entry;
    while ((entry = index_probe_next(&store->index, &probe))) {
        if (likely(entry_is_named(entry, key->bytes, key->length, (uint32_t)key->hash)) &&
            likely(entry->database == key->database))
            return entry;
    }
    return NULL;
}

struct trace *store_trace(struct store *store) {
    return &store->trace;
}

void store_unlink(struct store *store, struct entry *entry) {
    index_remove(&store->index, entry->hash, index_ref(&store->index, entry));
    store->entry_bytes -= entry_size(entry->key_length, entry->value_length);
    store->absent -= (entry->flags & ENTRY_ABSENT) != 0;
    entry->flags = ENTRY_USED;
    if (entry->holds == 0) slab_give(&store->slab, entry);
}

enum store_found store_get(struct store *store, const struct store_key *key, uint64_t now_ms,
                           struct store_value *value) {
    struct entry *entry = find(store, key);
    store->lent = NULL;
    if (!entry) return STORE_MISS;
    uint64_t expire_at = entry_time(entry->expire_at);
    if (unlikely(expire_at <= now_ms) || unlikely(!entry_is_current(store, entry))) {
        expiry_drop_if_dead(store, entry, now_ms);
        return STORE_MISS;
    }
    eviction_touch(store, entry);
    store->lent = entry;
    *value = (struct store_value){
        .bytes = entry_value(entry),
        .length = entry->value_length,
        .epoch = entry->epoch,
        .fresh_until = entry_time(entry->fresh_until),
        .expire_at = expire_at,
        .hash = entry->hash,
        .absent = entry->flags & ENTRY_ABSENT,
        .entry = entry,
    };
    return STORE_HIT;
}

/* ---- putting ------------------------------------------------------------------------------------------------- */

/* A place for an entry, at the expense of others if need be. */
static struct entry *take_place(struct store *store, uint32_t slab_class, size_t bytes) {
    /* Each round frees at least half a frame or one place; the bound only guards against held entries everywhere. */
    size_t rounds = 16 + 4 * (bytes / FRAME_BYTES);
    for (;;) {
        struct entry *entry = slab_take(&store->slab, slab_class, bytes);
        if (entry) return entry;
        if (rounds-- == 0 || !eviction_make_room(store, slab_class, bytes)) return NULL;
    }
}

/* Grows the index by as much as one put may ask for, which keeps its chains short. */
static void grow_index(struct store *store) {
    for (int i = 0; i < 2 && index_wants_growth(&store->index); i++) {
        if (index_grow(&store->index)) continue;
        /* Nothing free: what is warm goes first, then a run. */
        if (slab_trim(&store->slab, FRAME_BYTES) == 0) {
            if (!eviction_free_run(store, SLAB_CLASS_MAX) || slab_trim(&store->slab, FRAME_BYTES) == 0) return;
        }
        index_grow(&store->index);
    }
}

/* Always succeeds: if the index cannot grow, another entry of the bucket goes. */
static void link_entry(struct store *store, struct entry *entry, uint64_t hash) {
    uint32_t ref = index_ref(&store->index, entry);
    while (!index_insert(&store->index, hash, ref)) {
        if (slab_trim(&store->slab, FRAME_BYTES) > 0) continue;
        uint32_t neighbour = index_neighbour(&store->index, hash, store_random(store));
        store->evicted_total++;
        trace_note(&store->trace, index_entry(&store->index, neighbour)->hash, FP_TRACE_EVICTED, 0);
        store_unlink(store, index_entry(&store->index, neighbour));
    }
    entry->flags = ENTRY_USED | ENTRY_LINKED;
    store->entry_bytes += entry_size(entry->key_length, entry->value_length);
}

/* Whether the entry's own place is the right one for a value of another length. */
static bool fits_in_place(const struct store *store, const struct entry *entry, uint32_t slab_class, size_t size) {
    if (entry->holds > 0) return false;
    const struct slab *slab = &store->slab;
    if (slab->runs[slab_run_of(slab, entry)].slab_class != slab_class) return false;
    return slab_class != SLAB_LARGE || slab_large_fits(slab, entry, size);
}

static void set_absent(struct store *store, struct entry *entry, bool absent) {
    store->absent -= (entry->flags & ENTRY_ABSENT) != 0;
    store->absent += absent;
    entry->flags = (uint8_t)((entry->flags & ~ENTRY_ABSENT) | (absent ? ENTRY_ABSENT : 0));
}

bool store_put(struct store *store, const struct store_key *key, const uint8_t *bytes, uint32_t length,
               uint64_t expire_at, uint64_t fresh_until, uint32_t epoch, uint64_t now_ms) {
    store->now_ms = now_ms;
    store->lent = NULL;
    struct entry *old = find(store, key);
    bool keepable =
        length <= store->value_bytes_max && key->length <= STORE_KEY_BYTES_MAX && key->database <= STORE_DATABASE_MAX;
    if (unlikely(!keepable) || unlikely(expire_at <= now_ms)) {
        if (old) store_unlink(store, old);
        if (!keepable) store->refused_total++;
        return keepable;
    }
    size_t size = entry_size(key->length, length);
    uint32_t slab_class = slab_class_for(&store->slab, size);
    uint8_t heir_of = old && entry_is_current(store, old) ? old->frequency : 0;
    struct entry *entry;
    if (old && fits_in_place(store, old, slab_class, size)) {
        entry = old;
        store->entry_bytes -= entry_size(entry->key_length, entry->value_length);
        store->entry_bytes += size;
    } else {
        if (old) store_unlink(store, old);
        grow_index(store);
        entry = take_place(store, slab_class, size);
        if (!entry) {
            store->refused_total++;
            return false;
        }
        old = NULL;
        entry->hash = (uint32_t)key->hash;
        entry->key_length = (uint16_t)key->length;
        entry->database = (uint16_t)key->database;
        memcpy(entry->bytes, key->bytes, key->length);
    }
    entry->value_length = length;
    entry->epoch = epoch;
    entry_time_set(entry->expire_at, expire_at);
    entry_time_set(entry->fresh_until, fresh_until);
    entry->generation = (uint16_t)store->generation;
    if (length > 0) memcpy(entry->bytes + key->length, bytes, length);
    eviction_begin(store, entry, size, heir_of);
    if (!old) link_entry(store, entry, key->hash);
    set_absent(store, entry, bytes == NULL);
    return true;
}

/* ---- dropping ------------------------------------------------------------------------------------------------ */

uint32_t store_drop(struct store *store, const uint8_t *bytes, uint32_t length, uint64_t hash) {
    uint32_t dropped = 0;
    struct entry *entry;
    store->lent = NULL;
    struct index_probe probe = index_probe(&store->index, hash);
    while ((entry = index_probe_next(&store->index, &probe))) {
        if (!entry_is_named(entry, bytes, length, (uint32_t)hash)) continue;
        if (entry_is_current(store, entry)) dropped++;
        store_unlink(store, entry);
        probe = index_probe(&store->index, hash); /* the chain has been closed up */
    }
    return dropped;
}

static uint32_t drop_hash(struct store *store, uint64_t hash, const uint32_t *kept_epoch) {
    uint32_t dropped = 0;
    struct entry *entry;
    store->lent = NULL;
    struct index_probe probe = index_probe(&store->index, hash);
    while ((entry = index_probe_next(&store->index, &probe))) {
        if (entry->hash != (uint32_t)hash || (kept_epoch && entry->epoch == *kept_epoch)) continue;
        if (entry_is_current(store, entry)) dropped++;
        store_unlink(store, entry);
        probe = index_probe(&store->index, hash);
    }
    return dropped;
}

uint32_t store_drop_hash(struct store *store, uint64_t hash) { return drop_hash(store, hash, NULL); }

uint32_t store_drop_hash_of_others(struct store *store, uint64_t hash, uint32_t epoch) {
    return drop_hash(store, hash, &epoch);
}

void store_drop_all(struct store *store) {
    store->lent = NULL;
    /* Entries keep 16 bits of their generation. Before one could be taken for current again after 65536 drops, all
     * that is left of older ones goes; store_tick nearly always has seen to that long before. */
    if (store->generation + 1 - store->sweep.oldest > UINT16_MAX) expiry_sweep_all(store, store->now_ms);
    store->generation++;
}

/* The entry at a place, NULL if there is none, and the place behind it; *cursor is 0 behind the last. */
static struct entry *next_place(const struct store *store, uint64_t *cursor) {
    const struct slab *slab = &store->slab;
    uint32_t frame = (uint32_t)(*cursor >> 32), place = (uint32_t)*cursor;
    const struct run *run = &slab->runs[frame];
    struct entry *entry = NULL;
    if (run->state != RUN_HEAD || place >= run->fresh) {
        frame++;
        place = 0;
    } else {
        entry = slab_entry(slab, frame, place++);
    }
    *cursor = frame < slab->frame_high ? (uint64_t)frame << 32 | place : 0;
    return entry && entry->flags & ENTRY_LINKED ? entry : NULL;
}

uint64_t store_drop_matching(struct store *store, const uint8_t *pattern, size_t length, uint64_t cursor,
                             uint32_t steps, uint64_t *dropped) {
    store->lent = NULL;
    for (; steps > 0 && store->slab.frame_high; steps--) {
        struct entry *entry = next_place(store, &cursor);
        if (entry && glob_matches(pattern, length, entry->bytes, entry->key_length)) {
            *dropped += entry_is_current(store, entry);
            trace_note(&store->trace, entry->hash, FP_TRACE_FLUSHED, 0);
            store_unlink(store, entry);
        }
        if (cursor == 0) break;
    }
    return cursor;
}

static uint8_t heat_of(const struct store *store, const struct entry *entry) {
    uint16_t age = store->clock - entry->used;
    switch (store->eviction) {
    case STORE_LRU: return age < 255 ? 255 - age : 0;
    case STORE_LFU: return entry->frequency;
    default: return 255;
    }
}

uint64_t store_names(const struct store *store, uint8_t heat, uint64_t cursor, uint32_t steps, struct store_name *names,
                     uint32_t *count) {
    *count = 0;
    for (; steps > 0 && store->slab.frame_high; steps--) {
        const struct entry *entry = next_place(store, &cursor);
        if (entry && entry_is_current(store, entry) && !(entry->flags & ENTRY_ABSENT)) {
            uint8_t found = heat_of(store, entry);
            if (found >= heat)
                names[(*count)++] =
                    (struct store_name){.bytes = entry->bytes, .length = entry->key_length, .heat = found};
        }
        if (cursor == 0) break;
    }
    return cursor;
}

/* ---- holds --------------------------------------------------------------------------------------------------- */

bool store_hold(struct store *store, void *lent) {
    struct entry *entry = lent;
    if (entry->holds == UINT16_MAX) return false;
    if (entry->holds++ == 0) store->slab.runs[slab_run_of(&store->slab, entry)].held++;
    return true;
}

void store_release(struct store *store, void *lent) {
    struct entry *entry = lent;
    CHECK(entry->holds > 0);
    if (--entry->holds > 0) return;
    store->slab.runs[slab_run_of(&store->slab, entry)].held--;
    if (!(entry->flags & ENTRY_LINKED)) slab_give(&store->slab, entry);
}

/* ---- memory and time ----------------------------------------------------------------------------------------- */

size_t store_give_back(struct store *store, size_t bytes) {
    /* A reply is being made from it: the memory for that reply may be what is wanted. */
    struct entry *lent = store->lent;
    bool held = lent && store_hold(store, lent);
    size_t before = store->slab.taken;
    size_t returned = slab_trim(&store->slab, bytes);
    while (returned < bytes && eviction_free_run(store, SLAB_CLASS_MAX)) {
        slab_trim(&store->slab, bytes - returned);
        returned = before - store->slab.taken; /* a large entry's tail goes back without trimming */
    }
    if (held) store_release(store, lent);
    return returned;
}

void store_keep_stale(struct store *store, uint64_t ms) { store->stale_ms = ms; }

void store_tick(struct store *store, uint64_t now_ms, uint32_t steps) {
    store->now_ms = now_ms;
    store->lent = NULL;
    expiry_sweep(store, now_ms, steps);
}

void store_read_stats(const struct store *store, struct store_stats *stats) {
    *stats = (struct store_stats){
        .entries = store->index.entries,
        .absent = store->absent,
        .evicted_total = store->evicted_total,
        .expired_total = store->expired_total,
        .refused_total = store->refused_total,
        .index_bytes = store->arena.used - store->slab.taken + sizeof(struct store),
        .slab_bytes = store->slab.taken,
        .entry_bytes = store->entry_bytes,
    };
}
