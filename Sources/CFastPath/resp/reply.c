/* reply — writing replies, and rewriting a RESP3 reply for a RESP2 client.
 *
 *   reply_bulk      the hit path
 *   resp2_append ─► convert: element by element, a rule says what becomes of each
 *
 * Nothing is left half-written: what was appended before the budget was spent is taken off again. */
#include "resp/reply.h"

#include <string.h>

#include "base/check.h"
#include "resp/frame.h"

#define HEADER_BYTES_MAX 24 /* type, 20 digits, CRLF, and one to spare */

static const char two_digits[] = "00010203040506070809101112131415161718192021222324252627282930313233343536373839"
                                 "40414243444546474849505152535455565758596061626364656667686970717273747576777879"
                                 "8081828384858687888990919293949596979899";

uint32_t decimal(uint8_t *text, uint64_t value) {
    if (value < 10) {
        text[0] = (uint8_t)('0' + value);
        return 1;
    }
    if (value < 100) {
        memcpy(text, two_digits + value * 2, 2);
        return 2;
    }
    uint8_t scratch[20];
    uint32_t at = sizeof scratch;
    for (; value >= 100; value /= 100) memcpy(scratch + (at -= 2), two_digits + value % 100 * 2, 2);
    if (value >= 10) memcpy(scratch + (at -= 2), two_digits + value * 2, 2);
    else scratch[--at] = (uint8_t)('0' + value);
    uint32_t digits = (uint32_t)sizeof scratch - at;
    memcpy(text, scratch + at, digits);
    return digits;
}

/* "<type><value>\r\n". */
static inline uint32_t write_header(uint8_t *to, uint8_t type, uint64_t value) {
    to[0] = type;
    uint32_t at = 1 + decimal(to + 1, value);
    to[at++] = '\r';
    to[at++] = '\n';
    return at;
}

/* ---- all or nothing ------------------------------------------------------------------------------------------ */

struct mark {
    struct block *tail;
    uint32_t end;
    size_t bytes;
};

static struct mark mark(const struct chain *chain) {
    return (struct mark){chain->tail, chain->tail ? chain->tail->end : 0, chain->bytes};
}

/* Takes off what was appended since the mark. */
static void rewind_to(struct chain *chain, struct block_pool *pool, struct mark mark) {
    struct chain rest = *chain;
    if (mark.tail) {
        rest = (struct chain){mark.tail->next, mark.tail->next ? chain->tail : NULL, 0};
        for (struct block *block = rest.head; block; block = block->next) rest.bytes += block->end - block->start;
        mark.tail->next = NULL;
        mark.tail->end = mark.end;
        *chain = (struct chain){chain->head, mark.tail, mark.bytes};
    } else {
        *chain = (struct chain){0};
    }
    chain_clear(&rest, pool);
}

/* ---- writing ------------------------------------------------------------------------------------------------- */

static bool bulk_in_pieces(struct chain *chain, struct block_pool *pool, const uint8_t *bytes, uint32_t n) {
    struct mark before = mark(chain);
    uint8_t header[HEADER_BYTES_MAX];
    if (chain_append(chain, pool, header, write_header(header, '$', n)) && chain_append(chain, pool, bytes, n) &&
        chain_append(chain, pool, "\r\n", 2))
        return true;
    rewind_to(chain, pool, before);
    return false;
}

bool reply_bulk(struct chain *chain, struct block_pool *pool, const uint8_t *bytes, uint32_t n) {
    if (unlikely(n > BLOCK_ROOM - HEADER_BYTES_MAX - 2)) return bulk_in_pieces(chain, pool, bytes, n);
    uint8_t *to = chain_room(chain, pool, n + HEADER_BYTES_MAX + 2);
    if (unlikely(!to)) return false;
    uint32_t at = write_header(to, '$', n);
    if (n) memcpy(to + at, bytes, n);
    at += n;
    to[at++] = '\r';
    to[at++] = '\n';
    chain_wrote(chain, at);
    return true;
}

bool reply_aggregate(struct chain *chain, struct block_pool *pool, uint8_t type, uint64_t n) {
    uint8_t *to = chain_room(chain, pool, HEADER_BYTES_MAX);
    if (!to) return false;
    chain_wrote(chain, write_header(to, type, n));
    return true;
}

bool reply_integer(struct chain *chain, struct block_pool *pool, int64_t value) {
    uint8_t *to = chain_room(chain, pool, HEADER_BYTES_MAX + 1);
    if (!to) return false;
    uint32_t at = 0;
    uint64_t magnitude = (uint64_t)value;
    to[at++] = ':';
    if (value < 0) {
        to[at++] = '-';
        magnitude = 0 - magnitude;
    }
    at += decimal(to + at, magnitude);
    to[at++] = '\r';
    to[at++] = '\n';
    chain_wrote(chain, at);
    return true;
}

bool reply_null(struct chain *chain, struct block_pool *pool, int protocol) {
    return protocol == 3 ? chain_append(chain, pool, "_\r\n", 3) : chain_append(chain, pool, "$-1\r\n", 5);
}

/* ---- RESP3 to RESP2 ------------------------------------------------------------------------------------------ */

struct conversion {
    struct chain *chain;
    struct block_pool *pool;
    enum resp2_rule rule;
    const uint8_t *kept; /* elements that stay as they are are copied in runs: where this run began */
};

