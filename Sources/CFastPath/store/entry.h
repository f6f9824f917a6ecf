/* entry — one key and its value, as they lie in a slab page.
 *
 *   | header 36 bytes | key bytes | value bytes |
 *
 * A free place in a slab page has no ENTRY_USED; its first word then links the page's free places. */
#ifndef FERRITE_STORE_ENTRY_H
#define FERRITE_STORE_ENTRY_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum {
    ENTRY_USED = 1,   /* the place is taken */
    ENTRY_LINKED = 2, /* the index knows it; without this it only waits for its holds to end */
    ENTRY_ABSENT = 4  /* the upstream does not have the key */
};

struct entry {
    uint32_t hash; /* low half of store_hash; of a free place: the next free one */
    uint32_t value_length;
    uint32_t epoch;
    uint8_t expire_at[6];   /* milliseconds, all ones: never */
    uint8_t fresh_until[6]; /* the same */
    uint16_t key_length;
    uint16_t database;
    uint16_t generation; /* low half of the store's: another means that it was dropped by store_drop_all */
    uint16_t holds;
    uint16_t used;     /* the store's clock at the last use (lru) or decay (lfu) */
    uint8_t frequency; /* lfu's logarithmic counter */
    uint8_t flags;
    uint8_t bytes[]; /* key, then value */
};
_Static_assert(sizeof(struct entry) == 36, "the header of an entry");

#define ENTRY_TIME_MAX ((UINT64_C(1) << 48) - 1)

static inline uint64_t entry_time(const uint8_t *six) {
    uint64_t low = 0;
    memcpy(&low, six, 6);
    return low == ENTRY_TIME_MAX ? UINT64_MAX : low;
}

static inline void entry_time_set(uint8_t *six, uint64_t time) {
    if (time > ENTRY_TIME_MAX) time = ENTRY_TIME_MAX;
    memcpy(six, &time, 6); /* little-endian, as all our machines are */
}
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "entry_time");

static inline const uint8_t *entry_value(const struct entry *entry) { return entry->bytes + entry->key_length; }

static inline size_t entry_size(uint32_t key_length, uint32_t value_length) {
    return sizeof(struct entry) + (size_t)key_length + value_length;
}

#endif
