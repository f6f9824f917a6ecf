/* budget — every byte has an owner, and the owners' sum never passes the total.
 *
 * The total is `local_memory`. Whoever can grow takes here first and gives back when it shrinks. The store's pages
 * are the slack: when another owner asks and nothing is free, the budget asks the store to give pages back.
 * Loop thread only. */
#ifndef FERRITE_BASE_BUDGET_H
#define FERRITE_BASE_BUDGET_H

#include <stdbool.h>
#include <stddef.h>

enum budget_owner {
    BUDGET_BASE,     /* binary, libraries, thread stacks: measured at start */
    BUDGET_INDEX,    /* the store's hash index */
    BUDGET_SLABS,    /* the store's pages of entries */
    BUDGET_CLIENTS,  /* client records, requests being gathered, replies being sent or held */
    BUDGET_LINKS,    /* the same for links */
    BUDGET_TLS,      /* sessions of TLS links, and what is decrypted in a turn */
    BUDGET_KERNEL,   /* what the kernel charges for our sockets' buffers */
    BUDGET_RINGS,    /* io_uring's rings and the provided receive buffers */
    BUDGET_SLOTS,    /* slots and the key hashes they carry */
    BUDGET_FLIGHTS,  /* flights */
    BUDGET_BEHIND,   /* writes that are acknowledged and not yet carried out */
    BUDGET_JOURNAL,  /* what is to be written to the journal, and what the kernel holds of its file */
    BUDGET_SWIFT,    /* Swift's heap, charged through the ABI */
    BUDGET_TABLES,   /* page tables */
    BUDGET_ARRIVALS, /* what clients that are not read from may still send into the kernel */
    BUDGET_RESERVE,  /* room kept for what comes back to the base, or comes before it is measured again */
    BUDGET_OWNER_COUNT
};

/* Asks the owner of the slack to free at least `bytes`; returns the bytes really freed (taken off its own owner). */
typedef size_t (*budget_reclaim)(void *context, size_t bytes);

struct budget {
    size_t total;
    size_t used; /* always the sum of used_by */
    size_t used_by[BUDGET_OWNER_COUNT];
    size_t peak_used;
    budget_reclaim reclaim; /* NULL: nothing can be reclaimed */
    void *reclaim_context;
};

void budget_init(struct budget *budget, size_t total);

/* Takes bytes for an owner. False, with nothing taken, when the total would be passed even after reclaiming.
 * BUDGET_SLABS and BUDGET_INDEX never trigger a reclaim: the store evicts instead. BUDGET_CLIENTS is refused the last
 * 1/32, which is for links. */
bool budget_take(struct budget *budget, enum budget_owner owner, size_t bytes);

/* Takes bytes that are already spent (the binary, a buffer that the kernel has filled): may pass the total. */
void budget_force(struct budget *budget, enum budget_owner owner, size_t bytes);

void budget_give(struct budget *budget, enum budget_owner owner, size_t bytes);

#endif
