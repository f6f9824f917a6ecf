/* store_test — the store against a simple dictionary, and its sums against its pages, after every operation.
 *
 * FERRITE_TEST_SEED replays a failing run; FERRITE_TEST_STEPS makes it longer. */
#include "store/store.h"

#include <inttypes.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "store/expiry.h"
#include "store/inside.h"
#include "test.h"

/* ---- tools --------------------------------------------------------------------------------------------------- */

static uint64_t next_random(uint64_t *state) { return hash_mix_next(state); }

/* One byte of the value that a version stands for. */
static uint8_t value_byte(uint64_t version, size_t i) {
    return (uint8_t)(version * 2654435761u + i * 197 + (i >> 8) * 13);
}

static void fill_value(uint8_t *bytes, uint32_t length, uint64_t version) {
    for (uint32_t i = 0; i < length; i++) bytes[i] = value_byte(version, i);
}

static bool value_is(const uint8_t *bytes, uint32_t length, uint64_t version) {
    for (uint32_t i = 0; i < length; i++) {
        if (bytes[i] != value_byte(version, i)) return false;
    }
    return true;
}

static struct store_key make_key(const struct store *store, const char *name, uint32_t database) {
    uint32_t length = (uint32_t)strlen(name);
    return (struct store_key){.bytes = (const uint8_t *)name,
                              .length = length,
                              .database = database,
                              .hash = store_hash(store, (const uint8_t *)name, length)};
}

static bool put(struct store *store, const char *name, const void *bytes, uint32_t length) {
    struct store_key key = make_key(store, name, 0);
    return store_put(store, &key, bytes, length, STORE_NEVER, STORE_NEVER, 1, 1000);
}

static bool has(struct store *store, const char *name) {
    struct store_key key = make_key(store, name, 0);
    struct store_value value;
    return store_get(store, &key, 1000, &value) == STORE_HIT;
}

static struct store *make_store(struct budget *budget, size_t total, enum store_eviction eviction) {
    budget_init(budget, total);
    struct store_options options = {.arena_bytes = total, .eviction = eviction, .value_bytes_max = 1 << 20, .seed = 42};
    return store_create(&options, budget);
}

static void end_store(struct store *store, struct budget *budget) {
    store_destroy(store);
    EXPECT(budget->used == 0);
}

/* What the store has taken, by its own account and by the budget's. */
static bool sums_are_right(const struct store *store, const struct budget *budget) {
    struct store_stats stats;
    store_read_stats(store, &stats);
    size_t sum = 0;
    for (int i = 0; i < BUDGET_OWNER_COUNT; i++) sum += budget->used_by[i];
    return sum == budget->used && budget->used <= budget->total && budget->used_by[BUDGET_SLABS] == stats.slab_bytes &&
           budget->used_by[BUDGET_INDEX] == stats.index_bytes && stats.entry_bytes <= stats.slab_bytes &&
           store->arena.used <= store->arena.limit;
}

struct count {
    size_t paid_bytes, warm, linked, entry_bytes;
};

static uint64_t bit(const uint64_t *bits, uint32_t i) { return bits[i / 64] >> (i % 64) & 1; }

/* One run: its places, its free list. */
static bool run_is_right(const struct store *store, uint32_t number, struct count *count, uint32_t *free_places) {
    const struct slab *slab = &store->slab;
    const struct run *run = &slab->runs[number];
    uint32_t live = 0, held = 0, freed = 0;
    for (uint32_t place = 0; place < run->fresh; place++) {
        struct entry *entry = slab_entry(slab, number, place);
        if (!(entry->flags & ENTRY_USED)) continue;
        live++;
        held += entry->holds > 0;
        if (!(entry->flags & ENTRY_LINKED)) continue;
        count->linked++;
        count->entry_bytes += entry_size(entry->key_length, entry->value_length);
        struct entry *found = NULL;
        /* By the low half of the hash alone: the bucket is right if the whole name finds it. */
        uint64_t hash = hash_bytes(&store->secrets, entry->bytes, entry->key_length);
        struct index_probe probe = index_probe(&store->index, hash);
        while ((found = index_probe_next(&store->index, &probe)) && found != entry) {}
        if (!found || entry->hash != (uint32_t)hash) return false;
    }
    for (uint16_t place = run->free; place != NO_PLACE && freed <= run->fresh; freed++) {
        struct entry *entry = slab_entry(slab, number, place);
        if (entry->flags) return false;
        place = (uint16_t)entry->hash;
    }
    *free_places += freed;
    if (run->slab_class == SLAB_LARGE && freed > 0) return false;
    return live == run->live && held == run->held && live + freed == run->fresh && run->partial == (freed > 0);
}

