/* poll — the epoll engine, for where io_uring is denied: level-triggered, receiving as each event is taken.
 *
 * Whatever is not received stays in its socket and is reported again, so a spent pool of buffers loses nothing.
 * Interest is corrected late: pausing and a send that has got its room only note it, and the epoll set changes when
 * an unwanted event really comes. A pause that is soon over, and a request answered at once, cost no epoll_ctl.
 * Buffers are taken from the pool's beginning in every turn: a quiet loop touches few pages. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/check.h"
#include "net/loop.h"
#include "net/place.h"
#include "net/poison.h"

#define EVENTS_MAX 256

enum kind { CONN, LISTENER, WAKE };

/* loop_conn.state. What the epoll set holds lies beside what is wanted, shifted by IN_SET. */
enum {
    WANT_IN = 1,  /* not paused */
    WANT_OUT = 2, /* the last send was short */
    WANTS = WANT_IN | WANT_OUT,
    IN_SET = 2,
    CONNECTING = 16,
    ENDED = 32 /* LOOP_CLOSED, or LOOP_CONNECTED with an error, was told */
};

struct poll {
    struct loop loop;
    int epoll_fd;
    int wake_fd;
    struct places places;
    struct listener_slot listeners[LISTENERS_MAX];
    uint64_t accept_retry_ns; /* 0, or when listeners that rest are to be tried again */
    bool coarse;              /* the kernel lacks epoll_pwait2 */

    uint8_t *buffers;
    uint32_t buffer_count;
    uint32_t buffers_used; /* since the last recycle */

    int taken; /* events before this one were taken by loop_next */
    int count;
    struct epoll_event events[EVENTS_MAX];
};

static const struct loop_ops poll_ops;

static struct poll *poll_of(struct loop *loop) { return (struct poll *)loop; }

static uint32_t wanted(const struct loop_conn *conn) {
    if (likely(!(conn->state & (CONNECTING | ENDED)))) return conn->state & WANTS;
    return conn->state & CONNECTING ? WANT_OUT : conn->state & WANT_OUT;
}

static struct epoll_event interest(const struct loop_conn *conn, uint32_t want) {
    /* A hang-up is reported whatever the interest: one-shot silences it, without leaving the set. */
    uint32_t events = want ? (want & WANT_IN ? EPOLLIN : 0u) | (want & WANT_OUT ? EPOLLOUT : 0u) : EPOLLONESHOT;
    return (struct epoll_event){.events = events, .data.u64 = token_of(conn->generation, conn->place, CONN)};
}

/* Brings the epoll set to what the connection wants. */
static void update(struct poll *poll, struct loop_conn *conn) {
    uint32_t want = wanted(conn);
    if (want == (conn->state >> IN_SET & WANTS)) return;
    struct epoll_event event = interest(conn, want);
    CHECK(epoll_ctl(poll->epoll_fd, EPOLL_CTL_MOD, conn->fd, &event) == 0);
    conn->state = (conn->state & ~(uint32_t)(WANTS << IN_SET)) | want << IN_SET;
}

/* Connections. */

