/* serve — the way of a request without a socket: requests in, events and replies out; the rules of coherence. */
#include <stdlib.h>

#include "serve/dispatch.h"
#include "serve/flight.h"
#include "serve/read.h"
#include "test.h"

struct world {
    struct budget budget;
    struct serve serve;
    struct session a, b;
};

static struct world *world_make(void) {
    struct world *world = calloc(1, sizeof *world);
    budget_init(&world->budget, 64u << 20);
    struct store_options options = {.arena_bytes = 64u << 20, .value_bytes_max = 1u << 20, .seed = 7};
    serve_init(&world->serve, &world->budget, store_create(&options, &world->budget), 16, 1 << 20);
    world->serve.now_ns = 1000 * NS_PER_S;
    world->serve.now_ms = 1000 * 1000;
    world->serve.epoch = 1;
    world->serve.trusted = true;
    world->serve.out_bytes_high = 1 << 20;
    world->serve.out_bytes_max = 16 << 20;
    session_init(&world->a, 1);
    session_init(&world->b, 2);
    return world;
}

static void world_end(struct world *world) {
    session_deinit(&world->serve, &world->a);
    session_deinit(&world->serve, &world->b);
    struct store *store = world->serve.store;
    serve_deinit(&world->serve);
    store_destroy(store);
    EXPECT(world->budget.used == 0);
    free(world);
}

/* One inline request, as a person types it. The text must outlive the turn. */
static enum dispatched ask(struct world *world, struct session *session, const char *line) {
    struct resp_progress progress = {0};
    size_t length, need;
    const char *error;
    EXPECT(resp_parse(&world->serve.args, &progress, (const uint8_t *)line, strlen(line), &length, &need, &error) ==
           RESP_REQUEST);
    return dispatch(&world->serve, session, (const uint8_t *)line, length);
}

static fp_event *event_at(struct world *world, uint32_t index) {
    static fp_event none;
    EXPECT(index < world->serve.event_count);
    return index < world->serve.event_count ? &world->serve.events[index] : &none;
}

/* What is due to a session, taken away. */
static bool says(struct world *world, struct session *session, const char *expected) {
    char text[4096];
    size_t n = 0;
    for (struct block *block = session->out.head; block; block = block->next) {
        memcpy(text + n, block->bytes + block->start, block->end - block->start);
        n += block->end - block->start;
    }
    text[n] = 0;
    chain_clear(&session->out, &world->serve.blocks);
    if (strcmp(text, expected) != 0) fprintf(stderr, "said \"%s\", expected \"%s\"\n", text, expected);
    return strcmp(text, expected) == 0;
}

static void arm(struct world *world, uint64_t id) {
    struct flight *flight = table_at(&world->serve.flights, id);
    EXPECT(flight);
    if (flight) flight_arm(&world->serve, flight, -1, world->serve.now_ns, FP_KEEP_ANSWER);
}

static void fill(struct world *world, uint64_t id, const char *reply) {
    struct flight *flight = table_at(&world->serve.flights, id);
    EXPECT(flight);
    if (flight) flight_fill(&world->serve, flight, (const uint8_t *)reply, strlen(reply));
}

static void answer(struct world *world, uint64_t id, const char *reply) {
    struct slot *slot = table_at(&world->serve.slots, id);
    EXPECT(slot);
    if (slot) slot_answer(&world->serve, slot, (const uint8_t *)reply, strlen(reply), true, 0);
}

static void answer_behind(struct world *world, uint64_t id, const char *reply, uint64_t fence) {
    struct slot *slot = table_at(&world->serve.slots, id);
    EXPECT(slot);
    if (slot) slot_answer(&world->serve, slot, (const uint8_t *)reply, strlen(reply), false, fence);
}

static void tell(struct world *world, struct session *session, const char *message, uint64_t fence) {
    session_tell(&world->serve, session, (const uint8_t *)message, strlen(message), fence);
}

static void push(struct world *world, const char *key) {
    uint64_t hash = store_hash(world->serve.store, (const uint8_t *)key, (uint32_t)strlen(key));
    store_drop(world->serve.store, (const uint8_t *)key, (uint32_t)strlen(key), hash);
    flights_spoil_armed(&world->serve, hash);
}

/* Puts a key by the ordinary way: a miss, armed and filled. */
static void have(struct world *world, const char *get, const char *reply) {
    uint32_t at = world->serve.event_count;
    EXPECT(ask(world, &world->b, get) == DISPATCH_DONE);
    uint64_t flight = event_at(world, at)->ticket;
    arm(world, flight);
    fill(world, flight, reply);
    chain_clear(&world->b.out, &world->serve.blocks);
    world->serve.event_count = at;
}

TEST("a miss is fetched once, answers all who wait, and is a hit afterwards") {
    struct world *world = world_make();
    ask(world, &world->a, "GET k\r\n");
    ask(world, &world->b, "GET k\r\n");
    EXPECT(world->serve.event_count == 1);
    EXPECT(event_at(world, 0)->kind == FP_EVENT_MISS);
    arm(world, event_at(world, 0)->ticket);
    fill(world, event_at(world, 0)->ticket, "$1\r\nv\r\n");
    EXPECT(says(world, &world->a, "$1\r\nv\r\n"));
    EXPECT(says(world, &world->b, "$1\r\nv\r\n"));
    ask(world, &world->a, "GET k\r\n");
    EXPECT(says(world, &world->a, "$1\r\nv\r\n"));
    EXPECT(world->serve.event_count == 1);
    world_end(world);
}

TEST("replies leave in the order of commands whatever order the answers come in") {
    struct world *world = world_make();
    have(world, "GET hit\r\n", "$1\r\nh\r\n");
    ask(world, &world->a, "GET one\r\n");
    ask(world, &world->a, "GET hit\r\n");
    ask(world, &world->a, "GET two\r\n");
    ask(world, &world->a, "PING\r\n");
    fill(world, event_at(world, 1)->ticket, "$1\r\n2\r\n");
    EXPECT(says(world, &world->a, ""));
    fill(world, event_at(world, 0)->ticket, "_\r\n");
    EXPECT(says(world, &world->a, "$-1\r\n$1\r\nh\r\n$1\r\n2\r\n+PONG\r\n"));
    world_end(world);
}

TEST("a push between PTTL's reply and GET's reply spoils the flight; one before does not") {
    struct world *world = world_make();
    ask(world, &world->a, "GET k\r\n");
    uint64_t flight = event_at(world, 0)->ticket;
    push(world, "k");
    arm(world, flight);
    fill(world, flight, "$1\r\n1\r\n");
    ask(world, &world->a, "GET k\r\n");
    EXPECT(world->serve.event_count == 1);
    push(world, "k");
    ask(world, &world->a, "GET k\r\n");
    flight = event_at(world, 1)->ticket;
    arm(world, flight);
    push(world, "k");
    fill(world, flight, "$1\r\n2\r\n");
    ask(world, &world->a, "GET k\r\n");
    EXPECT(world->serve.event_count == 3);
    world_end(world);
}

TEST("rule 2: a write drops its key and closes the flight when it is parsed") {
    struct world *world = world_make();
    have(world, "GET k\r\n", "$3\r\nold\r\n");
    ask(world, &world->a, "SET k new\r\n");
    EXPECT(event_at(world, 0)->kind == FP_EVENT_COMMAND);
    /* Another client must not see the old value, nor join a fetch begun before the write. */
    ask(world, &world->b, "GET k\r\n");
    EXPECT(event_at(world, 1)->kind == FP_EVENT_MISS);
    ask(world, &world->a, "SET k newer\r\n");
    ask(world, &world->b, "GET k\r\n");
    EXPECT(world->serve.event_count == 4 && event_at(world, 3)->kind == FP_EVENT_MISS);
    /* The first flight answers, but is not kept. */
    uint64_t before = event_at(world, 1)->ticket;
    arm(world, before);
    fill(world, before, "$3\r\nnew\r\n");
    EXPECT(world->serve.stats.fills == 1);
    world_end(world);
}

TEST("rule 5: a read goes behind the client's own unanswered command that touches its key") {
    struct world *world = world_make();
    have(world, "GET k\r\n", "$1\r\nv\r\n");
    ask(world, &world->a, "STRLEN k\r\n");
    ask(world, &world->a, "GET k\r\n");
    EXPECT(world->serve.event_count == 2 && event_at(world, 1)->kind == FP_EVENT_MISS);
    ask(world, &world->b, "GET k\r\n"); /* for others it is still a hit */
    EXPECT(says(world, &world->b, "$1\r\nv\r\n"));
    answer(world, event_at(world, 0)->ticket, ":1\r\n");
    fill(world, event_at(world, 1)->ticket, "$1\r\nv\r\n");
    EXPECT(says(world, &world->a, ":1\r\n$1\r\nv\r\n"));
    world_end(world);
}

TEST("rule 5: a read behind the client's own read in flight joins it, whatever the store has got meanwhile") {
    struct world *world = world_make();
    ask(world, &world->b, "MGET k x\r\n");
    ask(world, &world->a, "GET k\r\n");
    EXPECT(event_at(world, 3)->kind == FP_EVENT_MISS);
    uint64_t own = event_at(world, 3)->ticket;
    arm(world, event_at(world, 0)->ticket);
    arm(world, event_at(world, 1)->ticket);
    fill(world, event_at(world, 0)->ticket, "*2\r\n$3\r\nold\r\n$1\r\nx\r\n");
    ask(world, &world->a, "GET k\r\n");
    ask(world, &world->a, "MGET k x\r\n");
    EXPECT(world->serve.event_count == 7); /* the MGET is asked whole */
    push(world, "k");
    arm(world, own);
    fill(world, own, "$3\r\nnew\r\n");
    EXPECT(says(world, &world->a, "$3\r\nnew\r\n$3\r\nnew\r\n"));
    fill(world, event_at(world, 4)->ticket, "*2\r\n$3\r\nnew\r\n$1\r\nx\r\n");
    EXPECT(says(world, &world->a, "*2\r\n$3\r\nnew\r\n$1\r\nx\r\n"));
    world_end(world);
}

TEST("rule 5: an MGET goes behind the client's own unanswered command, and reads go behind an MGET") {
    struct world *world = world_make();
    have(world, "GET k\r\n", "$1\r\nv\r\n");
    ask(world, &world->a, "SETRANGE other 0 x\r\n");
    ask(world, &world->a, "STRLEN k\r\n");
    ask(world, &world->a, "MGET k\r\n");
    EXPECT(world->serve.event_count == 4 && event_at(world, 3)->kind == FP_EVENT_MGET);
    ask(world, &world->b, "MGET k x\r\n");
    ask(world, &world->b, "GET k\r\n");
    EXPECT(world->serve.event_count == 8 && event_at(world, 7)->kind == FP_EVENT_MISS);
    ask(world, &world->b, "GET other2\r\n"); /* not behind it: its own filter bit is another's */
    world_end(world);
}

TEST("rule 2: FLUSHALL elsewhere, or in MULTI, takes everything again when it has been answered") {
    struct world *world = world_make();
    world->a.lane = FP_LANE_PINNED;
    ask(world, &world->a, "FLUSHALL\r\n");
    have(world, "GET k\r\n", "$3\r\nold\r\n");
    answer(world, event_at(world, 0)->ticket, "+OK\r\n");
    world->serve.event_count = 0;
    ask(world, &world->b, "GET k\r\n");
    EXPECT(world->serve.event_count == 1);
    fill(world, event_at(world, 0)->ticket, "_\r\n");
    world->serve.event_count = 0;
    ask(world, &world->a, "MULTI\r\n");
    ask(world, &world->a, "FLUSHALL\r\n");
    answer(world, event_at(world, 0)->ticket, "+OK\r\n");
    answer(world, event_at(world, 1)->ticket, "+QUEUED\r\n");
    world->serve.event_count = 0;
    ask(world, &world->a, "EXEC\r\n");
    uint64_t exec = event_at(world, 0)->ticket;
    have(world, "GET k\r\n", "$3\r\nold\r\n");
    answer(world, exec, "*1\r\n+OK\r\n");
    world->serve.event_count = 0;
    ask(world, &world->b, "GET k\r\n");
    EXPECT(world->serve.event_count == 1);
    world_end(world);
}

