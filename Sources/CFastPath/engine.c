/* engine — made, turned and ended: the ABI of include/CFastPath.h on top of net/, serve/ and store/, with orders.c and
 * readings.c.
 *
 * A turn:  recycle ─► run the stalled ─► flush ─► wait ─► settle ─► events of the loop ─► batch
 *          ▲ orders of Swift are in the chains        └────────── again while there is nothing to decide ┘
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "base/heap.h"
#include "engine.h"
#include "net/owner.h"
#include "net/sim.h"
#include "net/socket.h"
#include "serve/flight.h"

#define LOCAL_MEMORY_MIN (32ull << 20)
#define LISTEN_BACKLOG 511
#define LISTEN_ATTEMPTS 50
#define LISTEN_INTERVAL_NS 20000000
#define TICK_NS (100 * NS_PER_MS)   /* background work of the store */
#define MEASURE_NS (10 * NS_PER_MS) /* of what is resident, while there is work */
#define TICK_STEPS 1024u

/* ---- what the process holds ---- */

static size_t above(size_t a, size_t b) { return a > b ? a - b : 0; }
static size_t least(size_t a, size_t b) { return a < b ? a : b; }
static size_t most(size_t a, size_t b) { return a > b ? a : b; }

/* What is resident beyond what the owners have charged: binary, stacks, Swift's heap, the allocator's rest. */
static size_t base_now(const fp_engine *engine) {
    const struct budget *budget = &engine->budget;
    const size_t *by = budget->used_by;
    size_t resident = heap_resident(engine->statm_fd);
    size_t owned = budget->used - by[BUDGET_BASE] - by[BUDGET_RESERVE] - by[BUDGET_KERNEL] - by[BUDGET_ARRIVALS] -
                   by[BUDGET_TABLES];
    return resident ? above(resident, owned) : by[BUDGET_BASE];
}

/* The base follows whatever grows outside of the owners, and the store gives way. But code that was let go is left
 * room to come back: it does so within a turn (a first look at the metrics page takes 6 MiB), in which the store could
 * not give way. */
#define BASE_BYTES_MIN (14336u << 10)
#define BASE_BYTES_SPARE (512u << 10) /* what may come between two measurements */

static void measure_base(fp_engine *engine) {
    struct budget *budget = &engine->budget;
    size_t base = base_now(engine);
    budget_give(budget, BUDGET_BASE, budget->used_by[BUDGET_BASE]);
    budget_give(budget, BUDGET_RESERVE, budget->used_by[BUDGET_RESERVE]);
    budget_force(budget, BUDGET_BASE, base);
    budget_force(budget, BUDGET_RESERVE, above(engine->base_busy, base) + BASE_BYTES_SPARE);
    if (budget->used > budget->total && budget->reclaim)
        budget->reclaim(budget->reclaim_context, budget->used - budget->total);
}

#define MEASUREMENTS_OF_START 6 /* they are of code that nothing else needs */

void fp_measure_base(fp_engine *engine) {
    if (engine->statm_fd < 0) return;
    size_t base = base_now(engine);
    if (engine->base_measured++ >= MEASUREMENTS_OF_START && base > engine->base_busy) engine->base_busy = base;
    heap_forget_code();
    struct budget *budget = &engine->budget;
    budget_give(budget, BUDGET_TABLES, budget->used_by[BUDGET_TABLES]);
    budget_force(budget, BUDGET_TABLES, heap_page_tables());
    measure_base(engine);
}

/* ---- making and unmaking ---- */

void fp_config_init(fp_config *config) {
    *config = (fp_config){
        .local_memory = 128ull << 20,
        .clients_max = 1000,
        .links_max = 1100,
        .link_timeout_ms = 5000,
        .value_bytes_max = 1u << 20,
        .network = FP_NETWORK_AUTO,
        .eviction = FP_EVICTION_LRU,
    };
}

static size_t reclaim_from_store(void *context, size_t bytes) { return store_give_back(context, bytes); }