/* Everything that the store believes of itself, counted anew. */
static bool inside_is_right(const struct store *store) {
    const struct slab *slab = &store->slab;
    struct count count = {0};
    uint32_t free_places[SLAB_CLASS_MAX] = {0}, runs[SLAB_CLASS_MAX] = {0};
    for (uint32_t frame = 0; frame < slab->frame_count;) {
        bool used = bit(slab->used, frame);
        if (!used) {
            count.warm += bit(slab->paid, frame);
            count.paid_bytes += bit(slab->paid, frame) * FRAME_BYTES;
            if (frame < slab->first_free) return false;
            frame++;
            continue;
        }
        const struct run *run = &slab->runs[frame];
        if (run->state != RUN_HEAD || frame + run->frames > slab->frame_high) return false;
        for (uint32_t i = 0; i < run->frames; i++) {
            count.paid_bytes += bit(slab->paid, frame + i) * FRAME_BYTES;
            if (slab->runs[frame + i].distance != i || !bit(slab->used, frame + i)) return false;
        }
        count.paid_bytes += run->tail_granules * store->arena.granule;
        runs[run->slab_class]++;
        if (!run_is_right(store, frame, &count, &free_places[run->slab_class])) return false;
        frame += run->frames;
    }
    for (uint32_t i = 0; i < SLAB_CLASS_MAX; i++) {
        if (slab->classes[i].free_places != free_places[i] || slab->classes[i].run_count != runs[i]) return false;
        uint32_t ring = 0, run = slab->classes[i].ring;
        while (run != NO_RUN && ring <= runs[i]) {
            ring++;
            run = slab->runs[run].ring_next;
            if (run == slab->classes[i].ring) break;
        }
        if (ring != runs[i]) return false;
    }
    return count.paid_bytes == slab->taken && count.warm == slab->warm_count && count.linked == store->index.entries &&
           count.entry_bytes == store->entry_bytes;
}

/* Bytes of the arena that are really in memory, by the kernel's account. */
static size_t resident_bytes(const struct store *store) {
    static unsigned char pages[1 << 20];
    size_t count = store->arena.reserved / store->arena.granule, resident = 0;
    if (count > sizeof pages || mincore(store->arena.base, store->arena.reserved, pages) != 0) return SIZE_MAX;
    for (size_t i = 0; i < count; i++) resident += pages[i] & 1;
    return resident * store->arena.granule;
}

/* ---- the dictionary ------------------------------------------------------------------------------------------ */

#define NAMES 1500u
#define DATABASES 3u
#define HOLDS 24u

struct model_entry {
    bool present;
    uint32_t length, epoch;
    uint64_t version, expire_at, fresh_until;
};

struct model_hold {
    void *entry;
    const uint8_t *bytes;
    uint32_t length;
    uint64_t version;
};

struct model {
    struct store *store;
    struct budget budget;
    uint64_t random, now, version;
    uint32_t length_max;
    uint32_t theirs; /* bytes that another owner holds */
    size_t most;     /* what the budget may be raised to; 0: it stays as it is */
    bool certain;    /* nothing was ever evicted or refused: what was put must be there */
    struct model_entry entries[NAMES][DATABASES];
    struct model_hold holds[HOLDS];
};

static uint32_t pick(struct model *model, uint32_t below) { return (uint32_t)(next_random(&model->random) % below); }

/* Names of 1 to some 300 bytes, each its own. */
static uint32_t make_name(char *name, uint32_t number) {
    uint32_t pad = number % 17 == 0 ? 280 : number % 40;
    return (uint32_t)snprintf(name, 400, "%u:%.*s", number, (int)pad,
                              "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz"
                              "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz"
                              "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz"
                              "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz");
}

static bool model_alive(const struct model *model, const struct model_entry *entry) {
    return entry->present && entry->expire_at > model->now;
}

static uint32_t pick_length(struct model *model) {
    switch (pick(model, 16)) {
    case 0: return 0;
    case 1: return pick(model, model->length_max + 1);
    case 2:
    case 3: return pick(model, model->length_max / 16 + 1);
    case 4:
    case 5:
    case 6: return pick(model, 3000);
    default: return pick(model, 300);
    }
}

static void model_get(struct model *model, const struct store_key *key, struct model_entry *entry) {
    struct store_value value;
    bool hit = store_get(model->store, key, model->now, &value) == STORE_HIT;
    if (hit) {
        EXPECT(model_alive(model, entry));
        EXPECT(value.length == entry->length);
        EXPECT(value.epoch == entry->epoch);
        EXPECT(value.expire_at == entry->expire_at);
        EXPECT(value.fresh_until == entry->fresh_until);
        EXPECT(value.length == entry->length && value_is(value.bytes, value.length, entry->version));
        if (pick(model, 8) == 0) {
            struct model_hold *hold = &model->holds[pick(model, HOLDS)];
            if (!hold->entry && store_hold(model->store, value.entry)) {
                *hold = (struct model_hold){value.entry, value.bytes, value.length, entry->version};
            }
        }
    } else {
        EXPECT(!(model->certain && model_alive(model, entry)));
        entry->present = false;
    }
}

static void model_put(struct model *model, const struct store_key *key, struct model_entry *entry) {
    static uint8_t bytes[1 << 20];
    uint32_t length = pick_length(model);
    uint64_t version = ++model->version;
    fill_value(bytes, length, version);
    uint64_t expire_at = pick(model, 3) ? STORE_NEVER : model->now + pick(model, 5000);
    uint64_t fresh_until = pick(model, 3) ? STORE_NEVER : model->now + pick(model, 5000);
    uint32_t epoch = pick(model, 100);
    bool stored = store_put(model->store, key, bytes, length, expire_at, fresh_until, epoch, model->now);
    *entry = (struct model_entry){stored, length, epoch, version, expire_at, fresh_until};
    struct store_value value;
    bool hit = store_get(model->store, key, model->now, &value) == STORE_HIT;
    EXPECT(hit == model_alive(model, entry));
    if (hit) EXPECT(value.length == length && value_is(value.bytes, length, version));
}