TEST("rule 7: a time to live counts from when it was asked for") {
    struct world *world = world_make();
    ask(world, &world->a, "GET k\r\n");
    uint64_t sent_ns = world->serve.now_ns;
    world->serve.now_ns += 300 * NS_PER_MS;
    world->serve.now_ms += 300;
    uint64_t flight = event_at(world, 0)->ticket;
    flight_arm(&world->serve, table_at(&world->serve.flights, flight), 1000, sent_ns, true);
    fill(world, flight, "$1\r\nv\r\n");
    chain_clear(&world->a.out, &world->serve.blocks);
    world->serve.now_ms += 699;
    ask(world, &world->a, "GET k\r\n");
    EXPECT(says(world, &world->a, "$1\r\nv\r\n"));
    world->serve.now_ms += 1;
    ask(world, &world->a, "GET k\r\n");
    EXPECT(world->serve.event_count == 2);
    world_end(world);
}

static uint64_t counted(const struct world *world, uint16_t command, fp_outcome outcome) {
    return world->serve.calls[command].outcomes[outcome];
}

static uint16_t row_of(struct world *world, const char *name) {
    uint16_t row = 0;
    while (strcmp(commands_row(world->serve.commands, row)->name, name) != 0) row++;
    return row;
}

TEST("commands are counted by name and by how they were answered") {
    struct world *world = world_make();
    have(world, "GET k\r\n", "$1\r\nv\r\n");
    ask(world, &world->a, "GET k\r\n");
    ask(world, &world->a, "PING\r\n");
    ask(world, &world->a, "HGET k f\r\n");
    answer(world, event_at(world, 0)->ticket, "-WRONGTYPE\r\n");
    EXPECT(counted(world, COMMAND_ID_GET, FP_OUTCOME_MISS) == 1 && counted(world, COMMAND_ID_GET, FP_OUTCOME_HIT) == 1);
    EXPECT(counted(world, COMMAND_ID_PING, FP_OUTCOME_LOCAL) == 1);
    EXPECT(counted(world, row_of(world, "hget"), FP_OUTCOME_ERROR) == 1);
    world_end(world);
}

TEST("rule 5: a command that may read or write what it does not name stands before every read of its client") {
    static const char *const commands[] = {
        "EVAL script 0\r\n",   "EVAL_RO script 0\r\n",       "EVALSHA_RO sha 1 l\r\n", "FCALL_RO function 1 l\r\n",
        "SORT_RO l GET *\r\n", "SORT l BY nosort GET *\r\n", "SORT l STORE m\r\n",     "DBSIZE\r\n"};
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        struct world *world = world_make();
        have(world, "GET k\r\n", "$1\r\nv\r\n");
        world->a.protocol = 3;
        ask(world, &world->a, commands[i]);
        ask(world, &world->a, "GET k\r\n");
        EXPECT(world->serve.event_count == 2 && event_at(world, 1)->kind == FP_EVENT_MISS);
        world_end(world);
    }
}

TEST("a client changes lane only when nothing of its own is in flight") {
    struct world *world = world_make();
    ask(world, &world->a, "GET k\r\n");
    EXPECT(ask(world, &world->a, "XPENDING s g\r\n") == DISPATCH_STALL);
    EXPECT(world->a.stall == STALL_LANE);
    fill(world, event_at(world, 0)->ticket, "_\r\n");
    EXPECT(world->serve.runnable == &world->a);
    EXPECT(ask(world, &world->a, "XPENDING s g\r\n") == DISPATCH_DONE);
    EXPECT(event_at(world, 1)->lane == FP_LANE_RESP2);
    world_end(world);
}

TEST("a write on another link than the tracked one drops its keys again when answered") {
    struct world *world = world_make();
    world->a.lane = FP_LANE_PINNED;
    ask(world, &world->a, "SET k new\r\n");
    have(world, "GET k\r\n", "$3\r\nold\r\n"); /* read on the tracked link before the write ran on the pinned one */
    answer(world, event_at(world, 0)->ticket, "+OK\r\n");
    world->serve.event_count = 0;
    ask(world, &world->b, "GET k\r\n");
    EXPECT(event_at(world, 0)->kind == FP_EVENT_MISS);
    world_end(world);
}

TEST("MIGRATE, too, though it names keys") {
    struct world *world = world_make();
    world->a.lane = FP_LANE_PINNED;
    ask(world, &world->a, "MIGRATE host 6379 k 0 100\r\n");
    have(world, "GET k\r\n", "$3\r\nold\r\n");
    answer(world, event_at(world, 0)->ticket, "+OK\r\n");
    world->serve.event_count = 0;
    ask(world, &world->b, "GET k\r\n");
    EXPECT(event_at(world, 0)->kind == FP_EVENT_MISS);
    world_end(world);
}

TEST("commands queued in MULTI drop their keys again when EXEC has answered") {
    struct world *world = world_make();
    world->a.lane = FP_LANE_PINNED;
    ask(world, &world->a, "MULTI\r\n");
    ask(world, &world->a, "SET k new\r\n");
    ask(world, &world->a, "SET l new\r\n");
    answer(world, event_at(world, 0)->ticket, "+OK\r\n");
    answer(world, event_at(world, 1)->ticket, "+QUEUED\r\n");
    answer(world, event_at(world, 2)->ticket, "+QUEUED\r\n");
    world->serve.event_count = 0;
    ask(world, &world->a, "EXEC\r\n");
    uint64_t exec = event_at(world, 0)->ticket;
    have(world, "GET k\r\n", "$3\r\nold\r\n");
    have(world, "GET l\r\n", "$3\r\nold\r\n");
    answer(world, exec, "*2\r\n+OK\r\n+OK\r\n");
    world->serve.event_count = 0;
    ask(world, &world->b, "GET k\r\n");
    ask(world, &world->b, "GET l\r\n");
    EXPECT(world->serve.event_count == 2);
    world_end(world);
}

TEST("EXEC behind what we have refused carries out nothing: a DISCARD travels, and the reply is as Redis' own") {
    static const char aborted[] = "-EXECABORT Transaction discarded because of previous errors.\r\n";
    struct world *world = world_make();
    world->a.lane = FP_LANE_PINNED;
    for (int round = 0; round < 2; round++) {
        world->serve.event_count = 0;
        ask(world, &world->a, "MULTI\r\n");
        ask(world, &world->a, "SET k new\r\n");
        if (round == 0) ask(world, &world->a, "SHUTDOWN\r\n");
        ask(world, &world->a, "EXEC\r\n");
        EXPECT(world->serve.event_count == 3);
        fp_event *exec = event_at(world, 2);
        EXPECT((strstr((const char *)exec->bytes, "DISCARD") != NULL) == (round == 0));
        answer(world, event_at(world, 0)->ticket, "+OK\r\n");
        answer(world, event_at(world, 1)->ticket, "+QUEUED\r\n");
        EXPECT(says(world, &world->a,
                    round == 0
                        ? "+OK\r\n+QUEUED\r\n-ERR 'shutdown' is refused by the sidecar: set allow_admin = true to "
                          "pass it to the upstream\r\n"
                        : "+OK\r\n+QUEUED\r\n"));
        answer(world, exec->ticket, round == 0 ? "+OK\r\n" : "*1\r\n+OK\r\n");
        EXPECT(says(world, &world->a, round == 0 ? aborted : "*1\r\n+OK\r\n"));
    }
    world_end(world);
}

TEST("MGET is served from the store only if all its keys hit, else asked whole and filled") {
    struct world *world = world_make();
    have(world, "GET a\r\n", "$1\r\n1\r\n");
    ask(world, &world->a, "*3\r\n$4\r\nMGET\r\n$1\r\na\r\n$1\r\nb\r\n");
    EXPECT(world->serve.event_count == 3);
    EXPECT(event_at(world, 0)->kind == FP_EVENT_MGET_KEY && event_at(world, 1)->kind == FP_EVENT_MGET_KEY);
    EXPECT(event_at(world, 2)->kind == FP_EVENT_MGET);
    arm(world, event_at(world, 0)->ticket);
    arm(world, event_at(world, 1)->ticket);
    const char *reply = "*2\r\n$1\r\n1\r\n$1\r\n2\r\n";
    EXPECT(event_at(world, 2)->ticket == event_at(world, 0)->ticket);
    fill(world, event_at(world, 2)->ticket, reply);
    EXPECT(says(world, &world->a, reply));
    ask(world, &world->a, "*3\r\n$4\r\nMGET\r\n$1\r\nb\r\n$1\r\na\r\n");
    EXPECT(says(world, &world->a, "*2\r\n$1\r\n2\r\n$1\r\n1\r\n"));
    EXPECT(world->serve.event_count == 3);
    world_end(world);
}

TEST("entries of another epoch are fetched again, but served while the upstream is unreachable") {
    struct world *world = world_make();
    have(world, "GET k\r\n", "$1\r\nv\r\n");
    world->serve.trusted = false;
    ask(world, &world->a, "GET k\r\n");
    EXPECT(world->serve.event_count == 1);
    fill(world, event_at(world, 0)->ticket, "-ERR lost\r\n");
    world->serve.trusted = true;
    have(world, "GET k\r\n", "$1\r\nv\r\n");
    world->serve.trusted = false;
    world->serve.serve_suspect = true;
    chain_clear(&world->a.out, &world->serve.blocks);
    ask(world, &world->a, "GET k\r\n");
    EXPECT(says(world, &world->a, "$1\r\nv\r\n"));
    world_end(world);
}

TEST("rule 6: while entries are suspect, what another command reads of a key takes its copy along") {
    struct world *world = world_make();
    have(world, "GET k\r\n", "$1\r\n1\r\n");
    world->serve.trusted = false;
    world->serve.serve_suspect = true;
    ask(world, &world->a, "GETRANGE k 0 -1\r\n");
    ask(world, &world->b, "GET k\r\n");
    EXPECT(says(world, &world->b, "$1\r\n1\r\n"));
    answer(world, event_at(world, 0)->ticket, "$1\r\n2\r\n");
    ask(world, &world->b, "GET k\r\n");
    EXPECT(event_at(world, 1)->kind == FP_EVENT_MISS);
    world_end(world);
}

TEST("rule 6: a copy of an earlier epoch is not served behind a read that the present one answered") {
    struct world *world = world_make();
    have(world, "GET k\r\n", "$1\r\n1\r\n");
    have(world, "GET other\r\n", "$1\r\n1\r\n");
    world->serve.epoch++;
    world->serve.has_others = true;
    have(world, "GET new\r\n", "$1\r\n1\r\n");
    ask(world, &world->a, "GETRANGE k 0 -1\r\n");
    ask(world, &world->a, "GETRANGE new 0 -1\r\n");
    answer(world, event_at(world, 0)->ticket, "$1\r\n2\r\n");
    answer(world, event_at(world, 1)->ticket, "$1\r\n1\r\n");
    world->serve.trusted = false;
    world->serve.serve_suspect = true;
    ask(world, &world->b, "GET k\r\n");
    EXPECT(event_at(world, 2)->kind == FP_EVENT_MISS);
    ask(world, &world->a, "GET other\r\n");
    ask(world, &world->a, "GET new\r\n");
    EXPECT(world->serve.event_count == 3);
    world_end(world);
}

/* Three copies: of an epoch that is over, of this one, and of this one after SORT. */
static void sort_among_suspects(struct world *world, const char *const *commands, uint32_t count) {
    have(world, "GET old\r\n", "$1\r\n1\r\n");
    world->serve.epoch++;
    world->serve.has_others = true;
    have(world, "GET k\r\n", "$1\r\n1\r\n");
    for (uint32_t i = 0; i < count; i++) ask(world, &world->a, commands[i]);
    for (uint32_t i = 0; i < count; i++) answer(world, event_at(world, i)->ticket, "*1\r\n$1\r\n2\r\n");
    world->serve.event_count = 0;
    have(world, "GET new\r\n", "$1\r\n1\r\n");
}

TEST("rule 6: what SORT has read of keys it does not name takes all suspect copies along, and only those") {
    static const char *const sort[] = {"SORT l BY nosort GET *\r\n"};
    static const char *const queued[] = {"MULTI\r\n", "SORT_RO l GET *\r\n", "EXEC\r\n"};
    for (int transaction = 0; transaction < 2; transaction++) {
        struct world *world = world_make();
        if (transaction) world->a.lane = FP_LANE_PINNED;
        sort_among_suspects(world, transaction ? queued : sort, transaction ? 3 : 1);
        world->serve.trusted = false;
        world->serve.serve_suspect = true;
        ask(world, &world->b, "GET k\r\n");
        ask(world, &world->b, "GET new\r\n");
        EXPECT(world->serve.event_count == 0);
        ask(world, &world->b, "GET old\r\n");
        EXPECT(event_at(world, 0)->kind == FP_EVENT_MISS);
        world_end(world);
    }
}

