/* rules — see rules.h. The memory is small, given once, and counts as base. */
#include "serve/rules.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/glob.h"

void rules_init(struct rules *rules) {
    fp_rule every = {.ttl_ms = 300000, .caches = true};
    *rules = (struct rules){0};
    rules_set(rules, &every, 1);
}

void rules_deinit(struct rules *rules) {
    free(rules->all);
    free(rules->patterns);
    *rules = (struct rules){0};
}

void rules_set(struct rules *rules, const fp_rule *given, uint32_t count) {
    CHECK(count > 0);
    size_t bytes = 1;
    for (uint32_t i = 0; i < count; i++) bytes += given[i].pattern_length;
    rules_deinit(rules);
    rules->all = calloc(count, sizeof(struct rule));
    rules->patterns = malloc(bytes);
    CHECK(rules->all && rules->patterns);
    rules->count = count;
    uint8_t *to = rules->patterns;
    for (uint32_t i = 0; i < count; i++) {
        const fp_rule *rule = &given[i];
        if (rule->pattern_length) memcpy(to, rule->pattern, rule->pattern_length);
        rules->all[i] = (struct rule){
            .pattern = to,
            .pattern_length = rule->pattern_length,
            .ttl_ms = rule->ttl_ms,
            .stale_ms = rule->stale_ms,
            .caches = rule->caches,
            .fills_behind = rule->caches && rule->fills_behind,
            .writes_behind = rule->writes_behind,
        };
        to += rule->pattern_length;
        if (rule->stale_ms > rules->stale_ms_max) rules->stale_ms_max = rule->stale_ms;
    }
}

const struct rule *rules_find(const struct rules *rules, const uint8_t *key, uint32_t length) {
    const struct rule *rule = rules->all, *last = rules->all + rules->count - 1;
    while (rule < last && !glob_matches(rule->pattern, rule->pattern_length, key, length)) rule++;
    return rule;
}
