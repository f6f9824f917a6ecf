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

static bool fits(const struct budget *budget, size_t bytes) {
    return budget->used <= budget->total && bytes <= budget->total - budget->used;
}

void budget_init(struct budget *budget, size_t total) {
    *budget = (struct budget){.total = total};
}

bool budget_take(struct budget *budget, enum budget_owner owner, size_t bytes) {
    if (unlikely(!fits(budget, bytes))) {
        bool may_reclaim = owner != BUDGET_SLABS && owner != BUDGET_INDEX && budget->reclaim;
        if (!may_reclaim || bytes > budget->total) return false;
        /* bytes <= total, so that the sum cannot wrap: it is what must go for `bytes` to fit. */
        budget->reclaim(budget->reclaim_context, budget->used - (budget->total - bytes));
        if (!fits(budget, bytes)) return false;
    }
    book(budget, owner, bytes);
    return true;
}

void budget_force(struct budget *budget, enum budget_owner owner, size_t bytes) {
    book(budget, owner, bytes);
}

void budget_give(struct budget *budget, enum budget_owner owner, size_t bytes) {
    CHECK(bytes <= budget->used_by[owner]);
    budget->used_by[owner] -= bytes;
    budget->used -= bytes;
}

const char *budget_owner_name(enum budget_owner owner) {
    switch (owner) {
    case BUDGET_BASE: return "base";
    case BUDGET_INDEX: return "index";
    case BUDGET_SLABS: return "slabs";
    case BUDGET_CLIENTS: return "clients";
    case BUDGET_LINKS: return "links";
    case BUDGET_KERNEL: return "kernel";
    case BUDGET_RINGS: return "rings";
    case BUDGET_SLOTS: return "slots";
    case BUDGET_FLIGHTS: return "flights";
    case BUDGET_SWIFT: return "swift";
    case BUDGET_TABLES: return "tables";
    case BUDGET_OWNER_COUNT: break;
    }
    return "unknown";
}