TEST("rule 6: while the epoch is suspended its own copies are suspect as well") {
    struct world *world = world_make();
    have(world, "GET k\r\n", "$1\r\n1\r\n");
    world->serve.trusted = false;
    world->serve.serve_suspect = true;
    ask(world, &world->a, "SORT_RO l GET *\r\n");
    ask(world, &world->b, "GET k\r\n");
    EXPECT(says(world, &world->b, "$1\r\n1\r\n"));
    answer(world, event_at(world, 0)->ticket, "*1\r\n$1\r\n2\r\n");
    ask(world, &world->b, "GET k\r\n");
    EXPECT(event_at(world, 1)->kind == FP_EVENT_MISS);
    world_end(world);
}

TEST("rule 6: a read on another link takes the copy along when the tracked one is lost before its fence has passed") {
    struct world *world = world_make();
    have(world, "GET k\r\n", "$1\r\n1\r\n");
    world->a.lane = FP_LANE_PINNED;
    ask(world, &world->a, "GET k\r\n");
    answer_behind(world, event_at(world, 0)->ticket, "$1\r\n2\r\n", 1);
    ask(world, &world->b, "GET k\r\n");
    EXPECT(says(world, &world->b, "$1\r\n1\r\n"));
    world->serve.trusted = false;
    world->serve.serve_suspect = true;
    fence_passed(&world->serve, UINT64_MAX);
    EXPECT(says(world, &world->a, "$1\r\n2\r\n"));
    ask(world, &world->b, "GET k\r\n");
    EXPECT(event_at(world, 1)->kind == FP_EVENT_MISS);
    world_end(world);
}

TEST("what cannot be sent is refused at once and drops nothing; the store goes on answering") {
    struct world *world = world_make();
    have(world, "GET k\r\n", "$1\r\n1\r\n");
    buffer_append(&world->serve.refusal, &world->budget, BUDGET_SLOTS, "-ERR gone\r\n", 11);
    ask(world, &world->a, "SET k 2\r\n");
    ask(world, &world->a, "FLUSHALL\r\n");
    ask(world, &world->a, "GET k\r\n");
    EXPECT(says(world, &world->a, "-ERR gone\r\n-ERR gone\r\n$1\r\n1\r\n"));
    EXPECT(world->serve.event_count == 0);
    ask(world, &world->a, "INFO\r\n"); /* ours is known all the same */
    EXPECT(event_at(world, 0)->kind == FP_EVENT_ASK);
    world_end(world);
}

TEST("a GET for which there is no memory leaves no flight that others would join and wait for") {
    struct world *world = world_make();
    /* A flight's record is there, a slot's is not. */
    have(world, "GET k\r\n", "$1\r\n1\r\n");
    push(world, "k");
    struct slot *taken = table_take(&world->serve.slots);
    size_t total = world->budget.total;
    world->budget.total = world->budget.used;
    uint32_t spare = world->serve.slots.touched - world->serve.slots.used;
    world->serve.slots.used += spare;
    EXPECT(ask(world, &world->a, "GET k\r\n") == DISPATCH_CLOSE);
    world->serve.slots.used -= spare;
    world->budget.total = total;
    EXPECT(world->serve.flights.live == 0);
    ask(world, &world->b, "GET k\r\n");
    EXPECT(event_at(world, 0)->kind == FP_EVENT_MISS);
    table_give(&world->serve.slots, taken);
    world_end(world);
}

TEST("unread replies and messages beyond the bound end the client at once") {
    struct world *world = world_make();
    world->serve.out_bytes_max = 10;
    ask(world, &world->a, "HGET h f\r\n");
    slot_answer_more(&world->serve, table_at(&world->serve.slots, event_at(world, 0)->ticket),
                     (const uint8_t *)"$12\r\n123456789012\r\n", 19, false);
    EXPECT(world->a.closing && world->a.out.bytes == 0 && world->a.slot_count == 0);
    EXPECT(world->serve.stats.clients_starved == 1);
    world_end(world);
}

/* SET of a value for which memory is short. */
static void ask_too_much(struct world *world, struct session *session) {
    size_t large = 1 << 20, total = world->budget.total;
    char *request = malloc(large + 1);
    memset(request, 'x', large);
    memcpy(request, "SET k ", 6);
    memcpy(request + large - 2, "\r\n", 3);
    world->budget.total = world->budget.used + (512 << 10);
    struct resp_arg args[3] = {{(uint8_t *)request, 3}, {(uint8_t *)request + 4, 1}, {(uint8_t *)request + 6, 9}};
    struct resp_arg *scratch = world->serve.args.args;
    world->serve.args.args = args;
    world->serve.args.count = 3;
    world->serve.request_bytes = 0;
    EXPECT(dispatch(&world->serve, session, (const uint8_t *)request, large) == DISPATCH_DONE);
    world->serve.args.args = scratch;
    world->budget.total = total;
    free(request);
}

TEST("a request that waits for room in the batch is not lost, and what memory cannot hold is refused by itself") {
    static const char spent[] = "-ERR local_memory is spent: the request cannot be held\r\n";
    struct world *world = world_make();
    world->serve.request_bytes = SERVE_REQUEST_BYTES;
    EXPECT(ask(world, &world->a, "SET k 1\r\n") == DISPATCH_STALL);
    EXPECT(world->a.stall == STALL_EVENTS && world->a.is_runnable);
    world->serve.request_bytes = 0;
    EXPECT(ask(world, &world->a, "SET k 1\r\n") == DISPATCH_DONE);
    EXPECT(world->serve.request_bytes == 9);
    ask_too_much(world, &world->b);
    EXPECT(world->serve.event_count == 1);
    EXPECT(says(world, &world->b, spent));
    world->b.lane = FP_LANE_PINNED;
    ask_too_much(world, &world->b);
    EXPECT(says(world, &world->b, spent));
    ask(world, &world->b, "MULTI\r\n");
    ask_too_much(world, &world->b);
    ask(world, &world->b, "EXEC\r\n");
    EXPECT(world->serve.event_count == 3 && strstr((const char *)event_at(world, 2)->bytes, "DISCARD"));
    world_end(world);
}

TEST("CLIENT REPLY OFF: what a silent write drops is dropped again when what was sent behind it is answered") {
    struct world *world = world_make();
    world->a.lane = FP_LANE_PINNED;
    ask(world, &world->a, "SET k 2\r\n");
    answer(world, event_at(world, 0)->ticket, "");
    have(world, "GET k\r\n", "$1\r\n1\r\n"); /* on another link, before the write */
    ask(world, &world->b, "GET k\r\n");
    EXPECT(says(world, &world->b, "$1\r\n1\r\n"));
    session_mark_silent(&world->a);
    ask(world, &world->a, "SET other 2\r\n");
    answer(world, event_at(world, 1)->ticket, "");
    have(world, "GET other\r\n", "$1\r\n1\r\n");
    session_settle_silent(&world->serve, &world->a);
    ask(world, &world->b, "GET k\r\n");
    EXPECT(event_at(world, 2)->kind == FP_EVENT_MISS);
    /* That one came behind the mark: its outcome is still not known. */
    EXPECT(world->a.silent_writes.length);
    session_drop_unresolved(&world->serve, &world->a);
    ask(world, &world->b, "GET other\r\n");
    EXPECT(event_at(world, 3)->kind == FP_EVENT_MISS);
    session_mark_silent(&world->a);
    session_settle_silent(&world->serve, &world->a);
    EXPECT(!world->a.silent_writes.length);
    world_end(world);
}

TEST("CLIENT REPLY OFF: what is answered behind a silent write drops its key before its client hears of it") {
    struct world *world = world_make();
    world->a.lane = FP_LANE_PINNED;
    ask(world, &world->a, "SET k 2\r\n");
    answer(world, event_at(world, 0)->ticket, "");
    have(world, "GET k\r\n", "$1\r\n1\r\n"); /* on another link, before the write */
    ask(world, &world->a, "PING\r\n");
    answer(world, event_at(world, 1)->ticket, "+PONG\r\n");
    EXPECT(says(world, &world->a, "+PONG\r\n"));
    ask(world, &world->b, "GET k\r\n");
    EXPECT(event_at(world, 2)->kind == FP_EVENT_MISS);
    world_end(world);
}

TEST("CLIENT REPLY OFF: what is answered settles the silent writes in front of it, and no others") {
    struct world *world = world_make();
    world->a.lane = FP_LANE_PINNED;
    ask(world, &world->a, "SET k 2\r\n");
    ask(world, &world->a, "PING\r\n");
    ask(world, &world->a, "SET other 2\r\n");
    ask(world, &world->a, "PING\r\n");
    answer(world, event_at(world, 0)->ticket, "");
    answer(world, event_at(world, 2)->ticket, "");
    answer(world, event_at(world, 1)->ticket, "+PONG\r\n");
    have(world, "GET other\r\n", "$1\r\n1\r\n");
    EXPECT(world->a.silent_writes.length);
    answer(world, event_at(world, 3)->ticket, "+PONG\r\n");
    EXPECT(!world->a.silent_writes.length);
    uint32_t before = world->serve.event_count;
    ask(world, &world->b, "GET other\r\n");
    EXPECT(world->serve.event_count == before + 1);
    world_end(world);
}

TEST("CLIENT REPLY OFF: what drops everything does so again when something behind it is answered, and then no more") {
    struct world *world = world_make();
    world->a.lane = FP_LANE_PINNED;
    ask(world, &world->a, "FLUSHALL\r\n");
    answer(world, event_at(world, 0)->ticket, "");
    have(world, "GET k\r\n", "$1\r\n1\r\n");
    ask(world, &world->a, "PING\r\n");
    answer(world, event_at(world, 1)->ticket, "+PONG\r\n");
    ask(world, &world->b, "GET k\r\n");
    EXPECT(event_at(world, 2)->kind == FP_EVENT_MISS && !world->a.silent_all);
    world_end(world);
}

TEST("CLIENT REPLY behind a MULTI waits for its answer, which tells whether it is queued or carried out") {
    struct world *world = world_make();
    world->a.lane = FP_LANE_PINNED;
    ask(world, &world->a, "MULTI\r\n");
    EXPECT(ask(world, &world->a, "CLIENT REPLY OFF\r\n") == DISPATCH_STALL && world->a.stall == STALL_LANE);
    answer(world, event_at(world, 0)->ticket, "-NOPERM\r\n");
    EXPECT(ask(world, &world->a, "CLIENT REPLY OFF\r\n") == DISPATCH_DONE);
    world_end(world);
}

TEST("CLIENT REPLY OFF: a silent read drops nothing") {
    struct world *world = world_make();
    have(world, "GET k\r\n", "$1\r\n1\r\n");
    world->a.lane = FP_LANE_PINNED;
    ask(world, &world->a, "GET k\r\n");
    answer(world, event_at(world, 0)->ticket, "");
    session_mark_silent(&world->a);
    session_settle_silent(&world->serve, &world->a);
    ask(world, &world->b, "GET k\r\n");
    EXPECT(says(world, &world->b, "$1\r\n1\r\n"));
    world_end(world);
}

TEST("an MGET waits for the client's own answers rather than fill the table of flights") {
    struct world *world = world_make();
    world->budget.total = 40u << 20;
    char line[1024] = "MGET";
    for (int i = 0; i < 100; i++) sprintf(line + strlen(line), " k%d", i);
    strcat(line, "\r\n");
    enum dispatched done = DISPATCH_DONE;
    int asked = 0;
    for (; done == DISPATCH_DONE && asked < 100; asked++) done = ask(world, &world->a, line);
    EXPECT(done == DISPATCH_STALL && world->a.stall == STALL_SLOTS && asked > 5);
    world_end(world);
}

