/* serve — making and unmaking what the folder shares. */
#include "serve/serve.h"

#include <string.h>

#include "serve/flight.h"

#define BLOCKS_KEPT 64u
#define SLOTS_MAX (1u << 18)
#define FLIGHTS_MIN (1u << 17) /* an MGET has many; memory bounds them before this does */

bool serve_init(struct serve *serve, struct budget *budget, struct store *store, uint32_t clients_max,
                uint64_t behind_bytes_max) {
    serve->budget = budget;
    serve->store = store;
    serve->trace = store_trace(store);
    rules_init(&serve->rules);
    ahead_init(&serve->ahead);
    serve->fetch_ns = NS_PER_MS;
    serve->random = store_hash(store, (const uint8_t *)"refresh", 7);
    serve->join_ms = 50;
    strcpy(serve->upstream_version, "7.0.0");
    strcpy(serve->upstream_mode, "standalone");
    strcpy(serve->upstream_role, "master");
    serve->upstream_protocol = 3;
    serve->fetch_first = serve->fetch_last = TABLE_NONE;
    memset(serve->flight_buckets, 0xff, sizeof serve->flight_buckets);
    block_pool_init(&serve->blocks, budget, BLOCKS_KEPT);
    serve->commands = commands_create();
    if (!serve->commands || !budget_take(budget, BUDGET_SLOTS, SERVE_EVENTS * sizeof(fp_event))) return false;
    serve->events = calloc(SERVE_EVENTS, sizeof(fp_event));
    CHECK(serve->events);
    uint32_t slots_max =
        clients_max < SLOTS_MAX / SERVE_SLOTS_A_CLIENT ? clients_max * SERVE_SLOTS_A_CLIENT : SLOTS_MAX;
    uint32_t flights_max = slots_max < FLIGHTS_MIN ? FLIGHTS_MIN : slots_max;
    serve->audit_left = UINT64_MAX;
    return resp_args_init(&serve->args, budget) && behind_init(&serve->behind, budget, behind_bytes_max) &&
           table_init(&serve->slots, sizeof(struct slot), slots_max, budget, BUDGET_SLOTS) &&
           table_init(&serve->flights, sizeof(struct flight), flights_max, budget, BUDGET_FLIGHTS);
}

void serve_deinit(struct serve *serve) {
    for (uint32_t i = 0; i < serve->flights.used; i++) {
        struct flight *flight = table_record(&serve->flights, i);
        if (flight->item.generation & 1) flight_fail(serve, flight, NULL, 0, true);
    }
    table_deinit(&serve->slots);
    table_deinit(&serve->flights);
    resp_args_deinit(&serve->args);
    buffer_free(&serve->refusal, serve->budget, BUDGET_SLOTS);
    commands_destroy(serve->commands);
    block_pool_deinit(&serve->blocks);
    budget_give(serve->budget, BUDGET_SLOTS, SERVE_EVENTS * sizeof(fp_event));
    free(serve->events);
    rules_deinit(&serve->rules);
    behind_deinit(&serve->behind);
}

bool serve_request_fits(const struct serve *serve, size_t length) {
    if (likely(length < SERVE_LARGE_BYTES)) return true;
    size_t bytes = serve->request_bytes + length + length / 32; /* blocks have heads */
    if (!budget_take(serve->budget, BUDGET_LINKS, bytes)) return false;
    budget_give(serve->budget, BUDGET_LINKS, bytes);
    return true;
}
