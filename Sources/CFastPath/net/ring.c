/* ring — the io_uring engine: a turn's sends and re-arms go down and its completions come up in one call.
 *
 *     accept    multishot                          one request a listener, a completion for each new socket
 *     receive   multishot, provided buffer ring    one request a connection, a completion with a buffer for each piece;
 *                                                  one request a piece while it sips, for a multishot takes all
 *                                                  that a peer sends, and what it sends while that is taken
 *     send      CQE_SKIP_SUCCESS                   a completion only if it was short or failed
 *
 * Sends run while they are submitted (MSG_DONTWAIT) and complete there, so after the wait a send that left no
 * completion has left whole. MSG_WAITALL makes a short one count as failed, else it would be skipped as a success.
 *
 * Completions stay in the kernel's queue until loop_next takes them; `seen` runs ahead of `taken`, because short
 * sends and the number of buffers left must be known right after the wait. The only file that includes liburing.h.
 * IORING_SETUP_NO_SQARRAY must never be set: liburing 2.3 would write the array over the ring's heads. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/check.h"
#include "net/loop.h"
#include "net/place.h"
#include "net/poison.h"
#include "net/ring_reason.h"

#define SQ_ENTRIES 512u
#define BUFFER_GROUP 0
#define BUFFERS_MAX 32768u /* the kernel's limit for one buffer ring */
#define SIP_BYTES 4096u
#define SEND_FLAGS (MSG_DONTWAIT | MSG_WAITALL | MSG_NOSIGNAL)

/* What a completion belongs to. IGNORED are requests whose outcome changes nothing (cancel, close). */
enum kind { IGNORED, RECEIVE, SEND, WRITABLE, CONNECT, ACCEPT, ACCEPT_RETRY, WAKE, TIMER };

/* loop_conn.state */
enum {
    WANTED = 1,      /* not paused */
    ARMED = 2,       /* a receive is in the kernel; exactly one completion without F_MORE will end it */
    CANCELLING = 4,  /* and it has been told to end */
    STARVED = 8,     /* its receive ended for want of buffers; loop_recycle arms it again */
    OUT_ARMED = 16,  /* a poll for room to send is in the kernel */
    CONNECTING = 32, /* a poll for the end of connecting is in the kernel */
    ENDED = 64,      /* LOOP_CLOSED, or LOOP_CONNECTED with an error, was told */
    LINK = 128       /* made by loop_connect: never sips */
};

struct ring {
    struct loop loop;
    struct io_uring uring;
    struct places places;
    struct listener_slot listeners[LISTENERS_MAX];

    uint32_t taken; /* completions before this one were taken by loop_next */
    uint32_t seen;  /* and those before this one gathered after the wait */
    uint32_t turn;  /* counts submissions: a place with this turn has a send still queued */

    struct io_uring_buf_ring *buffer_ring;
    uint8_t *buffers;
    uint32_t buffer_count; /* a power of two */
    uint32_t buffers_free; /* that the kernel can still fill */
    uint16_t *handed;      /* buffers whose bytes were handed out since the last recycle */
    uint32_t handed_count;
    uint32_t first_starved, last_starved; /* places, in order of starving */
    bool sips;

    int wake_fd;
    uint64_t wake_count; /* where the wake's request reads to */

    uint64_t timer_ns; /* when the timer in the kernel fires; LOOP_NO_DEADLINE: there is none */
    struct __kernel_timespec timer;
    struct __kernel_timespec accept_retry;
};

static const struct loop_ops ring_ops;

static struct ring *ring_of(struct loop *loop) { return (struct ring *)loop; }

static void submit(struct ring *ring) {
    /* Fails only for want of kernel memory, having taken nothing: the requests must go, so try again. */
    while (io_uring_sq_ready(&ring->uring)) {
        int result = io_uring_submit(&ring->uring);
        CHECK(result >= 0 || result == -EAGAIN || result == -EINTR || result == -EBUSY || result == -ENOMEM);
    }
    ring->turn++;
}

static struct io_uring_sqe *request(struct ring *ring) {
    struct io_uring_sqe *sqe = io_uring_get_sqe(&ring->uring);
    if (unlikely(!sqe)) {
        submit(ring);
        sqe = io_uring_get_sqe(&ring->uring);
    }
    return sqe;
}

