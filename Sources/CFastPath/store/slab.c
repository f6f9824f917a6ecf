/* slab — runs, classes and who pays for frames: see slab.h. */
#include "store/slab.h"

#include "base/check.h"

#define SMALL_ARENA_BYTES ((size_t)4 << 20)

/* ---- bitmaps ------------------------------------------------------------------------------------------------- */

static bool bit_get(const uint64_t *bits, uint32_t i) { return bits[i / 64] >> (i % 64) & 1; }

static void bit_set(uint64_t *bits, uint32_t i) { bits[i / 64] |= UINT64_C(1) << (i % 64); }

static void bit_clear(uint64_t *bits, uint32_t i) { bits[i / 64] &= ~(UINT64_C(1) << (i % 64)); }

/* One word of: frames that are free, or, if `warm`, free and paid for. */
static uint64_t free_word(const struct slab *slab, uint32_t word, bool warm) {
    return ~slab->used[word] & (warm ? slab->paid[word] : ~UINT64_C(0));
}

/* The first frame >= from whose bit in free_word is `wanted`; `end` if there is none before it. */
static uint32_t frame_next(const struct slab *slab, uint32_t from, uint32_t end, bool warm, bool wanted) {
    while (from < end) {
        uint64_t word = free_word(slab, from / 64, warm);
        if (!wanted) word = ~word;
        word >>= from % 64;
        if (word) {
            from += (uint32_t)__builtin_ctzll(word);
            return from < end ? from : end;
        }
        from = (from / 64 + 1) * 64;
    }
    return end;
}

/* First fit of `count` frames in a row before `end`; NO_RUN if there is none. */
static uint32_t find_frames(const struct slab *slab, uint32_t count, uint32_t end, bool warm) {
    uint32_t from = slab->first_free;
    while (from < end) {
        uint32_t begin = frame_next(slab, from, end, warm, true);
        uint32_t stop = begin + count < end ? begin + count : end;
        uint32_t after = frame_next(slab, begin, stop, warm, false);
        if (after - begin == count) return begin;
        from = after + 1;
    }
    return NO_RUN;
}

/* ---- paying -------------------------------------------------------------------------------------------------- */

static uint8_t *frame_address(const struct slab *slab, uint32_t frame) {
    return slab->frames + (size_t)frame * FRAME_BYTES;
}

/* Returns a frame's memory; its bit `paid` must be set. */
static void unpay(struct slab *slab, uint32_t frame, uint32_t count) {
    size_t bytes = (size_t)count * FRAME_BYTES;
    for (uint32_t i = 0; i < count; i++) bit_clear(slab->paid, frame + i);
    arena_drop(slab->arena, BUDGET_SLABS, frame_address(slab, frame), bytes);
    slab->taken -= bytes;
}

static bool pay(struct slab *slab, size_t bytes) {
    if (!arena_take(slab->arena, BUDGET_SLABS, bytes)) return false;
    slab->taken += bytes;
    return true;
}

/* Returns up to `most` free frames in a row, from the highest down; how many. */
static uint32_t trim_one_stretch(struct slab *slab, uint32_t most) {
    for (uint32_t word = (slab->frame_high + 63) / 64; word-- > 0;) {
        uint64_t warm = free_word(slab, word, true);
        if (!warm) continue;
        uint32_t last = word * 64 + 63 - (uint32_t)__builtin_clzll(warm);
        uint32_t first = last;
        while (first > 0 && last - first + 1 < most && !bit_get(slab->used, first - 1) &&
               bit_get(slab->paid, first - 1))
            first--;
        uint32_t count = last - first + 1;
        unpay(slab, first, count);
        slab->warm_count -= count;
        return count;
    }
    return 0;
}

size_t slab_trim(struct slab *slab, size_t bytes) {
    size_t returned = 0;
    while (returned < bytes && slab->warm_count > 0) {
        size_t most = (bytes - returned + FRAME_BYTES - 1) / FRAME_BYTES;
        uint32_t count = trim_one_stretch(slab, most < slab->warm_count ? (uint32_t)most : slab->warm_count);
        CHECK(count > 0);
        returned += (size_t)count * FRAME_BYTES;
    }
    return returned;
}