TEST("a client that leaves takes itself off the flights it waited for") {
    struct world *world = world_make();
    ask(world, &world->a, "GET k\r\n");
    ask(world, &world->b, "GET k\r\n");
    ask(world, &world->a, "*3\r\n$4\r\nMGET\r\n$1\r\nx\r\n$1\r\ny\r\n");
    session_close(&world->serve, &world->a);
    fill(world, event_at(world, 0)->ticket, "$1\r\nv\r\n");
    EXPECT(says(world, &world->b, "$1\r\nv\r\n"));
    fill(world, event_at(world, 3)->ticket, "*2\r\n$-1\r\n$-1\r\n");
    EXPECT(world->serve.flights.live == 0 && world->serve.slots.live == 0);
    world_end(world);
}

TEST("who comes after read_timeout joins no fetch from before: when a pause ends it may still be in the air") {
    struct world *world = world_make();
    world->serve.join_ms = 30;
    ask(world, &world->a, "GET k\r\n");
    world->serve.now_ns += 30 * NS_PER_MS - 1;
    ask(world, &world->b, "GET k\r\n");
    EXPECT(world->serve.event_count == 1);
    world->serve.now_ns++;
    ask(world, &world->b, "GET k\r\n");
    EXPECT(world->serve.event_count == 2 && event_at(world, 1)->kind == FP_EVENT_MISS);
    world_end(world);
}

TEST("a late reply after a timeout is stored but answers nobody") {
    struct world *world = world_make();
    ask(world, &world->a, "GET k\r\n");
    uint64_t flight = event_at(world, 0)->ticket;
    flight_fail(&world->serve, table_at(&world->serve.flights, flight), (const uint8_t *)"-ERR late\r\n", 11, false);
    EXPECT(says(world, &world->a, "-ERR late\r\n"));
    arm(world, flight);
    fill(world, flight, "$1\r\nv\r\n");
    EXPECT(says(world, &world->a, ""));
    ask(world, &world->a, "GET k\r\n");
    EXPECT(says(world, &world->a, "$1\r\nv\r\n"));
    world_end(world);
}

TEST("an MGET that timed out still fills what its late reply brings") {
    struct world *world = world_make();
    ask(world, &world->a, "MGET a b\r\n");
    uint64_t leader = event_at(world, 2)->ticket;
    flight_fail(&world->serve, table_at(&world->serve.flights, leader), (const uint8_t *)"-ERR late\r\n", 11, false);
    EXPECT(says(world, &world->a, "-ERR late\r\n"));
    arm(world, event_at(world, 0)->ticket);
    arm(world, event_at(world, 1)->ticket);
    fill(world, leader, "*2\r\n$1\r\n1\r\n$1\r\n2\r\n");
    EXPECT(says(world, &world->a, ""));
    ask(world, &world->a, "MGET b a\r\n");
    EXPECT(says(world, &world->a, "*2\r\n$1\r\n2\r\n$1\r\n1\r\n"));
    EXPECT(world->serve.flights.live == 0);
    world_end(world);
}

TEST("an MGET whose flights are failed before its own answer comes is answered once and leaves nothing") {
    struct world *world = world_make();
    ask(world, &world->a, "*3\r\n$4\r\nMGET\r\n$1\r\na\r\n$1\r\nb\r\n");
    const char *error = "-ERR unreachable\r\n";
    for (uint32_t i = 2; i-- > 0;)
        flight_fail(&world->serve, table_at(&world->serve.flights, event_at(world, i)->ticket), (const uint8_t *)error,
                    strlen(error), true);
    EXPECT(table_at(&world->serve.flights, event_at(world, 2)->ticket) == NULL);
    EXPECT(says(world, &world->a, error));
    EXPECT(world->serve.flights.live == 0 && world->serve.slots.live == 0);
    world_end(world);
}

TEST("what makes everything untrue spoils and closes the flights in the air, and only those") {
    struct world *world = world_make();
    ask(world, &world->a, "GET k\r\n");
    uint64_t before = event_at(world, 0)->ticket;
    arm(world, before);
    ask(world, &world->b, "FLUSHALL\r\n");
    ask(world, &world->a, "GET k\r\n");
    EXPECT(world->serve.event_count == 3 && event_at(world, 2)->kind == FP_EVENT_MISS);
    fill(world, before, "$3\r\nold\r\n");
    EXPECT(world->serve.stats.fills == 0);
    arm(world, event_at(world, 2)->ticket);
    fill(world, event_at(world, 2)->ticket, "$3\r\nnew\r\n");
    EXPECT(world->serve.stats.fills == 1);
    world_end(world);
}

/* jemalloc's, where it is linked: the package's build links it, a sanitizer's has an allocator of its own. */
extern int mallctl(const char *name, void *old, size_t *old_length, void *new, size_t new_length) __attribute__((weak));

/* Bytes this thread has ever allocated. */
static uint64_t allocated(void) {
    uint64_t bytes = 0;
    size_t length = sizeof bytes;
    if (mallctl) EXPECT(mallctl("thread.allocated", &bytes, &length, NULL, 0) == 0);
    return bytes;
}

TEST("neither a hit nor a miss of a short key allocates") {
    struct world *world = world_make();
    have(world, "GET k\r\n", "$1\r\nv\r\n");
    uint64_t before = allocated();
    for (int i = 0; i < 1000; i++) {
        ask(world, &world->a, "GET k\r\n");
        chain_clear(&world->a.out, &world->serve.blocks);
    }
    EXPECT(allocated() == before);
    have(world, "GET other\r\n", "$1\r\nv\r\n");
    before = allocated();
    for (int i = 0; i < 1000; i++) {
        push(world, "k");
        have(world, "GET k\r\n", "$1\r\nv\r\n");
    }
    EXPECT(allocated() == before);
    world_end(world);
}

/* ---- the fence ---- */

TEST("what has come by another link is delivered when its fence has passed, and all behind it then") {
    struct world *world = world_make();
    ask(world, &world->a, "EVAL x 0\r\n");
    ask(world, &world->a, "PING\r\n");
    ask(world, &world->b, "EVAL x 0\r\n");
    answer_behind(world, event_at(world, 0)->ticket, ":1\r\n", 1);
    answer_behind(world, event_at(world, 1)->ticket, ":2\r\n", 2);
    EXPECT(says(world, &world->a, "") && says(world, &world->b, ""));
    fence_passed(&world->serve, 1);
    EXPECT(says(world, &world->a, ":1\r\n+PONG\r\n") && says(world, &world->b, ""));
    fence_passed(&world->serve, 2);
    EXPECT(says(world, &world->b, ":2\r\n"));
    EXPECT(!world->serve.fenced.first && !world->serve.fenced.last && world->a.held_bytes == 0);
    world_end(world);
}

TEST("a lower fence passes first, whichever was given first") {
    struct world *world = world_make();
    ask(world, &world->a, "EVAL x 0\r\n");
    ask(world, &world->b, "EVAL x 0\r\n");
    answer_behind(world, event_at(world, 0)->ticket, ":1\r\n", 8);
    answer_behind(world, event_at(world, 1)->ticket, ":2\r\n", 6);
    fence_passed(&world->serve, 6);
    EXPECT(says(world, &world->a, "") && says(world, &world->b, ":2\r\n"));
    fence_passed(&world->serve, 9);
    EXPECT(says(world, &world->a, ":1\r\n"));
    world_end(world);
}

TEST("a message stands behind what came before it and in front of what has not come, each behind its own fence") {
    struct world *world = world_make();
    ask(world, &world->a, "EVAL x 0\r\n");
    ask(world, &world->a, "EVAL y 0\r\n");
    answer_behind(world, event_at(world, 0)->ticket, ":1\r\n", 1);
    tell(world, &world->a, "+m1\r\n", 1);
    tell(world, &world->a, "+m2\r\n", 1);
    tell(world, &world->a, "+m3\r\n", 2);
    EXPECT(world->serve.slots.live == 4);
    fence_passed(&world->serve, 1);
    EXPECT(says(world, &world->a, ":1\r\n+m1\r\n+m2\r\n"));
    answer_behind(world, event_at(world, 1)->ticket, ":2\r\n", 3);
    tell(world, &world->a, "+m4\r\n", 0);
    EXPECT(says(world, &world->a, ""));
    fence_passed(&world->serve, 2);
    EXPECT(says(world, &world->a, "+m3\r\n"));
    fence_passed(&world->serve, 3);
    EXPECT(says(world, &world->a, ":2\r\n+m4\r\n"));
    EXPECT(world->a.held_bytes == 0 && world->serve.slots.live == 0);
    tell(world, &world->a, "+m5\r\n", 0);
    EXPECT(says(world, &world->a, "+m5\r\n"));
    world_end(world);
}

TEST("a client in the middle of a blocking command is told, though its command is unanswered") {
    struct world *world = world_make();
    ask(world, &world->a, "EVAL x 0\r\n");
    tell(world, &world->a, "+m\r\n", 1);
    fence_passed(&world->serve, 1);
    EXPECT(says(world, &world->a, "+m\r\n"));
    answer(world, event_at(world, 0)->ticket, ":1\r\n");
    EXPECT(says(world, &world->a, ":1\r\n"));
    world_end(world);
}

TEST("several replies of one command wait together") {
    struct world *world = world_make();
    ask(world, &world->a, "EVAL x 0\r\n");
    struct slot *slot = table_at(&world->serve.slots, event_at(world, 0)->ticket);
    slot_answer_more(&world->serve, slot, (const uint8_t *)":1\r\n", 4, true);
    EXPECT(says(world, &world->a, ""));
    answer_behind(world, event_at(world, 0)->ticket, ":2\r\n", 1);
    EXPECT(says(world, &world->a, ""));
    fence_passed(&world->serve, 1);
    EXPECT(says(world, &world->a, ":1\r\n:2\r\n"));
    world_end(world);
}

TEST("a session that ends keeps what has come for it, and forgets what has not") {
    struct world *world = world_make();
    ask(world, &world->a, "EVAL x 0\r\n");
    ask(world, &world->a, "EVAL y 0\r\n");
    answer_behind(world, event_at(world, 0)->ticket, ":1\r\n", 1);
    session_close(&world->serve, &world->a);
    EXPECT(world->a.closing && world->a.slot_count == 1);
    fence_passed(&world->serve, 1);
    EXPECT(says(world, &world->a, ":1\r\n") && world->a.slot_count == 0);
    world_end(world);
}

TEST("a client that goes leaves no fence behind, and one that reads nothing is ended with what waits") {
    struct world *world = world_make();
    ask(world, &world->a, "EVAL x 0\r\n");
    answer_behind(world, event_at(world, 0)->ticket, ":1\r\n", 1);
    world->serve.out_bytes_max = 10;
    tell(world, &world->a, "+a message that is too long\r\n", 1);
    EXPECT(world->a.closing && world->a.slot_count == 0 && !world->serve.fenced.first);
    tell(world, &world->b, "+m\r\n", 1);
    EXPECT(world->serve.fenced.first);
    session_deinit(&world->serve, &world->b);
    EXPECT(!world->serve.fenced.first);
    session_init(&world->b, 2);
    fence_passed(&world->serve, 1);
    world_end(world);
}

TEST("rule 5 holds until a reply is delivered: a read behind a script whose pushes are still to come goes upstream") {
    struct world *world = world_make();
    have(world, "GET k\r\n", "$1\r\n1\r\n");
    ask(world, &world->a, "EVAL x 0\r\n");
    answer_behind(world, event_at(world, 0)->ticket, ":1\r\n", 1);
    ask(world, &world->a, "GET k\r\n");
    EXPECT(world->serve.event_count == 2 && event_at(world, 1)->kind == FP_EVENT_MISS);
    fence_passed(&world->serve, 1);
    fill(world, event_at(world, 1)->ticket, "$1\r\n2\r\n");
    EXPECT(says(world, &world->a, ":1\r\n$1\r\n2\r\n"));
    world_end(world);
}

