/* bytes — blocks and chains (the ways off the hit path), and the growable buffer. */
#include "base/bytes.h"

#include <stdlib.h>

/* Powers of two are size classes of jemalloc, so that what is charged is what is used. */
#define BUFFER_BYTES_MIN 256u

void block_pool_init(struct block_pool *pool, struct budget *budget, size_t keep_count) {
    *pool = (struct block_pool){.keep_count = keep_count, .budget = budget, .owner = BUDGET_CLIENTS};
}

void block_pool_deinit(struct block_pool *pool) {
    CHECK(pool->live_count == 0);
    while (pool->free) {
        struct block *block = pool->free;
        pool->free = block->next;
        pool->free_count--;
        free(block);
        budget_give(pool->budget, pool->owner, sizeof(struct block));
    }
    CHECK(pool->free_count == 0);
}

static struct block *block_take(struct block_pool *pool) {
    struct block *block = pool->free;
    if (likely(block)) {
        pool->free = block->next;
        pool->free_count--;
    } else {
        if (!budget_take(pool->budget, pool->owner, sizeof(struct block))) return NULL;
        block = malloc(sizeof(struct block));
        if (!block) {
            budget_give(pool->budget, pool->owner, sizeof(struct block));
            return NULL;
        }
    }
    pool->live_count++;
    block->next = NULL;
    block->bytes = block->room;
    block->start = 0;
    block->end = 0;
    block->release = NULL;
    return block;
}

/* Gives a block back, and what it has borrowed with it. */
static void block_give(struct block_pool *pool, struct block *block) {
    if (block->release) block->release(block->release_context, block->lent);
    CHECK(pool->live_count > 0);
    pool->live_count--;
    if (pool->free_count < pool->keep_count) {
        block->next = pool->free;
        pool->free = block;
        pool->free_count++;
        return;
    }
    free(block);
    budget_give(pool->budget, pool->owner, sizeof(struct block));
}

static void link_behind(struct chain *chain, struct block *first, struct block *last) {
    if (chain->tail) chain->tail->next = first;
    else chain->head = first;
    chain->tail = last;
}

uint8_t *chain_room_in_new_block(struct chain *chain, struct block_pool *pool, uint32_t n) {
    CHECK(n <= BLOCK_ROOM);
    struct block *block = block_take(pool);
    if (!block) return NULL;
    link_behind(chain, block, block);
    return block->room;
}

/* The allocator's: four size classes between one power of two and the next, so that what is charged is what is used. */
static size_t size_class(size_t n) {
    size_t power = BUFFER_BYTES_MIN;
    while (power * 2 <= n) power *= 2;
    size_t step = power / 4;
    return (n + step - 1) / step * step;
}

/* From this size bytes get a piece of memory of their own, which goes back whole: blocks by the hundred leave holes in
 * the heap, and are many pieces to send. */
#define PIECE_BYTES_MIN 65536u

struct piece {
    size_t charged;
    uint8_t bytes[];
};

static void release_piece(void *context, void *lent) {
    struct block_pool *pool = context;
    struct piece *piece = lent;
    budget_give(pool->budget, pool->owner, piece->charged);
    free(piece);
}

static bool append_piece(struct chain *chain, struct block_pool *pool, const void *bytes, size_t n) {
    size_t charged = size_class(n + sizeof(struct piece));
    if (n > UINT32_MAX || !budget_take(pool->budget, pool->owner, charged)) return false;
    struct piece *piece = malloc(charged);
    if (piece) {
        piece->charged = charged;
        memcpy(piece->bytes, bytes, n);
        if (chain_lend(chain, pool, piece->bytes, (uint32_t)n, release_piece, pool, piece)) return true;
        free(piece);
    }
    budget_give(pool->budget, pool->owner, charged);
    return false;
}

bool chain_append_over_blocks(struct chain *chain, struct block_pool *pool, const void *bytes, size_t n) {
    if (n >= PIECE_BYTES_MIN) return append_piece(chain, pool, bytes, n);
    const uint8_t *from = bytes;
    uint32_t now = chain_tail_room(chain);
    size_t rest = n - now; /* the caller has found that n does not fit */

    /* All the blocks first: either everything is appended or nothing. */
    struct chain more = {0};
    for (size_t missing = rest; missing > 0;) {
        struct block *block = block_take(pool);
        if (!block) {
            chain_clear(&more, pool);
            return false;
        }
        link_behind(&more, block, block);
        uint32_t part = missing < BLOCK_ROOM ? (uint32_t)missing : BLOCK_ROOM;
        memcpy(block->room, from + now + (rest - missing), part);
        block->end = part;
        missing -= part;
    }
    if (now > 0) {
        memcpy(chain->tail->room + chain->tail->end, from, now);
        chain->tail->end += now;
    }
    link_behind(chain, more.head, more.tail);
    chain->bytes += n;
    return true;
}

