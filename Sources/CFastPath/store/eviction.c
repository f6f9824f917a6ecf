/* eviction — sampling by hand, and draining runs: see eviction.h. */
#include "store/eviction.h"

#include "base/check.h"
#include "store/expiry.h"

#define SAMPLE 10u
#define SAMPLES_MAX 8u   /* in a row, if there are only hot entries */
#define SAMPLE_WALK 512u /* places looked at for a sample, the free ones included */
#define PEEK_EVERY 4u    /* evictions */
#define RESCUES 64u      /* hot entries moved out of a drained run at another's expense */
#define RUNS_COMPARED 8u /* when choosing the run to drain */
#define RUN_SAMPLE 8u    /* entries looked at in each of them */
#define WINDOWS_COMPARED 32u
#define CLOCKS_A_TURNOVER 64u
#define CLOCK_BYTES_MIN 65536u

#define COLDNESS_MAX (UINT16_MAX * 16u)

#define LFU_BEGIN 5u
#define LFU_FACTOR 3u
#define LFU_DECAY_CLOCKS 32u

/* ---- coldness ------------------------------------------------------------------------------------------------ */

static uint32_t entry_age(const struct store *store, const struct entry *entry) {
    return (uint16_t)(store->clock - entry->used);
}

static uint32_t lfu_frequency(const struct store *store, const struct entry *entry) {
    uint32_t decay = entry_age(store, entry) / LFU_DECAY_CLOCKS;
    return entry->frequency > decay ? entry->frequency - decay : 0;
}

/* 0 .. 65535. */
static uint32_t coldness(struct store *store, const struct entry *entry) {
    switch ((enum store_eviction)store->eviction) {
    case STORE_LRU: return entry_age(store, entry);
    case STORE_LFU: {
        uint32_t age = entry_age(store, entry);
        return (255 - lfu_frequency(store, entry)) << 8 | (age < 255 ? age : 255);
    }
    case STORE_RANDOM: return store_random(store) & UINT16_MAX;
    }
    return 0;
}

void eviction_touch_lfu(struct store *store, struct entry *entry) {
    uint32_t frequency = lfu_frequency(store, entry);
    if (frequency != entry->frequency) {
        entry->frequency = (uint8_t)frequency;
        entry->used = store->clock;
    }
    if (frequency == 255) return;
    uint32_t over = frequency > LFU_BEGIN ? frequency - LFU_BEGIN : 0;
    if (store_random(store) % (over * LFU_FACTOR + 1) == 0) {
        entry->frequency = (uint8_t)(frequency + 1);
        entry->used = store->clock;
    }
}

void eviction_begin(struct store *store, struct entry *entry, size_t bytes, uint8_t heir_of) {
    store->clock_bytes += bytes;
    size_t enough = store->slab.taken / CLOCKS_A_TURNOVER;
    if (enough < CLOCK_BYTES_MIN) enough = CLOCK_BYTES_MIN;
    if (store->clock_bytes >= enough) {
        store->clock_bytes = 0;
        store->clock++;
    }
    entry->used = store->clock;
    entry->frequency = heir_of > LFU_BEGIN ? heir_of : LFU_BEGIN;
}

/* ---- the hand ------------------------------------------------------------------------------------------------ */

static void evict(struct store *store, struct entry *entry) {
    store->evicted_total++;
    trace_note(&store->trace, entry->hash, FP_TRACE_EVICTED, 0);
    store_unlink(store, entry);
}

/* Moves a hand on, from run to run and, once around, to another place in them: what lies side by side came at one time
 * and would make a poor sample. */
static void hand_move(const struct slab *slab, const struct slab_class *class, uint32_t *run, uint32_t *place) {
    *run = slab->runs[*run].ring_next;
    if (*run != class->ring) return;
    *place += class->hand_stride;
    if (*place >= class->places) *place -= class->places;
}

/* The entry that the hand of a class comes to next, NULL for a free or held one. */
static struct entry *hand_step(struct store *store, struct slab_class *class) {
    struct slab *slab = &store->slab;
    hand_move(slab, class, &class->hand_run, &class->hand_place);
    if (class->hand_place >= slab->runs[class->hand_run].fresh) return NULL;
    struct entry *entry = slab_entry(slab, class->hand_run, class->hand_place);
    return (entry->flags & ENTRY_LINKED) && entry->holds == 0 ? entry : NULL;
}

/* Has the headers of the next sample fetched into the processor's cache by the time it is taken: each lies in a run of
 * its own, and to wait for one after the other was a third of the cost of a miss. */
