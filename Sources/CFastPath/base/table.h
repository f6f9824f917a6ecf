/* table — records with ids of index and generation, in one reserved range that never moves.
 *
 * The range is reserved for `capacity` records and touched only as far as the high-water mark, in steps of a page's
 * worth of records, each charged to the owner. A freed record is the first to be used again, so the mark follows the
 * real need. An id outlives its record harmlessly: table_at of a stale id is NULL. Loop thread only. */
#ifndef FERRITE_BASE_TABLE_H
#define FERRITE_BASE_TABLE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/budget.h"
#include "base/check.h"

/* The first member of every record. */
struct table_item {
    uint32_t generation; /* odd while in use */
    uint32_t index;
    uint32_t next_free;
};

struct table {
    uint8_t *items;
    uint32_t item_bytes;
    uint32_t capacity;
    uint32_t touched; /* records charged so far */
    uint32_t used;    /* records ever handed out */
    uint32_t first_free;
    uint32_t live;
    struct budget *budget;
    enum budget_owner owner;
};

#define TABLE_NONE UINT32_MAX

bool table_init(struct table *table, uint32_t item_bytes, uint32_t capacity, struct budget *budget,
                enum budget_owner owner);
void table_deinit(struct table *table);

/* A zeroed record (but for its table_item), NULL when the table is full or the budget is spent. */
void *table_take(struct table *table);
void table_give(struct table *table, void *record);

static inline void *table_record(const struct table *table, uint32_t index) {
    return table->items + (size_t)index * table->item_bytes;
}

/* Never 0, since a live generation is odd. */
static inline uint64_t table_id(const struct table_item *item) {
    return (uint64_t)item->generation << 32 | item->index;
}

static inline void *table_at(const struct table *table, uint64_t id) {
    uint32_t index = (uint32_t)id, generation = (uint32_t)(id >> 32);
    if (unlikely(index >= table->used)) return NULL;
    struct table_item *item = table_record(table, index);
    return item->generation == generation && (generation & 1) ? item : NULL;
}

#endif
