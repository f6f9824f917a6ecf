/* loop — the small interface behind which io_uring (ring.c), epoll (poll.c) and the simulator (sim.c) stand.
 *
 * A connection (struct loop_conn, embedded first in a client or link) is a socket that receives until it is paused
 * and to which bytes are sent once a turn. The order of a turn:
 *
 *     loop_recycle   the receive buffers handed out in the last turn go back
 *     loop_send      for every connection that has something to say
 *     loop_wait      submit, sleep until something happens or the deadline, gather what happened
 *     loop_sent      for every connection that was given to loop_send: how much left
 *     loop_next      one event at a time; what is not taken stays for the next turn, its buffer with it
 *
 * Received bytes lie in the loop's own buffers and are valid until the loop_recycle after they were handed out.
 * Loop thread only. Nothing is called back. */
#ifndef FERRITE_NET_LOOP_H
#define FERRITE_NET_LOOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/budget.h"
#include "base/check.h"
#include "base/clock.h"
#include "net/socket.h"

#define LOOP_BUFFER_BYTES 16384u /* one receive buffer */
#define LOOP_IOVECS 16           /* the most of one loop_send */
#define LOOP_NO_DEADLINE UINT64_MAX

struct loop_conn {
    int fd;
    uint32_t state;      /* the engine's flags */
    uint32_t sent;       /* bytes of the last loop_send that left */
    int32_t send_error;  /* errno of the last loop_send, 0 if none (EAGAIN counts as none) */
    uint32_t generation; /* the engine's: tells a late completion from one of this connection */
    uint32_t place;      /* the engine's: index into its own table */
    uint32_t owner;      /* the caller's own mark, never touched here */
    /* io_uring sends need their message to stay put until the kernel has taken it. */
    struct msghdr_space {
        _Alignas(8) uint8_t bytes[64];
    } message;
    struct iovec iov[LOOP_IOVECS];
};

enum loop_event_kind {
    LOOP_ACCEPTED,  /* fd is a new socket of listener `tag`, non-blocking, close-on-exec */
    LOOP_DATA,      /* bytes, length */
    LOOP_CLOSED,    /* the peer has closed or the socket failed: error is 0 or an errno. Nothing more is received; what
                     * is sent may still arrive after an orderly end, and LOOP_WRITABLE still come */
    LOOP_WRITABLE,  /* after a short loop_send: there is room again */
    LOOP_CONNECTED, /* loop_connect has ended: error is 0 or an errno */
    LOOP_WOKEN      /* loop_wake was called */
};

struct loop_event {
    enum loop_event_kind kind;
    int fd; /* LOOP_ACCEPTED */
    int error;
    uint32_t tag;           /* LOOP_ACCEPTED: as given to loop_listen */
    struct loop_conn *conn; /* all but LOOP_ACCEPTED and LOOP_WOKEN */
    const uint8_t *bytes;
    uint32_t length;
};

struct loop;

struct loop_ops {
    const char *name; /* "io_uring" or "epoll" */
    void (*destroy)(struct loop *loop);
    bool (*listen)(struct loop *loop, int fd, uint32_t tag);
    void (*unlisten)(struct loop *loop, uint32_t tag);
    int (*open)(struct loop *loop); /* what stands for a socket; NULL: a real one */
    struct socket_memory (*memory)(struct loop *loop, const struct loop_conn *conn); /* NULL: what the kernel says */
    bool (*add)(struct loop *loop, struct loop_conn *conn, int fd);
    bool (*connect)(struct loop *loop, struct loop_conn *conn, int fd, const void *address, uint32_t address_length);
    void (*pause)(struct loop *loop, struct loop_conn *conn);
    void (*resume)(struct loop *loop, struct loop_conn *conn);
    void (*sip)(struct loop *loop, bool sips); /* NULL: it always does */
    void (*send)(struct loop *loop, struct loop_conn *conn, int iov_count);
    void (*finish)(struct loop *loop, struct loop_conn *conn);
    void (*abort)(struct loop *loop, struct loop_conn *conn); /* NULL: by the socket */
    void (*remove)(struct loop *loop, struct loop_conn *conn);
    void (*recycle)(struct loop *loop);
    void (*wait)(struct loop *loop, uint64_t deadline_ns);
    bool (*next)(struct loop *loop, struct loop_event *event);
    void (*wake)(struct loop *loop);
};

/* First member of every engine's own struct. */
struct loop {
    const struct loop_ops *ops;
    struct clock clock;
    struct budget *budget;
    size_t charged; /* taken for rings and buffers */
};

struct loop_options {
    uint32_t connections_max; /* clients plus links: sizes the tables */
    uint32_t receive_buffers; /* of LOOP_BUFFER_BYTES; a power of two */
};