/* Whether so much could be paid if all that is free were trimmed. */
static bool can_pay(const struct slab *slab, size_t bytes) {
    const struct arena *arena = slab->arena;
    const struct budget *budget = arena->budget;
    size_t of_arena = arena_left(arena);
    size_t of_budget = budget->total > budget->used ? budget->total - budget->used : 0;
    size_t left = of_arena < of_budget ? of_arena : of_budget;
    return left + (size_t)slab->warm_count * FRAME_BYTES >= bytes;
}

/* Pays, with free frames elsewhere if the budget has nothing. */
static bool pay_or_trim(struct slab *slab, size_t bytes) {
    if (bytes == 0 || pay(slab, bytes)) return true;
    if (!can_pay(slab, bytes)) return false;
    slab_trim(slab, bytes);
    return pay(slab, bytes);
}

static bool pay_frame(struct slab *slab, uint32_t frame) {
    if (bit_get(slab->paid, frame)) return true;
    if (!pay_or_trim(slab, FRAME_BYTES)) return false;
    bit_set(slab->paid, frame);
    return true;
}

/* The run table is paid for up to the highest frame in use. */
static bool pay_runs(struct slab *slab, uint32_t frames) {
    while (slab->runs_paid < frames) {
        size_t granule = slab->arena->granule;
        if (!arena_take(slab->arena, BUDGET_INDEX, granule)) {
            if (slab_trim(slab, granule) == 0 || !arena_take(slab->arena, BUDGET_INDEX, granule)) return false;
        }
        slab->runs_taken += granule;
        slab->runs_paid += (uint32_t)(granule / sizeof(struct run));
    }
    return true;
}

/* ---- runs ---------------------------------------------------------------------------------------------------- */

static void ring_insert(struct slab *slab, uint32_t run) {
    struct slab_class *class = &slab->classes[slab->runs[run].slab_class];
    struct run *r = &slab->runs[run];
    if (class->ring == NO_RUN) {
        r->ring_next = r->ring_previous = run;
        class->ring = run;
        class->hand_run = run;
    } else {
        /* Behind the hand: the last that it will come to. */
        uint32_t next = class->hand_run, previous = slab->runs[next].ring_previous;
        r->ring_next = next;
        r->ring_previous = previous;
        slab->runs[previous].ring_next = run;
        slab->runs[next].ring_previous = run;
    }
    class->run_count++;
}

static void ring_remove(struct slab *slab, uint32_t run) {
    struct run *r = &slab->runs[run];
    struct slab_class *class = &slab->classes[r->slab_class];
    class->run_count--;
    if (class->hand_run == run) class->hand_run = r->ring_next;
    if (class->run_count == 0) {
        class->ring = class->hand_run = NO_RUN;
        return;
    }
    if (class->ring == run) class->ring = r->ring_next;
    slab->runs[r->ring_previous].ring_next = r->ring_next;
    slab->runs[r->ring_next].ring_previous = r->ring_previous;
}

static void partial_insert(struct slab *slab, uint32_t run) {
    struct run *r = &slab->runs[run];
    struct slab_class *class = &slab->classes[r->slab_class];
    r->partial_previous = NO_RUN;
    r->partial_next = class->partial;
    if (class->partial != NO_RUN) slab->runs[class->partial].partial_previous = run;
    class->partial = run;
    r->partial = 1;
}

static void partial_remove(struct slab *slab, uint32_t run) {
    struct run *r = &slab->runs[run];
    struct slab_class *class = &slab->classes[r->slab_class];
    if (r->partial_previous != NO_RUN) slab->runs[r->partial_previous].partial_next = r->partial_next;
    else class->partial = r->partial_next;
    if (r->partial_next != NO_RUN) slab->runs[r->partial_next].partial_previous = r->partial_previous;
    r->partial = 0;
}