static uint64_t conn_token(const struct loop_conn *conn, enum kind kind) {
    return token_of(conn->generation, conn->place, kind);
}

/* Receiving. */

static void arm_if_wanted(struct ring *ring, struct loop_conn *conn) {
    if ((conn->state & (WANTED | ARMED | STARVED | CONNECTING | ENDED)) != WANTED) return;
    struct io_uring_sqe *sqe = request(ring);
    if (unlikely(ring->sips && !(conn->state & LINK))) io_uring_prep_recv(sqe, conn->fd, NULL, SIP_BYTES, 0);
    else io_uring_prep_recv_multishot(sqe, conn->fd, NULL, 0, 0);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = BUFFER_GROUP;
    sqe->user_data = conn_token(conn, RECEIVE);
    conn->state |= ARMED;
}

static void disarm(struct ring *ring, struct loop_conn *conn) {
    if ((conn->state & (ARMED | CANCELLING)) != ARMED) return;
    struct io_uring_sqe *sqe = request(ring);
    io_uring_prep_cancel64(sqe, conn_token(conn, RECEIVE), 0);
    sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
    sqe->user_data = IGNORED;
    conn->state |= CANCELLING;
}

static void ring_pause(struct loop *loop, struct loop_conn *conn) {
    conn->state &= ~(uint32_t)WANTED;
    disarm(ring_of(loop), conn);
}

/* A receive that has been told to end is armed again, in the other way, by its last completion; one that sips becomes a
 * multishot with its next bytes. */
static void ring_sip(struct loop *loop, bool sips) {
    struct ring *ring = ring_of(loop);
    bool began = sips && !ring->sips;
    ring->sips = sips;
    for (uint32_t i = 0; began && i < ring->places.count; i++) {
        struct loop_conn *conn = ring->places.at[i].conn;
        if (conn && !(conn->state & LINK)) disarm(ring, conn);
    }
}

/* While the old receive is still ending nothing is armed, so that two never race: its last completion does it. */
static void ring_resume(struct loop *loop, struct loop_conn *conn) {
    conn->state |= WANTED;
    arm_if_wanted(ring_of(loop), conn);
}

static void starve(struct ring *ring, struct loop_conn *conn) {
    struct place *place = &ring->places.at[conn->place];
    conn->state |= STARVED;
    if (place->next_queued != PLACE_UNQUEUED) return; /* queued by a connection that had this place before */
    place->next_queued = PLACE_NONE;
    if (ring->first_starved == PLACE_NONE) ring->first_starved = conn->place;
    else ring->places.at[ring->last_starved].next_queued = conn->place;
    ring->last_starved = conn->place;
}

/* No more than there are buffers: arming all would only starve most of them again. */
static void arm_starved(struct ring *ring) {
    for (uint32_t n = ring->buffers_free; n > 0 && ring->first_starved != PLACE_NONE;) {
        struct place *place = &ring->places.at[ring->first_starved];
        ring->first_starved = place->next_queued;
        place->next_queued = PLACE_UNQUEUED;
        if (!place->conn || !(place->conn->state & STARVED)) continue;
        place->conn->state &= ~(uint32_t)STARVED;
        arm_if_wanted(ring, place->conn);
        n--;
    }
}

static uint8_t *buffer_at(const struct ring *ring, uint32_t buffer) {
    return ring->buffers + (size_t)buffer * LOOP_BUFFER_BYTES;
}

static void provide(struct ring *ring, uint16_t buffer, uint32_t offset) {
    ASAN_POISON_MEMORY_REGION(buffer_at(ring, buffer), LOOP_BUFFER_BYTES);
    io_uring_buf_ring_add(ring->buffer_ring, buffer_at(ring, buffer), LOOP_BUFFER_BYTES, buffer,
                          (int)ring->buffer_count - 1, (int)offset);
}

static void ring_recycle(struct loop *loop) {
    struct ring *ring = ring_of(loop);
    for (uint32_t i = 0; i < ring->handed_count; i++) provide(ring, ring->handed[i], i);
    io_uring_buf_ring_advance(ring->buffer_ring, (int)ring->handed_count);
    ring->buffers_free += ring->handed_count;
    ring->handed_count = 0;
    if (unlikely(ring->first_starved != PLACE_NONE)) arm_starved(ring);
}

