/* local — what the sidecar answers itself: handshakes and small talk. */
#ifndef FERRITE_SERVE_LOCAL_H
#define FERRITE_SERVE_LOCAL_H

#include "serve/dispatch.h"

/* True: answered. False: only the upstream can answer this form of it, on a pinned link (another identity, a database
 * other than 0). */
bool local_answer(struct serve *serve, struct session *session, const struct command *command);

/* Appends an error or other ready reply at once, in order. */
void local_reply(struct serve *serve, struct session *session, const char *reply);

#endif
