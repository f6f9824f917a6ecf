/* index — inserting, removing, and growing by one bucket at a time: see index.h. */
#include "store/index.h"

#include "base/check.h"

/* Entries per bucket at which the table grows. Buckets that have not yet been split hold up to twice the mean, so that
 * 7 of 12 keeps overflow rare at 9 bytes an entry. */
#define BUCKET_LOAD_MAX 7u
#define BUCKET_LOAD_MIN 2u

static uint32_t buckets_per_granule(const struct index *index) {
    return (uint32_t)(index->arena->granule / sizeof(struct bucket));
}

bool index_init(struct index *index, struct arena *arena, void *buckets, size_t buckets_bytes, void *overflow,
                size_t overflow_bytes) {
    if (!arena_take(arena, BUDGET_INDEX, arena->granule)) return false;
    *index = (struct index){
        .arena = arena,
        .buckets = buckets,
        .bucket_max = (uint32_t)(buckets_bytes / sizeof(struct bucket)),
        .overflow = overflow,
        .overflow_max = (uint32_t)(overflow_bytes / sizeof(struct bucket)),
        .taken = arena->granule,
    };
    index->bucket_count = buckets_per_granule(index);
    index->mask = index->bucket_count * 2 - 1;
    return true;
}

static struct bucket *next_bucket(const struct index *index, const struct bucket *bucket) {
    return bucket->next ? &index->overflow[bucket->next - 1] : NULL;
}

/* Makes sure that `count` overflow buckets can be handed out. */
static bool overflow_reserve(struct index *index, uint32_t count) {
    uint32_t per_granule = buckets_per_granule(index);
    while (index->overflow_free_count < count) {
        if (index->overflow_max - index->overflow_used < per_granule) return false;
        if (!arena_take(index->arena, BUDGET_INDEX, index->arena->granule)) return false;
        index->taken += index->arena->granule;
        for (uint32_t i = 0; i < per_granule; i++) {
            index->overflow[index->overflow_used].next = index->overflow_free;
            index->overflow_free = ++index->overflow_used;
        }
        index->overflow_free_count += per_granule;
    }
    return true;
}

static struct bucket *append_overflow(struct index *index, struct bucket *last) {
    uint32_t number = index->overflow_free;
    struct bucket *bucket = &index->overflow[number - 1];
    index->overflow_free = bucket->next;
    index->overflow_free_count--;
    *bucket = (struct bucket){0};
    last->next = number;
    return bucket;
}

/* Appends to a chain; an overflow bucket must be to be had (overflow_reserve). */
static void chain_put(struct index *index, struct bucket *bucket, uint8_t tag, uint32_t ref) {
    while (bucket->next) bucket = next_bucket(index, bucket);
    uint32_t holes = bucket_match(bucket, 0);
    if (holes == 0) {
        bucket = append_overflow(index, bucket);
        holes = 1;
    }
    uint32_t place = (uint32_t)__builtin_ctz(holes);
    bucket->tags[place] = tag;
    bucket->refs[place] = ref;
}

/* Takes a place out of the chain that begins with `head` and fills the hole from the chain's end. */
static void chain_cut(struct index *index, struct bucket *head, struct bucket *bucket, uint32_t place) {
    struct bucket *before = NULL, *last = head;
    while (last->next) {
        before = last;
        last = next_bucket(index, last);
    }
    uint32_t taken = ~bucket_match(last, 0) & ((1u << BUCKET_PLACES) - 1);
    uint32_t mover = 31u - (uint32_t)__builtin_clz(taken);
    bucket->tags[place] = last->tags[mover];
    bucket->refs[place] = last->refs[mover];
    last->tags[mover] = 0;
    last->refs[mover] = 0;
    if (before && taken == (1u << mover)) {
        last->next = index->overflow_free;
        index->overflow_free = before->next;
        index->overflow_free_count++;
        before->next = 0;
    }
}

/* Finds a ref in its chain; it must be there. */
static struct bucket *chain_find(struct index *index, uint32_t hash, uint32_t ref, uint32_t *place) {
    for (struct bucket *bucket = index_bucket(index, hash); bucket; bucket = next_bucket(index, bucket)) {
        for (uint32_t i = 0; i < BUCKET_PLACES; i++) {
            if (bucket->refs[i] == ref) {
                *place = i;
                return bucket;
            }
        }
    }
    CHECK(!"every linked entry is in the index");
    return NULL;
}

