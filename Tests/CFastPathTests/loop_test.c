/* loop_test — what every network engine owes the rest: one body for each sentence, run on io_uring and on epoll. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/check.h"
#include "net/loop.h"
#include "net/socket.h"
#include "test.h"

typedef struct loop *(*engine)(const struct loop_options *, struct budget *, const char **);

/* Registers a body twice. Where io_uring is not to be had its tests only say so. */
#define LOOP_TEST(text)                                                                                   \
    static void TEST_JOIN(body_, __LINE__)(engine create);                                                \
    static void TEST_JOIN(on_ring_, __LINE__)(void) { TEST_JOIN(body_, __LINE__)(loop_ring_create); }     \
    static void TEST_JOIN(on_poll_, __LINE__)(void) { TEST_JOIN(body_, __LINE__)(loop_poll_create); }     \
    __attribute__((constructor)) static void TEST_JOIN(add_, __LINE__)(void) {                            \
        static struct test tests[] = {{"io_uring: " text, __FILE__, TEST_JOIN(on_ring_, __LINE__), NULL}, \
                                      {"epoll: " text, __FILE__, TEST_JOIN(on_poll_, __LINE__), NULL}};   \
        test_register(&tests[0]);                                                                         \
        test_register(&tests[1]);                                                                         \
    }                                                                                                     \
    static void TEST_JOIN(body_, __LINE__)(engine create)

#define TURNS_MAX 2000
#define TURN_NS (20 * NS_PER_MS)

/* A connection of the loop, with what has been told of it, and the other end in the test's hands. */
struct peer {
    struct loop_conn conn;
    int other;
    uint8_t *received;
    size_t length;
    int data_events, closed, error, connected, writable;
};

struct rig {
    struct budget budget;
    struct loop *loop;
    int woken;
    int accepted[512];
    uint32_t accepted_tag[512];
    int accepted_count;
    int event_count;
    uint32_t random;
};

static bool rig_open(struct rig *rig, engine create, uint32_t connections_max, uint32_t receive_buffers) {
    *rig = (struct rig){.random = 12345};
    budget_init(&rig->budget, 64u << 20);
    const char *why = NULL;
    rig->loop = create(&(struct loop_options){connections_max, receive_buffers}, &rig->budget, &why);
    if (!rig->loop && create == loop_ring_create) fprintf(stderr, "not run, for want of io_uring: %s\n", why);
    else EXPECT(rig->loop);
    return rig->loop;
}

static void rig_close(struct rig *rig) {
    EXPECT(rig->budget.used == rig->loop->charged && rig->budget.used_by[BUDGET_RINGS] == rig->loop->charged);
    loop_destroy(rig->loop);
    EXPECT(rig->budget.used == 0);
}

static void allow_descriptors(rlim_t count) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur >= count) return;
    limit.rlim_cur = count;
    setrlimit(RLIMIT_NOFILE, &limit);
}

static uint32_t rig_random(struct rig *rig) {
    rig->random = rig->random * 1664525u + 1013904223u;
    return rig->random >> 16;
}

static struct peer *peer_open(struct rig *rig) {
    int pair[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0);
    struct peer *peer = calloc(1, sizeof *peer);
    peer->other = pair[1];
    EXPECT(loop_add(rig->loop, &peer->conn, pair[0]));
    return peer;
}

static void peer_free(struct peer *peer) {
    if (peer->other >= 0) close(peer->other);
    free(peer->received);
    free(peer);
}

static void peer_close(struct rig *rig, struct peer *peer) {
    loop_remove(rig->loop, &peer->conn);
    peer_free(peer);
}

static void note(struct rig *rig, const struct loop_event *event) {
    struct peer *peer = (struct peer *)event->conn;
    rig->event_count++;
    switch (event->kind) {
    case LOOP_ACCEPTED:
        CHECK(rig->accepted_count < 512);
        rig->accepted_tag[rig->accepted_count] = event->tag;
        rig->accepted[rig->accepted_count++] = event->fd;
        break;
    case LOOP_DATA:
        EXPECT(!peer->closed);
        EXPECT(event->length > 0 && event->length <= LOOP_BUFFER_BYTES);
        peer->received = realloc(peer->received, peer->length + event->length);
        memcpy(peer->received + peer->length, event->bytes, event->length);
        peer->length += event->length;
        peer->data_events++;
        break;
    case LOOP_CLOSED:
        EXPECT(!peer->closed);
        peer->closed++;
        peer->error = event->error;
        break;
    case LOOP_WRITABLE: peer->writable++; break;
    case LOOP_CONNECTED:
        peer->connected++;
        peer->error = event->error;
        break;
    case LOOP_WOKEN: rig->woken++; break;
    }
}