static bool make_store(fp_engine *engine) {
    uint64_t seed = engine->config.seed;
    if (!seed && getrandom(&seed, sizeof seed, 0) != sizeof seed) seed = clock_now(&engine->clock);
    struct store_options options = {
        .arena_bytes = engine->config.local_memory,
        .arena_bytes_max = engine->config.local_memory_max,
        .eviction = (enum store_eviction)engine->config.eviction,
        .value_bytes_max = engine->config.value_bytes_max,
        .seed = seed,
    };
    engine->store = store_create(&options, &engine->budget);
    if (!engine->store) return false;
    engine->budget.reclaim = reclaim_from_store;
    engine->budget.reclaim_context = engine->store;
    return true;
}

fp_engine *fp_create(const fp_config *config, fp_error *error) {
    if (config->local_memory < LOCAL_MEMORY_MIN && !config->sim) {
        *error = "local_memory is too small: at least 32mb is needed";
        return NULL;
    }
    fp_engine *engine = calloc(1, sizeof *engine);
    CHECK(engine);
    engine->config = *config;
    engine->clock = config->sim ? sim_clock(config->sim) : clock_real();
    engine->statm_fd = config->sim ? -1 : heap_open();
    engine->base_busy = config->sim ? 0 : BASE_BYTES_MIN;
    budget_init(&engine->budget, config->local_memory);
    fp_measure_base(engine);
    engine->serve.allow_admin = config->allow_admin;
    if (make_store(engine) &&
        serve_init(&engine->serve, &engine->budget, engine->store, config->clients_max, config->behind_bytes_max))
        return engine;
    *error = "local_memory cannot hold the fixed parts of the sidecar: raise it";
    return NULL; /* the process is about to end: what was taken goes with it */
}

void fp_identity(fp_engine *engine, const char *username, const char *password) {
    snprintf(engine->username, sizeof engine->username, "%s", username ? username : "");
    snprintf(engine->password, sizeof engine->password, "%s", password ? password : "");
    engine->serve.username = username ? engine->username : NULL;
    engine->serve.password = password ? engine->password : NULL;
}

static void note(char *to, size_t room, const char *text) {
    if (text && *text) snprintf(to, room, "%s", text);
}

void fp_upstream_is(fp_engine *engine, const fp_upstream *upstream) {
    struct serve *serve = &engine->serve;
    serve->upstream_protocol = upstream->protocol;
    note(serve->upstream_version, sizeof serve->upstream_version, upstream->version);
    note(serve->upstream_mode, sizeof serve->upstream_mode, upstream->mode);
    note(serve->upstream_role, sizeof serve->upstream_role, upstream->role);
}

static struct loop *make_loop(fp_engine *engine, const struct loop_options *options, fp_error *error) {
    const char *why = "";
    if (engine->config.sim) return loop_sim_create(engine->config.sim, &engine->budget);
    if (engine->config.network != FP_NETWORK_EPOLL) {
        struct loop *loop = loop_ring_create(options, &engine->budget, &why);
        if (loop) return loop;
        snprintf(engine->network_reason, sizeof engine->network_reason, "%s", why);
        if (engine->config.network == FP_NETWORK_IO_URING) {
            *error = engine->network_reason;
            return NULL;
        }
    }
    struct loop *loop = loop_poll_create(options, &engine->budget, &why);
    if (!loop) {
        snprintf(engine->error, sizeof engine->error, "%s", why);
        *error = engine->error;
    }
    return loop;
}

/* A client's share of an eighth of the budget, as if there were at least `few` of them. */
static size_t client_share(const fp_engine *engine, uint64_t few) {
    uint64_t clients = engine->serve.stats.clients < few ? few : engine->serve.stats.clients;
    return engine->budget.total / 8 / clients;
}

/* What a client may leave unread before its requests wait, and how much of these is kept before it is not read from. */
static void set_client_shares(fp_engine *engine) {
    size_t share = client_share(engine, 8);
    engine->clients.out_share = share < BLOCK_ROOM ? BLOCK_ROOM : share > 1 << 20 ? 1 << 20 : share;
    /* A quarter less than the share, so that what comes until the pause takes effect does not double the inbox. */
    share = client_share(engine, 2) / 4 * 3;
    engine->clients.in_share = share < BLOCK_ROOM ? BLOCK_ROOM : share;
}

