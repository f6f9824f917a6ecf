/* readings — what Swift looks at and books: the command table, names, a traced key's life, memory, numbers. */
#include <string.h>

#include "base/glob.h"
#include "engine.h"
#include "serve/flight.h"

_Static_assert(FP_HISTOGRAM_BUCKETS == HISTOGRAM_BUCKETS, "the ABI shows the histogram as it is");

/* ---- the command table ---- */

uint32_t fp_commands_learn(fp_engine *engine, const void *reply, size_t length) {
    return commands_learn(engine->serve.commands, reply, length);
}

const char *fp_command_name(const fp_engine *engine, uint16_t command) {
    const struct command *row = commands_row(engine->serve.commands, command);
    return row ? row->name : NULL;
}

const char *fp_command_subcommand(const fp_engine *engine, uint16_t command) {
    const struct command *row = commands_row(engine->serve.commands, command);
    return row ? row->subcommand : NULL;
}

/* ---- names ---- */

bool fp_glob(const void *pattern, size_t pattern_length, const void *name, size_t length) {
    return glob_matches(pattern, pattern_length, name, length);
}

/* ---- one key's life ---- */

void fp_trace(fp_engine *engine, const void *key, size_t length) {
    struct trace *trace = engine->serve.trace;
    trace->wanted = length ? (uint32_t)store_hash(engine->store, key, (uint32_t)length) : TRACE_OFF;
    trace->count = 0;
}

uint32_t fp_trace_take(fp_engine *engine, const fp_trace_record **records) {
    struct trace *trace = engine->serve.trace;
    uint32_t count = trace->count;
    bool hits_only = count == 1 && trace->records[0].kind == FP_TRACE_HIT;
    if (hits_only && engine->serve.now_ns - engine->traced_ns < NS_PER_S) return 0;
    if (count) engine->traced_ns = engine->serve.now_ns;
    trace->count = 0;
    *records = trace->records;
    return count;
}

/* ---- the hottest copies ---- */

_Static_assert(sizeof(fp_hot_name) == sizeof(struct store_name) &&
                   offsetof(fp_hot_name, heat) == offsetof(struct store_name, heat),
               "the ABI shows a name as the store does");

uint64_t fp_hot_names(const fp_engine *engine, uint8_t heat, uint64_t cursor, uint32_t steps, fp_hot_name *names,
                      uint32_t *count) {
    return store_names(engine->store, heat, cursor, steps, (struct store_name *)names, count);
}

/* ---- memory, numbers ---- */

void fp_charge(fp_engine *engine, size_t bytes) { budget_force(&engine->budget, BUDGET_SWIFT, bytes); }
void fp_release(fp_engine *engine, size_t bytes) { budget_give(&engine->budget, BUDGET_SWIFT, bytes); }

#define ROW_COUNTER FP_METRIC_COUNTER
#define ROW_GAUGE FP_METRIC_GAUGE
#define ROW_SECONDS FP_METRIC_SECONDS
#define ROW_HISTOGRAM FP_METRIC_HISTOGRAM

static const fp_metric metric_rows[] = {
#define METRIC(id, name, labels, kind, help) \
    {name, labels, help, ROW_##kind, offsetof(struct stats, id) / sizeof(uint64_t)},
#include "base/stats.def"
#undef METRIC
};

const fp_metric *fp_metric_table(uint32_t *count) {
    *count = sizeof metric_rows / sizeof *metric_rows;
    return metric_rows;
}

uint32_t fp_stats_count(void) { return sizeof(struct stats) / sizeof(uint64_t); }

void fp_stats_read(fp_engine *engine, uint64_t *values) {
    struct stats *stats = &engine->serve.stats;
    struct store_stats store;
    store_read_stats(engine->store, &store);
    stats->keys = store.entries - store.absent;
    stats->absent_keys = store.absent;
    stats->evicted_keys = store.evicted_total;
    stats->expired_keys = store.expired_total;
    stats->refused_fills = store.refused_total;
    stats->behind_queued = engine->serve.behind.queued + engine->serve.behind.flying;
    stats->behind_bytes = engine->serve.behind.bytes;
    stats->behind_bytes_max = engine->serve.behind.bytes_max;
    uint64_t oldest_ns = behind_oldest_ns(&engine->serve.behind);
    stats->behind_oldest = oldest_ns ? fp_now(engine) - oldest_ns : 0;
    const struct budget *budget = &engine->budget;
    stats->memory_used = budget->used;
    stats->memory_max = budget->total;
    uint64_t *by_owner = &stats->memory_base; /* the rows stand in the order of the owners */
    _Static_assert(offsetof(struct stats, memory_reserve) - offsetof(struct stats, memory_base) ==
                       (BUDGET_OWNER_COUNT - 1) * sizeof(uint64_t),
                   "a row for each owner, in their order");
    for (int owner = 0; owner < BUDGET_OWNER_COUNT; owner++) by_owner[owner] = budget->used_by[owner];
    memcpy(values, stats, sizeof *stats);
}

const char *fp_outcome_name(uint32_t outcome) {
    static const char *const names[FP_OUTCOME_COUNT] = {
        [FP_OUTCOME_NEGATIVE] = "negative", [FP_OUTCOME_HIT] = "hit",       [FP_OUTCOME_STALE] = "stale",
        [FP_OUTCOME_MISS] = "miss",         [FP_OUTCOME_PASSED] = "passed", [FP_OUTCOME_WRITTEN] = "written",
        [FP_OUTCOME_PINNED] = "pinned",     [FP_OUTCOME_BEHIND] = "behind", [FP_OUTCOME_LOCAL] = "local",
        [FP_OUTCOME_ERROR] = "error",
    };
    return outcome < FP_OUTCOME_COUNT ? names[outcome] : NULL;
}

bool fp_calls_read(const fp_engine *engine, uint32_t row, fp_calls *calls) {
    if (row > COMMAND_ID_COUNT) return false;
    const struct serve_calls *counted = &engine->serve.calls[row];
    const struct command *command = row < COMMAND_ID_COUNT ? commands_row(engine->serve.commands, row) : NULL;
    *calls = (fp_calls){
        .name = command ? command->name : "other",
        .subcommand = command ? command->subcommand : "",
        .family = command ? command->family : "other",
        .outcomes = counted->outcomes,
    };
    return true;
}

uint64_t fp_histogram_bound(uint32_t bucket) { return histogram_bound(bucket); }

const char *fp_sim_unsound(const fp_engine *engine) {
    const struct budget *budget = &engine->budget;
    size_t sum = 0;
    for (int owner = 0; owner < BUDGET_OWNER_COUNT; owner++) sum += budget->used_by[owner];
    if (sum != budget->used) return "the owners' sum is not what the budget has given";
    if (budget->used > budget->total) return "more is used than the budget has";
    if (engine->clients.table.live) return NULL;
    if (engine->serve.slots.live) return "slots are left though no client is connected";
    if (engine->serve.fenced.first || engine->serve.journaled.first)
        return "fences are waited for though no client is connected";
    if (engine->serve.dirty || engine->serve.runnable)
        return "sessions are left in lists though no client is connected";
    if (engine->clients.large_bytes || engine->clients.turn_first)
        return "turns are left though no client is connected";
    return NULL;
}

uint64_t fp_sim_fetch_since(fp_engine *engine, const void *name, size_t length) {
    struct store_key key = {.bytes = name, .length = (uint32_t)length};
    key.hash = store_hash(engine->store, key.bytes, key.length);
    return flight_since(&engine->serve, &key);
}

uint32_t fp_client_count(const fp_engine *engine) { return (uint32_t)engine->serve.stats.clients; }