TEST("rule 5: behind its own fetch that takes nobody any more a read goes upstream, whatever the store has") {
    for (int way = 0; way < 3; way++) {
        struct world *world = world_make();
        have(world, "GET k\r\n", "$3\r\nold\r\n");
        ask(world, &world->a, "STRLEN k\r\n");
        ask(world, &world->a, "GET k\r\n");
        answer(world, event_at(world, 0)->ticket, ":3\r\n"); /* the copy stays: nothing has announced a change */
        if (way == 0) world->serve.now_ns += world->serve.join_ms * NS_PER_MS;
        if (way == 1) flights_close_all(&world->serve);
        if (way == 2) flights_close(&world->serve, store_hash(world->serve.store, (const uint8_t *)"k", 1));
        ask(world, &world->a, "GET k\r\n");
        ask(world, &world->a, "MGET k k\r\n");
        EXPECT(event_at(world, 2)->kind == FP_EVENT_MISS && event_at(world, 3)->kind == FP_EVENT_MGET_KEY);
        ask(world, &world->b, "GET k\r\n"); /* for others it is still a hit */
        EXPECT(says(world, &world->b, "$3\r\nold\r\n"));
        fill(world, event_at(world, 1)->ticket, "$3\r\nnew\r\n");
        fill(world, event_at(world, 2)->ticket, "$3\r\nnew\r\n");
        fill(world, event_at(world, 3)->ticket, "*2\r\n$3\r\nnew\r\n$3\r\nnew\r\n");
        EXPECT(says(world, &world->a, ":3\r\n$3\r\nnew\r\n$3\r\nnew\r\n*2\r\n$3\r\nnew\r\n$3\r\nnew\r\n"));
        world_end(world);
    }
}

TEST("rule 2: only SWAPDB, which nothing announces, keeps fetches from being kept while it waits on another link") {
    struct world *world = world_make();
    world->a.lane = FP_LANE_PINNED;
    ask(world, &world->a, "FLUSHALL\r\n");
    have(world, "GET k\r\n", "$1\r\nv\r\n");
    EXPECT(world->serve.stats.fills == 1);
    ask(world, &world->a, "SWAPDB 0 1\r\n");
    uint32_t at = world->serve.event_count;
    have(world, "GET k\r\n", "$1\r\nv\r\n");
    EXPECT(world->serve.stats.fills == 1);
    answer(world, event_at(world, 0)->ticket, "+OK\r\n");
    answer(world, event_at(world, at - 1)->ticket, "+OK\r\n");
    EXPECT(world->serve.sweeps == 0);
    world_end(world);
}

/* ---- rules: what holds for which keys ---- */

static void set_rules(struct world *world, const fp_rule *rules, uint32_t count) {
    rules_set(&world->serve.rules, rules, count);
    store_keep_stale(world->serve.store, world->serve.rules.stale_ms_max);
}

static void pass_ms(struct world *world, uint64_t ms) {
    world->serve.now_ms += ms;
    world->serve.now_ns += ms * NS_PER_MS;
    store_tick(world->serve.store, world->serve.now_ms, 100000);
}

#define RULE(text) .pattern = (const uint8_t *)(text), .pattern_length = sizeof(text) - 1

TEST("rules: the first that matches says how long a copy is served, and whether there is one") {
    struct world *world = world_make();
    fp_rule rules[] = {
        {RULE("brief:*"), .ttl_ms = 100, .caches = true},
        {RULE("never:*"), .ttl_ms = 60000, .caches = false},
        {RULE("*"), .ttl_ms = 60000, .caches = true},
    };
    set_rules(world, rules, 3);
    have(world, "GET brief:1\r\n", "$1\r\n1\r\n");
    have(world, "GET never:1\r\n", "$1\r\n2\r\n");
    have(world, "GET other\r\n", "$1\r\n3\r\n");
    ask(world, &world->a, "GET brief:1\r\n");
    ask(world, &world->a, "GET other\r\n");
    EXPECT(says(world, &world->a, "$1\r\n1\r\n$1\r\n3\r\n"));
    EXPECT(world->serve.event_count == 0);
    ask(world, &world->a, "GET never:1\r\n");
    EXPECT(event_at(world, 0)->kind == FP_EVENT_MISS && event_at(world, 0)->uncached);
    fill(world, event_at(world, 0)->ticket, "$1\r\n2\r\n");
    EXPECT(says(world, &world->a, "$1\r\n2\r\n"));
    pass_ms(world, 100);
    ask(world, &world->a, "GET other\r\n");
    EXPECT(says(world, &world->a, "$1\r\n3\r\n"));
    ask(world, &world->a, "GET brief:1\r\n");
    EXPECT(world->serve.event_count == 2 && !event_at(world, 1)->uncached);
    world_end(world);
}

TEST("a fetch takes nobody for longer than its key's ttl") {
    struct world *world = world_make();
    fp_rule rules[] = {{RULE("brief"), .ttl_ms = 10, .caches = true}, {.ttl_ms = 60000, .caches = true}};
    set_rules(world, rules, 2);
    ask(world, &world->a, "GET brief\r\n");
    ask(world, &world->a, "GET other\r\n");
    pass_ms(world, 10);
    ask(world, &world->b, "GET brief\r\n");
    ask(world, &world->b, "GET other\r\n");
    EXPECT(world->serve.event_count == 3);
    world_end(world);
}

TEST("fills of one moment do not end in one, and none lives longer than its ttl") {
    struct world *world = world_make();
    fp_rule every = {.ttl_ms = 10000, .caches = true};
    set_rules(world, &every, 1);
    char get[100][32];
    for (int i = 0; i < 100; i++) {
        snprintf(get[i], sizeof get[i], "GET key%d\r\n", i);
        have(world, get[i], "$1\r\nv\r\n");
    }
    pass_ms(world, 9500);
    for (int i = 0; i < 100; i++) ask(world, &world->a, get[i]);
    uint32_t fetched = world->serve.event_count;
    EXPECT(fetched > 20 && fetched < 80);
    pass_ms(world, 500);
    for (int i = 0; i < 100; i++) ask(world, &world->b, get[i]);
    EXPECT(world->serve.event_count == 200 || world->serve.event_count == 100 + fetched);
    world_end(world);
}

TEST("a key that does not exist is kept as such, in both protocols, until it is announced or written") {
    struct world *world = world_make();
    ask(world, &world->a, "GET none\r\n");
    struct flight *flight = table_at(&world->serve.flights, event_at(world, 0)->ticket);
    flight_arm(&world->serve, flight, FP_TTL_MISSING, world->serve.now_ns, FP_KEEP_ANSWER);
    fill(world, event_at(world, 0)->ticket, "_\r\n");
    EXPECT(says(world, &world->a, "$-1\r\n"));
    world->b.protocol = 3;
    ask(world, &world->a, "GET none\r\n");
    ask(world, &world->b, "GET none\r\n");
    ask(world, &world->b, "MGET none none\r\n");
    EXPECT(says(world, &world->a, "$-1\r\n") && says(world, &world->b, "_\r\n*2\r\n_\r\n_\r\n"));
    EXPECT(world->serve.event_count == 1 && world->serve.stats.absent_served == 4);
    push(world, "none");
    ask(world, &world->a, "GET none\r\n");
    EXPECT(world->serve.event_count == 2);
    world_end(world);
}

TEST("a missing key is not kept without tracking, nor a value whose PTTL says that it is missing") {
    struct world *world = world_make();
    ask(world, &world->a, "GET none\r\n");
    struct flight *flight = table_at(&world->serve.flights, event_at(world, 0)->ticket);
    flight_arm(&world->serve, flight, FP_TTL_MISSING, world->serve.now_ns, FP_KEEP_VALUE);
    fill(world, event_at(world, 0)->ticket, "_\r\n");
    ask(world, &world->a, "GET none\r\n");
    flight = table_at(&world->serve.flights, event_at(world, 1)->ticket);
    flight_arm(&world->serve, flight, FP_TTL_MISSING, world->serve.now_ns, FP_KEEP_ANSWER);
    fill(world, event_at(world, 1)->ticket, "$1\r\nv\r\n");
    ask(world, &world->a, "GET none\r\n");
    EXPECT(world->serve.event_count == 3 && world->serve.stats.fills == 0);
    world_end(world);
}

TEST("an audit takes a value that has gone at the end of its own time for no stale one, and any other that is gone for "
     "one") {
    struct world *world = world_make();
    for (int expires = 1; expires >= 0; expires--) {
        world->serve.event_count = 0;
        ask(world, &world->a, "GET k\r\n");
        uint64_t flight = event_at(world, 0)->ticket;
        flight_arm(&world->serve, table_at(&world->serve.flights, flight), expires ? 20 : FP_TTL_NONE,
                   world->serve.now_ns, FP_KEEP_ANSWER);
        fill(world, flight, "$1\r\nv\r\n");
        read_audit(&world->serve, 1);
        ask(world, &world->a, "GET k\r\n");
        EXPECT(says(world, &world->a, "$1\r\nv\r\n$1\r\nv\r\n") && world->serve.event_count == 2);
        pass_ms(world, 30);
        fill(world, event_at(world, 1)->ticket, "$-1\r\n");
        EXPECT(world->serve.stats.audits_changed == 1 && world->serve.stats.audits_stale == (expires ? 0 : 1));
        read_audit(&world->serve, 0);
    }
    world_end(world);
}

TEST("each key that an MGET finds here is a hit to audit, and fetched again when its time is nearly over") {
    struct world *world = world_make();
    fp_rule every = {.ttl_ms = 1000, .caches = true};
    set_rules(world, &every, 1);
    have(world, "GET a\r\n", "$1\r\n1\r\n");
    have(world, "GET b\r\n", "$1\r\n2\r\n");
    world->serve.event_count = 0;
    read_audit(&world->serve, 1);
    ask(world, &world->a, "MGET a b a\r\n");
    EXPECT(says(world, &world->a, "*3\r\n$1\r\n1\r\n$1\r\n2\r\n$1\r\n1\r\n"));
    EXPECT(world->serve.event_count == 2); /* one at a time for a key */
    fill(world, event_at(world, 0)->ticket, "$1\r\n1\r\n");
    fill(world, event_at(world, 1)->ticket, "$5\r\nother\r\n");
    EXPECT(world->serve.stats.audits_same == 1 && world->serve.stats.audits_stale == 1);
    read_audit(&world->serve, 0);
    push(world, "a");
    push(world, "b");
    have(world, "GET a\r\n", "$1\r\n1\r\n");
    have(world, "GET b\r\n", "$1\r\n2\r\n");
    world->serve.fetch_ns = NS_PER_MS;
    world->serve.event_count = 0;
    for (int i = 0; i < 10000 && world->serve.event_count == 0; i++) {
        ask(world, &world->a, "MGET a b\r\n");
        if (i % 10 == 9) pass_ms(world, 1);
    }
    EXPECT(world->serve.stats.refreshes == 1);
    EXPECT(world->serve.stats.keyspace_misses == 4);
    EXPECT(event_at(world, 0)->kind == FP_EVENT_MISS);
    world_end(world);
}

static void time_out(struct world *world, uint64_t id) {
    struct flight *flight = table_at(&world->serve.flights, id);
    EXPECT(flight);
    if (flight) flight_fail(&world->serve, flight, (const uint8_t *)"-ERR late\r\n", 11, false);
}

TEST("a read that is not answered in time gets the copy past its ttl, and for stale_ms only") {
    struct world *world = world_make();
    fp_rule every = {.ttl_ms = 1000, .stale_ms = 5000, .caches = true};
    set_rules(world, &every, 1);
    have(world, "GET k\r\n", "$3\r\nold\r\n");
    pass_ms(world, 1000);
    ask(world, &world->a, "GET k\r\n");
    EXPECT(world->serve.event_count == 1);
    uint64_t flight = event_at(world, 0)->ticket;
    time_out(world, flight);
    EXPECT(says(world, &world->a, "$3\r\nold\r\n"));
    EXPECT(world->serve.stats.stale_served == 1);
    /* What comes late is kept, and fresh. */
    arm(world, flight);
    fill(world, flight, "$3\r\nnew\r\n");
    EXPECT(world->serve.stats.fills == 2);
    pass_ms(world, 5999);
    ask(world, &world->a, "GET k\r\n");
    time_out(world, event_at(world, 1)->ticket);
    EXPECT(says(world, &world->a, "-ERR late\r\n"));
    world_end(world);
}