/* Shares of the budget. */
static void set_shares(fp_engine *engine) {
    const fp_config *config = &engine->config;
    size_t total = engine->budget.total;
    engine->clients.request_bytes_max = total / 4;
    engine->clients.large_bytes_max = total / 8;
    engine->links.reply_bytes_max = total / 4;
    engine->serve.out_bytes_max = total / 4;
    int wide_send = total >= 128u << 20 ? 131072 : 32768;
    engine->clients.wide = (struct socket_buffers){.receive_bytes = 16384, .send_bytes = wide_send};
    engine->clients.roomy_max = (uint32_t)(total >> 23);
    engine->serve.ahead.bytes_max = total / 100 * config->prefetch_percent;
    set_client_shares(engine);
}

bool fp_attach(fp_engine *engine, fp_error *error) {
    const fp_config *config = &engine->config;
    struct loop_options options = {
        .connections_max = config->clients_max + config->links_max,
        .receive_buffers = config->local_memory < 64ull << 20 ? 32 : 64,
    };
    engine->loop = make_loop(engine, &options, error);
    if (!engine->loop) return false;
    engine->clients.links = &engine->links;
    if (!clients_init(&engine->clients, &engine->serve, engine->loop, config->clients_max) ||
        !links_init(&engine->links, &engine->serve, engine->loop, config->links_max)) {
        *error = "the tables of connections cannot be reserved";
        return false;
    }
    engine->clients.idle_timeout_ns = (uint64_t)config->idle_timeout_ms * NS_PER_MS;
    engine->clients.narrow = (struct socket_buffers){.receive_bytes = 4096, .send_bytes = 4608};
    engine->links.buffers = (struct socket_buffers){
        .receive_bytes = 131072, .send_bytes = 131072, .unacknowledged_ms = (int)config->link_timeout_ms};
    engine->clients.end_timeout_ns = (uint64_t)config->link_timeout_ms * NS_PER_MS;
    set_shares(engine);
    return true;
}

/* Below that what is held could not be let go of: acknowledged writes need a link to leave by. */
#define RESIZE_SPARE (4u << 20)

uint64_t fp_resize(fp_engine *engine, uint64_t local_memory) {
    struct budget *budget = &engine->budget;
    size_t held = budget->used - budget->used_by[BUDGET_SLABS] + RESIZE_SPARE;
    local_memory = most(local_memory, LOCAL_MEMORY_MIN);
    if (local_memory < budget->total) local_memory = most(local_memory, least(held, budget->total));
    budget->total = store_resize(engine->store, local_memory);
    set_shares(engine);
    struct behind *behind = &engine->serve.behind;
    if (behind->bytes_max) behind->bytes_max = least(engine->config.behind_bytes_max, budget->total / 4);
    if (budget->used > budget->total) store_give_back(engine->store, budget->used - budget->total);
    return budget->total;
}

const char *fp_network_name(const fp_engine *engine) { return loop_name(engine->loop); }
const char *fp_network_reason(const fp_engine *engine) { return engine->network_reason; }

/* The kernel takes a killed process's ring down in the background, and its listeners with it, after the process has
 * gone: who is started in its place finds the address taken for some milliseconds more. */
static int listen_soon(const fp_engine *engine, const struct socket_address *address) {
    int fd;
    for (int attempt = 0;; attempt++) {
        fd = socket_listen(address, &engine->clients.narrow, LISTEN_BACKLOG);
        if (fd != -EADDRINUSE || attempt == LISTEN_ATTEMPTS) return fd;
        nanosleep(&(struct timespec){.tv_nsec = LISTEN_INTERVAL_NS}, NULL);
    }
}

static bool listen_on(fp_engine *engine, const struct socket_address *address, const char *what, int *fd,
                      fp_error *error) {
    *fd = listen_soon(engine, address);
    if (*fd >= 0 && loop_listen(engine->loop, *fd, engine->listeners++)) return true;
    snprintf(engine->error, sizeof engine->error, "cannot listen on %s: %s", what,
             *fd < 0 ? strerror(-*fd) : "no room for a further listener");
    *error = engine->error;
    return false;
}