static void hand_prefetch(const struct store *store, const struct slab_class *class) {
    uint32_t run = class->hand_run, place = class->hand_place;
    for (uint32_t i = 0; i < SAMPLE; i++) {
        hand_move(&store->slab, class, &run, &place);
        const struct entry *entry = slab_entry(&store->slab, run, place);
        __builtin_prefetch(entry);
        __builtin_prefetch(&entry->flags);
    }
}

/* Nobody would miss it, or only while the upstream does not answer: it goes before what is fresh. */
static bool goes_first(const struct store *store, const struct entry *entry) {
    return !entry_is_current(store, entry) || entry_has_expired(entry, store->now_ms) ||
           entry_is_stale(entry, store->now_ms);
}

/* Clearly hotter than what eviction usually finds in the class. */
static bool is_hot(const struct store *store, uint32_t coldness, uint32_t slab_class) {
    uint32_t found = store->slab.classes[slab_class].coldness / 16;
    switch ((enum store_eviction)store->eviction) {
    case STORE_LRU: return coldness * 2 < found;
    case STORE_LFU: return coldness + 2 * 256 < found;
    case STORE_RANDOM: return false;
    }
    return false;
}

/* The coldest of the next ten entries of a class (a dead or stale one at once), NULL if the class has none in reach. If
 * all ten are hot, the hand is among what came together: it goes on for as many again, and again. */
static struct entry *sample(struct store *store, uint32_t slab_class) {
    struct slab_class *class = &store->slab.classes[slab_class];
    if (class->run_count == 0) return NULL;
    struct entry *coldest = NULL;
    uint32_t coldest_is = 0, seen = 0;
    for (uint32_t walked = 0; walked < SAMPLE_WALK; walked++) {
        if (seen == SAMPLE * SAMPLES_MAX) break;
        if (seen >= SAMPLE && !is_hot(store, coldest_is, slab_class)) break;
        struct entry *entry = hand_step(store, class);
        if (!entry) continue;
        if (goes_first(store, entry)) {
            /* Many of them make the class look cold; one does not. */
            if (class->coldness < COLDNESS_MAX) class->coldness += class->coldness / 4 + 16;
            return entry;
        }
        uint32_t is = coldness(store, entry);
        if (!coldest || is > coldest_is) {
            coldest = entry;
            coldest_is = is;
        }
        seen++;
    }
    /* A running mean over eight finds, in sixteenths. Where nothing can go, nothing is cold. */
    if (!coldest) class->coldness = 0;
    else if (class->coldness == 0) class->coldness = coldest_is * 16;
    else class->coldness += ((int32_t)(coldest_is * 16) - (int32_t) class->coldness) / 16;
    hand_prefetch(store, class);
    return coldest;
}

/* Looks at one class more, so that what has gone cold unnoticed is found. */
static void peek(struct store *store) {
    for (uint32_t i = 0; i < SLAB_CLASS_MAX; i++) {
        uint32_t slab_class = store->evict.peek_class++ % SLAB_CLASS_MAX;
        if (store->slab.classes[slab_class].run_count > 0) {
            sample(store, slab_class);
            return;
        }
    }
}

/* ---- draining ------------------------------------------------------------------------------------------------ */

/* Copies an entry to another place and leaves its own to be given back. */
static void move(struct store *store, struct entry *from, struct entry *to) {
    memcpy(to, from, entry_size(from->key_length, from->value_length));
    index_replace(&store->index, to->hash, index_ref(&store->index, from), index_ref(&store->index, to));
    from->flags = ENTRY_USED;
    slab_give(&store->slab, from);
}

/* The place of a colder entry of the class, which goes; NULL if none is found. */
static struct entry *take_from_colder(struct store *store, const struct entry *entry, uint32_t slab_class) {
    struct entry *victim = sample(store, slab_class);
    if (!victim) return NULL;
    if (!expiry_drop_if_dead(store, victim, store->now_ms)) {
        if (coldness(store, victim) <= coldness(store, entry)) return NULL;
        evict(store, victim);
    }
    return slab_take_freed(&store->slab, slab_class);
}

/* A place for a hot entry of a drained run: in its class or, where that has nothing colder, in the next larger. */
static struct entry *find_refuge(struct store *store, const struct entry *entry, uint32_t slab_class) {
    struct entry *refuge = take_from_colder(store, entry, slab_class);
    if (refuge || slab_class + 1 == store->slab.class_count) return refuge;
    refuge = slab_take_freed(&store->slab, slab_class + 1);
    return refuge ? refuge : take_from_colder(store, entry, slab_class + 1);
}