TEST("a copy past its ttl answers for its own rule's stale_ms, though the store keeps it for another rule's") {
    struct world *world = world_make();
    fp_rule rules[] = {{.pattern = "k*", .pattern_length = 2, .ttl_ms = 1000, .stale_ms = 5000, .caches = true},
                       {.ttl_ms = 1000, .stale_ms = 60000, .caches = true}};
    set_rules(world, rules, 2);
    have(world, "GET k\r\n", "$1\r\n1\r\n");
    have(world, "GET other\r\n", "$1\r\n2\r\n");
    pass_ms(world, 6001);
    ask(world, &world->a, "GET k\r\n");
    time_out(world, event_at(world, 0)->ticket);
    EXPECT(says(world, &world->a, "-ERR late\r\n"));
    ask(world, &world->a, "GET other\r\n");
    time_out(world, event_at(world, 1)->ticket);
    EXPECT(says(world, &world->a, "$1\r\n2\r\n"));
    world_end(world);
}

TEST("an MGET that is not answered in time gets the copies of all its keys, or of none") {
    struct world *world = world_make();
    fp_rule every = {.ttl_ms = 1000, .stale_ms = 5000, .caches = true};
    set_rules(world, &every, 1);
    have(world, "GET a\r\n", "$1\r\n1\r\n");
    have(world, "GET b\r\n", "$1\r\n2\r\n");
    pass_ms(world, 1000);
    ask(world, &world->a, "MGET b a b\r\n");
    time_out(world, event_at(world, 3)->ticket);
    EXPECT(says(world, &world->a, "*3\r\n$1\r\n2\r\n$1\r\n1\r\n$1\r\n2\r\n"));
    EXPECT(world->serve.stats.stale_served == 3);
    /* A key without a copy; one that was announced as changed; one that the client's own command may have changed. */
    ask(world, &world->a, "MGET a c\r\n");
    time_out(world, event_at(world, 6)->ticket);
    EXPECT(says(world, &world->a, "-ERR late\r\n"));
    world->serve.event_count = 0;
    ask(world, &world->a, "STRLEN b\r\n");
    ask(world, &world->a, "MGET a b\r\n");
    time_out(world, event_at(world, 3)->ticket);
    answer(world, event_at(world, 0)->ticket, ":1\r\n");
    EXPECT(says(world, &world->a, ":1\r\n-ERR late\r\n"));
    ask(world, &world->b, "MGET a b\r\n");
    push(world, "b");
    time_out(world, event_at(world, 6)->ticket);
    EXPECT(says(world, &world->b, "-ERR late\r\n"));
    world_end(world);
}

TEST("no copy stands in for an answer when it is suspect, or behind the client's own command of its key") {
    struct world *world = world_make();
    fp_rule every = {.ttl_ms = 1000, .stale_ms = 5000, .caches = true};
    set_rules(world, &every, 1);
    have(world, "GET k\r\n", "$3\r\nold\r\n");
    ask(world, &world->a, "STRLEN k\r\n");
    ask(world, &world->a, "GET k\r\n");
    answer(world, event_at(world, 0)->ticket, ":3\r\n");
    time_out(world, event_at(world, 1)->ticket);
    EXPECT(says(world, &world->a, ":3\r\n-ERR late\r\n"));
    world->serve.trusted = false;
    pass_ms(world, world->serve.join_ms);
    ask(world, &world->b, "GET k\r\n");
    time_out(world, event_at(world, 2)->ticket);
    EXPECT(says(world, &world->b, "-ERR late\r\n"));
    /* Unreachable: it is all there is, past its ttl too. */
    world->serve.serve_suspect = true;
    pass_ms(world, 3000);
    ask(world, &world->b, "GET k\r\n");
    EXPECT(says(world, &world->b, "$3\r\nold\r\n") && world->serve.event_count == 3);
    pass_ms(world, 3000);
    ask(world, &world->b, "GET k\r\n");
    EXPECT(world->serve.event_count == 4);
    world_end(world);
}

TEST("a hot key is fetched again before its time is over, once, and its readers are answered meanwhile") {
    struct world *world = world_make();
    fp_rule every = {.ttl_ms = 1000, .caches = true};
    set_rules(world, &every, 1);
    world->serve.fetch_ns = NS_PER_MS;
    uint32_t early = 0;
    for (int round = 0; round < 20; round++) {
        world->serve.event_count = 0;
        push(world, "k");
        have(world, "GET k\r\n", "$1\r\nv\r\n");
        world->serve.fetch_ns = NS_PER_MS;
        for (int ms = 0; ms < 1000 && world->serve.event_count == 0; ms++) {
            for (int i = 0; i < 10 && world->serve.event_count == 0; i++) ask(world, &world->a, "GET k\r\n");
            if (world->serve.event_count) break;
            pass_ms(world, 1);
        }
        bool answered = world->a.first == NULL;
        early += answered;
        chain_clear(&world->a.out, &world->serve.blocks);
        uint64_t flight = event_at(world, 0)->ticket;
        for (int i = 0; i < 50 && answered; i++) ask(world, &world->a, "GET k\r\n");
        EXPECT(!answered || world->serve.event_count == 1);
        arm(world, flight);
        fill(world, flight, "$1\r\nv\r\n");
        chain_clear(&world->a.out, &world->serve.blocks);
    }
    EXPECT(early >= 18);
    EXPECT(world->serve.stats.refreshes == early);
    world_end(world);
}

/* Begins a prefetch, brings its value, and says whether it was kept. */
static bool is_kept_ahead(struct world *world, const char *name, bool asks) {
    struct store_key key = {.bytes = (const uint8_t *)name, .length = (uint32_t)strlen(name)};
    key.hash = store_hash(world->serve.store, key.bytes, key.length);
    uint32_t at = world->serve.event_count;
    if (!flight_send_ahead(&world->serve, &key)) return false;
    flights_announce(&world->serve);
    if (asks) ask(world, &world->a, "GET asked\r\n");
    /* Meanwhile others have taken what was free. */
    size_t taken = world->budget.total - world->budget.used - world->budget.total / 100;
    EXPECT(budget_take(&world->budget, BUDGET_SLABS, taken));
    arm(world, event_at(world, at)->ticket);
    fill(world, event_at(world, at)->ticket, "$1\r\nv\r\n");
    budget_give(&world->budget, BUDGET_SLABS, taken);
    struct store_value value;
    return store_get(world->serve.store, &key, world->serve.now_ms, &value) == STORE_HIT;
}

TEST("what was fetched ahead takes nobody's place when it comes, unless a client has asked for it meanwhile") {
    struct world *world = world_make();
    world->serve.ahead.bytes_max = UINT64_MAX;
    EXPECT(!is_kept_ahead(world, "k", false));
    EXPECT(is_kept_ahead(world, "asked", true));
    EXPECT(world->serve.ahead.under_way == 0);
    world_end(world);
}

TEST("write-through: a flight of its own stands behind a write, for keys whose rule says so") {
    struct world *world = world_make();
    fp_rule rules[] = {
        {RULE("plain"), .ttl_ms = 60000, .caches = true},
        {RULE("*"), .ttl_ms = 60000, .caches = true, .fills_behind = true},
    };
    set_rules(world, rules, 2);
    have(world, "GET k\r\n", "$3\r\nold\r\n");
    ask(world, &world->a, "SET k new\r\n");
    EXPECT(world->serve.event_count == 2);
    EXPECT(event_at(world, 0)->kind == FP_EVENT_COMMAND && event_at(world, 1)->kind == FP_EVENT_MISS);
    answer(world, event_at(world, 0)->ticket, "+OK\r\n");
    EXPECT(says(world, &world->a, "+OK\r\n"));
    /* Who asks meanwhile waits for it. */
    ask(world, &world->b, "GET k\r\n");
    EXPECT(world->serve.event_count == 2);
    arm(world, event_at(world, 1)->ticket);
    fill(world, event_at(world, 1)->ticket, "$3\r\nnew\r\n");
    EXPECT(says(world, &world->b, "$3\r\nnew\r\n"));
    ask(world, &world->b, "GET k\r\n");
    EXPECT(says(world, &world->b, "$3\r\nnew\r\n"));
    ask(world, &world->a, "MSET k 1 plain 2 other 3 k 4\r\n");
    EXPECT(world->serve.event_count == 5);
    ask(world, &world->a, "HSET h f v\r\n");
    ask(world, &world->a, "DEL k\r\n");
    EXPECT(world->serve.event_count == 7);
    world_end(world);
}

TEST("write-through: under bypass nothing is fetched behind a write") {
    struct world *world = world_make();
    fp_rule rules[] = {{RULE("*"), .ttl_ms = 60000, .caches = true, .fills_behind = true}};
    set_rules(world, rules, 1);
    world->serve.bypass = true;
    ask(world, &world->a, "SET k v\r\n");
    EXPECT(world->serve.event_count == 1 && event_at(world, 0)->kind == FP_EVENT_COMMAND);
    world_end(world);
}

/* ---- write-behind ---- */

static struct world *world_behind(void) {
    struct world *world = world_make();
    fp_rule rules[] = {
        {RULE("plain*"), .ttl_ms = 60000, .caches = true},
        {RULE("never*"), .ttl_ms = 60000, .fills_behind = true, .writes_behind = true},
        {RULE("*"), .ttl_ms = 60000, .caches = true, .fills_behind = true, .writes_behind = true},
    };
    set_rules(world, rules, 3);
    return world;
}

/* The oldest is sent and confirmed. */
static void carry_out(struct world *world) {
    EXPECT(behind_send(&world->serve.behind, world->serve.now_ns));
    behind_done(&world->serve.behind, BEHIND_CONFIRMED, 1);
}

static void pinned(struct world *world) {
    world->a.lane = FP_LANE_PINNED;
    world->a.link = 7;
    world->a.link_fits = true;
}

TEST("a client that has given its link back is served from the store when all that came by it is delivered") {
    struct world *world = world_make();
    have(world, "GET k\r\n", "$1\r\nv\r\n");
    pinned(world);
    ask(world, &world->a, "EXEC\r\n");
    answer_behind(world, event_at(world, 0)->ticket, "*0\r\n", 3);
    world->a.gives_back = true;
    world->serve.event_count = 0;
    ask(world, &world->a, "GET k\r\n");
    EXPECT(world->serve.event_count == 1 && event_at(world, 0)->lane == FP_LANE_PINNED && !world->a.gives_back);
    answer(world, event_at(world, 0)->ticket, "$1\r\nw\r\n");
    fence_passed(&world->serve, 3);
    EXPECT(says(world, &world->a, "*0\r\n$1\r\nw\r\n"));
    world->a.gives_back = true;
    world->serve.event_count = 0;
    ask(world, &world->a, "GET k\r\n");
    EXPECT(world->serve.event_count == 0 && says(world, &world->a, "$1\r\nv\r\n"));
    world_end(world);
}

TEST("a client takes up the link that it has kept without asking, unless its protocol or name has changed") {
    static const struct {
        const char *between;
        bool keeps;
    } cases[] = {{"PING\r\n", true},    {"CLIENT SETNAME x\r\n", false}, {"HELLO 3 SETNAME x\r\n", false},
                 {"HELLO 2\r\n", true}, {"HELLO 3\r\n", false},          {"RESET\r\n", true}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct world *world = world_make();
        world->serve.upstream_protocol = 3;
        pinned(world);
        world->a.gives_back = true;
        ask(world, &world->a, cases[i].between);
        chain_clear(&world->a.out, &world->serve.blocks);
        EXPECT(ask(world, &world->a, "MULTI\r\n") == (cases[i].keeps ? DISPATCH_DONE : DISPATCH_STALL));
        fp_event *event = event_at(world, 0);
        EXPECT(event->kind == (cases[i].keeps ? FP_EVENT_COMMAND : FP_EVENT_PIN) && event->link == 7);
        world_end(world);
    }
}

TEST("a client takes up its own link only when nothing that it sent by others is unanswered") {
    struct world *world = world_make();
    pinned(world);
    world->a.gives_back = true;
    ask(world, &world->a, "INCR n\r\n");
    EXPECT(event_at(world, 0)->lane == FP_LANE_TRACKED);
    EXPECT(ask(world, &world->a, "MULTI\r\n") == DISPATCH_STALL && world->a.stall == STALL_LANE);
    answer(world, event_at(world, 0)->ticket, ":1\r\n");
    EXPECT(ask(world, &world->a, "MULTI\r\n") == DISPATCH_DONE && event_at(world, 1)->lane == FP_LANE_PINNED);
    world_end(world);
}

