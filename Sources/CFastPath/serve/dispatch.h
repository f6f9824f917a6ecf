/* dispatch — one parsed request: which way it goes. */
#ifndef FERRITE_SERVE_DISPATCH_H
#define FERRITE_SERVE_DISPATCH_H

#include "serve/session.h"

enum dispatched {
    DISPATCH_DONE,  /* answered, or on its way */
    DISPATCH_STALL, /* session->stall says why: offer the same request again when the session is runnable */
    DISPATCH_CLOSE  /* memory is short, or QUIT: read no further */
};

/* serve->args holds the request; raw[0..length) is the request itself and lives until the next turn. */
enum dispatched dispatch(struct serve *serve, struct session *session, const uint8_t *raw, size_t length);

#endif
