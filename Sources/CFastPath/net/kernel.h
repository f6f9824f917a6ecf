/* kernel — what the kernel holds for a connection, booked as it changes. */
#ifndef FERRITE_NET_KERNEL_H
#define FERRITE_NET_KERNEL_H

#include "base/budget.h"

/* Books `bytes` in place of *booked. They are spent already, so the total may be passed for the moment: the store gives
 * way at once. */
static inline void kernel_book(struct budget *budget, size_t *booked, size_t bytes) {
    budget_give(budget, BUDGET_KERNEL, *booked);
    budget_force(budget, BUDGET_KERNEL, bytes);
    *booked = bytes;
    if (budget->used > budget->total && budget->reclaim)
        budget->reclaim(budget->reclaim_context, budget->used - budget->total);
}

#endif
