/* value — a stored value as a bulk string: copied when small, sent from where it lies when large; a null when there is
 * none. */
#ifndef FERRITE_SERVE_VALUE_H
#define FERRITE_SERVE_VALUE_H

#include "serve/serve.h"

/* From this size a value is lent to the chain, which holds its entry until the bytes have been sent: it then counts
 * once in memory, however many readers are slow. */
#define VALUE_LENT_BYTES 16384u

/* False when the budget is spent; part of the reply may then stand in the chain, so the client must be closed. */
bool value_append(struct serve *serve, struct chain *chain, const struct store_value *value, int protocol);

/* Lets go of those that are held. */
void values_release(struct serve *serve, const struct store_value *values, uint32_t count);

#endif