/* Marks frames as a run and puts it into its class. */
static void run_begin(struct slab *slab, uint32_t run, uint32_t frames, uint32_t slab_class) {
    for (uint32_t i = 0; i < frames; i++) {
        bit_set(slab->used, run + i);
        if (bit_get(slab->paid, run + i)) slab->warm_count--;
        slab->runs[run + i].state = i ? RUN_INNER : RUN_HEAD;
        slab->runs[run + i].distance = (uint16_t)i;
    }
    struct run *r = &slab->runs[run];
    r->live = r->fresh = r->held = 0;
    r->free = NO_PLACE;
    r->frames = (uint16_t)frames;
    r->slab_class = (uint8_t)slab_class;
    r->tail_granules = 0;
    r->partial = 0;
    ring_insert(slab, run);
    if (run == slab->first_free) slab->first_free = run + frames;
    if (run + frames > slab->frame_high) slab->frame_high = run + frames;
}

/* Frees the frames of an empty run that is in no list. */
static void run_end(struct slab *slab, uint32_t run) {
    struct run *r = &slab->runs[run];
    uint32_t frames = r->frames;
    CHECK(r->live == 0);
    CHECK(r->held == 0);
    if (r->tail_granules) {
        size_t bytes = r->tail_granules * slab->arena->granule;
        arena_drop(slab->arena, BUDGET_SLABS, frame_address(slab, run + frames - 1), bytes);
        slab->taken -= bytes;
    }
    for (uint32_t i = 0; i < frames; i++) {
        bit_clear(slab->used, run + i);
        if (bit_get(slab->paid, run + i)) slab->warm_count++;
        slab->runs[run + i].state = RUN_FREE;
    }
    if (run < slab->first_free) slab->first_free = run;
}

/* Frames for a run: those that are paid for already, if there are enough in a row, else any. */
static uint32_t choose_frames(struct slab *slab, uint32_t frames) {
    uint32_t run = NO_RUN;
    if (slab->warm_count >= frames) run = find_frames(slab, frames, slab->frame_high, true);
    if (run == NO_RUN) run = find_frames(slab, frames, slab->frame_count, false);
    if (run == NO_RUN || !pay_runs(slab, run + frames)) return NO_RUN;
    return run;
}

bool slab_has_room(const struct slab *slab, uint32_t frames) {
    return find_frames(slab, frames, slab->frame_count, false) != NO_RUN;
}

/* ---- classes ------------------------------------------------------------------------------------------------- */

size_t slab_bitmap_bytes(uint32_t frame_count) { return (frame_count + 63) / 64 * sizeof(uint64_t) * 2; }

/* Frames of a run: enough that what is left over at its end is small, few enough that emptying one is quick. */
static uint32_t run_frames(uint32_t place_bytes) { return place_bytes <= 1024 ? 1 : place_bytes <= 4096 ? 2 : 4; }

/* About the golden section of `places`, without a common divisor. */
static uint32_t hand_stride(uint32_t places) {
    uint32_t stride = places * 5 / 8 + 1;
    for (uint32_t a = places, b = stride;;) {
        while (b) {
            uint32_t rest = a % b;
            a = b;
            b = rest;
        }
        if (a == 1) return stride < places ? stride : 1;
        a = places;
        b = ++stride;
    }
}

/* Sizes grow by about an eighth, each enlarged to what its run has room for; in a small arena by a quarter, because
 * there the runs that are only partly full cost more than the places that are too large. */