/* A verbatim string loses its "txt:". */
static bool append_verbatim(const struct conversion *to, const struct resp_element *element) {
    uint32_t prefix = element->length >= 4 && element->bytes[3] == ':' ? 4 : 0;
    return reply_bulk(to->chain, to->pool, element->bytes + prefix, element->length - prefix);
}

/* A bulk error becomes a line, in which line ends are spaces. */
static bool append_bulk_error(const struct conversion *to, const struct resp_element *element) {
    if (!chain_append(to->chain, to->pool, "-", 1)) return false;
    for (uint32_t i = 0; i < element->length; i++) {
        uint32_t from = i;
        while (i < element->length && element->bytes[i] != '\r' && element->bytes[i] != '\n') i++;
        if (i > from && !chain_append(to->chain, to->pool, element->bytes + from, i - from)) return false;
        if (i < element->length && !chain_append(to->chain, to->pool, " ", 1)) return false;
    }
    return chain_append(to->chain, to->pool, "\r\n", 2);
}

/* True when the rule leaves an element of this type as it is. */
static bool stays(enum resp2_rule rule, uint8_t type) {
    switch (type) {
    case '_': return false;
    case ',':
    case '(':
    case '#':
    case '=':
    case '!':
    case '%':
    case '~':
    case '>': return rule == RESP2_NULL;
    default: return true;
    }
}

static bool append_changed(const struct conversion *to, const struct resp_element *element) {
    struct chain *chain = to->chain;
    struct block_pool *pool = to->pool;
    switch (element->type) {
    case '_': return chain_append(chain, pool, to->rule == RESP2_NULL_ARRAY ? "*-1\r\n" : "$-1\r\n", 5);
    case '#': return reply_integer(chain, pool, element->number);
    case '=': return append_verbatim(to, element);
    case '!': return append_bulk_error(to, element);
    case '%': return reply_aggregate(chain, pool, '*', (uint64_t)element->number * 2);
    case '~':
    case '>': return reply_aggregate(chain, pool, '*', (uint64_t)element->number);
    default: /* a double or a big number */ return reply_bulk(chain, pool, element->bytes, element->length);
    }
}

/* Appends the run of unchanged elements that ends at `at`; the next one begins at `next`. */
static bool flush(struct conversion *to, const uint8_t *at, const uint8_t *next) {
    const uint8_t *kept = to->kept;
    to->kept = next;
    return at == kept || chain_append(to->chain, to->pool, kept, (size_t)(at - kept));
}

/* How long the attribute at the front is, with all that belongs to it. */
static size_t attribute_bytes(const uint8_t *reply, size_t n) {
    struct resp_framer framer = {0};
    struct resp_element header;
    if (!resp_element(reply, n, &header)) return n;
    size_t at = header.size, length;
    uint64_t need;
    for (uint64_t owed = (uint64_t)header.number * 2; owed; owed--) {
        if (resp_frame(&framer, reply + at, n - at, &length, &need) != RESP_REPLY) return n;
        at += length;
    }
    return at;
}

/* Of an array whose elements are arrays of one length each (pairs), that length; otherwise 1. */
static uint64_t pair_length(const uint8_t *elements, size_t n) {
    struct resp_element first;
    return resp_element(elements, n, &first) && first.type == '*' && first.number > 0 ? (uint64_t)first.number : 1;
}

/* The header of an array of pairs becomes that of the flat one, and theirs go. */
static bool append_dissolved(const struct conversion *to, const struct resp_element *element, const uint8_t *behind,
                             size_t left, bool top) {
    if (!top) return true;
    return reply_aggregate(to->chain, to->pool, '*', (uint64_t)element->number * pair_length(behind, left));
}

static bool convert(struct conversion *to, const uint8_t *reply, size_t n) {
    const uint8_t *at = reply, *end = reply + n;
    to->kept = reply;
    for (bool top = true; at < end;) {
        struct resp_element element;
        size_t left = (size_t)(end - at);
        if (!resp_element(at, left, &element)) return false;
        const uint8_t *behind = at + element.size;
        bool attribute = element.type == '|', written = true;
        if (attribute) {
            behind = at + attribute_bytes(at, left);
            written = flush(to, at, behind);
        } else if (to->rule == RESP2_PAIRS && element.type == '*' && element.number >= 0) {
            written = flush(to, at, behind) && append_dissolved(to, &element, behind, left - element.size, top);
        } else if (!stays(to->rule, element.type)) {
            written = flush(to, at, behind) && append_changed(to, &element);
        }
        if (!written) return false;
        top = top && attribute; /* an attribute at the front is no element */
        at = behind;
    }
    return flush(to, end, end);
}

bool resp2_append(struct chain *chain, struct block_pool *pool, enum resp2_rule rule, const uint8_t *reply, size_t n) {
    uint8_t type = reply[0];
    if (rule == RESP2_SAME || rule == RESP2_SEPARATE || type == '$' || type == ':' || type == '+' || type == '-')
        return chain_append(chain, pool, reply, n);
    struct mark before = mark(chain);
    struct conversion to = {chain, pool, rule, reply};
    if (convert(&to, reply, n)) return true;
    rewind_to(chain, pool, before);
    return false;
}
