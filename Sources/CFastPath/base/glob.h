/* glob — Redis's patterns of keys, as KEYS, SCAN and PSUBSCRIBE take them: * ? [abc] [^a] [a-z], and \ before any.
 *
 * The same answers as stringmatchlen of Redis (util.c), but that stars match the empty name too, in time bounded by the
 * product of the two lengths: Redis' own recursion is exponential in the number of stars. */
#ifndef FERRITE_BASE_GLOB_H
#define FERRITE_BASE_GLOB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

bool glob_matches(const uint8_t *pattern, size_t pattern_length, const uint8_t *text, size_t length);

#endif