/* One turn without sends, that takes at most `most` events; how many there were. */
static int turn_of(struct rig *rig, int most) {
    struct loop_event event;
    int count = 0;
    loop_recycle(rig->loop);
    loop_wait(rig->loop, clock_now(&rig->loop->clock) + TURN_NS);
    while (count < most && loop_next(rig->loop, &event)) {
        note(rig, &event);
        count++;
    }
    return count;
}

static int turn(struct rig *rig) { return turn_of(rig, INT32_MAX); }

/* Turns until the condition holds; a failed expectation if it never does. */
#define TURN_UNTIL(rig, condition)                                     \
    do {                                                               \
        for (int n = 0; n < TURNS_MAX && !(condition); n++) turn(rig); \
        EXPECT(condition);                                             \
    } while (0)

static uint8_t pattern(size_t position) { return (uint8_t)(position * 31 + position / 251 + position / 65521); }

static bool is_pattern(const uint8_t *bytes, size_t length, size_t from) {
    for (size_t i = 0; i < length; i++) {
        if (bytes[i] != pattern(from + i)) return false;
    }
    return true;
}

static bool write_all(int fd, const void *bytes, size_t length) {
    return send(fd, bytes, length, MSG_NOSIGNAL) == (ssize_t)length;
}

/* Writes what fits of pattern [*position, end). */
static void write_pattern(int fd, size_t *position, size_t end) {
    uint8_t bytes[8192];
    while (*position < end) {
        size_t length = end - *position < sizeof bytes ? end - *position : sizeof bytes;
        for (size_t i = 0; i < length; i++) bytes[i] = pattern(*position + i);
        ssize_t written = send(fd, bytes, length, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (written <= 0) return;
        *position += (size_t)written;
    }
}

static bool at_end(int fd) {
    char byte;
    ssize_t length = recv(fd, &byte, 1, MSG_DONTWAIT);
    return length == 0 || (length < 0 && errno == ECONNRESET);
}

/* Waits until the other end sees the end of the stream, the loop turning meanwhile. */
static bool comes_to_end(struct rig *rig, int fd) {
    for (int n = 0; n < TURNS_MAX; n++) {
        if (at_end(fd)) return true;
        turn(rig);
    }
    return false;
}

LOOP_TEST("a message arrives whole wherever it is split") {
    struct rig rig;
    if (!rig_open(&rig, create, 4, 8)) return;
    static const char message[] = "*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$5\r\nvalue\r\n";
    size_t whole = sizeof message - 1;
    struct peer *peer = peer_open(&rig);
    for (size_t split = 1; split < whole; split++) {
        peer->length = 0;
        EXPECT(write_all(peer->other, message, split));
        TURN_UNTIL(&rig, peer->length == split);
        EXPECT(write_all(peer->other, message + split, whole - split));
        TURN_UNTIL(&rig, peer->length == whole);
        EXPECT(memcmp(peer->received, message, whole) == 0);
    }
    peer_close(&rig, peer);
    rig_close(&rig);
}

LOOP_TEST("many connections each get their own bytes and their own replies") {
    enum { COUNT = 700 }; /* more sends in a turn than the submission queue holds */
    struct rig rig;
    allow_descriptors(2 * COUNT + 100);
    if (!rig_open(&rig, create, COUNT, 64)) return;
    static struct peer *peers[COUNT];
    for (int i = 0; i < COUNT; i++) peers[i] = peer_open(&rig);
    for (int round = 0; round < 5; round++) {
        for (int i = 0; i < COUNT; i++) {
            char text[32];
            int length = snprintf(text, sizeof text, "hello %d round %d", i, round);
            peers[i]->length = 0;
            EXPECT(write_all(peers[i]->other, text, (size_t)length));
        }
        int complete = 0;
        for (int n = 0; n < TURNS_MAX && complete < COUNT; n++) {
            turn(&rig);
            complete = 0;
            for (int i = 0; i < COUNT; i++) complete += peers[i]->length > 0;
        }
        EXPECT(complete == COUNT);
        loop_recycle(rig.loop);
        for (int i = 0; i < COUNT; i++) {
            struct loop_conn *conn = &peers[i]->conn;
            /* Alternately one piece and several. */
            conn->iov[0] = (struct iovec){"+", 1};
            conn->iov[1] = (struct iovec){peers[i]->received, peers[i]->length};
            conn->iov[2] = (struct iovec){"\r\n", 2};
            loop_send(rig.loop, conn, i % 2 ? 3 : 1);
        }
        loop_wait(rig.loop, 0);
        for (int i = 0; i < COUNT; i++) {
            char text[64], expected[64];
            int length = snprintf(expected, sizeof expected, i % 2 ? "+hello %d round %d\r\n" : "+", i, round);
            EXPECT(peers[i]->conn.send_error == 0 && peers[i]->conn.sent == (uint32_t)length);
            EXPECT(recv(peers[i]->other, text, sizeof text, 0) == length && !memcmp(text, expected, (size_t)length));
        }
    }
    for (int i = 0; i < COUNT; i++) peer_close(&rig, peers[i]);
    rig_close(&rig);
}

LOOP_TEST("received bytes stay until the next recycle") {
    struct rig rig;
    if (!rig_open(&rig, create, 16, 16)) return;
    struct peer *peers[16];
    for (int i = 0; i < 16; i++) {
        peers[i] = peer_open(&rig);
        char text[2] = {'a', (char)i};
        EXPECT(write_all(peers[i]->other, text, 2));
    }
    struct loop_event events[16];
    int count = 0;
    for (int n = 0; n < TURNS_MAX && count < 16; n++) {
        loop_wait(rig.loop, clock_now(&rig.loop->clock) + TURN_NS);
        while (count < 16 && loop_next(rig.loop, &events[count])) count++;
    }
    EXPECT(count == 16);
    for (int i = 0; i < count; i++) {
        int from = 0;
        while (from < 15 && &peers[from]->conn != events[i].conn) from++;
        EXPECT(events[i].kind == LOOP_DATA && events[i].length == 2 && events[i].bytes[1] == from);
    }
    for (int i = 0; i < 16; i++) peer_close(&rig, peers[i]);
    rig_close(&rig);
}

LOOP_TEST("pausing and resuming at any time loses no byte and keeps their order") {
    struct rig rig;
    if (!rig_open(&rig, create, 4, 8)) return;
    struct peer *peer = peer_open(&rig);
    size_t written = 0, end = 2u << 20;
    bool paused = false;
    for (int n = 0; n < 100 * TURNS_MAX && peer->length < end; n++) {
        size_t next = written + rig_random(&rig) % 60000;
        write_pattern(peer->other, &written, next < end ? next : end);
        for (uint32_t flips = rig_random(&rig) % 4; flips > 0; flips--) {
            paused = !paused;
            if (paused) loop_pause(rig.loop, &peer->conn);
            else loop_resume(rig.loop, &peer->conn);
        }
        struct loop_event event;
        loop_recycle(rig.loop);
        loop_wait(rig.loop, 0);
        while (loop_next(rig.loop, &event)) note(&rig, &event);
    }
    EXPECT(peer->length == end && is_pattern(peer->received, peer->length, 0));
    peer_close(&rig, peer);
    rig_close(&rig);
}

LOOP_TEST("a paused connection falls silent, and resumes where it stopped") {
    struct rig rig;
    if (!rig_open(&rig, create, 4, 8)) return;
    struct peer *peer = peer_open(&rig);
    EXPECT(write_all(peer->other, "before", 6));
    TURN_UNTIL(&rig, peer->length == 6);
    loop_pause(rig.loop, &peer->conn);
    loop_pause(rig.loop, &peer->conn);
    turn(&rig);
    EXPECT(write_all(peer->other, "after", 5));
    for (int n = 0; n < 3; n++) turn(&rig);
    EXPECT(peer->length == 6);
    loop_resume(rig.loop, &peer->conn);
    loop_resume(rig.loop, &peer->conn);
    TURN_UNTIL(&rig, peer->length == 11);
    EXPECT(memcmp(peer->received, "beforeafter", 11) == 0);
    peer_close(&rig, peer);
    rig_close(&rig);
}

LOOP_TEST("a paused connection whose peer has gone does not keep the loop awake, and ends after its bytes") {
    struct rig rig;
    if (!rig_open(&rig, create, 4, 8)) return;
    struct peer *peer = peer_open(&rig);
    turn(&rig);
    loop_pause(rig.loop, &peer->conn);
    turn(&rig);
    EXPECT(write_all(peer->other, "last words", 10));
    close(peer->other);
    peer->other = -1;
    for (int n = 0; n < 3; n++) turn(&rig);
    /* An awake loop would return at once, over and over. */
    uint64_t deadline_ns = clock_now(&rig.loop->clock) + 5 * TURN_NS;
    int turns = 0;
    for (; clock_now(&rig.loop->clock) < deadline_ns; turns++) turn(&rig);
    EXPECT(turns < 20 && peer->length == 0 && !peer->closed);
    loop_resume(rig.loop, &peer->conn);
    TURN_UNTIL(&rig, peer->closed);
    EXPECT(peer->length == 10 && memcmp(peer->received, "last words", 10) == 0);
    peer_close(&rig, peer);
    rig_close(&rig);
}

/* Sends `end` bytes of the pattern to a peer that reads slowly, in pieces of iov_count. */
static void send_slowly(struct rig *rig, struct peer *peer, int iov_count, size_t end) {
    uint8_t *all = malloc(end), *got = malloc(end);
    size_t sent = 0, read = 0;
    bool may_send = true;
    for (size_t i = 0; i < end; i++) all[i] = pattern(i);
    for (int n = 0; n < 100 * TURNS_MAX && read < end; n++) {
        size_t given = 0;
        loop_recycle(rig->loop);
        if (may_send && sent < end) {
            size_t piece = (end - sent) / (size_t)iov_count + 1;
            int count = 0;
            for (; count < iov_count && sent + given < end; count++) {
                size_t length = end - sent - given < piece ? end - sent - given : piece;
                peer->conn.iov[count] = (struct iovec){all + sent + given, length};
                given += length;
            }
            loop_send(rig->loop, &peer->conn, count);
        }
        loop_wait(rig->loop, 0);
        if (given) {
            EXPECT(peer->conn.send_error == 0 && peer->conn.sent <= given);
            sent += peer->conn.sent;
            may_send = peer->conn.sent == given;
        }
        struct loop_event event;
        while (loop_next(rig->loop, &event)) note(rig, &event);
        if (peer->writable) {
            EXPECT(peer->writable == 1 && !may_send);
            peer->writable = 0;
            may_send = true;
        }
        size_t most = rig_random(rig) % 50000;
        ssize_t length = recv(peer->other, got + read, most < end - read ? most : end - read, MSG_DONTWAIT);
        if (length > 0) read += (size_t)length;
    }
    EXPECT(sent == end && read == end && is_pattern(got, end, 0));
    free(all);
    free(got);
}

LOOP_TEST("a slow reader gets every byte in order") {
    struct rig rig;
    if (!rig_open(&rig, create, 4, 8)) return;
    struct peer *peer = peer_open(&rig);
    send_slowly(&rig, peer, 1, 3u << 20);
    send_slowly(&rig, peer, LOOP_IOVECS, 3u << 20);
    peer_close(&rig, peer);
    rig_close(&rig);
}

LOOP_TEST("a send to a full socket that takes nothing is no error, and room is told") {
    struct rig rig;
    if (!rig_open(&rig, create, 4, 8)) return;
    struct peer *peer = peer_open(&rig);
    static uint8_t bytes[64];
    while (send(peer->conn.fd, bytes, sizeof bytes, MSG_DONTWAIT) > 0) continue;
    peer->conn.iov[0] = (struct iovec){bytes, sizeof bytes};
    loop_send(rig.loop, &peer->conn, 1);
    loop_wait(rig.loop, 0);
    EXPECT(peer->conn.sent == 0 && peer->conn.send_error == 0);
    for (int n = 0; n < 3; n++) turn(&rig);
    EXPECT(peer->writable == 0);
    uint8_t drain[65536];
    while (recv(peer->other, drain, sizeof drain, MSG_DONTWAIT) > 0) continue;
    TURN_UNTIL(&rig, peer->writable == 1);
    peer_close(&rig, peer);
    rig_close(&rig);
}

LOOP_TEST("a send to a peer that has gone reports why") {
    struct rig rig;
    if (!rig_open(&rig, create, 4, 8)) return;
    struct peer *peer = peer_open(&rig);
    close(peer->other);
    peer->other = -1;
    peer->conn.iov[0] = (struct iovec){"x", 1};
    loop_send(rig.loop, &peer->conn, 1);
    loop_wait(rig.loop, 0);
    EXPECT(peer->conn.sent == 0 && peer->conn.send_error == EPIPE);
    TURN_UNTIL(&rig, peer->closed == 1);
    for (int n = 0; n < 3; n++) turn(&rig);
    EXPECT(peer->closed == 1 && peer->writable == 0);
    peer_close(&rig, peer);
    rig_close(&rig);
}

LOOP_TEST("the peer's end comes once, after its bytes") {
    struct rig rig;
    if (!rig_open(&rig, create, 4, 8)) return;
    struct peer *peer = peer_open(&rig);
    EXPECT(write_all(peer->other, "bye", 3));
    shutdown(peer->other, SHUT_WR);
    TURN_UNTIL(&rig, peer->closed);
    EXPECT(peer->length == 3 && peer->error == 0);
    int before = rig.event_count;
    loop_resume(rig.loop, &peer->conn);
    for (int n = 0; n < 3; n++) turn(&rig);
    EXPECT(rig.event_count == before);
    /* Only its own direction has ended: it may still read, and slowly. */
    send_slowly(&rig, peer, 2, 1u << 20);
    EXPECT(peer->closed == 1 && peer->length == 3);
    peer_close(&rig, peer);
    rig_close(&rig);
}

LOOP_TEST("a removed connection is silent at once, with bytes and requests of it still under way") {
    struct rig rig;
    if (!rig_open(&rig, create, 2, 8)) return;
    for (int round = 0; round < 20; round++) {
        struct peer *leaving = peer_open(&rig), *staying = peer_open(&rig);
        if (round % 2) turn(&rig);
        EXPECT(write_all(leaving->other, "old", 3));
        EXPECT(write_all(staying->other, "new", 3));
        if (round % 3 == 0) loop_pause(rig.loop, &leaving->conn);
        /* Leave it before, or with its events gathered but not taken. */
        if (round % 4 < 2) {
            loop_recycle(rig.loop);
            loop_wait(rig.loop, clock_now(&rig.loop->clock) + TURN_NS);
        }
        int other = leaving->other;
        leaving->other = -1;
        loop_remove(rig.loop, &leaving->conn);
        peer_free(leaving);
        /* Its place is used again, so a late completion would find the newcomer. */
        struct peer *newcomer = peer_open(&rig);
        EXPECT(comes_to_end(&rig, other));
        TURN_UNTIL(&rig, staying->length == 3);
        EXPECT(newcomer->data_events == 0 && !newcomer->closed && !staying->closed);
        EXPECT(write_all(newcomer->other, "mine", 4));
        TURN_UNTIL(&rig, newcomer->length == 4);
        EXPECT(memcmp(newcomer->received, "mine", 4) == 0);
        close(other);
        peer_close(&rig, newcomer);
        peer_close(&rig, staying);
    }
    rig_close(&rig);
}

LOOP_TEST("what was sent before a removal still leaves, from memory that is freed") {
    struct rig rig;
    if (!rig_open(&rig, create, 4, 8)) return;
    for (int iov_count = 1; iov_count <= 2; iov_count++) {
        struct peer *peer = peer_open(&rig);
        char *bytes = strdup("-ERR max number of clients reached\r\n");
        size_t length = strlen(bytes);
        peer->conn.iov[0] = (struct iovec){bytes, length / 2};
        peer->conn.iov[1] = (struct iovec){bytes + length / 2, length - length / 2};
        if (iov_count == 1) peer->conn.iov[0].iov_len = length;
        loop_send(rig.loop, &peer->conn, iov_count);
        int other = peer->other;
        peer->other = -1;
        loop_remove(rig.loop, &peer->conn);
        memset(&peer->conn, 0xa5, sizeof peer->conn);
        memset(bytes, 0xa5, length);
        peer_free(peer);
        free(bytes);
        turn(&rig);
        char got[64];
        EXPECT(recv(other, got, sizeof got, 0) == (ssize_t)length && !memcmp(got, "-ERR max", 8));
        EXPECT(comes_to_end(&rig, other));
        close(other);
    }
    rig_close(&rig);
}

LOOP_TEST("a full table refuses a connection and leaves its socket open") {
    struct rig rig;
    if (!rig_open(&rig, create, 1, 8)) return;
    struct peer *peer = peer_open(&rig);
    struct loop_conn conn;
    int pair[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) == 0);
    EXPECT(!loop_add(rig.loop, &conn, pair[0]));
    EXPECT(write_all(pair[0], "x", 1));
    peer_close(&rig, peer);
    EXPECT(loop_add(rig.loop, &conn, pair[0]));
    loop_remove(rig.loop, &conn);
    EXPECT(recv(pair[1], &(char){0}, 1, 0) == 1 && comes_to_end(&rig, pair[1]));
    close(pair[1]);
    rig_close(&rig);
}

