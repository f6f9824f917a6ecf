/* reply — writing replies, and rewriting a RESP3 reply for a RESP2 client.
 *
 * Which rule fits a command stands in commands.def (column resp2). Calls nobody but base. */
#ifndef FERRITE_RESP_REPLY_H
#define FERRITE_RESP_REPLY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"

/* How the reply that a RESP3 link gives becomes what a RESP2 link would have given. */
enum resp2_rule {
    RESP2_SAME,       /* byte for byte the same */
    RESP2_NULL,       /* `_` at the top or inside becomes `$-1`; otherwise the same */
    RESP2_CONVERT,    /* the general rule: %, ~ and > to flat *, `_` to `$-1`, `,` and `(` to bulk, `=` to bulk without
                         its "txt:", `#` to :1/:0, attributes left out */
    RESP2_NULL_ARRAY, /* the general rule, but `_` becomes `*-1`, at the top or inside */
    RESP2_PAIRS,      /* the general rule, and arrays inside the top one are dissolved: WITHSCORES, WITHVALUES */
    RESP2_SEPARATE    /* cannot be derived: the command must travel on a RESP2 link */
};

/* Appends the RESP2 form of one complete reply. False when the budget is spent. Errors are passed as they are under
 * every rule. */
bool resp2_append(struct chain *chain, struct block_pool *pool, enum resp2_rule rule, const uint8_t *reply, size_t n);

/* Appends "$<n>\r\n<bytes>\r\n". The hit path: one room, one copy, when it fits a block. */
bool reply_bulk(struct chain *chain, struct block_pool *pool, const uint8_t *bytes, uint32_t n);
/* Appends "*<n>\r\n" (type '*', '%', '~' or '>'). */
bool reply_aggregate(struct chain *chain, struct block_pool *pool, uint8_t type, uint64_t n);
bool reply_integer(struct chain *chain, struct block_pool *pool, int64_t value);
/* `_` for RESP3 clients, `$-1` for RESP2. */
bool reply_null(struct chain *chain, struct block_pool *pool, int protocol);

/* Decimal digits of value into text (at least 20 bytes of room); returns their count. */
uint32_t decimal(uint8_t *text, uint64_t value);

#endif
