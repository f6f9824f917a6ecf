/* bytes_test — chains keep bytes in order, return every loan once, and cost exactly what they hold. */
#include "base/bytes.h"

#include <stdlib.h>

#include "test.h"

static void count_release(void *context, void *lent) {
    (void)lent;
    (*(int *)context)++;
}

static uint8_t pattern(size_t i) { return (uint8_t)(i * 131 + (i >> 8) * 7); }

/* Compares what a chain holds with pattern(from), pattern(from + 1) … */
static bool holds_pattern(const struct chain *chain, size_t from) {
    struct iovec iov[512];
    int count = chain_iovecs(chain, iov, 512);
    size_t seen = 0;
    for (int i = 0; i < count; i++) {
        for (size_t j = 0; j < iov[i].iov_len; j++) {
            if (((const uint8_t *)iov[i].iov_base)[j] != pattern(from + seen++)) return false;
        }
    }
    return seen == chain->bytes;
}

TEST("appended pieces of any length leave in order, however they are sent") {
    static uint8_t source[200000];
    for (size_t i = 0; i < sizeof source; i++) source[i] = pattern(i);
    struct budget budget;
    budget_init(&budget, 1 << 20);
    struct block_pool pool;
    block_pool_init(&pool, &budget, 4);
    struct chain chain = {0};
    size_t appended = 0, sent = 0;
    unsigned seed = 1;
    while (sent < sizeof source) {
        size_t n = (size_t)rand_r(&seed) % (rand_r(&seed) % 8 == 0 ? 20000 : 100);
        if (n > sizeof source - appended) n = sizeof source - appended;
        if (n <= BLOCK_ROOM && rand_r(&seed) % 2) {
            uint8_t *room = chain_room(&chain, &pool, (uint32_t)n);
            memcpy(room, source + appended, n);
            chain_wrote(&chain, (uint32_t)n);
        } else {
            EXPECT(chain_append(&chain, &pool, source + appended, n));
        }
        appended += n;
        size_t gone = chain.bytes ? (size_t)rand_r(&seed) % (chain.bytes + 1) : 0;
        if (appended == sizeof source) gone = chain.bytes;
        chain_sent(&chain, &pool, gone);
        sent += gone;
        EXPECT(chain.bytes == appended - sent);
        EXPECT(holds_pattern(&chain, sent));
        EXPECT(budget.used_by[BUDGET_CLIENTS] == (pool.live_count + pool.free_count) * BLOCK_BYTES);
    }
    EXPECT(!chain.head && !chain.tail);
    EXPECT(pool.live_count == 0);
    EXPECT(pool.free_count == 4);
    block_pool_deinit(&pool);
    EXPECT(budget.used == 0);
}

TEST("nothing is appended when the budget is spent, and nothing of it stays charged") {
    struct budget budget;
    budget_init(&budget, 3 * BLOCK_BYTES + BLOCK_BYTES / 2); /* the last 1/32 is not for clients */
    struct block_pool pool;
    block_pool_init(&pool, &budget, 0);
    struct chain chain = {0};
    static uint8_t bytes[4 * BLOCK_BYTES];
    EXPECT(chain_append(&chain, &pool, bytes, 100));
    EXPECT(!chain_append(&chain, &pool, bytes, sizeof bytes));
    EXPECT(chain.bytes == 100);
    EXPECT(budget.used == BLOCK_BYTES);
    EXPECT(chain_append(&chain, &pool, bytes, 3 * BLOCK_ROOM - 100));
    EXPECT(!chain_room(&chain, &pool, 1));
    EXPECT(!chain_lend(&chain, &pool, bytes, 1, count_release, NULL, NULL));
    chain_clear(&chain, &pool);
    EXPECT(budget.used == 0);
    block_pool_deinit(&pool);
}

