/* engine — its parts, for the files that stand beside it: engine.c (its making and its turn), orders.c, readings.c.
 * Touched by the loop's thread alone. */
#pragma once

#include "CFastPath.h"
#include "net/client.h"
#include "net/link.h"
#include "serve/dispatch.h"

struct fp_engine {
    fp_config config;
    struct budget budget;
    struct store *store;
    struct serve serve;
    struct clients clients;
    struct links links;
    struct loop *loop;
    struct clock clock;
    uint64_t traced_ns; /* when the trace was last taken */
    uint32_t listeners;
    uint32_t fresh_listeners; /* a bit for each: what their clients read is not answered from the cache */
    char unix_path[108];
    char network_reason[256];
    char error[256];
    char username[256], password[512];
    uint64_t woke_ns; /* when this turn's work began */
    uint64_t tick_ns;
    uint64_t measure_ns;
    int statm_fd;
    size_t base_busy; /* the most that the base has come to since the start: booked at least */
    uint32_t base_measured;
    uint64_t trusted_until_ns;
    bool trusted; /* by the flow, until then */
    bool woken;
};

/* Whether copies are served as fresh, by what the flow has last said and by the clock of this turn. */
void engine_see_trust(fp_engine *engine);