bool fp_listen_tcp(fp_engine *engine, const char *text, uint16_t port, bool fresh, uint16_t *bound, fp_error *error) {
    struct socket_address address;
    int fd;
    char what[96];
    snprintf(what, sizeof what, strchr(text, ':') ? "[%s]:%u" : "%s:%u", text, port);
    if (!socket_address_tcp(&address, text, port)) {
        snprintf(engine->error, sizeof engine->error, "%s is not a numeric IPv4 or IPv6 address", text);
        *error = engine->error;
        return false;
    }
    if (!listen_on(engine, &address, what, &fd, error)) return false;
    *bound = (uint16_t)socket_port(fd);
    if (fresh) engine->fresh_listeners |= 1u << (engine->listeners - 1);
    return true;
}

bool fp_listen_unix(fp_engine *engine, const char *path, fp_error *error) {
    struct socket_address address;
    int fd;
    if (!socket_address_unix(&address, path)) {
        *error = "unix_socket is longer than a socket's name may be (107 bytes)";
        return false;
    }
    if (!listen_on(engine, &address, path, &fd, error)) return false;
    snprintf(engine->unix_path, sizeof engine->unix_path, "%s", path);
    return true;
}

void fp_unlisten(fp_engine *engine) {
    for (uint32_t tag = 0; tag < engine->listeners; tag++) loop_unlisten(engine->loop, tag);
    engine->listeners = engine->fresh_listeners = 0;
    if (engine->unix_path[0]) unlink(engine->unix_path);
    engine->unix_path[0] = 0;
}

void fp_destroy(fp_engine *engine) {
    if (engine->loop) {
        fp_unlisten(engine);
        clients_deinit(&engine->clients);
        links_deinit(&engine->links);
        loop_destroy(engine->loop);
    }
    serve_deinit(&engine->serve);
    store_destroy(engine->store);
    CHECK(engine->budget.used == engine->budget.used_by[BUDGET_BASE] + engine->budget.used_by[BUDGET_SWIFT] +
                                     engine->budget.used_by[BUDGET_TABLES] + engine->budget.used_by[BUDGET_RESERVE]);
    if (engine->statm_fd >= 0) close(engine->statm_fd);
    free(engine);
}

/* ---- the turn ---- */

static void handle(fp_engine *engine, const struct loop_event *event) {
    if (event->kind == LOOP_ACCEPTED) {
        client_accept(&engine->clients, event->fd, engine->fresh_listeners >> event->tag & 1);
        set_client_shares(engine);
        return;
    }
    if (event->kind == LOOP_WOKEN) {
        engine->woken = true;
        return;
    }
    if (event->conn->owner == OWNER_CLIENT) {
        struct client *client = (struct client *)((uint8_t *)event->conn - offsetof(struct client, conn));
        if (event->kind == LOOP_DATA) client_data(&engine->clients, client, event->bytes, event->length);
        else if (event->kind == LOOP_WRITABLE) client_writable(&engine->clients, client);
        else client_closed(&engine->clients, client, event->error);
        return;
    }
    struct link *link = (struct link *)((uint8_t *)event->conn - offsetof(struct link, conn));
    if (event->kind == LOOP_DATA) link_data(&engine->links, link, event->bytes, event->length);
    else if (event->kind == LOOP_WRITABLE) link_writable(&engine->links, link);
    else if (event->kind == LOOP_CONNECTED) link_connected(&engine->links, link, event->error);
    else link_closed(&engine->links, link, event->error);
}

/* A process that was stopped for a while (SIGSTOP, a frozen container) has heard nothing meanwhile: the turn in
 * which it goes on must not serve what the flow would no longer vouch for. */
void engine_see_trust(fp_engine *engine) {
    struct serve *serve = &engine->serve;
    serve->trusted = engine->trusted && serve->now_ns <= engine->trusted_until_ns;
}