static void model_drop(struct model *model, const struct store_key *key, struct model_entry *entries, bool by_hash) {
    uint32_t present = 0, alive = 0;
    for (uint32_t i = 0; i < DATABASES; i++) {
        present += entries[i].present;
        alive += model_alive(model, &entries[i]);
        entries[i].present = false;
    }
    uint32_t dropped = by_hash ? store_drop_hash(model->store, key->hash)
                               : store_drop(model->store, key->bytes, key->length, key->hash);
    EXPECT(dropped <= present);
    if (model->certain) EXPECT(dropped >= alive);
}

static void model_release(struct model *model, struct model_hold *hold) {
    if (!hold->entry) return;
    EXPECT(value_is(hold->bytes, hold->length, hold->version));
    store_release(model->store, hold->entry);
    hold->entry = NULL;
}

/* Another owner takes or gives; the store has to follow. */
static void model_press(struct model *model) {
    if (model->theirs && pick(model, 2)) {
        uint32_t part = pick(model, model->theirs + 1);
        budget_give(&model->budget, BUDGET_CLIENTS, part);
        model->theirs -= part;
    } else {
        uint32_t part = pick(model, (uint32_t)model->budget.total / 8);
        if (budget_take(&model->budget, BUDGET_CLIENTS, part)) model->theirs += part;
        model->certain = false;
    }
}

static size_t give_back(void *context, size_t bytes) {
    struct model *model = context;
    size_t before = model->budget.used;
    size_t returned = store_give_back(model->store, bytes);
    EXPECT(before - model->budget.used == returned);
    return returned;
}

/* As engine.c does it: nothing is held by others, so that all that is too much can go. */
static void model_resize(struct model *model) {
    for (uint32_t i = 0; i < HOLDS; i++) model_release(model, &model->holds[i]);
    if (model->theirs) budget_give(&model->budget, BUDGET_CLIENTS, model->theirs);
    model->theirs = 0;
    model->budget.total = (2 << 20) + pick(model, (uint32_t)(model->most - (2 << 20)));
    store_resize(model->store, model->budget.total);
    size_t used = model->budget.used;
    if (used > model->budget.total) store_give_back(model->store, used - model->budget.total);
    model->certain = false;
}

static void model_step(struct model *model) {
    if (model->most && pick(model, 500) == 0) model_resize(model);
    uint32_t number = pick(model, pick(model, 4) ? NAMES / 10 : NAMES);
    uint32_t database = pick(model, DATABASES);
    char name[400];
    uint32_t length = make_name(name, number);
    struct store_key key = {(const uint8_t *)name, length, database,
                            store_hash(model->store, (const uint8_t *)name, length)};
    struct model_entry *entries = model->entries[number];
    uint32_t what = pick(model, 1000);
    if (what < 400) model_get(model, &key, &entries[database]);
    else if (what < 850) model_put(model, &key, &entries[database]);
    else if (what < 900) model_drop(model, &key, entries, what < 870);
    else if (what < 940) model_release(model, &model->holds[pick(model, HOLDS)]);
    else if (what < 970) store_tick(model->store, model->now, pick(model, 200));
    else if (what < 990) model->now += pick(model, 400);
    else if (what < 996) model_press(model);
    else if (what < 998) {
        size_t before = model->budget.used_by[BUDGET_SLABS];
        size_t returned = store_give_back(model->store, pick(model, 1 << 18));
        EXPECT(before - model->budget.used_by[BUDGET_SLABS] == returned);
        model->certain = false;
    } else if (pick(model, 10) == 0) {
        store_drop_all(model->store);
        for (uint32_t i = 0; i < NAMES; i++) {
            for (uint32_t j = 0; j < DATABASES; j++) model->entries[i][j].present = false;
        }
    }
    struct store_stats stats;
    store_read_stats(model->store, &stats);
    if (stats.evicted_total || stats.refused_total) model->certain = false;
    EXPECT(sums_are_right(model->store, &model->budget));
}

static uint64_t seed_from_environment(uint64_t otherwise) {
    const char *text = getenv("FERRITE_TEST_SEED");
    return text ? strtoull(text, NULL, 0) : otherwise;
}

static uint32_t steps_from_environment(uint32_t otherwise) {
    const char *text = getenv("FERRITE_TEST_STEPS");
    return text ? (uint32_t)strtoul(text, NULL, 0) : otherwise;
}

static void run_model_to(enum store_eviction eviction, size_t total, size_t most, uint32_t length_max, uint32_t steps,
                         uint64_t seed) {
    static struct model model;
    seed = seed_from_environment(seed);
    printf("store model: policy %d, budget %zu, FERRITE_TEST_SEED=%" PRIu64 "\n", (int)eviction, total, seed);
    model = (struct model){.random = seed, .now = 1, .length_max = length_max, .most = most, .certain = true};
    budget_init(&model.budget, total);
    struct store_options options = {
        .arena_bytes = total, .arena_bytes_max = most, .eviction = eviction, .value_bytes_max = 1 << 20, .seed = seed};
    model.store = store_create(&options, &model.budget);
    EXPECT(model.store != NULL);
    if (!model.store) return;
    model.budget.reclaim = give_back;
    model.budget.reclaim_context = &model;
    steps = steps_from_environment(steps);
    for (uint32_t i = 0; i < steps; i++) {
        model_step(&model);
        if (i % 512 == 0) {
            EXPECT(inside_is_right(model.store));
            EXPECT(resident_bytes(model.store) <= model.store->arena.used);
        }
    }
    EXPECT(inside_is_right(model.store));
    for (uint32_t i = 0; i < HOLDS; i++) model_release(&model, &model.holds[i]);
    EXPECT(inside_is_right(model.store));
    if (model.theirs) budget_give(&model.budget, BUDGET_CLIENTS, model.theirs);
    end_store(model.store, &model.budget);
}