TEST("a loan is returned once: when sent to its last byte, or when the chain is cleared") {
    struct budget budget;
    budget_init(&budget, 1 << 20);
    struct block_pool pool;
    block_pool_init(&pool, &budget, 8);
    struct chain chain = {0};
    int released = 0;
    static const uint8_t lent[5000];
    EXPECT(chain_append(&chain, &pool, "head", 4));
    EXPECT(chain_lend(&chain, &pool, lent, sizeof lent, count_release, &released, NULL));
    EXPECT(chain_append(&chain, &pool, "tail", 4));
    EXPECT(chain_lend(&chain, &pool, lent, 10, count_release, &released, NULL));
    EXPECT(chain.bytes == 4 + sizeof lent + 4 + 10);
    struct iovec iov[4];
    EXPECT(chain_iovecs(&chain, iov, 4) == 4);
    EXPECT(iov[1].iov_base == (void *)(uintptr_t)lent);
    chain_sent(&chain, &pool, 4 + sizeof lent - 1);
    EXPECT(released == 0);
    chain_sent(&chain, &pool, 1);
    EXPECT(released == 1);
    chain_clear(&chain, &pool);
    EXPECT(released == 2);
    block_pool_deinit(&pool);
    EXPECT(budget.used == 0);
}

TEST("a chain moved behind another keeps the order, and an empty one changes nothing") {
    struct budget budget;
    budget_init(&budget, 1 << 20);
    struct block_pool pool;
    block_pool_init(&pool, &budget, 8);
    struct chain one = {0}, two = {0}, none = {0};
    EXPECT(chain_append(&one, &pool, "abc", 3));
    EXPECT(chain_append(&two, &pool, "def", 3));
    chain_move(&one, &none, &pool);
    chain_move(&one, &two, &pool);
    EXPECT(two.head == NULL && two.bytes == 0);
    EXPECT(chain_append(&one, &pool, "ghi", 3));
    uint8_t text[9];
    struct iovec iov[4];
    size_t n = 0;
    int count = chain_iovecs(&one, iov, 4);
    EXPECT(count == 1 && pool.live_count == 1);
    for (int i = 0; i < count; i++) {
        memcpy(text + n, iov[i].iov_base, iov[i].iov_len);
        n += iov[i].iov_len;
    }
    EXPECT(n == 9 && memcmp(text, "abcdefghi", 9) == 0);
    chain_move(&two, &one, &pool);
    EXPECT(two.bytes == 9 && one.head == NULL);
    chain_clear(&two, &pool);
    block_pool_deinit(&pool);
}

TEST("what does not fit behind, or is lent, is moved as it is") {
    struct budget budget;
    budget_init(&budget, 1 << 20);
    struct block_pool pool;
    block_pool_init(&pool, &budget, 8);
    struct chain one = {0}, two = {0};
    static uint8_t bytes[BLOCK_ROOM];
    EXPECT(chain_append(&one, &pool, "a", 1) && chain_append(&two, &pool, bytes, BLOCK_ROOM));
    chain_move(&one, &two, &pool);
    EXPECT(one.bytes == 1 + BLOCK_ROOM && pool.live_count == 2);
    int released = 0;
    EXPECT(chain_append(&one, &pool, "b", 1) && chain_lend(&two, &pool, bytes, 3, count_release, &released, NULL));
    chain_move(&one, &two, &pool);
    EXPECT(one.bytes == 5 + BLOCK_ROOM && released == 0);
    chain_clear(&one, &pool);
    EXPECT(released == 1);
    block_pool_deinit(&pool);
}