/* Sending. */

static void ring_send(struct loop *loop, struct loop_conn *conn, int iov_count) {
    struct ring *ring = ring_of(loop);
    struct io_uring_sqe *sqe = request(ring);
    size_t bytes = conn->iov[0].iov_len;
    if (iov_count == 1) {
        io_uring_prep_send(sqe, conn->fd, conn->iov[0].iov_base, bytes, SEND_FLAGS);
    } else {
        static_assert(sizeof(struct msghdr) <= sizeof conn->message, "a message fits into the connection");
        struct msghdr *message = (struct msghdr *)&conn->message;
        *message = (struct msghdr){.msg_iov = conn->iov, .msg_iovlen = (size_t)iov_count};
        for (int i = 1; i < iov_count; i++) bytes += conn->iov[i].iov_len;
        io_uring_prep_sendmsg(sqe, conn->fd, message, SEND_FLAGS);
    }
    sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
    sqe->user_data = conn_token(conn, SEND);
    conn->sent = (uint32_t)bytes; /* unless a completion says otherwise */
    conn->send_error = 0;
    ring->places.at[conn->place].turn = ring->turn;
}

static void poll_out(struct ring *ring, struct loop_conn *conn, enum kind kind) {
    struct io_uring_sqe *sqe = request(ring);
    io_uring_prep_poll_add(sqe, conn->fd, POLLOUT);
    sqe->user_data = conn_token(conn, kind);
}

static void note_send(struct ring *ring, const struct io_uring_cqe *cqe) {
    struct loop_conn *conn = places_find(&ring->places, cqe->user_data);
    if (!conn || cqe->res >= (int64_t)conn->sent) return;
    conn->sent = cqe->res > 0 ? (uint32_t)cqe->res : 0;
    if (cqe->res < 0 && cqe->res != -EAGAIN) {
        conn->send_error = -cqe->res;
    } else if (!(conn->state & OUT_ARMED)) {
        conn->state |= OUT_ARMED;
        poll_out(ring, conn, WRITABLE);
    }
}

/* Connections. */

static bool ring_add(struct loop *loop, struct loop_conn *conn, int fd) {
    struct ring *ring = ring_of(loop);
    if (!places_take(&ring->places, conn, fd)) return false;
    conn->state = WANTED;
    arm_if_wanted(ring, conn);
    return true;
}

/* Begun by the call itself, so that the address need not stay; the poll tells the end, of an immediate failure too
 * (an unconnected socket polls as hung up), whose errno waits in send_error. */
static bool ring_connect(struct loop *loop, struct loop_conn *conn, int fd, const void *address, uint32_t length) {
    struct ring *ring = ring_of(loop);
    if (!places_take(&ring->places, conn, fd)) return false;
    conn->state = WANTED | CONNECTING | LINK;
    if (connect(fd, address, length) < 0 && errno != EINPROGRESS) conn->send_error = errno;
    poll_out(ring, conn, CONNECT);
    return true;
}

static void close_in_order(struct ring *ring, int fd, bool cancel) {
    struct io_uring_sqe *sqe;
    if (cancel) {
        /* Requests hold the file: without this the socket would live on after its close. */
        sqe = request(ring);
        io_uring_prep_cancel_fd(sqe, fd, IORING_ASYNC_CANCEL_ALL);
        sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
        sqe->user_data = IGNORED;
    }
    /* By request and not by close(2), so that what is queued with this fd cannot reach another socket. */
    sqe = request(ring);
    io_uring_prep_close(sqe, fd);
    sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
    sqe->user_data = IGNORED;
}

static void ring_remove(struct loop *loop, struct loop_conn *conn) {
    struct ring *ring = ring_of(loop);
    /* A send still queued points into the connection, which may be freed now. */
    if (ring->places.at[conn->place].turn == ring->turn) submit(ring);
    close_in_order(ring, conn->fd, conn->state & (ARMED | OUT_ARMED | CONNECTING));
    places_release(&ring->places, conn);
}

/* Listeners. */