TEST("write-behind: SET and its like without conditions are acknowledged at once and read back, by everybody") {
    struct world *world = world_behind();
    have(world, "GET a\r\n", "$3\r\nold\r\n");
    ask(world, &world->a, "SET a 1\r\n");
    ask(world, &world->a, "set b 2 pX 1000\r\n");
    ask(world, &world->a, "SETEX c 10 3\r\n");
    ask(world, &world->a, "PSETEX d 10000 4\r\n");
    ask(world, &world->a, "MSET e 5 f 6\r\n");
    EXPECT(says(world, &world->a, "+OK\r\n+OK\r\n+OK\r\n+OK\r\n+OK\r\n"));
    ask(world, &world->b, "GET a\r\n");
    ask(world, &world->b, "MGET f b\r\n");
    EXPECT(says(world, &world->b, "$1\r\n1\r\n*2\r\n$1\r\n6\r\n$1\r\n2\r\n"));
    EXPECT(world->serve.event_count == 0 && world->serve.behind.queued == 6);
    /* Its time runs from when it was acknowledged. */
    pass_ms(world, 1000);
    world->b.protocol = 3;
    ask(world, &world->b, "GET b\r\n");
    EXPECT(says(world, &world->b, "_\r\n"));
    world_end(world);
}

TEST("each command is counted once, by how it was answered, and timed: in its turn, or from when it came") {
    struct world *world = world_behind();
    struct stats *stats = &world->serve.stats;
    const uint32_t *at_once = world->serve.answered_at_once;
    have(world, "GET plain\r\n", "$1\r\n1\r\n");
    EXPECT(counted(world, COMMAND_ID_GET, FP_OUTCOME_MISS) == 1);
    EXPECT(stats_duration(stats, FP_OUTCOME_MISS)->counts[0] == 1 && at_once[FP_OUTCOME_MISS] == 0);
    ask(world, &world->a, "SET own 1\r\n");
    EXPECT(counted(world, COMMAND_ID_SET, FP_OUTCOME_BEHIND) == 1 && at_once[FP_OUTCOME_BEHIND] == 1);
    world->serve.event_count = 0;
    ask(world, &world->b, "GET own\r\n");
    ask(world, &world->b, "MGET plain own\r\n");
    EXPECT(counted(world, COMMAND_ID_GET, FP_OUTCOME_HIT) == 1 && counted(world, COMMAND_ID_MGET, FP_OUTCOME_HIT) == 1);
    ask(world, &world->b, "GET none\r\n");
    struct flight *flight = table_at(&world->serve.flights, event_at(world, 0)->ticket);
    flight_arm(&world->serve, flight, FP_TTL_MISSING, world->serve.now_ns, FP_KEEP_ANSWER);
    fill(world, event_at(world, 0)->ticket, "_\r\n");
    ask(world, &world->b, "GET none\r\n");
    ask(world, &world->b, "MGET none none\r\n");
    ask(world, &world->b, "MGET none plain\r\n");
    EXPECT(counted(world, COMMAND_ID_GET, FP_OUTCOME_NEGATIVE) == 1 && at_once[FP_OUTCOME_NEGATIVE] == 2);
    EXPECT(counted(world, COMMAND_ID_MGET, FP_OUTCOME_NEGATIVE) == 1 && at_once[FP_OUTCOME_HIT] == 3);
    world->serve.event_count = 0;
    ask(world, &world->b, "STRLEN plain\r\n");
    ask(world, &world->b, "APPEND plain x\r\n");
    ask(world, &world->b, "STRLEN plain\r\n");
    world->serve.now_ns += 100;
    answer(world, event_at(world, 0)->ticket, ":1\r\n");
    answer(world, event_at(world, 1)->ticket, ":2\r\n");
    answer(world, event_at(world, 2)->ticket, "-ERR\r\n");
    EXPECT(counted(world, row_of(world, "strlen"), FP_OUTCOME_PASSED) == 1);
    EXPECT(counted(world, row_of(world, "append"), FP_OUTCOME_WRITTEN) == 1);
    EXPECT(counted(world, row_of(world, "strlen"), FP_OUTCOME_ERROR) == 1 && at_once[FP_OUTCOME_ERROR] == 0);
    for (fp_outcome outcome = FP_OUTCOME_PASSED; outcome <= FP_OUTCOME_WRITTEN; outcome++)
        EXPECT(stats_duration(stats, outcome)->counts[0] == 1 && stats_duration(stats, outcome)->sum_ns == 100);
    EXPECT(stats_duration(stats, FP_OUTCOME_ERROR)->sum_ns == 100);
    ask(world, &world->b, "MULTI x\r\n");
    EXPECT(counted(world, COMMAND_ID_MULTI, FP_OUTCOME_ERROR) == 1 && at_once[FP_OUTCOME_ERROR] == 1);
    ask(world, &world->b, "PING\r\n");
    EXPECT(at_once[FP_OUTCOME_LOCAL] == 1);
    ask(world, &world->b, "PING a b\r\n");
    ask(world, &world->b, "HELLO 9\r\n");
    EXPECT(at_once[FP_OUTCOME_LOCAL] == 1 && at_once[FP_OUTCOME_ERROR] == 3);
    EXPECT(counted(world, COMMAND_ID_HELLO, FP_OUTCOME_ERROR) == 1);
    /* What the cache is not asked is no hit: GET, and each key of MGET. */
    uint64_t misses = stats->keyspace_misses;
    world->a.lane = FP_LANE_PINNED;
    world->serve.event_count = 0;
    ask(world, &world->a, "GET plain\r\n");
    ask(world, &world->a, "MGET plain other\r\n");
    ask(world, &world->a, "STRLEN plain\r\n");
    answer(world, event_at(world, 0)->ticket, "$1\r\n1\r\n");
    EXPECT(counted(world, COMMAND_ID_GET, FP_OUTCOME_PINNED) == 1 && stats->keyspace_misses == misses + 3);
    world_end(world);
}

TEST("what is past its ttl or not vouched for is counted as stale, whichever way it comes to answer") {
    struct world *world = world_make();
    fp_rule every = {.ttl_ms = 1000, .stale_ms = 5000, .caches = true};
    set_rules(world, &every, 1);
    have(world, "GET k\r\n", "$3\r\nold\r\n");
    pass_ms(world, 1000);
    ask(world, &world->a, "GET k\r\n");
    time_out(world, event_at(world, 0)->ticket);
    ask(world, &world->a, "MGET k k\r\n");
    time_out(world, event_at(world, 3)->ticket);
    ask(world, &world->a, "MGET k none\r\n");
    time_out(world, event_at(world, 6)->ticket);
    EXPECT(counted(world, COMMAND_ID_GET, FP_OUTCOME_STALE) == 1);
    EXPECT(counted(world, COMMAND_ID_MGET, FP_OUTCOME_STALE) == 1);
    EXPECT(counted(world, COMMAND_ID_MGET, FP_OUTCOME_ERROR) == 1);
    EXPECT(world->serve.answered_at_once[FP_OUTCOME_STALE] == 0);
    world->serve.trusted = false;
    world->serve.serve_suspect = true;
    ask(world, &world->a, "GET k\r\n");
    EXPECT(counted(world, COMMAND_ID_GET, FP_OUTCOME_STALE) == 2 &&
           world->serve.answered_at_once[FP_OUTCOME_STALE] == 1);
    world_end(world);
}

/* SET of a key of one letter or more and a value of so many bytes. */
static void set_line(char *line, const char *key, int bytes) {
    int length = sprintf(line, "*3\r\n$3\r\nSET\r\n$%zu\r\n%s\r\n$%d\r\n", strlen(key), key, bytes);
    memset(line + length, 'x', (size_t)bytes);
    memcpy(line + length + bytes, "\r\n", 3);
}

TEST("write-behind: what has a condition, a reply of its own, another mode or too much to hold travels") {
    static char large[700000];
    const char *lines[] = {
        "SET a 1 NX\r\n",   "SET a 1 GET\r\n",     "SET a 1 KEEPTTL\r\n", "SET a 1 EX 0\r\n", "SET a 1 PX 010\r\n",
        "SET a 1 EX x\r\n", "SET a 1 EXAT 99\r\n", "SETEX a -1 v\r\n",    "SET plain 1\r\n",  "MSET a 1 plain 2\r\n",
        "MSET a 1 b\r\n",   "SETNX a 1\r\n",       "GETSET a 1\r\n",      "INCR a\r\n",       "DEL a\r\n"};
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        struct world *world = world_behind();
        ask(world, &world->a, lines[i]);
        EXPECT(world->serve.event_count > 0 && event_at(world, 0)->kind == FP_EVENT_COMMAND);
        EXPECT(world->serve.behind.queued == 0);
        world_end(world);
    }
    /* A quarter of the queue, or half of what a server may be set to take at most. */
    const size_t queue[] = {1u << 20, 16u << 20, 16u << 20}, bytes[] = {300000, 600000, 500000};
    for (int i = 0; i < 3; i++) {
        struct world *world = world_behind();
        world->serve.behind.bytes_max = queue[i];
        set_line(large, "k", (int)bytes[i]);
        ask(world, &world->a, large);
        EXPECT((world->serve.event_count > 0) == (i < 2) && world->serve.behind.queued == (i == 2));
        world_end(world);
    }
}

TEST("write-behind: what touches a written key waits until that is carried out, and no longer") {
    const char *waits[] = {"STRLEN k\r\n", "INCR k\r\n",     "DEL other k\r\n",    "KEYS *\r\n", "FLUSHALL\r\n",
                           "EVAL x 0\r\n", "SET k 1 NX\r\n", "MGET k missing\r\n", "DBSIZE\r\n"};
    const char *goes[] = {"STRLEN other\r\n", "GET other\r\n", "MGET other missing\r\n", "PING\r\n", "INCR other\r\n"};
    for (size_t i = 0; i < sizeof waits / sizeof *waits; i++) {
        struct world *world = world_behind();
        world->b.protocol = 3;
        ask(world, &world->a, "SET k 1\r\n");
        EXPECT(ask(world, &world->b, waits[i]) == DISPATCH_STALL && world->b.stall == STALL_WRITES);
        ask(world, &world->a, "SET later 2\r\n");
        carry_out(world);
        EXPECT(ask(world, &world->b, waits[i]) == DISPATCH_DONE && world->serve.event_count > 0);
        world_end(world);
    }
    for (size_t i = 0; i < sizeof goes / sizeof *goes; i++) {
        struct world *world = world_behind();
        ask(world, &world->a, "SET k 1\r\n");
        EXPECT(ask(world, &world->b, goes[i]) == DISPATCH_DONE);
        world_end(world);
    }
}