TEST("a long reply lies in one piece, is charged as such, and comes back whole") {
    struct budget budget;
    budget_init(&budget, 300000);
    struct block_pool pool;
    block_pool_init(&pool, &budget, 0);
    struct chain chain = {0};
    static uint8_t bytes[100000];
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = pattern(i);
    EXPECT(chain_append(&chain, &pool, "head", 4));
    EXPECT(chain_append(&chain, &pool, bytes, sizeof bytes));
    EXPECT(chain_append(&chain, &pool, "tail", 4));
    struct iovec iov[8];
    EXPECT(chain_iovecs(&chain, iov, 8) == 3);
    EXPECT(iov[1].iov_len == sizeof bytes && memcmp(iov[1].iov_base, bytes, sizeof bytes) == 0);
    size_t held = budget.used;
    EXPECT(held > sizeof bytes && held < sizeof bytes * 5 / 4 + 3 * BLOCK_BYTES + 64);
    EXPECT(!chain_append(&chain, &pool, bytes, 250000 - sizeof bytes));
    EXPECT(budget.used == held);
    chain_sent(&chain, &pool, 4 + sizeof bytes);
    EXPECT(budget.used == BLOCK_BYTES);
    chain_clear(&chain, &pool);
    block_pool_deinit(&pool);
    EXPECT(budget.used == 0);
}

TEST("what is known to come is reserved without waste") {
    struct budget budget;
    budget_init(&budget, 3 << 20);
    struct buffer buffer = {0};
    EXPECT(buffer_append(&buffer, &budget, BUDGET_CLIENTS, "abc", 3));
    EXPECT(buffer_reserve(&buffer, &budget, BUDGET_CLIENTS, 1 << 20));
    EXPECT(buffer.capacity >= (1 << 20) + 3 && buffer.capacity <= 5 << 18);
    EXPECT(budget.used == buffer.capacity && memcmp(buffer.bytes, "abc", 3) == 0);
    EXPECT(!buffer_reserve(&buffer, &budget, BUDGET_CLIENTS, 3 << 20));
    buffer_free(&buffer, &budget, BUDGET_CLIENTS);
    EXPECT(budget.used == 0);
}

TEST("a buffer keeps its bytes while it grows, and is charged its capacity") {
    struct budget budget;
    budget_init(&budget, 100000);
    struct buffer buffer = {0};
    for (size_t i = 0; i < 20000; i++) {
        uint8_t byte = pattern(i);
        EXPECT(buffer_append(&buffer, &budget, BUDGET_LINKS, &byte, 1));
        if (budget.used_by[BUDGET_LINKS] != buffer.capacity) EXPECT(!"charged what it holds");
    }
    for (size_t i = 0; i < buffer.length; i++) {
        if (buffer.bytes[i] != pattern(i)) EXPECT(!"kept in order");
    }
    EXPECT(!buffer_room(&buffer, &budget, BUDGET_LINKS, 60000));
    EXPECT(!buffer_room(&buffer, &budget, BUDGET_LINKS, (size_t)-1));
    EXPECT(buffer.length == 20000);
    buffer_free(&buffer, &budget, BUDGET_LINKS);
    buffer_free(&buffer, &budget, BUDGET_LINKS);
    EXPECT(budget.used == 0);
}

TEST("a copy holds the first bytes of a chain, over its blocks, and takes nothing away") {
    static uint8_t source[3 * BLOCK_BYTES], copy[sizeof source];
    for (size_t i = 0; i < sizeof source; i++) source[i] = pattern(i);
    struct budget budget;
    budget_init(&budget, 1 << 20);
    struct block_pool pool;
    block_pool_init(&pool, &budget, 4);
    struct chain chain = {0};
    EXPECT(chain_append(&chain, &pool, source, sizeof source));
    chain_sent(&chain, &pool, 5);
    EXPECT(chain_copy(&chain, copy, 6000) == 6000);
    EXPECT(memcmp(copy, source + 5, 6000) == 0);
    EXPECT(chain_copy(&chain, copy, sizeof copy) == sizeof source - 5);
    EXPECT(memcmp(copy, source + 5, sizeof source - 5) == 0);
    EXPECT(chain.bytes == sizeof source - 5);
    chain_clear(&chain, &pool);
    block_pool_deinit(&pool);
}
