/* kernel — what the kernel holds, or may come to hold, for a connection; booked as it changes. */
#ifndef FERRITE_NET_KERNEL_H
#define FERRITE_NET_KERNEL_H

#include "base/budget.h"

/* Books `bytes` for BUDGET_KERNEL or BUDGET_ARRIVALS in place of *booked. Nobody asks us before they are spent, so the
 * total may be passed for the moment: the store gives way at once. */
static inline void kernel_book(struct budget *budget, enum budget_owner owner, size_t *booked, size_t bytes) {
    budget_give(budget, owner, *booked);
    budget_force(budget, owner, bytes);
    *booked = bytes;
    if (budget->used > budget->total && budget->reclaim)
        budget->reclaim(budget->reclaim_context, budget->used - budget->total);
}

#endif