static void make_classes(struct slab *slab) {
    uint32_t part = slab->arena->limit < SMALL_ARENA_BYTES ? 4 : 8;
    uint32_t count = 0, reached = 0, wanted = 40;
    for (; reached < SLAB_PLACE_MAX; wanted = reached + (reached / part > 8 ? reached / part : 8)) {
        uint32_t frames = run_frames(wanted);
        uint32_t run_bytes = frames * FRAME_BYTES;
        uint32_t places = run_bytes / wanted > 3 ? run_bytes / wanted : 3;
        uint32_t place_bytes = run_bytes / places & ~7u;
        CHECK(count < SLAB_LARGE);
        slab->classes[count] = (struct slab_class){.place_bytes = place_bytes,
                                                   .places = (uint16_t)places,
                                                   .frames = (uint16_t)frames,
                                                   .hand_stride = hand_stride(places)};
        for (uint32_t eighths = reached / 8 + 1; eighths <= place_bytes / 8; eighths++) {
            slab->class_of[eighths] = (uint8_t)count;
        }
        count++;
        reached = place_bytes;
    }
    CHECK(reached == SLAB_PLACE_MAX);
    slab->class_count = count;
}

void slab_init(struct slab *slab, struct arena *arena, uint64_t *bitmaps, struct run *runs, uint8_t *frames,
               uint32_t frame_count) {
    *slab = (struct slab){
        .arena = arena,
        .frames = frames,
        .runs = runs,
        .used = bitmaps,
        .paid = bitmaps + (frame_count + 63) / 64,
        .frame_count = frame_count,
    };
    make_classes(slab);
    slab->classes[SLAB_LARGE].places = slab->classes[SLAB_LARGE].hand_stride = 1;
    for (uint32_t i = 0; i < SLAB_CLASS_MAX; i++) {
        struct slab_class *class = &slab->classes[i];
        class->ring = class->partial = class->fresh_run = class->hand_run = NO_RUN;
    }
}

/* ---- places -------------------------------------------------------------------------------------------------- */

uint32_t slab_run_of(const struct slab *slab, const struct entry *entry) {
    uint32_t frame = (uint32_t)((size_t)((const uint8_t *)entry - slab->frames) / FRAME_BYTES);
    return frame - slab->runs[frame].distance;
}

struct entry *slab_take_freed(struct slab *slab, uint32_t slab_class) {
    struct slab_class *class = &slab->classes[slab_class];
    uint32_t run = class->partial;
    if (run == NO_RUN) return NULL;
    struct run *r = &slab->runs[run];
    struct entry *entry = slab_entry(slab, run, r->free);
    r->free = (uint16_t)entry->hash;
    if (r->free == NO_PLACE) partial_remove(slab, run);
    r->live++;
    class->free_places--;
    entry->flags = ENTRY_USED;
    entry->holds = 0;
    return entry;
}

/* The next place never used of the class's fresh run. */
static struct entry *take_fresh(struct slab *slab, uint32_t slab_class) {
    struct slab_class *class = &slab->classes[slab_class];
    uint32_t run = class->fresh_run;
    if (run == NO_RUN) {
        if (!can_pay(slab, FRAME_BYTES)) return NULL;
        run = choose_frames(slab, class->frames);
        if (run == NO_RUN) return NULL;
        /* Claimed before it is paid for, so that trimming leaves it alone. */
        run_begin(slab, run, class->frames, slab_class);
        if (!pay_frame(slab, run)) {
            ring_remove(slab, run);
            run_end(slab, run);
            return NULL;
        }
        class->fresh_run = run;
    }
    struct run *r = &slab->runs[run];
    size_t begin = (size_t)r->fresh * class->place_bytes;
    uint32_t last = run + (uint32_t)((begin + class->place_bytes - 1) / FRAME_BYTES);
    for (uint32_t frame = run + (uint32_t)(begin / FRAME_BYTES); frame <= last; frame++) {
        if (!pay_frame(slab, frame)) return NULL;
    }
    struct entry *entry = slab_entry(slab, run, r->fresh);
    r->live++;
    if (++r->fresh == class->places) class->fresh_run = NO_RUN;
    entry->flags = ENTRY_USED;
    entry->holds = 0;
    return entry;
}

/* What a large entry takes of its last frame, in granules; 0: all of it. */
static uint32_t large_tail(const struct slab *slab, size_t bytes) {
    size_t granule = slab->arena->granule;
    size_t in_last = (bytes - 1) % FRAME_BYTES + 1;
    size_t granules = (in_last + granule - 1) / granule;
    return granules * granule == FRAME_BYTES ? 0 : (uint32_t)granules;
}

