/* table — records with ids of index and generation; see table.h. */
#include "base/table.h"

#include <string.h>
#include <sys/mman.h>

static uint32_t records_a_step(const struct table *table) {
    uint32_t records = 4096 / table->item_bytes;
    return records ? records : 1;
}

bool table_init(struct table *table, uint32_t item_bytes, uint32_t capacity, struct budget *budget,
                enum budget_owner owner) {
    *table = (struct table){
        .item_bytes = item_bytes, .capacity = capacity, .first_free = TABLE_NONE, .budget = budget, .owner = owner};
    size_t bytes = (size_t)item_bytes * capacity;
    void *items = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (items == MAP_FAILED) return false;
    table->items = items;
    return true;
}

void table_deinit(struct table *table) {
    if (!table->items) return;
    CHECK(table->live == 0);
    budget_give(table->budget, table->owner, (size_t)table->touched * table->item_bytes);
    munmap(table->items, (size_t)table->item_bytes * table->capacity);
    table->items = NULL;
}

void *table_take(struct table *table) {
    struct table_item *item;
    if (table->first_free != TABLE_NONE) {
        item = table_record(table, table->first_free);
        table->first_free = item->next_free;
        uint32_t generation = item->generation, index = item->index;
        memset(item, 0, table->item_bytes);
        item->generation = generation;
        item->index = index;
    } else {
        if (unlikely(table->used == table->capacity)) return NULL;
        if (table->used == table->touched) {
            uint32_t step = records_a_step(table);
            if (step > table->capacity - table->touched) step = table->capacity - table->touched;
            if (!budget_take(table->budget, table->owner, (size_t)step * table->item_bytes)) return NULL;
            table->touched += step;
        }
        item = table_record(table, table->used);
        item->index = table->used++;
    }
    item->generation++;
    table->live++;
    return item;
}

void table_give(struct table *table, void *record) {
    struct table_item *item = record;
    CHECK(item->generation & 1);
    item->generation++;
    item->next_free = table->first_free;
    table->first_free = item->index;
    table->live--;
}