LOOP_TEST("more bytes than there are buffers wait in their sockets and all come, in order") {
    enum { COUNT = 24 };
    struct rig rig;
    if (!rig_open(&rig, create, COUNT, 4)) return;
    struct peer *peers[COUNT];
    size_t written[COUNT] = {0}, end = 150000, complete = 0;
    for (int i = 0; i < COUNT; i++) peers[i] = peer_open(&rig);
    for (int n = 0; n < 10 * TURNS_MAX && complete < COUNT; n++) {
        for (int i = 0; i < COUNT; i++) write_pattern(peers[i]->other, &written[i], end);
        turn(&rig);
        complete = 0;
        for (int i = 0; i < COUNT; i++) complete += peers[i]->length == end;
    }
    EXPECT(complete == COUNT);
    for (int i = 0; i < COUNT; i++) {
        EXPECT(is_pattern(peers[i]->received, peers[i]->length, 0));
        peer_close(&rig, peers[i]);
    }
    rig_close(&rig);
}

LOOP_TEST("connections come and go while buffers are short, and none is forgotten") {
    enum { COUNT = 16 };
    struct rig rig;
    if (!rig_open(&rig, create, COUNT, 2)) return;
    struct peer *peers[COUNT];
    size_t written[COUNT] = {0};
    for (int i = 0; i < COUNT; i++) peers[i] = peer_open(&rig);
    for (int n = 0; n < 2000; n++) {
        int i = (int)(rig_random(&rig) % COUNT);
        write_pattern(peers[i]->other, &written[i], written[i] + 20000);
        int leaving = (int)(rig_random(&rig) % (COUNT * 8));
        if (leaving < COUNT) {
            EXPECT(is_pattern(peers[leaving]->received, peers[leaving]->length, 0));
            peer_close(&rig, peers[leaving]);
            peers[leaving] = peer_open(&rig);
            written[leaving] = 0;
        }
        struct loop_event event;
        loop_recycle(rig.loop);
        loop_wait(rig.loop, 0);
        for (uint32_t most = rig_random(&rig) % 8; most > 0 && loop_next(rig.loop, &event); most--) note(&rig, &event);
    }
    for (int i = 0; i < COUNT; i++) TURN_UNTIL(&rig, peers[i]->length == written[i]);
    for (int i = 0; i < COUNT; i++) {
        EXPECT(is_pattern(peers[i]->received, peers[i]->length, 0));
        peer_close(&rig, peers[i]);
    }
    rig_close(&rig);
}

