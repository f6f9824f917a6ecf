/* sim — the third network engine: wires in memory, a clock that is set. It decides nothing: the test behind
 * CFastPathSim.h says what arrives and when. Only tests link it.
 *
 * Every piece that is delivered is an allocation of its own size, freed by the loop_recycle after it was handed out, so
 * a sanitizer sees who reads past its end or too late. */
#include "net/sim.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"

#define FD_BASE (1 << 28) /* no real descriptor: what is done to it by mistake fails */
#define ROOM_AT_FIRST 65536u

struct piece {
    struct piece *next;
    uint32_t length;
    uint8_t bytes[];
};

struct wire {
    fp_wire number;
    fp_wire_state state;
    struct loop_conn *conn; /* the engine's, NULL before loop_add and after loop_remove */
    struct piece *first, *last;
    uint8_t *out;
    size_t out_length, out_capacity, out_taken;
    size_t room;
    int error;      /* of LOOP_CONNECTED, or of LOOP_CLOSED */
    bool picked_up; /* LOOP_CONNECTED is to be told */
    bool ended;     /* LOOP_CLOSED is to be told behind the pieces */
    bool end_told;
    bool paused;
    bool wants_room;  /* the last send was short */
    bool has_room;    /* LOOP_WRITABLE is to be told */
    bool aborted;     /* what has not arrived never will */
    bool is_accepted; /* a client's, offered to the engine and not yet taken */
    bool is_ready, is_changed;
    struct wire *next_ready, *next_changed;
};

struct fp_sim {
    struct loop loop;
    uint64_t now_ns;
    struct wire **wires; /* by number - 1; NULL when it is gone and empty */
    uint32_t count, capacity;
    struct wire *ready_first, *ready_last; /* have something to tell */
    struct wire *changed_first, *changed_last;
    struct piece *handed; /* out in this turn */
    bool worked, is_idle;
};

static struct wire *wire_at(const fp_sim *sim, fp_wire number) {
    return number == 0 || number > sim->count ? NULL : sim->wires[number - 1];
}

static struct wire *wire_make(fp_sim *sim) {
    if (sim->count == sim->capacity) {
        sim->capacity = sim->capacity ? sim->capacity * 2 : 64;
        sim->wires = realloc(sim->wires, sim->capacity * sizeof *sim->wires);
        CHECK(sim->wires);
    }
    struct wire *wire = calloc(1, sizeof *wire);
    CHECK(wire);
    wire->room = ROOM_AT_FIRST;
    sim->wires[sim->count] = wire;
    wire->number = ++sim->count;
    return wire;
}

static void wire_free(fp_sim *sim, struct wire *wire) {
    while (wire->first) {
        struct piece *piece = wire->first;
        wire->first = piece->next;
        free(piece);
    }
    sim->wires[wire->number - 1] = NULL;
    free(wire->out);
    free(wire);
}

static bool has_news(const struct wire *wire) {
    if (wire->state == FP_WIRE_GONE) return false;
    if (wire->picked_up || wire->has_room) return true;
    return wire->state != FP_WIRE_DIALED && !wire->paused && (wire->first || (wire->ended && !wire->end_told));
}

static void mark_ready(fp_sim *sim, struct wire *wire) {
    if (wire->is_ready || !has_news(wire)) return;
    wire->is_ready = true;
    wire->next_ready = NULL;
    *(sim->ready_last ? &sim->ready_last->next_ready : &sim->ready_first) = wire;
    sim->ready_last = wire;
}

static void mark_changed(fp_sim *sim, struct wire *wire) {
    if (wire->is_changed) return;
    wire->is_changed = true;
    wire->next_changed = NULL;
    *(sim->changed_last ? &sim->changed_last->next_changed : &sim->changed_first) = wire;
    sim->changed_last = wire;
}

/* ---- the far side ---- */

static uint64_t read_clock(void *context) { return ((const fp_sim *)context)->now_ns; }

struct clock sim_clock(struct fp_sim *sim) {
    return (struct clock){.read = read_clock, .context = sim};
}