static bool enter(struct poll *poll, struct loop_conn *conn, int fd, uint32_t state) {
    if (!places_take(&poll->places, conn, fd)) return false;
    conn->state = state;
    uint32_t want = wanted(conn);
    struct epoll_event event = interest(conn, want);
    if (epoll_ctl(poll->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0) {
        places_release(&poll->places, conn);
        return false;
    }
    conn->state |= want << IN_SET;
    return true;
}

static bool poll_add(struct loop *loop, struct loop_conn *conn, int fd) {
    return enter(poll_of(loop), conn, fd, WANT_IN);
}

/* An immediate failure is told like a late one (an unconnected socket polls as hung up): its errno waits in
 * send_error. */
static bool poll_connect(struct loop *loop, struct loop_conn *conn, int fd, const void *address, uint32_t length) {
    int error = connect(fd, address, length) < 0 && errno != EINPROGRESS ? errno : 0;
    if (!enter(poll_of(loop), conn, fd, WANT_IN | CONNECTING)) return false;
    conn->send_error = error;
    return true;
}

static void poll_pause(struct loop *loop, struct loop_conn *conn) {
    (void)loop;
    conn->state &= ~(uint32_t)WANT_IN;
}

static void poll_resume(struct loop *loop, struct loop_conn *conn) {
    conn->state |= WANT_IN;
    update(poll_of(loop), conn);
}

static void poll_remove(struct loop *loop, struct loop_conn *conn) {
    close(conn->fd); /* leaves the epoll set with it */
    places_release(&poll_of(loop)->places, conn);
}

static void poll_send(struct loop *loop, struct loop_conn *conn, int iov_count) {
    size_t bytes = conn->iov[0].iov_len;
    ssize_t sent;
    if (iov_count == 1) {
        sent = send(conn->fd, conn->iov[0].iov_base, bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
    } else {
        struct msghdr message = {.msg_iov = conn->iov, .msg_iovlen = (size_t)iov_count};
        for (int i = 1; i < iov_count; i++) bytes += conn->iov[i].iov_len;
        sent = sendmsg(conn->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
    conn->sent = sent > 0 ? (uint32_t)sent : 0;
    conn->send_error = 0;
    if (likely(sent == (ssize_t)bytes)) return;
    if (sent < 0 && errno != EAGAIN) {
        conn->send_error = errno;
        return;
    }
    conn->state |= WANT_OUT;
    update(poll_of(loop), conn);
}

/* Listeners. */

static bool watch(struct poll *poll, const struct listener_slot *listener, int operation, uint32_t events) {
    uint32_t index = (uint32_t)(listener - poll->listeners);
    struct epoll_event event = {.events = events, .data.u64 = token_of(listener->generation, index, LISTENER)};
    return epoll_ctl(poll->epoll_fd, operation, listener->fd, &event) == 0;
}

static bool poll_listen(struct loop *loop, int fd, uint32_t tag) {
    struct poll *poll = poll_of(loop);
    struct listener_slot *listener = listeners_take(poll->listeners, fd, tag);
    if (!listener) return false;
    if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) == 0 && watch(poll, listener, EPOLL_CTL_ADD, EPOLLIN)) {
        return true;
    }
    listener->fd = -1;
    return false;
}

static void poll_unlisten(struct loop *loop, uint32_t tag) {
    struct poll *poll = poll_of(loop);
    for (struct listener_slot *listener = poll->listeners; listener < poll->listeners + LISTENERS_MAX; listener++) {
        if (listener->fd < 0 || listener->tag != tag) continue;
        close(listener->fd);
        listener->fd = -1;
        listener->generation++;
    }
}

static void retry_listeners(struct poll *poll) {
    poll->accept_retry_ns = 0;
    for (struct listener_slot *listener = poll->listeners; listener < poll->listeners + LISTENERS_MAX; listener++) {
        if (listener->fd >= 0) watch(poll, listener, EPOLL_CTL_MOD, EPOLLIN);
    }
}

static void poll_wake(struct loop *loop) {
    int saved = errno; /* may run in a signal handler */
    uint64_t one = 1;
    ssize_t written = write(poll_of(loop)->wake_fd, &one, sizeof one);
    (void)written;
    errno = saved;
}

/* Waiting, and taking what came. */

static size_t buffers_bytes(const struct poll *poll) { return (size_t)poll->buffer_count * LOOP_BUFFER_BYTES; }

static void poll_recycle(struct loop *loop) {
    struct poll *poll = poll_of(loop);
    ASAN_POISON_MEMORY_REGION(poll->buffers, buffers_bytes(poll));
    poll->buffers_used = 0;
}

static int wait_for_events(struct poll *poll, uint64_t left_ns) {
    struct timespec timeout = {(time_t)(left_ns / NS_PER_S), (long)(left_ns % NS_PER_S)};
    if (!poll->coarse) {
        int count =
            epoll_pwait2(poll->epoll_fd, poll->events, EVENTS_MAX, left_ns == LOOP_NO_DEADLINE ? NULL : &timeout, NULL);
        if (count >= 0 || (errno != ENOSYS && errno != EPERM)) return count;
        poll->coarse = true; /* before 5.11, or a seccomp profile of that time */
    }
    uint64_t left_ms = (left_ns + NS_PER_MS - 1) / NS_PER_MS;
    int timeout_ms = left_ns == LOOP_NO_DEADLINE ? -1 : left_ms > INT32_MAX ? INT32_MAX : (int)left_ms;
    return epoll_wait(poll->epoll_fd, poll->events, EVENTS_MAX, timeout_ms);
}

static void poll_wait(struct loop *loop, uint64_t deadline_ns) {
    struct poll *poll = poll_of(loop);
    if (poll->taken != poll->count) return; /* first the rest, else the last of the set would starve */
    if (unlikely(poll->accept_retry_ns != 0)) {
        if (clock_now(&loop->clock) >= poll->accept_retry_ns) retry_listeners(poll);
        else if (deadline_ns > poll->accept_retry_ns) deadline_ns = poll->accept_retry_ns;
    }
    uint64_t left_ns = deadline_ns;
    if (deadline_ns != 0 && deadline_ns != LOOP_NO_DEADLINE) {
        uint64_t now_ns = clock_now(&loop->clock);
        left_ns = deadline_ns > now_ns ? deadline_ns - now_ns : 0;
    }
    int count = wait_for_events(poll, left_ns);
    CHECK(count >= 0 || errno == EINTR);
    poll->taken = 0;
    poll->count = count > 0 ? count : 0;
}

/* Each of these takes one thing out of `ready`, and clears its bit there; false if there was nothing to tell. */

static bool take_accept(struct poll *poll, const struct epoll_event *ready, struct loop_event *event) {
    const struct listener_slot *listener = listeners_find(poll->listeners, ready->data.u64);
    if (!listener) return false;
    int fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
        if (!accept_must_rest(errno)) return false;
        watch(poll, listener, EPOLL_CTL_MOD, EPOLLONESHOT);
        poll->accept_retry_ns = clock_now(&poll->loop.clock) + ACCEPT_RETRY_NS;
        return false;
    }
    *event = (struct loop_event){.kind = LOOP_ACCEPTED, .fd = fd, .tag = listener->tag};
    return true; /* ready stays: perhaps there are more */
}

static bool take_connect(struct poll *poll, struct loop_conn *conn, struct loop_event *event) {
    int error = conn->send_error;
    socklen_t length = sizeof error;
    if (!error && getsockopt(conn->fd, SOL_SOCKET, SO_ERROR, &error, &length) < 0) error = errno;
    conn->send_error = 0;
    conn->state &= ~(uint32_t)CONNECTING;
    if (error) conn->state |= ENDED;
    update(poll, conn);
    *event = (struct loop_event){.kind = LOOP_CONNECTED, .conn = conn, .error = error};
    return true;
}

static bool take_data(struct poll *poll, struct loop_conn *conn, struct loop_event *event) {
    if (unlikely(poll->buffers_used == poll->buffer_count)) return false; /* the set reports it again */
    uint8_t *buffer = poll->buffers + (size_t)poll->buffers_used * LOOP_BUFFER_BYTES;
    ASAN_UNPOISON_MEMORY_REGION(buffer, LOOP_BUFFER_BYTES);
    ssize_t length = recv(conn->fd, buffer, LOOP_BUFFER_BYTES, MSG_DONTWAIT);
    if (likely(length > 0)) {
        poll->buffers_used++;
        event->kind = LOOP_DATA;
        event->conn = conn;
        event->bytes = buffer;
        event->length = (uint32_t)length;
        ASAN_POISON_MEMORY_REGION(buffer + length, LOOP_BUFFER_BYTES - (size_t)length);
        return true;
    }
    if (length < 0 && (errno == EAGAIN || errno == EINTR)) return false;
    *event = (struct loop_event){.kind = LOOP_CLOSED, .conn = conn, .error = length < 0 ? errno : 0};
    conn->state |= ENDED;
    return true;
}

static bool take_conn(struct poll *poll, struct epoll_event *ready, struct loop_event *event) {
    struct loop_conn *conn = places_find(&poll->places, ready->data.u64);
    if (unlikely(!conn)) return false;
    uint32_t events = ready->events;
    uint32_t want = wanted(conn);
    if (unlikely(want & WANT_OUT && events & (EPOLLOUT | EPOLLHUP | EPOLLERR))) {
        ready->events = events & (EPOLLIN | EPOLLHUP | EPOLLERR);
        if (conn->state & CONNECTING) return take_connect(poll, conn, event);
        /* The interest stays in the set for now: what is sent next may be short again. */
        conn->state &= ~(uint32_t)WANT_OUT;
        *event = (struct loop_event){.kind = LOOP_WRITABLE, .conn = conn};
        return true;
    }
    ready->events = 0;
    if (likely(want & WANT_IN && events & (EPOLLIN | EPOLLHUP | EPOLLERR))) return take_data(poll, conn, event);
    update(poll, conn);
    return false;
}

static bool take_wake(struct poll *poll, struct epoll_event *ready, struct loop_event *event) {
    uint64_t count;
    ready->events = 0;
    if (read(poll->wake_fd, &count, sizeof count) != sizeof count) return false;
    *event = (struct loop_event){.kind = LOOP_WOKEN};
    return true;
}

static bool poll_next(struct loop *loop, struct loop_event *event) {
    struct poll *poll = poll_of(loop);
    while (poll->taken != poll->count) {
        struct epoll_event *ready = &poll->events[poll->taken];
        enum kind kind = token_kind(ready->data.u64);
        bool told = likely(kind == CONN) ? take_conn(poll, ready, event)
                    : kind == LISTENER   ? take_accept(poll, ready, event)
                                         : take_wake(poll, ready, event);
        if (!told || ready->events == 0) poll->taken++;
        if (told) return true;
    }
    return false;
}

static void poll_destroy(struct loop *loop) {
    struct poll *poll = poll_of(loop);
    for (uint32_t i = 0; i < LISTENERS_MAX; i++) {
        if (poll->listeners[i].fd >= 0) close(poll->listeners[i].fd);
    }
    if (poll->epoll_fd >= 0) close(poll->epoll_fd);
    if (poll->wake_fd >= 0) close(poll->wake_fd);
    if (poll->buffers != MAP_FAILED) {
        ASAN_UNPOISON_MEMORY_REGION(poll->buffers, buffers_bytes(poll));
        munmap(poll->buffers, buffers_bytes(poll));
    }
    places_deinit(&poll->places);
    budget_give(loop->budget, BUDGET_RINGS, loop->charged);
    free(poll);
}

struct loop *loop_poll_create(const struct loop_options *options, struct budget *budget, const char **why) {
    CHECK(options->receive_buffers > 0);
    CHECK(options->connections_max > 0 && options->connections_max <= PLACES_MAX);
    size_t bytes = sizeof(struct poll) + options->connections_max * sizeof(struct place) +
                   (size_t)options->receive_buffers * LOOP_BUFFER_BYTES;
    if (!budget_take(budget, BUDGET_RINGS, bytes)) {
        *why = "the receive buffers do not fit into local_memory";
        return NULL;
    }
    struct poll *poll = calloc(1, sizeof *poll);
    if (!poll) {
        budget_give(budget, BUDGET_RINGS, bytes);
        *why = "no memory for the loop's tables";
        return NULL;
    }
    poll->loop = (struct loop){.ops = &poll_ops, .clock = clock_real(), .budget = budget, .charged = bytes};
    poll->buffer_count = options->receive_buffers;
    poll->buffers = mmap(NULL, buffers_bytes(poll), PROT_READ | PROT_WRITE, MAP_ANONYMOUS | MAP_PRIVATE, -1, 0);
    poll->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    poll->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    listeners_init(poll->listeners);
    struct epoll_event wake = {.events = EPOLLIN, .data.u64 = token_of(0, 0, WAKE)};
    if (poll->buffers == MAP_FAILED || !places_init(&poll->places, options->connections_max)) {
        *why = "no memory for the loop's tables";
    } else if (poll->epoll_fd < 0 || poll->wake_fd < 0 ||
               epoll_ctl(poll->epoll_fd, EPOLL_CTL_ADD, poll->wake_fd, &wake) < 0) {
        *why = "epoll_create1 or eventfd: no descriptor left (ulimit -n), or epoll is denied";
    } else {
        return &poll->loop;
    }
    poll_destroy(&poll->loop);
    return NULL;
}

static void poll_finish(struct loop *loop, struct loop_conn *conn) {
    (void)loop;
    shutdown(conn->fd, SHUT_WR);
}

static const struct loop_ops poll_ops = {
    .name = "epoll",
    .destroy = poll_destroy,
    .listen = poll_listen,
    .unlisten = poll_unlisten,
    .add = poll_add,
    .connect = poll_connect,
    .pause = poll_pause,
    .resume = poll_resume,
    .send = poll_send,
    .finish = poll_finish,
    .remove = poll_remove,
    .recycle = poll_recycle,
    .wait = poll_wait,
    .next = poll_next,
    .wake = poll_wake,
};