/* Empties a run. What fits into freed places of the class moves there; what is hotter than the class's usual finds
 * takes the place of such a find; the rest goes. */
static void drain(struct store *store, uint32_t number) {
    struct slab *slab = &store->slab;
    const struct run *run = &slab->runs[number];
    uint32_t slab_class = run->slab_class;
    uint32_t rescues = slab_class == SLAB_LARGE ? 0 : RESCUES;
    CHECK(run->held == 0);
    slab_drain(slab, number);
    for (uint32_t place = 0; place < run->fresh; place++) {
        struct entry *entry = slab_entry(slab, number, place);
        if (!(entry->flags & ENTRY_USED)) continue;
        if (expiry_drop_if_dead(store, entry, store->now_ms)) continue;
        struct entry *refuge = slab_take_freed(slab, slab_class);
        if (!refuge && rescues > 0 && is_hot(store, coldness(store, entry), slab_class)) {
            rescues--;
            refuge = find_refuge(store, entry, slab_class);
        }
        if (refuge) move(store, entry, refuge);
        else evict(store, entry);
    }
    slab_drained(slab, number);
}

/* What draining a run would cost: entries that deserve better, by a few of them. */
static uint32_t drain_cost(struct store *store, uint32_t number) {
    struct slab *slab = &store->slab;
    const struct run *run = &slab->runs[number];
    uint32_t step = run->fresh > RUN_SAMPLE ? run->fresh / RUN_SAMPLE : 1, hot = 0;
    for (uint32_t place = 0; place < run->fresh; place += step) {
        const struct entry *entry = slab_entry(slab, number, place);
        if (!(entry->flags & ENTRY_LINKED) || goes_first(store, entry)) continue;
        hot += is_hot(store, coldness(store, entry), run->slab_class);
    }
    return hot * UINT16_MAX + run->live;
}

/* Of the next runs of a class, the one that is cheapest to drain and has none held; NO_RUN if all have some. */
static uint32_t cheapest_run(struct store *store, uint32_t slab_class) {
    struct slab *slab = &store->slab;
    struct slab_class *class = &slab->classes[slab_class];
    uint32_t best = NO_RUN, best_cost = UINT32_MAX, run = class->hand_run, compared = 0;
    for (uint32_t i = 0; i < class->run_count && compared < RUNS_COMPARED; i++, run = slab->runs[run].ring_next) {
        if (best != NO_RUN && i >= SAMPLE_WALK) break;
        if (slab->runs[run].held) continue;
        compared++;
        uint32_t cost = drain_cost(store, run);
        if (cost < best_cost) {
            best = run;
            best_cost = cost;
        }
    }
    return best;
}

/* Frees memory of a class: its coldest large entry, or a run. False when all is held. */
static bool shrink_class(struct store *store, uint32_t slab_class) {
    if (slab_class == SLAB_LARGE) {
        struct entry *victim = sample(store, slab_class);
        if (!victim) return false;
        if (!expiry_drop_if_dead(store, victim, store->now_ms)) evict(store, victim);
        return true;
    }
    uint32_t run = cheapest_run(store, slab_class);
    if (run == NO_RUN) return false;
    drain(store, run);
    sample(store, slab_class); /* what is left may be hotter */
    return true;
}

/* The class whose freed places could take in a whole run of it, SLAB_CLASS_MAX if none. */
static uint32_t slack_class(const struct store *store) {
    uint32_t best = SLAB_CLASS_MAX;
    size_t best_bytes = 0;
    for (uint32_t i = 0; i < store->slab.class_count; i++) {
        const struct slab_class *class = &store->slab.classes[i];
        if (class->free_places <= class->places || class->run_count < 2) continue;
        size_t bytes = (size_t) class->free_places * class->place_bytes;
        if (bytes > best_bytes) {
            best_bytes = bytes;
            best = i;
        }
    }
    return best;
}

/* The class but `except` whose finds are the coldest. */
static uint32_t coldest_class(const struct store *store, uint32_t except) {
    uint32_t best = SLAB_CLASS_MAX;
    for (uint32_t i = 0; i < SLAB_CLASS_MAX; i++) {
        const struct slab_class *class = &store->slab.classes[i];
        if (class->run_count == 0 || i == except) continue;
        if (best == SLAB_CLASS_MAX || class->coldness > store->slab.classes[best].coldness) best = i;
    }
    return best;
}

