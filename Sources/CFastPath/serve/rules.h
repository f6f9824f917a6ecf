/* rules — what the configuration says of keys by their names: how long a copy is served, and whether there is one. */
#ifndef FERRITE_SERVE_RULES_H
#define FERRITE_SERVE_RULES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "CFastPath.h"

struct rule {
    const uint8_t *pattern;
    uint32_t pattern_length;
    uint64_t ttl_ms;
    uint64_t stale_ms; /* past ttl_ms, while the upstream does not answer; 0: not at all */
    bool caches;
    bool fills_behind;  /* a write of the key is followed by a fetch of it */
    bool writes_behind; /* SET and its like are acknowledged before they are carried out */
};

struct rules {
    struct rule *all; /* the last one is for every key that no other matches */
    uint32_t count;
    uint8_t *patterns;
    uint64_t stale_ms_max;
};

/* One rule for all keys. */
void rules_init(struct rules *rules);
void rules_deinit(struct rules *rules);
/* Copies what it is given; at least one rule. */
void rules_set(struct rules *rules, const fp_rule *given, uint32_t count);
/* The first that matches. */
const struct rule *rules_find(const struct rules *rules, const uint8_t *key, uint32_t length);

#endif
