/* budget_test — the sums of the budget, and who may make the store shrink. */
#include "base/budget.h"

#include "test.h"

struct slack {
    struct budget *budget;
    size_t asked;
    int calls;
};

static size_t give_all_slabs(void *context, size_t bytes) {
    struct slack *slack = context;
    slack->asked = bytes;
    slack->calls++;
    size_t freed = slack->budget->used_by[BUDGET_SLABS];
    budget_give(slack->budget, BUDGET_SLABS, freed);
    return freed;
}

TEST("a budget takes up to its total, byte for byte, and not one more") {
    struct budget budget;
    budget_init(&budget, 1000);
    EXPECT(budget_take(&budget, BUDGET_CLIENTS, 400));
    EXPECT(budget_take(&budget, BUDGET_LINKS, 600));
    EXPECT(!budget_take(&budget, BUDGET_CLIENTS, 1));
    EXPECT(budget.used == 1000);
    EXPECT(budget.used_by[BUDGET_CLIENTS] == 400);
    EXPECT(budget.used_by[BUDGET_LINKS] == 600);
    budget_give(&budget, BUDGET_CLIENTS, 400);
    EXPECT(budget.used == 600);
    EXPECT(budget.peak_used == 1000);
}

TEST("another owner's need makes the store give pages back, and asks for what is missing only") {
    struct budget budget;
    budget_init(&budget, 1000);
    struct slack slack = {.budget = &budget};
    budget.reclaim = give_all_slabs;
    budget.reclaim_context = &slack;
    EXPECT(budget_take(&budget, BUDGET_SLABS, 900));
    EXPECT(budget_take(&budget, BUDGET_LINKS, 300));
    EXPECT(slack.calls == 1);
    EXPECT(slack.asked == 200);
    EXPECT(budget.used == 300);
}

TEST("the store itself never makes the store give back") {
    struct budget budget;
    budget_init(&budget, 1000);
    struct slack slack = {.budget = &budget};
    budget.reclaim = give_all_slabs;
    budget.reclaim_context = &slack;
    EXPECT(budget_take(&budget, BUDGET_SLABS, 900));
    EXPECT(!budget_take(&budget, BUDGET_SLABS, 200));
    EXPECT(!budget_take(&budget, BUDGET_INDEX, 200));
    EXPECT(slack.calls == 0);
}

TEST("what is already spent is booked past the total, and reclaimed for before others take") {
    struct budget budget;
    budget_init(&budget, 1000);
    struct slack slack = {.budget = &budget};
    budget.reclaim = give_all_slabs;
    budget.reclaim_context = &slack;
    EXPECT(budget_take(&budget, BUDGET_SLABS, 500));
    budget_force(&budget, BUDGET_KERNEL, 700);
    EXPECT(budget.used == 1200);
    EXPECT(!budget_take(&budget, BUDGET_INDEX, 1));
    EXPECT(budget_take(&budget, BUDGET_LINKS, 100));
    EXPECT(slack.asked == 300);
    EXPECT(budget.used == 800);
}

TEST("a request larger than everything is refused without touching the store") {
    struct budget budget;
    budget_init(&budget, 1000);
    struct slack slack = {.budget = &budget};
    budget.reclaim = give_all_slabs;
    budget.reclaim_context = &slack;
    EXPECT(budget_take(&budget, BUDGET_SLABS, 500));
    EXPECT(!budget_take(&budget, BUDGET_CLIENTS, (size_t)-1));
    EXPECT(!budget_take(&budget, BUDGET_CLIENTS, 1001));
    EXPECT(slack.calls == 0);
    EXPECT(budget.used == 500);
}

TEST("the last of the budget is for links, so that no client's replies end a shared one") {
    struct budget budget;
    budget_init(&budget, 3200);
    EXPECT(!budget_take(&budget, BUDGET_CLIENTS, 3101));
    EXPECT(budget_take(&budget, BUDGET_CLIENTS, 3100));
    EXPECT(!budget_take(&budget, BUDGET_CLIENTS, 1));
    EXPECT(budget_take(&budget, BUDGET_LINKS, 100));
}