TEST("write-behind: a read that only the upstream may answer waits for its key's write, under bypass and of uncached "
     "keys") {
    static const char gone[] = "-ERR upstream is gone\r\n";
    const struct {
        const char *set, *get;
        bool bypass;
    } cases[] = {{"SET k 1\r\n", "GET k\r\n", true},
                 {"SET k 1\r\n", "MGET k k\r\n", true},
                 {"SET never 1\r\n", "GET never\r\n", false},
                 {"SET never 1\r\n", "MGET never never\r\n", false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct world *world = world_behind();
        world->serve.bypass = cases[i].bypass;
        ask(world, &world->a, cases[i].set);
        EXPECT(says(world, &world->a, "+OK\r\n"));
        EXPECT(ask(world, &world->a, cases[i].get) == DISPATCH_STALL && world->a.stall == STALL_WRITES);
        EXPECT(ask(world, &world->b, cases[i].get) == DISPATCH_STALL && world->b.stall == STALL_WRITES);
        ask(world, &world->b, "SET later 2\r\n");
        EXPECT(says(world, &world->b, "+OK\r\n"));
        buffer_append(&world->serve.refusal, &world->budget, BUDGET_SLOTS, gone, sizeof gone - 1);
        EXPECT(ask(world, &world->b, cases[i].get) == DISPATCH_DONE);
        EXPECT(says(world, &world->b, gone));
        world->serve.refusal.length = 0;
        EXPECT(ask(world, &world->a, cases[i].get) == DISPATCH_STALL);
        carry_out(world);
        EXPECT(ask(world, &world->a, cases[i].get) == DISPATCH_DONE && world->serve.event_count > 0);
        EXPECT(says(world, &world->a, ""));
        world_end(world);
    }
}

TEST("write-behind: before a client's other writes and messages go what it has written before them is carried out") {
    struct world *world = world_behind();
    ask(world, &world->a, "SET k 1\r\n");
    EXPECT(ask(world, &world->a, "PUBLISH news k\r\n") == DISPATCH_STALL);
    EXPECT(ask(world, &world->b, "PUBLISH news k\r\n") == DISPATCH_DONE);
    EXPECT(ask(world, &world->a, "STRLEN other\r\n") == DISPATCH_DONE);
    carry_out(world);
    EXPECT(ask(world, &world->a, "PUBLISH news k\r\n") == DISPATCH_DONE);
    world_end(world);
}

TEST("write-behind: a command does not take over what the one before it has waited for") {
    struct world *world = world_behind();
    have(world, "GET other\r\n", "$1\r\nv\r\n");
    ask(world, &world->b, "SET k 1\r\n");
    EXPECT(ask(world, &world->a, "MGET k gone\r\n") == DISPATCH_STALL);
    have(world, "GET gone\r\n", "$1\r\nv\r\n");
    EXPECT(ask(world, &world->a, "MGET k gone\r\n") == DISPATCH_DONE); /* all of it is here now */
    ask(world, &world->a, "SET k 2\r\n");
    ask(world, &world->a, "SET j 2\r\n");
    carry_out(world);
    EXPECT(ask(world, &world->a, "PUBLISH news j\r\n") == DISPATCH_STALL);
    carry_out(world);
    EXPECT(ask(world, &world->a, "PUBLISH news j\r\n") == DISPATCH_DONE);
    world_end(world);
}

TEST("write-behind: a read waits for its client's command that was sent though another write of the key is queued") {
    struct world *world = world_behind();
    ask(world, &world->b, "SET k 1\r\n");
    EXPECT(ask(world, &world->a, "STRLEN k\r\n") == DISPATCH_STALL);
    EXPECT(behind_send(&world->serve.behind, world->serve.now_ns));
    ask(world, &world->b, "SET k 2\r\n");
    behind_done(&world->serve.behind, BEHIND_CONFIRMED, 1);
    EXPECT(ask(world, &world->a, "STRLEN k\r\n") == DISPATCH_DONE);
    /* It may be carried out behind that write, and behind what others write then. */
    EXPECT(ask(world, &world->a, "GET k\r\n") == DISPATCH_STALL && world->a.stall == STALL_LANE);
    EXPECT(ask(world, &world->a, "MGET k k\r\n") == DISPATCH_STALL);
    /* What is written after it was sent is behind it. */
    ask(world, &world->b, "SET j 1\r\n");
    EXPECT(ask(world, &world->a, "GET j\r\n") == DISPATCH_DONE);
    answer_behind(world, event_at(world, 0)->ticket, ":1\r\n", 0);
    EXPECT(ask(world, &world->a, "GET k\r\n") == DISPATCH_DONE);
    EXPECT(says(world, &world->a, ":1\r\n$1\r\n1\r\n$1\r\n2\r\n"));
    world_end(world);
}

TEST("write-behind: a write does not overtake what its client has sent on another link") {
    struct world *world = world_behind();
    ask(world, &world->a, "XPENDING s g\r\n"); /* a reply of its own in RESP2 */
    EXPECT(event_at(world, 0)->lane == FP_LANE_RESP2);
    EXPECT(ask(world, &world->a, "SET k 1\r\n") == DISPATCH_STALL && world->a.stall == STALL_LANE);
    EXPECT(ask(world, &world->b, "SET k 1\r\n") == DISPATCH_DONE);
    world_end(world);
}

TEST("write-behind: a read waits for its client's commands on another link, whatever is queued") {
    struct world *world = world_behind();
    ask(world, &world->b, "GET k\r\n");
    ask(world, &world->a, "XPENDING s g\r\n");
    ask(world, &world->b, "SET k 1\r\n");
    /* A copy that is older than the write. */
    arm(world, event_at(world, 0)->ticket);
    fill(world, event_at(world, 0)->ticket, "$3\r\nold\r\n");
    EXPECT(ask(world, &world->a, "GET k\r\n") == DISPATCH_STALL && world->a.stall == STALL_LANE);
    EXPECT(ask(world, &world->a, "MGET k k\r\n") == DISPATCH_STALL && world->a.stall == STALL_LANE);
    EXPECT(ask(world, &world->b, "GET k\r\n") == DISPATCH_DONE);
    world_end(world);
}

TEST("write-behind: an own read behind an own command is answered by the write between them") {
    struct world *world = world_behind();
    ask(world, &world->a, "INCR k\r\n");
    uint64_t slot = event_at(world, 0)->ticket;
    ask(world, &world->a, "SET k 5\r\n");
    ask(world, &world->a, "GET k\r\n");
    answer(world, slot, ":1\r\n");
    EXPECT(says(world, &world->a, ":1\r\n+OK\r\n$1\r\n5\r\n"));
    world_end(world);
}

TEST("write-behind: a large write that finds no room gets what is left next, and small ones do not overtake it") {
    struct world *world = world_behind();
    static char large[64 + 200000], small[64 + 60000];
    set_line(large, "large", 200000);
    int n = 0;
    for (;; n++) {
        char key[] = {'k', (char)('a' + n), 0};
        set_line(small, key, 60000);
        if (!behind_has_room(&world->serve.behind, 1, 60002)) break;
        EXPECT(ask(world, &world->b, small) == DISPATCH_DONE);
    }
    EXPECT(ask(world, &world->a, large) == DISPATCH_STALL && world->a.stall == STALL_WRITES);
    int carried = 0;
    for (; carried < 10; carried++) {
        carry_out(world);
        EXPECT(ask(world, &world->b, small) == DISPATCH_STALL);
        if (ask(world, &world->a, large) == DISPATCH_DONE) break;
    }
    EXPECT(carried == 2);
    /* A client that has gone keeps nothing. */
    EXPECT(ask(world, &world->a, large) == DISPATCH_STALL);
    session_deinit(&world->serve, &world->a);
    session_init(&world->a, 1);
    carry_out(world);
    EXPECT(ask(world, &world->b, small) == DISPATCH_DONE);
    world_end(world);
}

TEST("write-behind: what waits for the journal's next batch is first in it, and what is done does not fill that") {
    struct world *world = world_behind();
    static char large[64 + 200000], small[64 + 60000];
    set_line(large, "large", 200000);
    set_line(small, "k", 60000);
    struct behind *behind = &world->serve.behind;
    journal_turn_on(&behind->journal);
    /* The queue has room, since a key has one write in it; the batch has not. */
    while (behind->journal.filling_puts < 900000) EXPECT(ask(world, &world->b, small) == DISPATCH_DONE);
    EXPECT(ask(world, &world->a, large) == DISPATCH_STALL && world->a.stall == STALL_WRITES);
    EXPECT(ask(world, &world->b, small) == DISPATCH_STALL);
    EXPECT(journal_take(&behind->journal));
    for (uint64_t place = 1; place < 120000; place++) journal_done(&behind->journal, place);
    EXPECT(ask(world, &world->b, small) == DISPATCH_STALL);
    EXPECT(ask(world, &world->a, large) == DISPATCH_DONE);
    EXPECT(ask(world, &world->b, small) == DISPATCH_DONE);
    world_end(world);
}

TEST("write-behind: a write for which there is memory only without its place in the journal's batch is not taken") {
    struct world *world = world_behind();
    static char large[64 + 200000];
    set_line(large, "large", 200000);
    journal_turn_on(&world->serve.behind.journal);
    size_t taken = world->budget.total - world->budget.used - 300000;
    EXPECT(budget_take(&world->budget, BUDGET_SLABS, taken));
    ask(world, &world->a, large);
    EXPECT(world->serve.behind.queued == 0);
    budget_give(&world->budget, BUDGET_SLABS, taken);
    EXPECT(ask(world, &world->b, large) == DISPATCH_DONE && world->serve.behind.queued == 1);
    world_end(world);
}

TEST("write-behind: a client that is being closed keeps no room from others, though it has not gone") {
    struct world *world = world_behind();
    static char large[64 + 200000];
    for (char key[] = "a"; key[0] < 'f'; key[0]++) {
        set_line(large, key, 200000);
        EXPECT(ask(world, &world->b, large) == DISPATCH_DONE);
    }
    EXPECT(ask(world, &world->a, large) == DISPATCH_STALL && world->serve.behind.kept_for == &world->a);
    world->serve.write_moved = false;
    session_close(&world->serve, &world->a);
    EXPECT(world->serve.behind.kept_for == NULL && world->serve.write_moved);
    world_end(world);
}

TEST("while commands are held fetches may go, and nothing while all is held") {
    struct world *world = world_make();
    have(world, "GET k\r\n", "$1\r\nv\r\n");
    const struct {
        fp_hold_kind held;
        const char *line;
        bool goes;
    } cases[] = {{FP_HOLD_COMMANDS, "GET missing\r\n", true},
                 {FP_HOLD_COMMANDS, "MGET k missing\r\n", true},
                 {FP_HOLD_COMMANDS, "STRLEN x\r\n", false},
                 {FP_HOLD_COMMANDS, "SET x 1\r\n", false},
                 {FP_HOLD_ALL, "GET gone\r\n", false},
                 {FP_HOLD_ALL, "MGET gone x\r\n", false},
                 {FP_HOLD_ALL, "GET k\r\n", true}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        world->serve.held = cases[i].held;
        EXPECT((ask(world, &world->b, cases[i].line) == DISPATCH_DONE) == cases[i].goes);
        if (!cases[i].goes) EXPECT(world->b.stall == STALL_HELD);
        session_deinit(&world->serve, &world->b);
        session_init(&world->b, 2);
    }
    world_end(world);
}

TEST("write-behind: room is kept for no write that travels") {
    struct world *world = world_behind();
    static char large[64 + 200000];
    for (char key[] = "a"; key[0] < 'f'; key[0]++) {
        set_line(large, key, 200000);
        EXPECT(ask(world, &world->b, large) == DISPATCH_DONE);
    }
    set_line(large, "z", 200000);
    EXPECT(ask(world, &world->a, large) == DISPATCH_STALL && world->serve.behind.kept_for == &world->a);
    world->serve.behind.is_closed = true;
    EXPECT(ask(world, &world->a, large) == DISPATCH_DONE && world->serve.behind.kept_for == NULL);
    world_end(world);
}

TEST("write-behind: who does not read what is due to it keeps no room from others") {
    struct world *world = world_behind();
    static char large[64 + 200000], small[64 + 60000];
    set_line(large, "large", 200000);
    set_line(small, "k", 60000);
    struct behind *behind = &world->serve.behind;
    journal_turn_on(&behind->journal);
    while (behind->journal.filling_puts < 900000) ask(world, &world->b, small);
    EXPECT(ask(world, &world->a, large) == DISPATCH_STALL && world->a.stall == STALL_WRITES);
    EXPECT(ask(world, &world->b, small) == DISPATCH_STALL && world->b.stall == STALL_WRITES);
    world->serve.write_moved = false;
    world->serve.out_bytes_high = 0;
    EXPECT(ask(world, &world->a, large) == DISPATCH_STALL && world->a.stall == STALL_OUT);
    world->serve.out_bytes_high = 1 << 20;
    EXPECT(world->serve.write_moved && behind->kept_for == NULL);
    EXPECT(ask(world, &world->b, small) == DISPATCH_DONE);
    world_end(world);
}

TEST("write-behind: when the queue is full a writer waits, or hears that the upstream is not there") {
    struct world *world = world_behind();
    static char line[64 + 200000];
    int n = 0;
    for (; n < 20; n++) {
        char key[] = {'k', (char)('a' + n), 0};
        set_line(line, key, 200000);
        if (ask(world, &world->a, line) != DISPATCH_DONE) break;
    }
    EXPECT(n == 5 && world->a.stall == STALL_WRITES && world->serve.write_waiters == 1);
    EXPECT(world->serve.stats.clients_stalled == 1);
    static const char gone[] = "-ERR upstream is gone\r\n";
    buffer_append(&world->serve.refusal, &world->budget, BUDGET_SLOTS, gone, sizeof gone - 1);
    EXPECT(ask(world, &world->a, line) == DISPATCH_DONE);
    EXPECT(says(world, &world->a, "+OK\r\n+OK\r\n+OK\r\n+OK\r\n+OK\r\n-ERR upstream is gone\r\n"));
    carry_out(world);
    EXPECT(ask(world, &world->a, line) == DISPATCH_DONE);
    world_end(world);
}