/* A class drawn by the memory that it has. */
static uint32_t random_class(struct store *store) {
    const struct slab *slab = &store->slab;
    for (uint32_t i = 0; i < SAMPLE && slab->frame_high > 0; i++) {
        const struct run *run = &slab->runs[store_random(store) % slab->frame_high];
        if (run->state == RUN_INNER) run -= run->distance;
        if (run->state == RUN_HEAD) return run->slab_class;
    }
    return coldest_class(store, SLAB_CLASS_MAX);
}

bool eviction_free_run(struct store *store, uint32_t except) {
    peek(store);
    uint32_t slab_class = slack_class(store);
    if (slab_class == SLAB_CLASS_MAX) {
        slab_class = store->eviction == STORE_RANDOM ? random_class(store) : coldest_class(store, except);
    }
    if (slab_class != SLAB_CLASS_MAX && slab_class != except && shrink_class(store, slab_class)) return true;
    for (uint32_t i = 0; i < SLAB_CLASS_MAX; i++) {
        if (i != except && store->slab.classes[i].run_count > 0 && shrink_class(store, i)) return true;
    }
    return except != SLAB_CLASS_MAX && store->slab.classes[except].run_count > 0 && shrink_class(store, except);
}

/* ---- making room --------------------------------------------------------------------------------------------- */

/* Frames in a row, where fewest are used and none is held: everything there goes. */
static bool clear_window(struct store *store, uint32_t frames) {
    struct slab *slab = &store->slab;
    uint32_t best = NO_RUN, best_used = UINT32_MAX;
    for (uint32_t i = 0; i < WINDOWS_COMPARED; i++) {
        uint32_t first = store_random(store) % (slab->frame_count - frames + 1);
        uint32_t used = 0;
        bool held = false;
        for (uint32_t frame = first; frame < first + frames && frame < slab->frame_high && !held; frame++) {
            const struct run *run = &slab->runs[frame];
            if (run->state == RUN_FREE) continue;
            used++;
            if (run->state == RUN_INNER) run -= run->distance;
            held = run->held > 0;
        }
        if (!held && used < best_used) {
            best = first;
            best_used = used;
        }
    }
    if (best == NO_RUN) return false;
    for (uint32_t frame = best; frame < best + frames && frame < slab->frame_high; frame++) {
        const struct run *run = &slab->runs[frame];
        if (run->state == RUN_FREE) continue;
        uint32_t head = run->state == RUN_INNER ? frame - run->distance : frame;
        if (slab->runs[head].held == 0) drain(store, head);
    }
    return true;
}

/* Whether a run of another class should go rather than an entry of this one; *from says which class. */
static bool should_rebalance(struct store *store, uint32_t slab_class, uint32_t *from) {
    const struct slab_class *mine = &store->slab.classes[slab_class];
    *from = slack_class(store);
    if (*from != SLAB_CLASS_MAX) return true;
    if (store->eviction == STORE_RANDOM) {
        /* A drained run frees many places at once: so much the more seldom. */
        *from = random_class(store);
        return *from != SLAB_CLASS_MAX && *from != slab_class && store_random(store) % mine->places == 0;
    }
    *from = coldest_class(store, slab_class);
    if (*from == SLAB_CLASS_MAX) return false;
    uint32_t theirs = store->slab.classes[*from].coldness;
    if (store->eviction == STORE_LFU) return theirs > mine->coldness + 256 * 16;
    return theirs > mine->coldness + mine->coldness / 2 + 2 * 16;
}

bool eviction_make_room(struct store *store, uint32_t slab_class, size_t bytes) {
    if (slab_class == SLAB_LARGE) {
        uint32_t frames = (uint32_t)((bytes + FRAME_BYTES - 1) / FRAME_BYTES);
        if (frames > store->slab.frame_count) return false;
        if (!slab_has_room(&store->slab, frames)) return clear_window(store, frames);
        return eviction_free_run(store, SLAB_CLASS_MAX);
    }
    if (store->evict.peek_turn++ % PEEK_EVERY == 0) peek(store);
    uint32_t from;
    if (should_rebalance(store, slab_class, &from) && shrink_class(store, from)) return true;
    struct entry *victim = sample(store, slab_class);
    if (!victim) return eviction_free_run(store, slab_class);
    if (!expiry_drop_if_dead(store, victim, store->now_ms)) evict(store, victim);
    return true;
}
