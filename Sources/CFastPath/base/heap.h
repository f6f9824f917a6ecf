/* heap — how jemalloc is set for a process that must stay inside a budget, and how much the process really holds. */
#ifndef FERRITE_BASE_HEAP_H
#define FERRITE_BASE_HEAP_H

#include <stddef.h>

/* A descriptor for heap_resident, -1 where /proc is not there. */
int heap_open(void);
/* Resident bytes, 0 if unknown: one system call of some 2 microseconds. */
size_t heap_resident(int statm_fd);
/* The page tables' size, from a longer file: not for every turn. */
size_t heap_page_tables(void);

#endif
