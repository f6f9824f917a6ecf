/* budget — the sums of budget.h; nothing here allocates or loops. */
#include "base/budget.h"

#include <stdint.h>

#include "base/check.h"

static void book(struct budget *budget, enum budget_owner owner, size_t bytes) {
    CHECK(bytes <= SIZE_MAX - budget->used);
    budget->used += bytes;
    budget->used_by[owner] += bytes;
    if (budget->used > budget->peak_used) budget->peak_used = budget->used;
}

/* Replies that clients do not read may not take the last of it: a shared link must go on receiving, so that one
 * client's replies do not end everybody's connection. */
#define LAST_FOR_LINKS 32 /* the share of the total */

static size_t limit_of(const struct budget *budget, enum budget_owner owner) {
    return owner == BUDGET_CLIENTS ? budget->total - budget->total / LAST_FOR_LINKS : budget->total;
}

static bool fits(const struct budget *budget, size_t limit, size_t bytes) {
    return budget->used <= limit && bytes <= limit - budget->used;
}

void budget_init(struct budget *budget, size_t total) { *budget = (struct budget){.total = total}; }

bool budget_take(struct budget *budget, enum budget_owner owner, size_t bytes) {
    size_t limit = limit_of(budget, owner);
    if (unlikely(!fits(budget, limit, bytes))) {
        bool may_reclaim = owner != BUDGET_SLABS && owner != BUDGET_INDEX && budget->reclaim;
        if (!may_reclaim || bytes > limit) return false;
        /* bytes <= limit, so that the sum cannot wrap: it is what must go for `bytes` to fit. */
        budget->reclaim(budget->reclaim_context, budget->used - (limit - bytes));
        if (!fits(budget, limit, bytes)) return false;
    }
    book(budget, owner, bytes);
    return true;
}

void budget_force(struct budget *budget, enum budget_owner owner, size_t bytes) { book(budget, owner, bytes); }

void budget_give(struct budget *budget, enum budget_owner owner, size_t bytes) {
    CHECK(bytes <= budget->used_by[owner]);
    budget->used_by[owner] -= bytes;
    budget->used -= bytes;
}