static uint64_t listener_token(const struct ring *ring, const struct listener_slot *listener, enum kind kind) {
    return token_of(listener->generation, (uint32_t)(listener - ring->listeners), kind);
}

static void arm_accept(struct ring *ring, const struct listener_slot *listener) {
    struct io_uring_sqe *sqe = request(ring);
    io_uring_prep_multishot_accept(sqe, listener->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    sqe->user_data = listener_token(ring, listener, ACCEPT);
}

/* Out of descriptors or memory: the next try would fail as well, and at once. */
static void arm_accept_later(struct ring *ring, const struct listener_slot *listener) {
    struct io_uring_sqe *sqe = request(ring);
    io_uring_prep_timeout(sqe, &ring->accept_retry, 0, 0);
    sqe->user_data = listener_token(ring, listener, ACCEPT_RETRY);
}

static bool ring_listen(struct loop *loop, int fd, uint32_t tag) {
    struct ring *ring = ring_of(loop);
    struct listener_slot *listener = listeners_take(ring->listeners, fd, tag);
    if (!listener) return false;
    arm_accept(ring, listener);
    return true;
}

static void ring_unlisten(struct loop *loop, uint32_t tag) {
    struct ring *ring = ring_of(loop);
    for (struct listener_slot *listener = ring->listeners; listener < ring->listeners + LISTENERS_MAX; listener++) {
        if (listener->fd < 0 || listener->tag != tag) continue;
        close_in_order(ring, listener->fd, true);
        listener->fd = -1;
        listener->generation++;
    }
}

static void arm_wake(struct ring *ring) {
    struct io_uring_sqe *sqe = request(ring);
    io_uring_prep_read(sqe, ring->wake_fd, &ring->wake_count, sizeof ring->wake_count, 0);
    sqe->user_data = WAKE;
}

static void ring_wake(struct loop *loop) {
    int saved = errno; /* may run in a signal handler */
    uint64_t one = 1;
    ssize_t written = write(ring_of(loop)->wake_fd, &one, sizeof one);
    (void)written;
    errno = saved;
}

/* Waiting, and taking what came. */

static void gather(struct ring *ring) {
    const struct io_uring_cq *cq = &ring->uring.cq;
    uint32_t tail = io_uring_smp_load_acquire(cq->ktail);
    for (; ring->seen != tail; ring->seen++) {
        const struct io_uring_cqe *cqe = &cq->cqes[ring->seen & cq->ring_mask];
        if (cqe->flags & IORING_CQE_F_BUFFER) ring->buffers_free--;
        else if (token_kind(cqe->user_data) == SEND) note_send(ring, cqe);
    }
}

/* A wait with a timeout sets a timer and takes it away again each time, some 1 us. Instead one timer stays in the
 * kernel, moved only to an earlier deadline; when the deadline has become later it fires early, and ends a wait. */
static void set_timer(struct ring *ring, uint64_t deadline_ns) {
    if (deadline_ns >= ring->timer_ns) return;
    struct io_uring_sqe *sqe = request(ring);
    ring->timer = (struct __kernel_timespec){(int64_t)(deadline_ns / NS_PER_S), (int64_t)(deadline_ns % NS_PER_S)};
    if (ring->timer_ns == LOOP_NO_DEADLINE) {
        io_uring_prep_timeout(sqe, &ring->timer, 0, IORING_TIMEOUT_ABS);
        sqe->user_data = TIMER;
    } else {
        io_uring_prep_timeout_update(sqe, &ring->timer, TIMER, IORING_TIMEOUT_ABS);
        sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
        sqe->user_data = IGNORED;
    }
    ring->timer_ns = deadline_ns;
}

static void ring_wait(struct loop *loop, uint64_t deadline_ns) {
    struct ring *ring = ring_of(loop);
    io_uring_smp_store_release(ring->uring.cq.khead, ring->taken);
    if (deadline_ns == 0 || ring->taken != ring->seen) {
        io_uring_submit_and_get_events(&ring->uring); /* DEFER_TASKRUN: nothing is gathered unless asked for */
    } else {
        set_timer(ring, deadline_ns);
        io_uring_submit_and_wait(&ring->uring, 1);
    }
    submit(ring); /* normally nothing is left, and this only counts */
    gather(ring);
}

/* A receive has come to an end without bytes. */
static bool take_receive_end(struct ring *ring, struct loop_conn *conn, int result, struct loop_event *event) {
    if (result == -ENOBUFS) {
        starve(ring, conn);
        return false;
    }
    if (result == -ECANCELED || result == -EAGAIN || result == -EINTR) {
        arm_if_wanted(ring, conn);
        return false;
    }
    conn->state |= ENDED;
    *event = (struct loop_event){.kind = LOOP_CLOSED, .conn = conn, .error = -result};
    return true;
}

static bool take_receive(struct ring *ring, const struct io_uring_cqe *cqe, struct loop_event *event) {
    struct loop_conn *conn = places_find(&ring->places, cqe->user_data);
    uint32_t buffer = cqe->flags >> IORING_CQE_BUFFER_SHIFT;
    if (cqe->flags & IORING_CQE_F_BUFFER) ring->handed[ring->handed_count++] = (uint16_t)buffer;
    if (unlikely(!conn)) return false;
    if (unlikely(!(cqe->flags & IORING_CQE_F_MORE))) conn->state &= ~(uint32_t)(ARMED | CANCELLING);
    if (unlikely(cqe->res <= 0)) return take_receive_end(ring, conn, cqe->res, event);
    arm_if_wanted(ring, conn);
    event->kind = LOOP_DATA;
    event->conn = conn;
    event->bytes = buffer_at(ring, buffer);
    event->length = (uint32_t)cqe->res;
    ASAN_UNPOISON_MEMORY_REGION(event->bytes, event->length);
    return true;
}

static bool take_connect(struct ring *ring, struct loop_conn *conn, struct loop_event *event) {
    int error = conn->send_error;
    socklen_t length = sizeof error;
    if (!error && getsockopt(conn->fd, SOL_SOCKET, SO_ERROR, &error, &length) < 0) error = errno;
    conn->send_error = 0;
    conn->state &= ~(uint32_t)CONNECTING;
    if (error) conn->state |= ENDED;
    else arm_if_wanted(ring, conn);
    *event = (struct loop_event){.kind = LOOP_CONNECTED, .conn = conn, .error = error};
    return true;
}

static bool take_accept(struct ring *ring, const struct io_uring_cqe *cqe, struct loop_event *event) {
    const struct listener_slot *listener = listeners_find(ring->listeners, cqe->user_data);
    if (!listener) {
        if (cqe->res >= 0) close(cqe->res);
        return false;
    }
    if (!(cqe->flags & IORING_CQE_F_MORE)) {
        if (accept_must_rest(-cqe->res)) arm_accept_later(ring, listener);
        else arm_accept(ring, listener);
    }
    if (cqe->res < 0) return false;
    *event = (struct loop_event){.kind = LOOP_ACCEPTED, .fd = cqe->res, .tag = listener->tag};
    return true;
}

static bool take(struct ring *ring, const struct io_uring_cqe *cqe, struct loop_event *event) {
    enum kind kind = token_kind(cqe->user_data);
    if (likely(kind == RECEIVE)) return take_receive(ring, cqe, event);
    if (kind == ACCEPT) return take_accept(ring, cqe, event);
    if (kind == ACCEPT_RETRY) {
        const struct listener_slot *listener = listeners_find(ring->listeners, cqe->user_data);
        if (listener) arm_accept(ring, listener);
        return false;
    }
    if (kind == WAKE) {
        arm_wake(ring);
        *event = (struct loop_event){.kind = LOOP_WOKEN};
        return true;
    }
    if (kind == TIMER) ring->timer_ns = LOOP_NO_DEADLINE;
    if (kind != WRITABLE && kind != CONNECT) return false;
    struct loop_conn *conn = places_find(&ring->places, cqe->user_data);
    if (!conn) return false;
    if (kind == CONNECT) return take_connect(ring, conn, event);
    conn->state &= ~(uint32_t)OUT_ARMED;
    *event = (struct loop_event){.kind = LOOP_WRITABLE, .conn = conn};
    return true;
}

static bool ring_next(struct loop *loop, struct loop_event *event) {
    struct ring *ring = ring_of(loop);
    const struct io_uring_cq *cq = &ring->uring.cq;
    while (ring->taken != ring->seen) {
        if (take(ring, &cq->cqes[ring->taken++ & cq->ring_mask], event)) return true;
    }
    return false;
}

/* Making and probing. */

/* One send and one receive through a socketpair, as clients are served; 0 or an errno with *step. */
static int probe_pair(struct ring *ring, const int pair[2], enum ring_step *step) {
    struct io_uring *uring = &ring->uring;
    struct io_uring_sqe *sqe = request(ring);
    io_uring_prep_recv_multishot(sqe, pair[0], NULL, 0, 0);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = BUFFER_GROUP;
    sqe->user_data = RECEIVE;
    sqe = request(ring);
    io_uring_prep_send(sqe, pair[1], "?", 1, SEND_FLAGS);
    sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
    sqe->user_data = SEND;

    /* The byte, then, as the pair is shut, the end. */
    for (int length = 1; length >= 0; length--) {
        struct __kernel_timespec timeout = {.tv_sec = 1};
        struct io_uring_cqe *cqe;
        int result = io_uring_submit_and_wait_timeout(uring, &cqe, 1, &timeout, NULL);
        if (result < 0) return -result;
        *step = cqe->user_data == SEND ? RING_SEND : RING_RECEIVE;
        if (cqe->res < 0) return -cqe->res;
        if (cqe->user_data != RECEIVE || cqe->res != length) return EPROTO;
        if (length == 1) {
            uint32_t buffer = cqe->flags >> IORING_CQE_BUFFER_SHIFT;
            if (!(cqe->flags & IORING_CQE_F_BUFFER) || buffer >= ring->buffer_count) return EPROTO;
            ASAN_UNPOISON_MEMORY_REGION(buffer_at(ring, buffer), 1);
            if (*buffer_at(ring, buffer) != '?') return EPROTO;
            provide(ring, (uint16_t)buffer, 0);
            io_uring_buf_ring_advance(ring->buffer_ring, 1);
            shutdown(pair[1], SHUT_RDWR);
        }
        io_uring_cqe_seen(uring, cqe);
    }
    return 0;
}

static int probe(struct ring *ring, enum ring_step *step) {
    int pair[2];
    *step = RING_RECEIVE;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0) return errno;
    int error = probe_pair(ring, pair, step);
    close(pair[0]);
    close(pair[1]);
    ring->taken = ring->seen = *ring->uring.cq.khead;
    return error;
}