static void see_time(fp_engine *engine) {
    engine->serve.now_ns = clock_now(&engine->clock);
    engine->serve.now_ms = engine->serve.now_ns / NS_PER_MS;
    engine_see_trust(engine);
}

/* One turn's work is done and about to be handed to the kernel: what it took. */
static void book_turn(fp_engine *engine) {
    struct stats *stats = &engine->serve.stats;
    if (!engine->woke_ns) return;
    uint64_t took = clock_now(&engine->clock) - engine->woke_ns;
    stats->turns++;
    histogram_add(&stats->turn_duration, took, 1);
    uint32_t *counts = engine->serve.answered_at_once;
    for (fp_outcome outcome = 0; outcome < FP_OUTCOME_COUNT; outcome++) {
        if (counts[outcome]) histogram_add(stats_duration(stats, outcome), took, counts[outcome]);
        counts[outcome] = 0;
    }
}

static uint64_t background(fp_engine *engine) {
    if (engine->serve.now_ns >= engine->measure_ns && engine->statm_fd >= 0) {
        measure_base(engine);
        clients_sample_kernel(&engine->clients);
        links_sample_kernel(&engine->links);
        engine->measure_ns = engine->serve.now_ns + MEASURE_NS;
    }
    uint64_t next = clients_expire_idle(&engine->clients, engine->serve.now_ns);
    /* Whoever must let go of memory does so though nobody asks for anything just now. */
    bool measures = engine->statm_fd >= 0 && engine->measure_ns < next;
    if (measures && (clients_near_the_end(&engine->clients) || engine->clients.some_wait)) next = engine->measure_ns;
    if (engine->serve.now_ns >= engine->tick_ns) {
        store_tick(engine->store, engine->serve.now_ms, TICK_STEPS);
        clients_pass_turns(&engine->clients);
        clients_give_up_ended(&engine->clients);
        engine->tick_ns = engine->serve.now_ns + TICK_NS;
    }
    return next;
}

static void recycle(fp_engine *engine) {
    loop_recycle(engine->loop);
    inboxes_recycle(&engine->clients.inboxes);
    links_recycle(&engine->links);
}

/* Something was carried out: who waits for it looks again. */
static void release_writers(fp_engine *engine) {
    struct serve *serve = &engine->serve;
    if (!serve->write_moved || !serve->write_waiters) return;
    serve->write_moved = false;
    serve->write_waiters = 0;
    clients_release(&engine->clients, STALL_WRITES);
}

fp_batch fp_turn(fp_engine *engine, uint64_t deadline_ns) {
    struct serve *serve = &engine->serve;
    serve->event_count = 0;
    serve->request_bytes = 0;
    serve->write_taken = false;
    engine->woken = false;
    flights_announce(serve);
    release_writers(engine);
    for (;;) {
        recycle(engine);
        see_time(engine);
        uint64_t wake_ns = background(engine);
        clients_sip(&engine->clients);
        if (serve->runnable) clients_run(&engine->clients);
        if (engine->links.waiting_count) links_run(&engine->links);
        bool busy = clients_flush(&engine->clients);
        busy |= links_flush(&engine->links);
        book_turn(engine);
        if (wake_ns > deadline_ns) wake_ns = deadline_ns;
        loop_wait(engine->loop, busy || serve->event_count ? 0 : wake_ns);
        see_time(engine);
        engine->woke_ns = serve->now_ns;
        clients_settle(&engine->clients);
        links_settle(&engine->links);
        struct loop_event event;
        while (serve_events_fit(serve, SERVE_EVENTS_SPARE / 2) && loop_next(engine->loop, &event))
            handle(engine, &event);
        if (engine->woken) serve_event(serve, FP_EVENT_WAKE);
        if (serve->event_count || serve->write_taken || serve->now_ns >= deadline_ns) break;
    }
    return (fp_batch){.events = serve->events, .count = serve->event_count, .now_ns = serve->now_ns};
}

void fp_wake(fp_engine *engine) { loop_wake(engine->loop); }
uint64_t fp_now(const fp_engine *engine) { return clock_now(&engine->clock); }