static struct entry *take_large(struct slab *slab, size_t bytes) {
    uint32_t frames = (uint32_t)((bytes + FRAME_BYTES - 1) / FRAME_BYTES);
    uint32_t tail = large_tail(slab, bytes);
    size_t needed = (size_t)(frames - 1) * FRAME_BYTES + (tail ? tail * slab->arena->granule : FRAME_BYTES);
    if (!can_pay(slab, needed)) return NULL;
    /* Claimed before it is paid for, so that trimming leaves it alone. */
    uint32_t run = choose_frames(slab, frames);
    if (run == NO_RUN) return NULL;
    run_begin(slab, run, frames, SLAB_LARGE);
    uint32_t last = run + frames - 1;
    if (tail && bit_get(slab->paid, last)) unpay(slab, last, 1);
    size_t paid = 0;
    for (uint32_t i = 0; i < frames; i++) paid += bit_get(slab->paid, run + i) ? FRAME_BYTES : 0;
    if (!pay_or_trim(slab, needed - paid)) {
        ring_remove(slab, run);
        run_end(slab, run);
        return NULL;
    }
    for (uint32_t i = 0; i < frames; i++) bit_set(slab->paid, run + i);
    if (tail) bit_clear(slab->paid, last);
    struct run *r = &slab->runs[run];
    r->tail_granules = (uint8_t)tail;
    r->live = r->fresh = 1;
    struct entry *entry = slab_entry(slab, run, 0);
    entry->flags = ENTRY_USED;
    entry->holds = 0;
    return entry;
}

struct entry *slab_take(struct slab *slab, uint32_t slab_class, size_t bytes) {
    if (slab_class == SLAB_LARGE) return take_large(slab, bytes);
    struct entry *entry = slab_take_freed(slab, slab_class);
    return entry ? entry : take_fresh(slab, slab_class);
}

/* Takes an empty or draining run out of everything that could lead to it. */
static void run_detach(struct slab *slab, uint32_t run) {
    struct run *r = &slab->runs[run];
    struct slab_class *class = &slab->classes[r->slab_class];
    ring_remove(slab, run);
    if (r->partial) partial_remove(slab, run);
    if (class->fresh_run == run) class->fresh_run = NO_RUN;
    class->free_places -= (uint32_t)(r->fresh - r->live);
}

void slab_give(struct slab *slab, struct entry *entry) {
    uint32_t run = slab_run_of(slab, entry);
    struct run *r = &slab->runs[run];
    struct slab_class *class = &slab->classes[r->slab_class];
    CHECK(entry->flags == ENTRY_USED);
    CHECK(entry->holds == 0);
    entry->flags = 0;
    r->live--;
    if (r->slab_class != SLAB_LARGE) {
        size_t offset = (size_t)((uint8_t *)entry - frame_address(slab, run));
        entry->hash = r->free;
        r->free = (uint16_t)(offset / class->place_bytes);
        if (r->state == RUN_DRAINING) return;
        class->free_places++;
        if (!r->partial) partial_insert(slab, run);
    } else {
        r->fresh = 0;
        if (r->state == RUN_DRAINING) return;
    }
    if (r->live == 0) {
        run_detach(slab, run);
        run_end(slab, run);
    }
}

void slab_drain(struct slab *slab, uint32_t run) {
    CHECK(slab->runs[run].state == RUN_HEAD);
    run_detach(slab, run);
    slab->runs[run].state = RUN_DRAINING;
}

void slab_drained(struct slab *slab, uint32_t run) {
    CHECK(slab->runs[run].state == RUN_DRAINING);
    run_end(slab, run);
}

bool slab_large_fits(const struct slab *slab, const struct entry *entry, size_t bytes) {
    const struct run *r = &slab->runs[slab_run_of(slab, entry)];
    return r->frames == (bytes + FRAME_BYTES - 1) / FRAME_BYTES && r->tail_granules == large_tail(slab, bytes);
}