static size_t buffer_ring_bytes(const struct ring *ring) { return ring->buffer_count * sizeof(struct io_uring_buf); }

static size_t buffers_bytes(const struct ring *ring) { return (size_t)ring->buffer_count * LOOP_BUFFER_BYTES; }

/* Sets the ring and its buffers up; 0 or an errno with *step. */
static int set_up(struct ring *ring, struct io_uring_params *params, enum ring_step *step) {
    *step = RING_SETUP;
    int result = io_uring_queue_init_params(SQ_ENTRIES, &ring->uring, params);
    if (result < 0) return -result;
    /* Saves a look-up of the descriptor at each call; where it cannot be had the ring works all the same. */
    io_uring_register_ring_fd(&ring->uring);

    *step = RING_BUFFERS;
    ring->buffer_ring = mmap(NULL, buffer_ring_bytes(ring), PROT_READ | PROT_WRITE, MAP_ANONYMOUS | MAP_PRIVATE, -1, 0);
    ring->buffers = mmap(NULL, buffers_bytes(ring), PROT_READ | PROT_WRITE, MAP_ANONYMOUS | MAP_PRIVATE, -1, 0);
    if (ring->buffer_ring == MAP_FAILED || ring->buffers == MAP_FAILED) return ENOMEM;
    struct io_uring_buf_reg registration = {
        .ring_addr = (uintptr_t)ring->buffer_ring, .ring_entries = ring->buffer_count, .bgid = BUFFER_GROUP};
    result = io_uring_register_buf_ring(&ring->uring, &registration, 0);
    if (result < 0) return -result;
    for (uint32_t i = 0; i < ring->buffer_count; i++) provide(ring, (uint16_t)i, i);
    io_uring_buf_ring_advance(ring->buffer_ring, (int)ring->buffer_count);
    ring->buffers_free = ring->buffer_count;
    return probe(ring, step);
}