static void run_model(enum store_eviction eviction, size_t total, uint32_t length_max, uint32_t steps, uint64_t seed) {
    run_model_to(eviction, total, 0, length_max, steps, seed);
}

TEST("the store never answers what a dictionary would not: while its memory grows and shrinks") {
    run_model_to(STORE_LRU, 2 << 20, 16 << 20, 100000, 30000, 108);
}
TEST("a store whose memory is raised keeps more, and lowered again what is right") {
    struct budget budget;
    budget_init(&budget, 2 << 20);
    struct store_options options = {
        .arena_bytes = 2 << 20, .arena_bytes_max = 8 << 20, .value_bytes_max = 1 << 20, .seed = 42};
    struct store *store = store_create(&options, &budget);
    struct store_stats stats;
    static uint8_t bytes[1000];
    uint64_t kept[3];
    size_t sizes[] = {2 << 20, 32 << 20, 2 << 20};
    for (int turn = 0; turn < 3; turn++) {
        budget.total = sizes[turn];
        store_resize(store, sizes[turn]);
        if (budget.used > budget.total) store_give_back(store, budget.used - budget.total);
        for (uint32_t i = 0; i < 20000; i++) {
            char name[32];
            snprintf(name, sizeof name, "key:%u", i);
            EXPECT(put(store, name, bytes, sizeof bytes));
        }
        store_read_stats(store, &stats);
        kept[turn] = stats.entries;
        EXPECT(sums_are_right(store, &budget));
        EXPECT(inside_is_right(store));
    }
    /* 8 MiB is the most that it may be raised to, whatever the budget says. */
    EXPECT(kept[1] > 3 * kept[0] && kept[1] < 5 * kept[0]);
    EXPECT(kept[2] <= kept[0] + kept[0] / 8);
    end_store(store, &budget);
}
TEST("the store never answers what a dictionary would not: lru, tight") {
    run_model(STORE_LRU, 2 << 20, 100000, 30000, 101);
}
TEST("the store never answers what a dictionary would not: lfu, tight") {
    run_model(STORE_LFU, 2 << 20, 100000, 30000, 102);
}
TEST("the store never answers what a dictionary would not: random, tight") {
    run_model(STORE_RANDOM, 2 << 20, 100000, 30000, 103);
}
TEST("the store never answers what a dictionary would not: lru, values up to a megabyte") {
    run_model(STORE_LRU, 8 << 20, 1 << 20, 15000, 104);
}
TEST("the store never answers what a dictionary would not: lfu, values up to a megabyte") {
    run_model(STORE_LFU, 8 << 20, 1 << 20, 15000, 105);
}
TEST("with room for all, everything put is found") { run_model(STORE_LRU, 256 << 20, 30000, 20000, 106); }
TEST("with hardly any room at all, nothing wrong is found") { run_model(STORE_LRU, 300 << 10, 30000, 20000, 107); }

/* ---- sentences ----------------------------------------------------------------------------------------------- */

TEST("a filling with mixed sizes from one byte to a megabyte stays within the budget") {
    static uint8_t bytes[1 << 20];
    for (int policy = STORE_LRU; policy <= STORE_RANDOM; policy++) {
        struct budget budget;
        struct store *store = make_store(&budget, 12 << 20, (enum store_eviction)policy);
        uint64_t random = 7;
        for (uint32_t i = 0; i < 6000; i++) {
            char name[32];
            snprintf(name, sizeof name, "mixed:%u", i);
            uint32_t length = 1 + (uint32_t)(next_random(&random) % (1u << (next_random(&random) % 21)));
            fill_value(bytes, length, i);
            EXPECT(put(store, name, bytes, length));
            EXPECT(has(store, name));
            EXPECT(sums_are_right(store, &budget));
        }
        EXPECT(inside_is_right(store));
        struct store_stats stats;
        store_read_stats(store, &stats);
        EXPECT(stats.evicted_total > 0);
        /* Not only strict but full: at least two thirds of the budget hold entries. */
        EXPECT(stats.entry_bytes > (size_t)8 << 20);
        end_store(store, &budget);
    }
}

TEST("memory follows the sizes: small values give way to large ones, and back") {
    static uint8_t bytes[200000];
    struct budget budget;
    struct store *store = make_store(&budget, 8 << 20, STORE_LRU);
    char name[32];
    for (uint32_t phase = 0; phase < 6; phase++) {
        uint32_t length = phase % 2 ? 150000 : 100;
        uint32_t count = phase % 2 ? 200 : 100000;
        for (uint32_t i = 0; i < count; i++) {
            snprintf(name, sizeof name, "phase%u:%u", phase, i);
            EXPECT(put(store, name, bytes, length));
        }
        struct store_stats stats;
        store_read_stats(store, &stats);
        EXPECT(stats.entry_bytes > (size_t)5 << 20);
        EXPECT(inside_is_right(store));
        EXPECT(sums_are_right(store, &budget));
    }
    end_store(store, &budget);
}

