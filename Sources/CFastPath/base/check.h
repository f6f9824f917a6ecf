/* check — assertions for what only a bug of our own could break.
 *
 * CHECK stays in release builds: a cache that has lost count of its memory or its replies must stop, not guess.
 * What the world can do (a closed socket, a full ring, a rude client) is never CHECKed: it is an ordinary branch. */
#ifndef FERRITE_BASE_CHECK_H
#define FERRITE_BASE_CHECK_H

#include <stdio.h>
#include <stdlib.h>

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

#define CHECK(condition)                                                                                \
    do {                                                                                                \
        if (unlikely(!(condition))) {                                                                   \
            fprintf(stderr, "%s:%d: %s: CHECK(%s) failed\n", __FILE__, __LINE__, __func__, #condition); \
            abort();                                                                                    \
        }                                                                                               \
    } while (0)

#endif