static void ring_destroy(struct loop *loop) {
    struct ring *ring = ring_of(loop);
    for (uint32_t i = 0; i < LISTENERS_MAX; i++) {
        if (ring->listeners[i].fd >= 0) close(ring->listeners[i].fd);
    }
    if (ring->uring.ring_fd >= 0) {
        io_uring_submit(&ring->uring); /* closes that are still queued */
        io_uring_queue_exit(&ring->uring);
    }
    if (ring->buffers != MAP_FAILED) {
        ASAN_UNPOISON_MEMORY_REGION(ring->buffers, buffers_bytes(ring));
        munmap(ring->buffers, buffers_bytes(ring));
    }
    if (ring->buffer_ring != MAP_FAILED) munmap(ring->buffer_ring, buffer_ring_bytes(ring));
    if (ring->wake_fd >= 0) close(ring->wake_fd);
    free(ring->handed);
    places_deinit(&ring->places);
    budget_give(loop->budget, BUDGET_RINGS, loop->charged);
    free(ring);
}

struct loop *loop_ring_create(const struct loop_options *options, struct budget *budget, const char **why) {
    struct io_uring_params params = {.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                                              IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP,
                                     .cq_entries = options->receive_buffers + options->connections_max + SQ_ENTRIES};
    uint32_t buffers = options->receive_buffers;
    CHECK(buffers > 0 && buffers <= BUFFERS_MAX && (buffers & (buffers - 1)) == 0);
    CHECK(options->connections_max > 0 && options->connections_max <= PLACES_MAX);

