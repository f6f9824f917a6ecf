/* glob — the matcher of glob.h: one pass with a single point to go back to, the last star. */
#include "base/glob.h"

/* A set, from behind its bracket: whether it has the byte, and where the pattern goes on. One that is not closed ends
 * with the pattern, as in Redis. */
static bool set_has(const uint8_t *pattern, size_t length, size_t *at, uint8_t byte) {
    size_t i = *at;
    bool negated = i < length && pattern[i] == '^', has = false;
    i += negated;
    for (; i < length && pattern[i] != ']'; i++) {
        if (pattern[i] == '\\' && i + 1 < length) {
            has |= pattern[++i] == byte;
        } else if (i + 2 < length && pattern[i + 1] == '-') {
            uint8_t low = pattern[i], high = pattern[i + 2];
            if (low > high) {
                low = high;
                high = pattern[i];
            }
            has |= byte >= low && byte <= high;
            i += 2;
        } else {
            has |= pattern[i] == byte;
        }
    }
    *at = i < length ? i + 1 : length;
    return has != negated;
}

/* What is not a star, at *at; *at then stands behind it. */
static bool one_matches(const uint8_t *pattern, size_t length, size_t *at, uint8_t byte) {
    uint8_t what = pattern[(*at)++];
    if (what == '?') return true;
    if (what == '[') return set_has(pattern, length, at, byte);
    if (what == '\\' && *at < length) what = pattern[(*at)++];
    return what == byte;
}

bool glob_matches(const uint8_t *pattern, size_t pattern_length, const uint8_t *text, size_t length) {
    size_t at = 0, done = 0, star = SIZE_MAX, taken = 0; /* the last star stands before `star` and has taken so much */
    while (done < length) {
        if (at < pattern_length && pattern[at] == '*') {
            star = ++at;
            taken = done;
            continue;
        }
        size_t next = at;
        if (at < pattern_length && one_matches(pattern, pattern_length, &next, text[done])) {
            at = next;
            done++;
            continue;
        }
        if (star == SIZE_MAX) return false;
        at = star;
        done = ++taken;
    }
    while (at < pattern_length && pattern[at] == '*') at++;
    return at == pattern_length;
}