fp_sim *fp_sim_create(void) {
    fp_sim *sim = calloc(1, sizeof *sim);
    CHECK(sim);
    sim->now_ns = NS_PER_S;
    return sim;
}

static void free_handed(fp_sim *sim) {
    while (sim->handed) {
        struct piece *piece = sim->handed;
        sim->handed = piece->next;
        free(piece);
    }
}

void fp_sim_destroy(fp_sim *sim) {
    free_handed(sim);
    for (uint32_t i = 0; i < sim->count; i++) {
        if (sim->wires[i]) wire_free(sim, sim->wires[i]);
    }
    free(sim->wires);
    free(sim);
}

void fp_sim_time(fp_sim *sim, uint64_t now_ns) {
    CHECK(now_ns >= sim->now_ns);
    sim->now_ns = now_ns;
}

fp_wire fp_sim_connect(fp_sim *sim) {
    struct wire *wire = wire_make(sim);
    wire->state = FP_WIRE_OPEN;
    wire->is_accepted = wire->picked_up = true;
    mark_ready(sim, wire);
    return wire->number;
}

fp_wire fp_sim_changed(fp_sim *sim) {
    struct wire *wire = sim->changed_first;
    if (!wire) return 0;
    sim->changed_first = wire->next_changed;
    if (!sim->changed_first) sim->changed_last = NULL;
    wire->is_changed = false;
    return wire->number;
}

fp_wire_state fp_sim_state(const fp_sim *sim, fp_wire number) {
    const struct wire *wire = wire_at(sim, number);
    return wire ? wire->state : FP_WIRE_GONE;
}

bool fp_sim_is_aborted(const fp_sim *sim, fp_wire number) {
    const struct wire *wire = wire_at(sim, number);
    return wire && wire->aborted;
}

void fp_sim_pick_up(fp_sim *sim, fp_wire number, int error) {
    struct wire *wire = wire_at(sim, number);
    if (!wire || wire->state != FP_WIRE_DIALED || wire->picked_up) return;
    wire->picked_up = true;
    wire->error = error;
    mark_ready(sim, wire);
}

void fp_sim_deliver(fp_sim *sim, fp_wire number, const void *bytes, size_t length) {
    struct wire *wire = wire_at(sim, number);
    if (!wire || wire->state == FP_WIRE_GONE || wire->ended || length == 0) return;
    const uint8_t *at = bytes;
    while (length > 0) {
        size_t some = length < LOOP_BUFFER_BYTES ? length : LOOP_BUFFER_BYTES;
        struct piece *piece = malloc(sizeof *piece + some);
        CHECK(piece);
        piece->next = NULL;
        piece->length = (uint32_t)some;
        memcpy(piece->bytes, at, some);
        *(wire->first ? &wire->last->next : &wire->first) = piece;
        wire->last = piece;
        at += some;
        length -= some;
    }
    mark_ready(sim, wire);
}

void fp_sim_end(fp_sim *sim, fp_wire number, int error) {
    struct wire *wire = wire_at(sim, number);
    if (!wire || wire->state == FP_WIRE_GONE || wire->ended) return;
    wire->ended = true;
    wire->error = error;
    while (error && wire->first) { /* a reset overtakes what was not read */
        struct piece *piece = wire->first;
        wire->first = piece->next;
        free(piece);
    }
    mark_ready(sim, wire);
}

static size_t out_left(const struct wire *wire) { return wire->out_length - wire->out_taken; }

static void give_room(fp_sim *sim, struct wire *wire) {
    if (!wire->wants_room || out_left(wire) >= wire->room) return;
    wire->wants_room = false;
    wire->has_room = true;
    mark_ready(sim, wire);
}

size_t fp_sim_take(fp_sim *sim, fp_wire number, void *bytes, size_t room) {
    struct wire *wire = wire_at(sim, number);
    if (!wire) return 0;
    size_t some = out_left(wire) < room ? out_left(wire) : room;
    if (some) memcpy(bytes, wire->out + wire->out_taken, some);
    wire->out_taken += some;
    if (out_left(wire) == 0) wire->out_taken = wire->out_length = 0;
    if (out_left(wire) == 0 && wire->state == FP_WIRE_GONE && !wire->is_changed && !wire->is_ready)
        wire_free(sim, wire);
    else give_room(sim, wire);
    return some;
}

