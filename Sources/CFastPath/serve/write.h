/* write — write-behind at the door: SET and its like, acknowledged here; and what must wait for them. */
#ifndef FERRITE_SERVE_WRITE_H
#define FERRITE_SERVE_WRITE_H

#include "serve/dispatch.h"

/* SET, SETEX, PSETEX and MSET without conditions, when all their keys' rules say so: taken, answered, and true. False
 * for any other command, or one that the queue could never hold: it travels. */
bool write_is_taken(struct serve *serve, struct session *session, const struct command *command, enum dispatched *done);

/* Whether the command may touch what is written and not yet carried out, or tell of it: then it must not travel now. */
bool write_must_wait(struct serve *serve, struct session *session, const struct command *command);

/* A key's write that is not carried out yet answers for it. */
static inline struct written *write_find(const struct serve *serve, const struct store_key *key) {
    return likely(behind_is_empty(&serve->behind)) ? NULL : behind_find(&serve->behind, key);
}

/* As a value of the store; absent past its expiry. */
struct store_value write_value(const struct serve *serve, struct written *written);

#endif
