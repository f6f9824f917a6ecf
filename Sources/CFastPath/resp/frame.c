/* frame — replies: where one ends and the next begins.
 *
 *   resp_frame ─► read_element … until no element is owed any more
 *
 * Both readers go through read_element, so what resp_frame calls complete, resp_element can read to its end.
 * RESP3's streamed types ($?, *?) are not RESP here: no server sends them. */
#include "resp/frame.h"

#include <stdbool.h>
#include <string.h>

#include "base/check.h"

/* Of bytes or elements in one header: far above any server's limits, and no sum of what fits in memory overflows. */
#define COUNT_MAX (INT64_C(1) << 40)
#define ELEMENT_BYTES_MIN 3 /* "_\r\n" */

enum element_read { ELEMENT_COMPLETE, ELEMENT_PARTIAL, ELEMENT_BROKEN };

struct found {
    int64_t number;
    uint64_t payload; /* offset of the payload */
    uint64_t length;  /* of the payload */
    uint64_t size;    /* of header and payload; when partial, a lower bound of it */
};

/* "<type><number>\r\n" in bytes[0..n). found->size is the line's. */
static inline enum element_read read_number_line(const uint8_t *bytes, uint64_t n, struct found *found) {
    uint64_t at = 1;
    bool negative = false;
    if (at < n && (bytes[at] == '-' || bytes[at] == '+')) negative = bytes[at++] == '-';
    uint64_t first = at, sum = 0;
    for (; at < n; at++) {
        uint64_t digit = (uint64_t)bytes[at] - '0';
        if (digit > 9) break;
        if (unlikely(at - first >= 19)) return ELEMENT_BROKEN; /* 19 digits cannot overflow 64 bits without a sign */
        sum = sum * 10 + digit;
    }
    if (at == n) {
        found->size = at + 2;
        return ELEMENT_PARTIAL;
    }
    if (at == first || bytes[at] != '\r' || sum > (uint64_t)INT64_MAX + negative) return ELEMENT_BROKEN;
    found->size = at + 2;
    if (found->size > n) return ELEMENT_PARTIAL;
    found->number = (int64_t)(negative ? 0 - sum : sum);
    return bytes[at + 1] == '\n' ? ELEMENT_COMPLETE : ELEMENT_BROKEN;
}

/* "<type><text>\r\n"; the first `searched` bytes are known to hold no line end. */
static enum element_read read_text_line(const uint8_t *bytes, uint64_t n, uint64_t searched, struct found *found) {
    uint64_t at = searched > 1 ? searched : 1;
    const uint8_t *end = NULL;
    while (at < n && (end = memchr(bytes + at, '\r', n - at))) {
        at = (uint64_t)(end - bytes);
        if (at + 1 == n || end[1] == '\n') break;
        at++; /* a lone CR belongs to the text */
        end = NULL;
    }
    if (!end) at = n;
    found->size = at + 2;
    if (found->size > n) return ELEMENT_PARTIAL;
    found->payload = 1;
    found->length = at - 1;
    return ELEMENT_COMPLETE;
}

static enum element_read read_bulk(const uint8_t *bytes, uint64_t n, struct found *found) {
    enum element_read read = read_number_line(bytes, n, found);
    if (read != ELEMENT_COMPLETE) return read;
    if (found->number < 0) return found->number == -1 && bytes[0] == '$' ? ELEMENT_COMPLETE : ELEMENT_BROKEN;
    if (found->number > COUNT_MAX) return ELEMENT_BROKEN;
    found->payload = found->size;
    found->length = (uint64_t)found->number;
    found->size += found->length + 2;
    if (found->size > n) return ELEMENT_PARTIAL;
    const uint8_t *end = bytes + found->payload + found->length;
    return end[0] == '\r' && end[1] == '\n' ? ELEMENT_COMPLETE : ELEMENT_BROKEN;
}

static enum element_read read_aggregate(const uint8_t *bytes, uint64_t n, struct found *found) {
    enum element_read read = read_number_line(bytes, n, found);
    if (read != ELEMENT_COMPLETE) return read;
    if (found->number < 0) return found->number == -1 && bytes[0] == '*' ? ELEMENT_COMPLETE : ELEMENT_BROKEN;
    return found->number <= COUNT_MAX ? ELEMENT_COMPLETE : ELEMENT_BROKEN;
}