/* Reads ten hot keys all the while that 200,000 others pass through a store that holds some ten thousand. */
static uint32_t hot_survivors(enum store_eviction eviction, uint32_t every) {
    struct budget budget;
    struct store *store = make_store(&budget, 2 << 20, eviction);
    uint8_t bytes[100] = {0};
    char name[32];
    for (uint32_t i = 0; i < 50; i++) {
        snprintf(name, sizeof name, "hot:%u", i);
        put(store, name, bytes, sizeof bytes);
    }
    for (uint32_t i = 0; i < 200000; i++) {
        snprintf(name, sizeof name, "cold:%u", i);
        put(store, name, bytes, sizeof bytes);
        if (i % every == 0) {
            snprintf(name, sizeof name, "hot:%u", i / every % 50);
            has(store, name);
        }
    }
    uint32_t survivors = 0;
    for (uint32_t i = 0; i < 50; i++) {
        snprintf(name, sizeof name, "hot:%u", i);
        survivors += has(store, name);
    }
    end_store(store, &budget);
    return survivors;
}

TEST("hot keys survive a scan under lru and lfu; random promises nothing") {
    EXPECT(hot_survivors(STORE_LRU, 10) == 50);
    EXPECT(hot_survivors(STORE_LFU, 10) >= 48);
    EXPECT(hot_survivors(STORE_RANDOM, 10) < 50);
}

TEST("lfu keeps what was often used over what was used last") {
    struct budget budget;
    struct store *store = make_store(&budget, 2 << 20, STORE_LFU);
    uint8_t bytes[100] = {0};
    char name[32];
    for (uint32_t round = 0; round < 200; round++) {
        for (uint32_t i = 0; i < 50; i++) {
            snprintf(name, sizeof name, "often:%u", i);
            if (!has(store, name)) put(store, name, bytes, sizeof bytes);
        }
    }
    for (uint32_t i = 0; i < 15000; i++) {
        snprintf(name, sizeof name, "once:%u", i);
        put(store, name, bytes, sizeof bytes);
    }
    uint32_t survivors = 0;
    for (uint32_t i = 0; i < 50; i++) {
        snprintf(name, sizeof name, "often:%u", i);
        survivors += has(store, name);
    }
    EXPECT(survivors >= 48);
    end_store(store, &budget);
}

TEST("an entry is never found from its expiry on, and counts as expired") {
    struct budget budget;
    struct store *store = make_store(&budget, 1 << 20, STORE_LRU);
    struct store_key key = make_key(store, "short", 0);
    struct store_value value;
    EXPECT(store_put(store, &key, (const uint8_t *)"v", 1, 500, 200, 1, 100));
    EXPECT(store_get(store, &key, 499, &value) == STORE_HIT);
    EXPECT(value.expire_at == 500 && value.fresh_until == 200);
    EXPECT(store_get(store, &key, 500, &value) == STORE_MISS);
    struct store_stats stats;
    store_read_stats(store, &stats);
    EXPECT(stats.entries == 0 && stats.expired_total == 1);
    end_store(store, &budget);
}

TEST("ticks drop the expired and what drop_all left, and return the memory") {
    struct budget budget;
    struct store *store = make_store(&budget, 8 << 20, STORE_LRU);
    uint8_t bytes[1000] = {0};
    char name[32];
    for (uint32_t i = 0; i < 5000; i++) {
        snprintf(name, sizeof name, "k%u", i);
        struct store_key key = make_key(store, name, 0);
        EXPECT(store_put(store, &key, bytes, sizeof bytes, i < 2500 ? 1000 : STORE_NEVER, STORE_NEVER, 1, 10));
    }
    struct store_stats before, after;
    store_read_stats(store, &before);
    EXPECT(before.entries == 5000);
    for (uint32_t i = 0; i < 200; i++) store_tick(store, 1000, 100);
    store_read_stats(store, &after);
    EXPECT(after.entries == 2500 && after.expired_total == 2500);
    store_drop_all(store);
    EXPECT(!has(store, "k4000"));
    for (uint32_t i = 0; i < 400; i++) store_tick(store, 1000, 100);
    store_read_stats(store, &after);
    EXPECT(after.entries == 0 && after.entry_bytes == 0);
    EXPECT(after.slab_bytes <= 20 * FRAME_BYTES);
    EXPECT(after.index_bytes < before.index_bytes);
    EXPECT(inside_is_right(store));
    end_store(store, &budget);
}

TEST("a tick of a few steps takes little of the index back at a time") {
    struct budget budget;
    struct store *store = make_store(&budget, 64 << 20, STORE_LRU);
    char name[32];
    for (uint32_t i = 0; i < 200000; i++) {
        snprintf(name, sizeof name, "k%u", i);
        EXPECT(put(store, name, "v", 1));
    }
    for (uint32_t i = 0; i < 200000; i++) {
        snprintf(name, sizeof name, "k%u", i);
        store_drop(store, (const uint8_t *)name, (uint32_t)strlen(name),
                   store_hash(store, (const uint8_t *)name, (uint32_t)strlen(name)));
    }
    uint32_t before = store->index.bucket_count;
    store_tick(store, 2000, 80);
    EXPECT(before - store->index.bucket_count <= 10);
    end_store(store, &budget);
}