void fp_sim_room(fp_sim *sim, fp_wire number, size_t bytes) {
    struct wire *wire = wire_at(sim, number);
    if (!wire) return;
    wire->room = bytes;
    give_room(sim, wire);
}

bool fp_sim_is_idle(const fp_sim *sim) { return sim->is_idle; }

/* ---- the engine's side ---- */

static fp_sim *sim_of(struct loop *loop) { return (fp_sim *)loop; }

static struct wire *wire_of(struct loop *loop, const struct loop_conn *conn) {
    struct wire *wire = wire_at(sim_of(loop), (fp_wire)(conn->fd - FD_BASE));
    CHECK(wire && wire->conn == conn);
    return wire;
}

static bool take_over(struct loop *loop, struct loop_conn *conn, int fd) {
    struct wire *wire = wire_at(sim_of(loop), (fp_wire)(fd - FD_BASE));
    CHECK(wire && !wire->conn);
    conn->fd = fd;
    conn->sent = 0;
    conn->send_error = 0;
    wire->conn = conn;
    return true;
}

static int sim_open(struct loop *loop) {
    struct wire *wire = wire_make(sim_of(loop));
    wire->state = FP_WIRE_DIALED;
    return FD_BASE + (int)wire->number;
}

static struct socket_memory sim_memory(struct loop *loop, const struct loop_conn *conn) {
    const struct wire *wire = wire_at(sim_of(loop), (fp_wire)(conn->fd - FD_BASE));
    return (struct socket_memory){.unsent = wire ? (uint32_t)(wire->out_length - wire->out_taken) : 0};
}

static bool sim_add(struct loop *loop, struct loop_conn *conn, int fd) {
    take_over(loop, conn, fd);
    wire_of(loop, conn)->is_accepted = false;
    mark_ready(sim_of(loop), wire_of(loop, conn));
    return true;
}

static bool sim_connect(struct loop *loop, struct loop_conn *conn, int fd, const void *address, uint32_t length) {
    (void)address, (void)length;
    take_over(loop, conn, fd);
    mark_changed(sim_of(loop), wire_of(loop, conn));
    return true;
}

static void sim_pause(struct loop *loop, struct loop_conn *conn) { wire_of(loop, conn)->paused = true; }

static void sim_resume(struct loop *loop, struct loop_conn *conn) {
    struct wire *wire = wire_of(loop, conn);
    wire->paused = false;
    mark_ready(sim_of(loop), wire);
}

static void out_append(struct wire *wire, const void *bytes, size_t length) {
    if (wire->out_length + length > wire->out_capacity) {
        wire->out_capacity = (wire->out_length + length) * 2;
        wire->out = realloc(wire->out, wire->out_capacity);
        CHECK(wire->out);
    }
    memcpy(wire->out + wire->out_length, bytes, length);
    wire->out_length += length;
}

static void sim_send(struct loop *loop, struct loop_conn *conn, int iov_count) {
    struct wire *wire = wire_of(loop, conn);
    sim_of(loop)->worked = true;
    conn->sent = 0;
    conn->send_error = wire->ended && wire->error ? wire->error : wire->state == FP_WIRE_FINISHED ? EPIPE : 0;
    if (conn->send_error) return;
    size_t room = wire->room > out_left(wire) ? wire->room - out_left(wire) : 0;
    for (int i = 0; i < iov_count; i++) {
        size_t some = conn->iov[i].iov_len < room ? conn->iov[i].iov_len : room;
        out_append(wire, conn->iov[i].iov_base, some);
        conn->sent += (uint32_t)some;
        room -= some;
        if (some < conn->iov[i].iov_len) {
            wire->wants_room = true;
            break;
        }
    }
    if (conn->sent) mark_changed(sim_of(loop), wire);
}

static void sim_abort(struct loop *loop, struct loop_conn *conn) { wire_of(loop, conn)->aborted = true; }

