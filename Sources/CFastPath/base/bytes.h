/* bytes — blocks and chains: where replies wait to be sent.
 *
 *   chain ─► block ─► block ─► block            append at the tail, send from the head
 *            [ sent | waiting | room ]
 *
 * Blocks of 4 KiB come from one pool, so that a hit allocates nothing, and an idle connection holds nothing.
 * A `borrowed` block holds no bytes of its own but points to a value in the store, or to a long reply's own piece of
 * memory, and calls `release` when sent.
 * Also `buffer`, one growable piece of memory for a request or reply that must be contiguous to be read.
 * Blocks are charged to their pool's owner, buffers to the owner named in the call. A block returns to the pool that
 * gave it: a chain is always used with the same pool. Loop thread only. */
#ifndef FERRITE_BASE_BYTES_H
#define FERRITE_BASE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/uio.h>

#include "base/budget.h"
#include "base/check.h"

#define BLOCK_BYTES 4096u

struct block {
    struct block *next;
    const uint8_t *bytes;                       /* own room, or the borrowed bytes */
    uint32_t start;                             /* first byte not yet sent */
    uint32_t end;                               /* one past the last byte written */
    void (*release)(void *context, void *lent); /* set for borrowed blocks */
    void *release_context;
    void *lent;
    uint8_t room[BLOCK_BYTES - 48];
};
_Static_assert(sizeof(struct block) == BLOCK_BYTES, "a block is exactly one page");
#define BLOCK_ROOM ((uint32_t)sizeof(((struct block *)0)->room))

struct block_pool {
    struct block *free;
    size_t free_count;
    size_t live_count; /* handed out */
    size_t keep_count; /* free blocks beyond this go back to the allocator */
    struct budget *budget;
    enum budget_owner owner; /* BUDGET_CLIENTS after init; to be changed only while the pool has no block */
};

void block_pool_init(struct block_pool *pool, struct budget *budget, size_t keep_count);
void block_pool_deinit(struct block_pool *pool); /* CHECKs that nothing is handed out */

struct chain {
    struct block *head;
    struct block *tail;
    size_t bytes; /* waiting to be sent */
};

/* The slow ways of chain_room and chain_append: the tail is absent, full or borrowed. */
uint8_t *chain_room_in_new_block(struct chain *chain, struct block_pool *pool, uint32_t n);
bool chain_append_over_blocks(struct chain *chain, struct block_pool *pool, const void *bytes, size_t n);

/* Bytes that the tail can still take. */
static inline uint32_t chain_tail_room(const struct chain *chain) {
    const struct block *tail = chain->tail;
    return tail && tail->bytes == tail->room ? BLOCK_ROOM - tail->end : 0;
}

/* Room for n (<= BLOCK_ROOM) contiguous bytes at the tail; NULL when the budget is spent.
 * Follow with chain_wrote. */
static inline uint8_t *chain_room(struct chain *chain, struct block_pool *pool, uint32_t n) {
    if (unlikely(!chain->tail || chain_tail_room(chain) < n)) return chain_room_in_new_block(chain, pool, n);
    return chain->tail->room + chain->tail->end;
}

static inline void chain_wrote(struct chain *chain, uint32_t n) {
    chain->tail->end += n;
    chain->bytes += n;
}

/* Copies n bytes to the tail, over as many blocks as needed. False when the budget is spent; nothing is appended
 * then. */
static inline bool chain_append(struct chain *chain, struct block_pool *pool, const void *bytes, size_t n) {
    if (unlikely(chain_tail_room(chain) < n)) return chain_append_over_blocks(chain, pool, bytes, n);
    if (n == 0) return true;
    memcpy(chain->tail->room + chain->tail->end, bytes, n);
    chain_wrote(chain, (uint32_t)n);
    return true;
}

/* Appends bytes that stay where they are until release(context, lent) is called, which happens exactly once: after
 * they were sent, or when the chain is cleared. False (and no release) when the budget is spent. */
bool chain_lend(struct chain *chain, struct block_pool *pool, const uint8_t *bytes, uint32_t n,
                void (*release)(void *, void *), void *context, void *lent);

/* Moves all of `from` behind `to`, both of `pool`. O(1): what fits into the last block is copied there, so that many
 * short replies do not hold a block each. */
void chain_move(struct chain *to, struct chain *from, struct block_pool *pool);

/* Fills up to `max` iovecs from the head; returns how many. */
int chain_iovecs(const struct chain *chain, struct iovec *iov, int max);

/* Copies the first n bytes, or as many as there are; returns how many. */
size_t chain_copy(const struct chain *chain, uint8_t *to, size_t n);

/* Drops n sent bytes from the head. */
void chain_sent(struct chain *chain, struct block_pool *pool, size_t n);

void chain_clear(struct chain *chain, struct block_pool *pool);

/* One growable contiguous piece of memory. Zero-initialised is empty. */
struct buffer {
    uint8_t *bytes;
    size_t length;
    size_t capacity;
};

/* Appends; grows by half, charged to owner. False when the budget is spent (nothing is appended). */
bool buffer_append(struct buffer *buffer, struct budget *budget, enum budget_owner owner, const void *bytes, size_t n);
/* Room for n more bytes behind length; NULL when the budget is spent. */
uint8_t *buffer_room(struct buffer *buffer, struct budget *budget, enum budget_owner owner, size_t n);
/* Makes room for exactly n more bytes, which are known to come: what growing would waste is not taken. False when the
 * budget is spent. */
bool buffer_reserve(struct buffer *buffer, struct budget *budget, enum budget_owner owner, size_t n);
void buffer_free(struct buffer *buffer, struct budget *budget, enum budget_owner owner);

#endif
