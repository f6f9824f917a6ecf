/* parse — requests: from bytes to a command and its arguments, without a copy.
 *
 * Both forms of Redis: an array of bulk strings, and inline (words on a line, quotes as in Redis' sdssplitargs).
 * Limits and error texts are those of redis-server 7.0 (unauthenticated limits do not apply): bulk <= 512 MB,
 * inline <= 64 KiB; only that arguments are at most 1,048,576, as in Redis 6, where 7.0 takes 2^31-1.
 * A negative or zero multibulk count is skipped silently, as is an empty line. Stricter than Redis in what it reads
 * past: a bulk string must end with CRLF, and an inline request holds no NUL.
 * Calls nobody. */
#ifndef FERRITE_RESP_PARSE_H
#define FERRITE_RESP_PARSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/budget.h"

struct resp_arg {
    const uint8_t *bytes;
    uint32_t length;
};

/* Scratch for the arguments of the request in hand; one per engine, shared by all clients, since a request is parsed
 * only when it is complete. Grows, charged to BUDGET_CLIENTS, and shrinks again when a large request is done. */
struct resp_args {
    struct resp_arg *args;
    uint32_t count;
    uint32_t capacity;
    uint8_t *inline_bytes; /* unquoted words of an inline request */
    size_t inline_capacity;
    struct budget *budget;
    char error[64]; /* the one error text that quotes what came */
};
bool resp_args_init(struct resp_args *args, struct budget *budget);
void resp_args_deinit(struct resp_args *args);

/* What a client remembers between two reads of one incomplete request, so that a request that trickles in is scanned
 * once in all (O(n)). All zero at the start of a request. */
struct resp_progress {
    uint64_t scanned;    /* bytes of the request known to be complete elements; of an inline one: without line end */
    uint32_t args_left;  /* bulk strings still to come; 0: the header is not complete */
    uint32_t args_count; /* announced by the header */
};

enum resp_parsed {
    RESP_REQUEST,    /* args holds it; args->count may be 0 (skip `length` bytes, nothing to answer) */
    RESP_INCOMPLETE, /* more bytes are needed; *need is how many at the least (>= 1), a hint */
    RESP_MALFORMED   /* answer *error ("-ERR Protocol error: …\r\n", valid until the next call) and close */
};

/* Reads one request from the front of bytes[0..n). On RESP_REQUEST *length is its size; the arguments point into bytes
 * (or into args->inline_bytes) and progress is zeroed. bytes must begin at the start of the request each time.
 * The common GET arrives here in the first comparisons: keep that path short. */
enum resp_parsed resp_parse(struct resp_args *args, struct resp_progress *progress, const uint8_t *bytes, size_t n,
                            size_t *length, size_t *need, const char **error);

#endif
