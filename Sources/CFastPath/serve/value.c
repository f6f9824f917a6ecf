/* value — a stored value as a bulk string; see value.h. */
#include "serve/value.h"

static void release_value(void *context, void *lent) { store_release(context, lent); }

bool value_append(struct serve *serve, struct chain *chain, const struct store_value *value, int protocol) {
    if (unlikely(value->absent)) return reply_null(chain, &serve->blocks, protocol);
    if (value->length < VALUE_LENT_BYTES || !value->entry || !store_hold(serve->store, value->entry))
        return reply_bulk(chain, &serve->blocks, value->bytes, value->length);
    uint8_t header[24];
    header[0] = '$';
    uint32_t digits = decimal(header + 1, value->length);
    header[1 + digits] = '\r';
    header[2 + digits] = '\n';
    if (!chain_append(chain, &serve->blocks, header, digits + 3) ||
        !chain_lend(chain, &serve->blocks, value->bytes, value->length, release_value, serve->store, value->entry)) {
        store_release(serve->store, value->entry);
        return false;
    }
    return chain_append(chain, &serve->blocks, "\r\n", 2);
}

void values_release(struct serve *serve, const struct store_value *values, uint32_t count) {
    for (uint32_t i = 0; i < count; i++)
        if (values[i].entry) store_release(serve->store, values[i].entry);
}