static void sim_finish(struct loop *loop, struct loop_conn *conn) {
    struct wire *wire = wire_of(loop, conn);
    wire->state = FP_WIRE_FINISHED;
    mark_changed(sim_of(loop), wire);
}

static void gone(fp_sim *sim, struct wire *wire) {
    wire->state = FP_WIRE_GONE;
    wire->conn = NULL;
    mark_changed(sim, wire);
}

static void sim_remove(struct loop *loop, struct loop_conn *conn) {
    gone(sim_of(loop), wire_of(loop, conn));
    conn->fd = -1;
}

static void sim_recycle(struct loop *loop) {
    fp_sim *sim = sim_of(loop);
    free_handed(sim);
    sim->worked = false;
}

static void sim_wait(struct loop *loop, uint64_t deadline_ns) { (void)loop, (void)deadline_ns; }

static bool tell(fp_sim *sim, struct wire *wire, struct loop_event *event) {
    if (wire->is_accepted) {
        wire->picked_up = false;
        *event = (struct loop_event){.kind = LOOP_ACCEPTED, .fd = FD_BASE + (int)wire->number};
        return true;
    }
    if (wire->picked_up) {
        wire->picked_up = false;
        *event = (struct loop_event){.kind = LOOP_CONNECTED, .conn = wire->conn, .error = wire->error};
        if (!wire->error) wire->state = FP_WIRE_OPEN;
        return true;
    }
    if (wire->has_room) {
        wire->has_room = false;
        *event = (struct loop_event){.kind = LOOP_WRITABLE, .conn = wire->conn};
        return true;
    }
    struct piece *piece = wire->first;
    if (piece) {
        wire->first = piece->next;
        piece->next = sim->handed;
        sim->handed = piece;
        *event =
            (struct loop_event){.kind = LOOP_DATA, .conn = wire->conn, .bytes = piece->bytes, .length = piece->length};
        return true;
    }
    wire->end_told = true;
    *event = (struct loop_event){.kind = LOOP_CLOSED, .conn = wire->conn, .error = wire->error};
    return true;
}

static bool sim_next(struct loop *loop, struct loop_event *event) {
    fp_sim *sim = sim_of(loop);
    while (sim->ready_first) {
        struct wire *wire = sim->ready_first;
        sim->ready_first = wire->next_ready;
        if (!sim->ready_first) sim->ready_last = NULL;
        wire->is_ready = false;
        if (wire->is_accepted && !wire->picked_up) gone(sim, wire); /* the engine did not take it */
        if (!has_news(wire) || !tell(sim, wire, event)) continue;
        sim->worked = true;
        if (event->kind == LOOP_ACCEPTED) { /* looked at again when the engine has, or has not, taken it over */
            wire->is_ready = true;
            wire->next_ready = NULL;
            *(sim->ready_last ? &sim->ready_last->next_ready : &sim->ready_first) = wire;
            sim->ready_last = wire;
        } else mark_ready(sim, wire);
        return true;
    }
    sim->is_idle = !sim->worked;
    return false;
}

static void sim_wake(struct loop *loop) { (void)loop; }
static bool sim_listen(struct loop *loop, int fd, uint32_t tag) {
    (void)loop, (void)fd, (void)tag;
    return false;
}
static void sim_unlisten(struct loop *loop, uint32_t tag) { (void)loop, (void)tag; }
static void sim_close(struct loop *loop) { (void)loop; }

static const struct loop_ops sim_ops = {
    .name = "sim",
    .destroy = sim_close,
    .listen = sim_listen,
    .unlisten = sim_unlisten,
    .open = sim_open,
    .memory = sim_memory,
    .add = sim_add,
    .connect = sim_connect,
    .pause = sim_pause,
    .resume = sim_resume,
    .send = sim_send,
    .finish = sim_finish,
    .abort = sim_abort,
    .remove = sim_remove,
    .recycle = sim_recycle,
    .wait = sim_wait,
    .next = sim_next,
    .wake = sim_wake,
};

struct loop *loop_sim_create(struct fp_sim *sim, struct budget *budget) {
    sim->loop = (struct loop){.ops = &sim_ops, .clock = sim_clock(sim), .budget = budget};
    return &sim->loop;
}