    ssize_t kernel_bytes = io_uring_mlock_size_params(SQ_ENTRIES, &params);
    size_t bytes = sizeof(struct ring) + options->connections_max * sizeof(struct place) +
                   (size_t)(kernel_bytes > 0 ? kernel_bytes : 0) +
                   buffers * (LOOP_BUFFER_BYTES + sizeof(struct io_uring_buf) + sizeof(uint16_t));
    if (!budget_take(budget, BUDGET_RINGS, bytes)) {
        *why = "the rings and receive buffers do not fit into local_memory";
        return NULL;
    }
    struct ring *ring = calloc(1, sizeof *ring);
    if (!ring) {
        budget_give(budget, BUDGET_RINGS, bytes);
        *why = "no memory for the ring's tables";
        return NULL;
    }
    ring->loop = (struct loop){.ops = &ring_ops, .clock = clock_real(), .budget = budget, .charged = bytes};
    ring->uring.ring_fd = -1;
    ring->buffer_count = buffers;
    ring->buffer_ring = MAP_FAILED;
    ring->buffers = MAP_FAILED;
    ring->first_starved = PLACE_NONE;
    ring->turn = 1;
    ring->timer_ns = LOOP_NO_DEADLINE;
    ring->accept_retry.tv_nsec = ACCEPT_RETRY_NS;
    listeners_init(ring->listeners);
    ring->handed = calloc(buffers, sizeof *ring->handed);
    ring->wake_fd = eventfd(0, EFD_CLOEXEC);
    enum ring_step step;
    if (!places_init(&ring->places, options->connections_max) || !ring->handed) {
        *why = "no memory for the ring's tables";
    } else if (ring->wake_fd < 0) {
        *why = "eventfd: no descriptor left";
    } else {
        int error = set_up(ring, &params, &step);
        if (error == 0) {
            arm_wake(ring);
            return &ring->loop;
        }
        *why = ring_reason(step, error);
    }
    ring_destroy(&ring->loop);
    return NULL;
}

static void ring_finish(struct loop *loop, struct loop_conn *conn) {
    (void)loop;
    shutdown(conn->fd, SHUT_WR);
}

static const struct loop_ops ring_ops = {
    .name = "io_uring",
    .destroy = ring_destroy,
    .listen = ring_listen,
    .unlisten = ring_unlisten,
    .add = ring_add,
    .connect = ring_connect,
    .pause = ring_pause,
    .resume = ring_resume,
    .sip = ring_sip,
    .send = ring_send,
    .finish = ring_finish,
    .remove = ring_remove,
    .recycle = ring_recycle,
    .wait = ring_wait,
    .next = ring_next,
    .wake = ring_wake,
};