/* The element at the front of bytes[0..n), its elements not included if it is an aggregate. */
static enum element_read read_element(const uint8_t *bytes, uint64_t n, uint64_t searched, struct found *found) {
    *found = (struct found){.size = ELEMENT_BYTES_MIN};
    if (n == 0) return ELEMENT_PARTIAL;
    enum element_read read;
    switch (bytes[0]) {
    case '$':
    case '=':
    case '!': return read_bulk(bytes, n, found);
    case '*':
    case '%':
    case '~':
    case '>':
    case '|': return read_aggregate(bytes, n, found);
    case ':':
        read = read_number_line(bytes, n, found);
        if (read == ELEMENT_COMPLETE) {
            found->payload = 1;
            found->length = found->size - 3;
        }
        return read;
    case '+':
    case '-':
    case ',':
    case '(': return read_text_line(bytes, n, searched, found);
    case '#':
        read = read_text_line(bytes, n, searched, found);
        if (read == ELEMENT_COMPLETE && (found->length != 1 || (bytes[1] != 't' && bytes[1] != 'f')))
            return ELEMENT_BROKEN;
        found->number = n > 1 && bytes[1] == 't';
        return read;
    case '_':
        read = read_text_line(bytes, n, searched, found);
        return read == ELEMENT_COMPLETE && found->length ? ELEMENT_BROKEN : read;
    default: return ELEMENT_BROKEN;
    }
}

/* How many elements follow a header as its own. */
static uint64_t children(uint8_t type, int64_t number) {
    switch (type) {
    case '*':
    case '~':
    case '>': return number > 0 ? (uint64_t)number : 0;
    case '%':
    case '|': return (uint64_t)number * 2;
    default: return 0;
    }
}

enum resp_framed resp_frame(struct resp_framer *framer, const uint8_t *bytes, size_t n, size_t *length,
                            uint64_t *need) {
    uint64_t at = framer->scanned, owed = at ? framer->owed : 1, searched = framer->searched;
    while (owed) {
        struct found found;
        enum element_read read = read_element(bytes + at, n - at, searched, &found);
        if (unlikely(read == ELEMENT_BROKEN)) return RESP_BROKEN;
        if (read == ELEMENT_PARTIAL) {
            /* A text line is searched once, however slowly it comes; its last byte may be the CR. */
            uint64_t left = n - at;
            *framer = (struct resp_framer){.scanned = at, .owed = owed, .searched = left ? left - 1 : 0};
            if (__builtin_mul_overflow(owed - 1, (uint64_t)ELEMENT_BYTES_MIN, need) ||
                __builtin_add_overflow(*need, at + found.size, need))
                *need = UINT64_MAX;
            return RESP_PARTIAL;
        }
        uint8_t type = bytes[at];
        at += found.size;
        searched = 0;
        if (type != '|') owed--; /* an attribute comes before the element that it is about */
        if (__builtin_add_overflow(owed, children(type, found.number), &owed)) return RESP_BROKEN;
    }
    *framer = (struct resp_framer){0};
    *length = at;
    return RESP_REPLY;
}

static uint64_t least(uint64_t a, uint64_t b) { return a < b ? a : b; }

enum resp_framed resp_skip(struct resp_skipper *skipper, const uint8_t *bytes, size_t n, size_t *used) {
    if (!skipper->begun) *skipper = (struct resp_skipper){.begun = true, .owed = 1};
    size_t at = least(skipper->payload, n);
    skipper->payload -= at;
    while (skipper->owed && !skipper->payload) {
        struct found found;
        enum element_read read = read_element(bytes + at, n - at, 0, &found);
        if (read == ELEMENT_BROKEN) return RESP_BROKEN;
        bool begun = read == ELEMENT_PARTIAL && found.payload; /* a bulk whose header is complete */
        if (read == ELEMENT_PARTIAL && !begun) break;
        uint8_t type = bytes[at];
        skipper->payload = begun ? found.size - (n - at) : 0;
        at += begun ? n - at : found.size;
        if (type != '|') skipper->owed--;
        if (__builtin_add_overflow(skipper->owed, children(type, found.number), &skipper->owed)) return RESP_BROKEN;
    }
    *used = at;
    if (skipper->owed || skipper->payload) return RESP_PARTIAL;
    *skipper = (struct resp_skipper){0};
    return RESP_REPLY;
}

bool resp_element(const uint8_t *bytes, size_t n, struct resp_element *element) {
    struct found found;
    if (read_element(bytes, n, 0, &found) != ELEMENT_COMPLETE || found.size > UINT32_MAX) return false;
    *element = (struct resp_element){
        .type = bytes[0],
        .number = found.number,
        .bytes = bytes + found.payload,
        .length = (uint32_t)found.length,
        .size = (uint32_t)found.size,
    };
    return true;
}