TEST("what drop_all dropped never comes back, not even 65536 drops later without a tick") {
    struct budget budget;
    struct store *store = make_store(&budget, 1 << 20, STORE_LRU);
    EXPECT(put(store, "old", "v", 1));
    for (uint32_t i = 0; i < 65536; i++) {
        store_drop_all(store);
        if (i % 4096 == 0 || i > 65530) {
            /* Looked for through the index only: a store_get would drop it. */
            struct store_key key = make_key(store, "old", 0);
            struct index_probe probe = index_probe(&store->index, key.hash);
            struct entry *entry = index_probe_next(&store->index, &probe);
            EXPECT(!entry || !entry_is_current(store, entry));
        }
    }
    EXPECT(!has(store, "old"));
    end_store(store, &budget);
}

TEST("a drop takes the name in every database, and only that name") {
    struct budget budget;
    struct store *store = make_store(&budget, 1 << 20, STORE_LRU);
    struct store_value value;
    for (uint32_t database = 0; database < 40; database++) {
        struct store_key key = make_key(store, "name", database), other = make_key(store, "other", database);
        EXPECT(store_put(store, &key, (const uint8_t *)"v", 1, STORE_NEVER, STORE_NEVER, 1, 1));
        EXPECT(store_put(store, &other, (const uint8_t *)"w", 1, STORE_NEVER, STORE_NEVER, 1, 1));
    }
    struct store_key key = make_key(store, "name", 0);
    EXPECT(store_drop(store, key.bytes, key.length, key.hash) == 40);
    for (uint32_t database = 0; database < 40; database++) {
        struct store_key gone = make_key(store, "name", database), other = make_key(store, "other", database);
        EXPECT(store_get(store, &gone, 1, &value) == STORE_MISS);
        EXPECT(store_get(store, &other, 1, &value) == STORE_HIT);
    }
    struct store_key other = make_key(store, "other", 0);
    EXPECT(store_drop_hash(store, other.hash) == 40);
    EXPECT(inside_is_right(store));
    end_store(store, &budget);
}

TEST("what cannot be kept is refused and takes the older entry with it") {
    static uint8_t bytes[(1 << 20) + 1];
    struct budget budget;
    struct store *store = make_store(&budget, 4 << 20, STORE_LRU);
    EXPECT(put(store, "k", "v", 1));
    EXPECT(!put(store, "k", bytes, sizeof bytes));
    EXPECT(!has(store, "k"));
    EXPECT(put(store, "k", bytes, sizeof bytes - 1));
    EXPECT(has(store, "k"));
    struct store_key far = make_key(store, "k", UINT32_MAX);
    EXPECT(!store_put(store, &far, bytes, 1, STORE_NEVER, STORE_NEVER, 1, 1));
    static char long_name[70000];
    memset(long_name, 'x', sizeof long_name - 1);
    EXPECT(!put(store, long_name, "v", 1));
    EXPECT(has(store, "k"));
    struct store_stats stats;
    store_read_stats(store, &stats);
    EXPECT(stats.refused_total == 3);
    end_store(store, &budget);
}

TEST("held bytes stay what they were through replacement, drops, eviction and give_back") {
    static uint8_t bytes[100000], other[100000];
    struct budget budget;
    struct store *store = make_store(&budget, 2 << 20, STORE_LRU);
    const uint32_t lengths[] = {100, 5000, 100000};
    struct store_value values[3];
    char name[32];
    for (uint32_t i = 0; i < 3; i++) {
        snprintf(name, sizeof name, "held:%u", i);
        fill_value(bytes, lengths[i], i);
        EXPECT(put(store, name, bytes, lengths[i]));
        struct store_key key = make_key(store, name, 0);
        EXPECT(store_get(store, &key, 1000, &values[i]) == STORE_HIT);
        EXPECT(store_hold(store, values[i].entry));
        EXPECT(store_hold(store, values[i].entry));
    }
    EXPECT(put(store, "held:0", "new", 3)); /* replaced */
    struct store_key one = make_key(store, "held:1", 0);
    EXPECT(store_drop(store, one.bytes, one.length, one.hash) == 1);
    store_drop_all(store);
    for (uint32_t i = 0; i < 3000; i++) {
        snprintf(name, sizeof name, "fill:%u", i);
        EXPECT(put(store, name, other, 50 + i * 31 % 9000));
    }
    store_give_back(store, SIZE_MAX);
    for (uint32_t i = 0; i < 3; i++) EXPECT(value_is(values[i].bytes, lengths[i], i));
    EXPECT(inside_is_right(store));
    for (uint32_t i = 0; i < 3; i++) {
        store_release(store, values[i].entry);
        EXPECT(value_is(values[i].bytes, lengths[i], i));
        store_release(store, values[i].entry);
    }
    store_give_back(store, SIZE_MAX);
    EXPECT(budget.used_by[BUDGET_SLABS] == 0);
    EXPECT(inside_is_right(store));
    end_store(store, &budget);
}