LOOP_TEST("events that are not taken stay for the next turn") {
    enum { COUNT = 20 };
    struct rig rig;
    if (!rig_open(&rig, create, COUNT, 32)) return;
    struct peer *peers[COUNT];
    for (int i = 0; i < COUNT; i++) {
        peers[i] = peer_open(&rig);
        EXPECT(write_all(peers[i]->other, "x", 1));
    }
    for (int n = 0; n < TURNS_MAX && rig.event_count < COUNT; n++) turn_of(&rig, 1);
    for (int i = 0; i < COUNT; i++) {
        EXPECT(peers[i]->length == 1);
        peer_close(&rig, peers[i]);
    }
    rig_close(&rig);
}

static void *wake_it(void *loop) {
    loop_wake(loop);
    return NULL;
}

LOOP_TEST("a wake from another thread ends the wait") {
    struct rig rig;
    if (!rig_open(&rig, create, 4, 8)) return;
    for (int round = 1; round <= 3; round++) {
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, wake_it, rig.loop) == 0);
        struct loop_event event;
        while (rig.woken < round) {
            loop_recycle(rig.loop);
            loop_wait(rig.loop, LOOP_NO_DEADLINE);
            while (loop_next(rig.loop, &event)) note(&rig, &event);
        }
        pthread_join(thread, NULL);
    }
    /* Wakes before the wait are not lost, and may be told as one. */
    loop_wake(rig.loop);
    loop_wake(rig.loop);
    TURN_UNTIL(&rig, rig.woken > 3);
    for (int n = 0; n < 3; n++) turn(&rig);
    EXPECT(rig.woken <= 5);
    rig_close(&rig);
}

