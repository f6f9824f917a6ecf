/* ahead — the room and the window of what is fetched ahead. */
#include "serve/ahead.h"
#include "test.h"

TEST("ahead: the window grows while answers are as fast as the fastest, and shrinks to one while they queue") {
    struct ahead ahead = {0};
    ahead_init(&ahead);
    for (int i = 0; i < 100; i++) ahead_heard(&ahead, NS_PER_MS + (uint64_t)(i % 3) * NS_PER_MS);
    EXPECT(ahead.window == 64);
    ahead.under_way = 63;
    EXPECT(ahead_fits(&ahead));
    ahead.under_way = 64;
    EXPECT(!ahead_fits(&ahead));
    for (int i = 0; i < 100; i++) ahead_heard(&ahead, 10 * NS_PER_MS);
    EXPECT(ahead.window == 1);
    ahead.under_way = 0;
    EXPECT(ahead_fits(&ahead));
    for (int i = 0; i < 10; i++) ahead_heard(&ahead, 2 * NS_PER_MS);
    EXPECT(ahead.window == 11);
    /* A way that has become longer is not taken for a queue for ever. */
    for (int i = 0; i < 5000; i++) ahead_heard(&ahead, 20 * NS_PER_MS);
    EXPECT(ahead.window > 1);
}

TEST("ahead: a share of the budget stays free, and the store's part has a bound") {
    struct budget budget;
    struct ahead ahead = {.bytes_max = 32u << 20};
    budget_init(&budget, 64u << 20);
    EXPECT(ahead_may_ask(&ahead, &budget) && ahead_may_keep(&ahead, &budget, 1 << 20));
    EXPECT(!ahead_may_keep(&ahead, &budget, 64u << 20));
    EXPECT(budget_take(&budget, BUDGET_SLABS, 32u << 20));
    EXPECT(!ahead_may_ask(&ahead, &budget) && !ahead_may_keep(&ahead, &budget, 1));
    budget_give(&budget, BUDGET_SLABS, 1);
    EXPECT(ahead_may_ask(&ahead, &budget));
    EXPECT(budget_take(&budget, BUDGET_LINKS, 29u << 20));
    EXPECT(!ahead_may_ask(&ahead, &budget) && ahead_may_keep(&ahead, &budget, 1 << 20));
    budget_give(&budget, BUDGET_LINKS, 29u << 20);
    budget_give(&budget, BUDGET_SLABS, (32u << 20) - 1);
}