bool index_insert(struct index *index, uint64_t hash, uint32_t ref) {
    struct bucket *bucket = index_bucket(index, (uint32_t)hash);
    /* A new overflow bucket may be needed, unless there is a hole in the first. */
    if (bucket_match(bucket, 0) == 0 && !overflow_reserve(index, 1)) {
        while (bucket->next) bucket = next_bucket(index, bucket);
        if (bucket_match(bucket, 0) == 0) return false;
    }
    chain_put(index, bucket, index_tag(hash), ref);
    index->entries++;
    return true;
}

void index_remove(struct index *index, uint32_t hash, uint32_t ref) {
    uint32_t place;
    struct bucket *bucket = chain_find(index, hash, ref, &place);
    chain_cut(index, index_bucket(index, hash), bucket, place);
    index->entries--;
}

void index_replace(struct index *index, uint32_t hash, uint32_t from, uint32_t to) {
    uint32_t place;
    struct bucket *bucket = chain_find(index, hash, from, &place);
    bucket->refs[place] = to;
}

uint32_t index_neighbour(const struct index *index, uint64_t hash, uint32_t choice) {
    return index_bucket(index, (uint32_t)hash)->refs[choice % BUCKET_PLACES];
}

bool index_wants_growth(const struct index *index) {
    return index->entries >= (size_t)index->bucket_count * BUCKET_LOAD_MAX && index->bucket_count < index->bucket_max;
}

bool index_wants_shrinking(const struct index *index) {
    return index->entries < (size_t)index->bucket_count * BUCKET_LOAD_MIN &&
           index->bucket_count > buckets_per_granule(index);
}

static uint32_t chain_length(const struct index *index, const struct bucket *bucket) {
    uint32_t length = 1;
    while ((bucket = next_bucket(index, bucket))) length++;
    return length;
}

/* Moves those of a chain that belong elsewhere by now. */
static void chain_split(struct index *index, struct bucket *from, struct bucket *to) {
    for (uint32_t i = 0; i < BUCKET_PLACES; i++) {
        if (from->tags[i]) __builtin_prefetch(index_entry(index, from->refs[i]));
    }
    struct bucket *bucket = from;
    uint32_t place = 0;
    for (;;) {
        if (place == BUCKET_PLACES || bucket->tags[place] == 0) {
            /* A hole is found only in the last bucket, behind all that is taken. */
            if (place < BUCKET_PLACES || !bucket->next) return;
            bucket = next_bucket(index, bucket);
            place = 0;
            continue;
        }
        uint32_t ref = bucket->refs[place];
        if (index_bucket(index, index_entry(index, ref)->hash) == from) {
            place++;
            continue;
        }
        chain_put(index, to, bucket->tags[place], ref);
        bool was_last = bucket->next == 0;
        uint32_t left = ~bucket_match(bucket, 0) & ((1u << BUCKET_PLACES) - 1);
        bool emptied = was_last && bucket != from && (left & (left - 1)) == 0;
        chain_cut(index, from, bucket, place); /* brings the chain's last here, to be looked at next */
        if (emptied) return;
    }
}

bool index_grow(struct index *index) {
    uint32_t number = index->bucket_count;
    if (number % buckets_per_granule(index) == 0) {
        /* Paid for when its first bucket comes; shrinking gives it back with the same bucket. */
        if (!arena_take(index->arena, BUDGET_INDEX, index->arena->granule)) return false;
        index->taken += index->arena->granule;
    }
    struct bucket *from = &index->buckets[number & (index->mask >> 1)];
    struct bucket *to = &index->buckets[number];
    if (!overflow_reserve(index, chain_length(index, from) - 1)) {
        if (number % buckets_per_granule(index) == 0) {
            arena_drop(index->arena, BUDGET_INDEX, to, index->arena->granule);
            index->taken -= index->arena->granule;
        }
        return false;
    }
    *to = (struct bucket){0};
    index->bucket_count++;
    chain_split(index, from, to);
    if (index->bucket_count > index->mask) index->mask = index->mask * 2 + 1;
    return true;
}

bool index_shrink(struct index *index) {
    uint32_t number = index->bucket_count - 1;
    uint32_t mask = number > index->mask >> 1 ? index->mask : index->mask >> 1;
    struct bucket *from = &index->buckets[number];
    struct bucket *to = &index->buckets[number & (mask >> 1)];
    if (!overflow_reserve(index, chain_length(index, from))) return false;
    while (from->tags[0]) {
        uint8_t tag = from->tags[0];
        uint32_t ref = from->refs[0];
        chain_cut(index, from, from, 0);
        chain_put(index, to, tag, ref);
    }
    index->bucket_count = number;
    index->mask = mask;
    if (number % buckets_per_granule(index) == 0) {
        arena_drop(index->arena, BUDGET_INDEX, from, index->arena->granule);
        index->taken -= index->arena->granule;
    }
    return true;
}