LOOP_TEST("the wait ends at its deadline, and one without sleep still gathers events") {
    struct rig rig;
    if (!rig_open(&rig, create, 4, 8)) return;
    struct peer *peer = peer_open(&rig);
    struct loop_event event;
    for (int n = 0; n < 3; n++) {
        loop_recycle(rig.loop);
        loop_wait(rig.loop, clock_now(&rig.loop->clock) + NS_PER_MS);
        EXPECT(!loop_next(rig.loop, &event));
        loop_wait(rig.loop, 1);
        EXPECT(!loop_next(rig.loop, &event));
    }
    EXPECT(write_all(peer->other, "x", 1));
    for (int n = 0; n < 1000 && peer->length == 0; n++) {
        loop_recycle(rig.loop);
        loop_wait(rig.loop, 0);
        while (loop_next(rig.loop, &event)) note(&rig, &event);
    }
    EXPECT(peer->length == 1);
    peer_close(&rig, peer);
    rig_close(&rig);
}

/* Accepting and connecting. */

static const struct socket_buffers buffers = {65536, 65536};

static int client_of(const struct socket_address *address) {
    int fd = socket(address->storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (const struct sockaddr *)&address->storage, address->length) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

/* A listener on a free port of the address; `address` then says which. -1 if there is no such address here. */
static int listener_on(const char *text, struct socket_address *address) {
    EXPECT(socket_address_tcp(address, text, 0));
    int fd = socket_listen(address, &buffers, 64);
    if (fd >= 0) EXPECT(socket_address_tcp(address, text, (uint16_t)socket_port(fd)));
    return fd;
}

static void accept_on(struct rig *rig, const char *text, uint32_t tag) {
    struct socket_address address;
    int listener = listener_on(text, &address);
    if (listener < 0) return;
    EXPECT(loop_listen(rig->loop, listener, tag));
    int clients[8];
    rig->accepted_count = 0;
    for (int i = 0; i < 8; i++) clients[i] = client_of(&address);
    TURN_UNTIL(rig, rig->accepted_count == 8);
    for (int i = 0; i < rig->accepted_count; i++) {
        int fd = rig->accepted[i], no_delay = 0;
        socklen_t length = sizeof no_delay;
        EXPECT(rig->accepted_tag[i] == tag);
        EXPECT(fcntl(fd, F_GETFL) & O_NONBLOCK && fcntl(fd, F_GETFD) & FD_CLOEXEC);
        EXPECT(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &no_delay, &length) == 0 && no_delay);
        close(fd);
    }
    loop_unlisten(rig->loop, tag);
    turn(rig);
    EXPECT(client_of(&address) < 0);
    for (int i = 0; i < 8; i++) close(clients[i]);
}

