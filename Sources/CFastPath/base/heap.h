/* heap — how jemalloc is set for a process that must stay inside a budget, and how much the process really holds, code
 * included. */
#ifndef FERRITE_BASE_HEAP_H
#define FERRITE_BASE_HEAP_H

#include <stddef.h>

/* A descriptor for heap_resident, -1 where /proc is not there. */
int heap_open(void);
/* Resident bytes, 0 if unknown: one system call of some 2 microseconds. */
size_t heap_resident(int statm_fd);
/* The page tables' size, from a longer file: not for every turn. */
size_t heap_page_tables(void);

/* Takes the code of the program and its libraries out of the resident set: most of it was for the start only. What is
 * used again comes back from the page cache by minor faults, one for each 64 KiB, some 20 of them on the hit path. */
void heap_forget_code(void);

#endif