TEST("what the last get found stays while memory is given back for its reply") {
    static uint8_t bytes[100000];
    struct budget budget;
    struct store *store = make_store(&budget, 2 << 20, STORE_LRU);
    const uint32_t lengths[] = {100, 5000, 100000};
    for (uint32_t i = 0; i < 3; i++) {
        char name[32];
        snprintf(name, sizeof name, "k%u", i);
        fill_value(bytes, lengths[i], i);
        EXPECT(put(store, name, bytes, lengths[i]));
        struct store_key key = make_key(store, name, 0);
        struct store_value value;
        EXPECT(store_get(store, &key, 1000, &value) == STORE_HIT);
        store_give_back(store, SIZE_MAX);
        EXPECT(value_is(value.bytes, value.length, i));
        EXPECT(inside_is_right(store));
        EXPECT(!has(store, "other"));
        store_give_back(store, SIZE_MAX);
        EXPECT(!has(store, name));
        EXPECT(budget.used_by[BUDGET_SLABS] == 0);
    }
    end_store(store, &budget);
}

TEST("an entry takes 65535 holds and no more") {
    struct budget budget;
    struct store *store = make_store(&budget, 1 << 20, STORE_LRU);
    EXPECT(put(store, "k", "v", 1));
    struct store_key key = make_key(store, "k", 0);
    struct store_value value;
    EXPECT(store_get(store, &key, 1, &value) == STORE_HIT);
    for (uint32_t i = 0; i < UINT16_MAX; i++) EXPECT(store_hold(store, value.entry));
    EXPECT(!store_hold(store, value.entry));
    for (uint32_t i = 0; i < UINT16_MAX; i++) store_release(store, value.entry);
    EXPECT(has(store, "k"));
    EXPECT(inside_is_right(store));
    end_store(store, &budget);
}

TEST("when every entry is held, puts are refused and nothing is lost") {
    static uint8_t bytes[10000];
    struct budget budget;
    struct store *store = make_store(&budget, 1 << 20, STORE_LRU);
    void *held[200];
    uint32_t count = 0;
    char name[32];
    for (uint32_t i = 0; i < 200; i++) {
        snprintf(name, sizeof name, "k%u", i);
        if (!put(store, name, bytes, sizeof bytes)) break;
        struct store_key key = make_key(store, name, 0);
        struct store_value value;
        EXPECT(store_get(store, &key, 1000, &value) == STORE_HIT);
        EXPECT(store_hold(store, value.entry));
        held[count++] = value.entry;
    }
    EXPECT(count > 40 && count < 200);
    EXPECT(!put(store, "big", bytes, sizeof bytes));
    for (uint32_t i = 0; i < count; i++) {
        snprintf(name, sizeof name, "k%u", i);
        EXPECT(has(store, name));
    }
    for (uint32_t i = 0; i < count; i++) store_release(store, held[i]);
    EXPECT(put(store, "big", bytes, sizeof bytes));
    EXPECT(inside_is_right(store));
    end_store(store, &budget);
}

TEST("give_back returns what is asked, keeps the rest, and everything when asked for everything") {
    struct budget budget;
    struct store *store = make_store(&budget, 8 << 20, STORE_LRU);
    uint8_t bytes[500] = {0};
    char name[32];
    for (uint32_t i = 0; i < 20000; i++) {
        snprintf(name, sizeof name, "k%u", i);
        EXPECT(put(store, name, bytes, sizeof bytes));
    }
    size_t before = budget.used_by[BUDGET_SLABS];
    size_t returned = store_give_back(store, 1 << 20);
    EXPECT(returned >= 1 << 20 && returned < (1 << 20) + 8 * FRAME_BYTES);
    EXPECT(before - budget.used_by[BUDGET_SLABS] == returned);
    EXPECT(sums_are_right(store, &budget));
    EXPECT(store_give_back(store, SIZE_MAX) == before - returned);
    EXPECT(budget.used_by[BUDGET_SLABS] == 0);
    EXPECT(store_give_back(store, 1) == 0);
    EXPECT(put(store, "again", bytes, sizeof bytes));
    EXPECT(inside_is_right(store));
    end_store(store, &budget);
}

TEST("a budget too small for the index makes no store and leaves nothing charged") {
    for (size_t total = 0; total < 200000; total += 4096) {
        struct budget budget;
        budget_init(&budget, total);
        struct store_options options = {.arena_bytes = 1 << 20, .value_bytes_max = 1 << 20, .seed = 1};
        struct store *store = store_create(&options, &budget);
        if (store) end_store(store, &budget);
        EXPECT(budget.used == 0);
    }
}

TEST("the hash depends on the seed, on every byte and on the length") {
    struct budget budget;
    budget_init(&budget, 8 << 20);
    struct store_options options = {.arena_bytes = 1 << 20, .value_bytes_max = 100, .seed = 1};
    struct store *one = store_create(&options, &budget);
    options.seed = 2;
    struct store *two = store_create(&options, &budget);
    uint8_t bytes[200] = {0};
    for (uint32_t length = 0; length <= sizeof bytes; length++) {
        uint64_t hash = store_hash(one, bytes, length);
        EXPECT(hash != store_hash(two, bytes, length));
        if (length > 0) EXPECT(hash != store_hash(one, bytes, length - 1));
        for (uint32_t i = 0; i < length; i++) {
            bytes[i] = 1;
            EXPECT(hash != store_hash(one, bytes, length));
            bytes[i] = 0;
        }
    }
    store_destroy(one);
    store_destroy(two);
}