bool chain_lend(struct chain *chain, struct block_pool *pool, const uint8_t *bytes, uint32_t n,
                void (*release)(void *, void *), void *context, void *lent) {
    struct block *block = block_take(pool);
    if (!block) return false;
    block->bytes = bytes;
    block->end = n;
    block->release = release;
    block->release_context = context;
    block->lent = lent;
    link_behind(chain, block, block);
    chain->bytes += n;
    return true;
}

void chain_move(struct chain *to, struct chain *from, struct block_pool *pool) {
    if (!from->head) return;
    const struct block *head = from->head;
    if (head == from->tail && !head->release && from->bytes <= chain_tail_room(to)) {
        chain_append(to, pool, head->bytes + head->start, from->bytes);
        chain_clear(from, pool);
        return;
    }
    link_behind(to, from->head, from->tail);
    to->bytes += from->bytes;
    *from = (struct chain){0};
}

int chain_iovecs(const struct chain *chain, struct iovec *iov, int max) {
    int count = 0;
    for (const struct block *block = chain->head; block && count < max; block = block->next) {
        if (block->start == block->end) continue;
        iov[count++] = (struct iovec){.iov_base = (void *)(uintptr_t)(block->bytes + block->start),
                                      .iov_len = block->end - block->start};
    }
    return count;
}

size_t chain_copy(const struct chain *chain, uint8_t *to, size_t n) {
    size_t copied = 0;
    for (const struct block *block = chain->head; block && copied < n; block = block->next) {
        size_t some = block->end - block->start;
        if (some > n - copied) some = n - copied;
        memcpy(to + copied, block->bytes + block->start, some);
        copied += some;
    }
    return copied;
}

void chain_sent(struct chain *chain, struct block_pool *pool, size_t n) {
    CHECK(n <= chain->bytes);
    chain->bytes -= n;
    while (chain->head) {
        struct block *block = chain->head;
        size_t waiting = block->end - block->start;
        if (n < waiting) {
            block->start += (uint32_t)n;
            return;
        }
        n -= waiting;
        chain->head = block->next;
        if (!chain->head) chain->tail = NULL;
        block_give(pool, block);
    }
}

void chain_clear(struct chain *chain, struct block_pool *pool) {
    struct block *block = chain->head;
    *chain = (struct chain){0};
    while (block) {
        struct block *next = block->next;
        block_give(pool, block);
        block = next;
    }
}

static bool set_capacity(struct buffer *buffer, struct budget *budget, enum budget_owner owner, size_t capacity) {
    /* While realloc copies, both pieces exist: both are charged. */
    if (!budget_take(budget, owner, capacity)) return false;
    uint8_t *bytes = realloc(buffer->bytes, capacity);
    if (!bytes) {
        budget_give(budget, owner, capacity);
        return false;
    }
    budget_give(budget, owner, buffer->capacity);
    buffer->bytes = bytes;
    buffer->capacity = capacity;
    return true;
}

/* Makes capacity for at least n bytes more; by half of what there is, so that a byte is copied a few times at most. */
static bool buffer_grow(struct buffer *buffer, struct budget *budget, enum budget_owner owner, size_t n) {
    if (n > SIZE_MAX / 4 - buffer->length) return false;
    size_t needed = buffer->length + n, half_more = buffer->capacity + buffer->capacity / 2;
    if (needed < half_more) needed = half_more;
    return set_capacity(buffer, budget, owner, size_class(needed < BUFFER_BYTES_MIN ? BUFFER_BYTES_MIN : needed));
}

bool buffer_reserve(struct buffer *buffer, struct budget *budget, enum budget_owner owner, size_t n) {
    if (n > SIZE_MAX / 4 - buffer->length) return false;
    size_t needed = buffer->length + n;
    return needed <= buffer->capacity || set_capacity(buffer, budget, owner, size_class(needed));
}

bool buffer_append(struct buffer *buffer, struct budget *budget, enum budget_owner owner, const void *bytes, size_t n) {
    if (n == 0) return true;
    uint8_t *room = buffer_room(buffer, budget, owner, n);
    if (!room) return false;
    memcpy(room, bytes, n);
    buffer->length += n;
    return true;
}

uint8_t *buffer_room(struct buffer *buffer, struct budget *budget, enum budget_owner owner, size_t n) {
    bool fits = buffer->bytes && n <= buffer->capacity - buffer->length;
    if (!fits && !buffer_grow(buffer, budget, owner, n)) return NULL;
    return buffer->bytes + buffer->length;
}

void buffer_free(struct buffer *buffer, struct budget *budget, enum budget_owner owner) {
    if (!buffer->bytes) return;
    free(buffer->bytes);
    budget_give(budget, owner, buffer->capacity);
    *buffer = (struct buffer){0};
}