/* An engine, or NULL with *why saying which step failed and the likely cause ("io_uring_setup: Operation not
 * permitted: a seccomp profile denies it, as containerd 2 and Docker 25 do by default"). Made on the loop thread.
 * loop_ring_create does a real probe: sets up the ring (SINGLE_ISSUER | DEFER_TASKRUN), registers a buffer ring, runs
 * one receive through a socketpair. */
struct loop *loop_ring_create(const struct loop_options *options, struct budget *budget, const char **why);
struct loop *loop_poll_create(const struct loop_options *options, struct budget *budget, const char **why);

static inline const char *loop_name(const struct loop *loop) { return loop->ops->name; }
static inline void loop_destroy(struct loop *loop) { loop->ops->destroy(loop); }

/* Accepts on a listening socket until loop_unlisten, which also closes it. */
static inline bool loop_listen(struct loop *loop, int fd, uint32_t tag) { return loop->ops->listen(loop, fd, tag); }
static inline void loop_unlisten(struct loop *loop, uint32_t tag) { loop->ops->unlisten(loop, tag); }

/* Takes a connected socket over and receives from it. False when the table is full or memory is short (the fd is left
 * open). conn must stay where it is until loop_remove. */
static inline bool loop_add(struct loop *loop, struct loop_conn *conn, int fd) {
    return loop->ops->add(loop, conn, fd);
}
/* A socket to connect with, or a negative errno. */
static inline int loop_open(struct loop *loop, const struct socket_address *address,
                            const struct socket_buffers *buffers) {
    return unlikely(loop->ops->open) ? loop->ops->open(loop) : socket_for_link(address, buffers);
}
/* Bytes that what waits in the socket costs outside the process. */
static inline struct socket_memory loop_memory(struct loop *loop, const struct loop_conn *conn) {
    return unlikely(loop->ops->memory) ? loop->ops->memory(loop, conn) : socket_memory(conn->fd);
}
/* The same for a socket still to be connected: LOOP_CONNECTED tells, then it receives. */
static inline bool loop_connect(struct loop *loop, struct loop_conn *conn, int fd, const void *address,
                                uint32_t length) {
    return loop->ops->connect(loop, conn, fd, address, length);
}

/* Stops and restarts receiving. After a pause at most what was already received still comes. Idempotent. */
static inline void loop_pause(struct loop *loop, struct loop_conn *conn) { loop->ops->pause(loop, conn); }
static inline void loop_resume(struct loop *loop, struct loop_conn *conn) { loop->ops->resume(loop, conn); }

/* From accepted connections at most one buffer is received in a turn, so that a pause comes in time, at the price of a
 * request for each; else as much as is there. */
static inline void loop_sip(struct loop *loop, bool sips) {
    if (loop->ops->sip) loop->ops->sip(loop, sips);
}

/* Sends conn->iov[0..iov_count) without waiting. The bytes stay put until after the next loop_wait; then conn->sent
 * says how many left. If not all did, and there was no error, LOOP_WRITABLE follows once there is room (do not send
 * before it). One loop_send a connection and turn. A send that left whole wakes nobody: who has more to say than one
 * loop_send takes must not let loop_wait sleep. */
static inline void loop_send(struct loop *loop, struct loop_conn *conn, int iov_count) {
    loop->ops->send(loop, conn, iov_count);
}

/* Tells the peer that nothing more will be sent. Not while a loop_send is under way. */
static inline void loop_finish(struct loop *loop, struct loop_conn *conn) { loop->ops->finish(loop, conn); }

/* When it is removed the peer is to get nothing more, not what the kernel still holds either: by a reset. */
static inline void loop_abort(struct loop *loop, struct loop_conn *conn) {
    if (unlikely(loop->ops->abort)) loop->ops->abort(loop, conn);
    else socket_abort(conn->fd);
}

/* Whenever it ends from now on it ends so, if only with the process. */
static inline void loop_reset_at_end(struct loop *loop, struct loop_conn *conn) {
    if (likely(!loop->ops->abort)) socket_abort(conn->fd);
}

/* Closes the socket (with the next loop_wait at the latest) and forgets the connection: no event of it follows, conn
 * and what it was sending may be freed at once. Also what ends a connection after LOOP_CLOSED. */
static inline void loop_remove(struct loop *loop, struct loop_conn *conn) { loop->ops->remove(loop, conn); }

static inline void loop_recycle(struct loop *loop) { loop->ops->recycle(loop); }

/* Submits what was asked and sleeps until an event or deadline_ns (monotonic; 0: does not sleep; LOOP_NO_DEADLINE).
 * May also return early, with no event. Does not sleep while events of an earlier turn have not been taken. */
static inline void loop_wait(struct loop *loop, uint64_t deadline_ns) { loop->ops->wait(loop, deadline_ns); }

static inline bool loop_next(struct loop *loop, struct loop_event *event) { return loop->ops->next(loop, event); }

/* Any thread: makes loop_wait return with LOOP_WOKEN. Async-signal-safe. */
static inline void loop_wake(struct loop *loop) { loop->ops->wake(loop); }

#endif
