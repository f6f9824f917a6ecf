/* frame — replies: where one ends and the next begins, RESP2 and RESP3, nested, streamed in pieces of any size.
 *
 * Only the structure is read. A flat count of elements still owed replaces a stack, so depth costs nothing and cannot
 * overflow. Calls nobody. */
#ifndef FERRITE_RESP_FRAME_H
#define FERRITE_RESP_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* All zero at the start of a reply. */
struct resp_framer {
    uint64_t scanned;  /* bytes of the reply that are known to be complete elements */
    uint64_t owed;     /* elements still to come; meaningful once scanned > 0 */
    uint64_t searched; /* bytes behind those that hold no line end */
};

enum resp_framed {
    RESP_REPLY,   /* complete: *length bytes, framer zeroed */
    RESP_PARTIAL, /* more is needed; *need is a lower bound of the whole reply's size so far as it is known */
    RESP_BROKEN   /* not RESP */
};

/* bytes must begin at the start of the reply each time. An attribute (|) is part of the reply that follows it. */
enum resp_framed resp_frame(struct resp_framer *framer, const uint8_t *bytes, size_t n, size_t *length, uint64_t *need);

/* Passing over a reply that is too large to hold: its bytes are used as they come. All zero at its start. */
struct resp_skipper {
    bool begun;
    uint64_t owed;    /* elements still to come */
    uint64_t payload; /* bytes of the bulk in hand still to come */
};

/* RESP_REPLY: *used bytes reach to the reply's end, and the skipper is zeroed. RESP_PARTIAL: *used bytes are done
 * with; what is left, less than a header or line, must be offered again with more behind it. */
enum resp_framed resp_skip(struct resp_skipper *skipper, const uint8_t *bytes, size_t n, size_t *used);

/* Reading inside a complete reply: one element at a time. */
struct resp_element {
    uint8_t type;         /* '+' '-' ':' '$' '*' '%' '~' '>' '_' ',' '#' '(' '=' '!' '|' */
    int64_t number;       /* integer value, element count (pairs for maps), byte count, 1 for #t; -1 for RESP2 nulls */
    const uint8_t *bytes; /* the payload of a line or bulk */
    uint32_t length;
    uint32_t size; /* of the header plus payload: where the next element begins (aggregates: the header only) */
};

/* False when bytes do not hold one complete element header (and payload). */
bool resp_element(const uint8_t *bytes, size_t n, struct resp_element *element);

#endif
