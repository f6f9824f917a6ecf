/* arena — one reserved range of addresses, of which only what the budget has paid for is ever touched.
 *
 *   | header | run table | index | overflow of index | frames … |
 *
 * Addresses are cheap, memory is not: more is reserved than may be used, so that a long piece finds room without
 * anything being moved. arena_take pays for bytes about to be touched first; arena_drop returns them to the kernel.
 * Loop thread only. */
#ifndef FERRITE_STORE_ARENA_H
#define FERRITE_STORE_ARENA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/budget.h"

struct arena {
    uint8_t *base;
    size_t reserved; /* bytes of addresses */
    size_t limit;    /* the most that may be taken; less is possible than is taken already */
    size_t used;     /* taken now */
    size_t granule;  /* the kernel's page: takes and drops are multiples of it */
    struct budget *budget;
};

static inline size_t round_up(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

/* False when the range cannot be reserved. */
bool arena_init(struct arena *arena, struct budget *budget, size_t reserved, size_t limit, size_t granule);
void arena_deinit(struct arena *arena);

static inline size_t arena_left(const struct arena *arena) {
    return arena->limit > arena->used ? arena->limit - arena->used : 0;
}

/* False, with nothing taken, when limit or budget would be passed. */
bool arena_take(struct arena *arena, enum budget_owner owner, size_t bytes);

/* Gives the memory of [address, address + bytes) back; it reads as zeros if touched again. */
void arena_drop(struct arena *arena, enum budget_owner owner, void *address, size_t bytes);

#endif