TEST("a stale entry is found, goes first when memory is needed, and is dropped when it has been stale for too long") {
    struct budget budget;
    struct store *store = make_store(&budget, 8 << 20, STORE_LRU);
    store_keep_stale(store, 1000);
    char name[32], value[1000] = {0};
    struct store_value found;
    for (int i = 0; i < 2000; i++) {
        snprintf(name, sizeof name, "k%d", i);
        struct store_key key = make_key(store, name, 0);
        /* The newer half is stale. */
        EXPECT(store_put(store, &key, (uint8_t *)value, sizeof value, STORE_NEVER, i < 1000 ? 9000 : 1500, 1, 1000));
    }
    struct store_key stale = make_key(store, "k1500", 0);
    EXPECT(store_get(store, &stale, 1600, &found) == STORE_HIT && found.fresh_until == 1500);
    for (int i = 0; i < 6000; i++) {
        snprintf(name, sizeof name, "n%d", i);
        struct store_key key = make_key(store, name, 0);
        store_put(store, &key, (uint8_t *)value, sizeof value, STORE_NEVER, 9000, 1, 1600);
    }
    int fresh_left = 0, stale_left = 0;
    for (int i = 0; i < 2000; i++) {
        snprintf(name, sizeof name, "k%d", i);
        struct store_key key = make_key(store, name, 0);
        *(i < 1000 ? &fresh_left : &stale_left) += store_get(store, &key, 1600, &found) == STORE_HIT;
    }
    EXPECT(fresh_left > 950 && stale_left < 800);
    struct store_key last = make_key(store, "last", 0);
    store_put(store, &last, (uint8_t *)value, 1, STORE_NEVER, 1700, 1, 1600);
    store_tick(store, 2699, 100000);
    EXPECT(store_get(store, &last, 2699, &found) == STORE_HIT);
    store_tick(store, 2700, 100000);
    EXPECT(store_get(store, &last, 2700, &found) == STORE_MISS);
    end_store(store, &budget);
}

TEST("that a key does not exist is an entry like others, and counted") {
    struct budget budget;
    struct store *store = make_store(&budget, 8 << 20, STORE_LRU);
    struct store_key key = make_key(store, "none", 0);
    struct store_value found;
    struct store_stats stats;
    EXPECT(store_put(store, &key, NULL, 0, STORE_NEVER, STORE_NEVER, 1, 1000));
    EXPECT(store_get(store, &key, 1000, &found) == STORE_HIT && found.absent && found.length == 0);
    store_read_stats(store, &stats);
    EXPECT(stats.entries == 1 && stats.absent == 1);
    /* An empty value is another thing; it lies in the same place. */
    EXPECT(store_put(store, &key, (const uint8_t *)"", 0, STORE_NEVER, STORE_NEVER, 1, 1000));
    EXPECT(store_get(store, &key, 1000, &found) == STORE_HIT && !found.absent);
    store_put(store, &key, NULL, 0, STORE_NEVER, STORE_NEVER, 1, 1000);
    store_drop(store, key.bytes, key.length, key.hash);
    store_read_stats(store, &stats);
    EXPECT(stats.entries == 0 && stats.absent == 0);
    end_store(store, &budget);
}

/* How many names are at least so hot, walked in slices; of those how many begin with the letter. */
static uint32_t names_of(const struct store *store, uint8_t heat, char letter, uint32_t *matching) {
    uint64_t cursor = 0;
    uint32_t total = 0;
    *matching = 0;
    do {
        struct store_name names[17];
        uint32_t count;
        cursor = store_names(store, heat, cursor, 17, names, &count);
        EXPECT(count <= 17);
        for (uint32_t i = 0; i < count; i++) *matching += names[i].length > 0 && names[i].bytes[0] == letter;
        total += count;
    } while (cursor);
    return total;
}

TEST("names are walked in slices, and those used lately, or often, are told from the others") {
    for (enum store_eviction eviction = STORE_LRU; eviction <= STORE_LFU; eviction++) {
        struct budget budget;
        struct store *store = make_store(&budget, 8 << 20, eviction);
        uint32_t hot;
        EXPECT(names_of(store, 0, 'h', &hot) == 0);
        char name[16];
        static uint8_t value[1000];
        for (int i = 0; i < 1000; i++) {
            snprintf(name, sizeof name, "%c%d", i < 100 ? 'h' : 'c', i);
            put(store, name, value, sizeof value);
        }
        struct store_key absent = make_key(store, "habsent", 0), dropped = make_key(store, "h0", 0);
        store_put(store, &absent, NULL, 0, STORE_NEVER, STORE_NEVER, 1, 1000);
        store_drop(store, dropped.bytes, dropped.length, dropped.hash);
        EXPECT(names_of(store, 0, 'h', &hot) == 999 && hot == 99);
        for (int i = 1; i < 100; i++) {
            snprintf(name, sizeof name, "h%d", i);
            for (int use = 0; use < 2000; use++) has(store, name);
        }
        uint8_t heat = eviction == STORE_LRU ? 254 : 10;
        EXPECT(names_of(store, heat, 'h', &hot) < 300 && hot == 99);
        store_drop_all(store);
        EXPECT(names_of(store, 0, 'h', &hot) == 0);
        end_store(store, &budget);
    }
}
