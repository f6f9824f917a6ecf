/* read — GET and MGET: from the store when that is as true as asking, else by a flight. */
#ifndef FERRITE_SERVE_READ_H
#define FERRITE_SERVE_READ_H

#include "serve/dispatch.h"

enum dispatched read_get(struct serve *serve, struct session *session, const struct command *command);
/* False in *handled: too many keys, or inline; let it be passed on. */
enum dispatched read_mget(struct serve *serve, struct session *session, const struct command *command,
                          const uint8_t *raw, size_t length, bool *handled);

/* Behind one hit in `every`, on average, the copy is compared with what the upstream has; 0: never. */
void read_audit(struct serve *serve, uint64_t every);

/* The lane of a command and whether it must wait: see dispatch.c. */
bool dispatch_may_travel(struct serve *serve, struct session *session, fp_lane lane);
/* The same for a fetch, which may go while other commands are held. */
bool dispatch_may_fetch(struct serve *serve, struct session *session);
enum dispatched dispatch_stall(struct serve *serve, struct session *session, enum stall why);

#endif
