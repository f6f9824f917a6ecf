/* index — from a name's hash to its entries: linear hashing over buckets of one cache line.
 *
 *   bucket [ 12 tags | next | 12 refs ] ─► overflow bucket ─► …
 *
 * A ref is an entry's offset in the arena in units of 8 bytes; a tag is 8 bits of its hash, so that a miss rarely
 * reads anything but the bucket. Linear hashing (Litwin, VLDB 1980) grows and shrinks the table by one bucket at a
 * time: no insert ever waits for a rehash. Only the last bucket of a chain has holes.
 * Memory is taken from the arena, owner BUDGET_INDEX. Loop thread only. */
#ifndef FERRITE_STORE_INDEX_H
#define FERRITE_STORE_INDEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/arena.h"
#include "store/entry.h"

#define BUCKET_PLACES 12u

struct bucket {
    uint8_t tags[BUCKET_PLACES]; /* 0: the place is free */
    uint32_t next;               /* overflow bucket, counted from 1; 0: none */
    uint32_t refs[BUCKET_PLACES];
};
_Static_assert(sizeof(struct bucket) == 64, "one cache line");

struct index {
    struct arena *arena;
    struct bucket *buckets;
    uint32_t bucket_count;
    uint32_t bucket_max;
    uint32_t mask; /* 2^k - 1 with 2^(k-1) <= bucket_count < 2^k */
    struct bucket *overflow;
    uint32_t overflow_used; /* ever handed out */
    uint32_t overflow_max;
    uint32_t overflow_free; /* list through next */
    uint32_t overflow_free_count;
    size_t taken; /* bytes from the arena */
    size_t entries;
};

/* The two ranges lie in the arena, aligned to its granule. False when not even the first buckets are to be had. */
bool index_init(struct index *index, struct arena *arena, void *buckets, size_t buckets_bytes, void *overflow,
                size_t overflow_bytes);

/* False when a bucket is full and no overflow bucket is to be had. */
bool index_insert(struct index *index, uint64_t hash, uint32_t ref);
/* `hash`: its low half is enough. The ref must be there. */
void index_remove(struct index *index, uint32_t hash, uint32_t ref);
void index_replace(struct index *index, uint32_t hash, uint32_t from, uint32_t to);
/* A ref that shares the hash's first bucket, 0 if none: for making room where index_insert has failed. */
uint32_t index_neighbour(const struct index *index, uint64_t hash, uint32_t choice);

/* Whether the table is too small for one entry more, or much too large. */
bool index_wants_growth(const struct index *index);
bool index_wants_shrinking(const struct index *index);
/* Splits or merges one bucket. False when there is no memory for it. */
bool index_grow(struct index *index);
bool index_shrink(struct index *index);

static inline uint8_t index_tag(uint64_t hash) {
    uint8_t tag = (uint8_t)(hash >> 56);
    return tag ? tag : 1;
}

static inline uint32_t index_ref(const struct index *index, const struct entry *entry) {
    return (uint32_t)((size_t)((const uint8_t *)entry - index->arena->base) / 8);
}

static inline struct entry *index_entry(const struct index *index, uint32_t ref) {
    return (struct entry *)(index->arena->base + (size_t)ref * 8);
}

static inline struct bucket *index_bucket(const struct index *index, uint32_t hash) {
    uint32_t number = hash & index->mask;
    if (number >= index->bucket_count) number &= index->mask >> 1;
    return &index->buckets[number];
}

/* The places of a bucket whose tag is `tag`, one bit each. */
static inline uint32_t bucket_match(const struct bucket *bucket, uint8_t tag) {
    typedef uint8_t tags16 __attribute__((ext_vector_type(16)));
    typedef bool bits16 __attribute__((ext_vector_type(16)));
    tags16 tags; /* twelve tags, and `next` beside them */
    memcpy(&tags, bucket->tags, 16);
    bits16 equal = __builtin_convertvector(tags == (tags16)tag, bits16);
    uint16_t bits;
    memcpy(&bits, &equal, 2);
    return bits & ((1u << BUCKET_PLACES) - 1);
}

/* Walks the entries whose tag fits a hash:
 *     for (struct index_probe probe = index_probe(index, hash); (entry = index_probe_next(index, &probe));) …
 * Ends being valid with any change of the index. */
struct index_probe {
    const struct bucket *bucket;
    uint32_t matches;
    uint8_t tag;
};

static inline struct index_probe index_probe(const struct index *index, uint64_t hash) {
    const struct bucket *bucket = index_bucket(index, (uint32_t)hash);
    uint8_t tag = index_tag(hash);
    return (struct index_probe){bucket, bucket_match(bucket, tag), tag};
}

static inline struct entry *index_probe_next(const struct index *index, struct index_probe *probe) {
    while (probe->matches == 0) {
        if (probe->bucket->next == 0) return NULL;
        probe->bucket = &index->overflow[probe->bucket->next - 1];
        probe->matches = bucket_match(probe->bucket, probe->tag);
    }
    uint32_t place = (uint32_t)__builtin_ctz(probe->matches);
    probe->matches &= probe->matches - 1;
    return index_entry(index, probe->bucket->refs[place]);
}

#endif