LOOP_TEST("a listener accepts until it is taken away") {
    struct rig rig;
    if (!rig_open(&rig, create, 16, 8)) return;
    accept_on(&rig, "127.0.0.1", 7);
    accept_on(&rig, "::1", 8);
    accept_on(&rig, "127.0.0.1", 7);
    rig_close(&rig);
}

LOOP_TEST("an accepted connection is served") {
    struct rig rig;
    if (!rig_open(&rig, create, 16, 8)) return;
    struct socket_address address;
    EXPECT(loop_listen(rig.loop, listener_on("127.0.0.1", &address), 1));
    struct peer *peer = calloc(1, sizeof *peer);
    peer->other = client_of(&address);
    TURN_UNTIL(&rig, rig.accepted_count == 1);
    EXPECT(loop_add(rig.loop, &peer->conn, rig.accepted[0]));
    EXPECT(write_all(peer->other, "PING\r\n", 6));
    TURN_UNTIL(&rig, peer->length == 6);
    send_slowly(&rig, peer, 3, 1u << 20);
    struct linger reset = {1, 0};
    setsockopt(peer->other, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    close(peer->other);
    peer->other = -1;
    TURN_UNTIL(&rig, peer->closed == 1);
    EXPECT(peer->error == ECONNRESET);
    peer_close(&rig, peer);
    rig_close(&rig);
}

LOOP_TEST("without descriptors accepting rests, and goes on when there are some again") {
    struct rig rig;
    if (!rig_open(&rig, create, 16, 8)) return;
    struct socket_address address;
    int listener = listener_on("127.0.0.1", &address);
    int client = client_of(&address), waiting = client_of(&address);
    struct rlimit limit, none;
    getrlimit(RLIMIT_NOFILE, &limit);
    none = (struct rlimit){1, limit.rlim_max};
    setrlimit(RLIMIT_NOFILE, &none);
    EXPECT(loop_listen(rig.loop, listener, 1)); /* io_uring notes the limit when it begins to accept */
    uint64_t end_ns = clock_now(&rig.loop->clock) + 5 * TURN_NS;
    int turns = 0;
    for (; clock_now(&rig.loop->clock) < end_ns; turns++) turn(&rig);
    EXPECT(turns < 30);
    EXPECT(rig.accepted_count == 0);
    setrlimit(RLIMIT_NOFILE, &limit);
    TURN_UNTIL(&rig, rig.accepted_count == 2);
    close(client);
    close(waiting);
    for (int i = 0; i < rig.accepted_count; i++) close(rig.accepted[i]);
    rig_close(&rig);
}

static struct peer *peer_connect(struct rig *rig, const struct socket_address *address) {
    struct peer *peer = calloc(1, sizeof *peer);
    peer->other = -1;
    int fd = socket_for_link(address, &buffers);
    EXPECT(fd >= 0);
    struct socket_address passing = *address;
    EXPECT(loop_connect(rig->loop, &peer->conn, fd, &passing.storage, passing.length));
    memset(&passing, 0xa5, sizeof passing);
    return peer;
}

LOOP_TEST("connecting succeeds and then receives, or tells why not") {
    struct rig rig;
    if (!rig_open(&rig, create, 16, 8)) return;
    struct socket_address address, unix_address;
    int listener = listener_on("127.0.0.1", &address);
    struct peer *peer = peer_connect(&rig, &address);
    TURN_UNTIL(&rig, peer->connected == 1);
    EXPECT(peer->error == 0);
    struct pollfd ready = {.fd = listener, .events = POLLIN};
    EXPECT(poll(&ready, 1, 1000) == 1);
    peer->other = accept(listener, NULL, NULL);
    EXPECT(write_all(peer->other, "+PONG\r\n", 7));
    TURN_UNTIL(&rig, peer->length == 7);
    peer_close(&rig, peer);

    /* Paused while it connects: what the server says waits. */
    peer = peer_connect(&rig, &address);
    loop_pause(rig.loop, &peer->conn);
    EXPECT(poll(&ready, 1, 1000) == 1);
    peer->other = accept(listener, NULL, NULL);
    EXPECT(write_all(peer->other, "hello", 5));
    TURN_UNTIL(&rig, peer->connected == 1);
    for (int n = 0; n < 3; n++) turn(&rig);
    EXPECT(peer->length == 0);
    loop_resume(rig.loop, &peer->conn);
    TURN_UNTIL(&rig, peer->length == 5);
    peer_close(&rig, peer);
    close(listener);

    peer = peer_connect(&rig, &address);
    TURN_UNTIL(&rig, peer->connected == 1);
    EXPECT(peer->error == ECONNREFUSED);
    for (int n = 0; n < 3; n++) turn(&rig);
    EXPECT(peer->connected == 1 && !peer->closed && !peer->writable);
    peer_close(&rig, peer);

    EXPECT(socket_address_unix(&unix_address, "/nowhere/at/all"));
    peer = peer_connect(&rig, &unix_address);
    TURN_UNTIL(&rig, peer->connected == 1);
    EXPECT(peer->error == ENOENT);
    peer_close(&rig, peer);

    /* Removed before the outcome is known. */
    peer = peer_connect(&rig, &address);
    int before = rig.event_count;
    peer_close(&rig, peer);
    for (int n = 0; n < 3; n++) turn(&rig);
    EXPECT(rig.event_count == before);
    rig_close(&rig);
}
