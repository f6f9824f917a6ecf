/* load — a RESP load generator that costs little, so that the server and not the client saturates.
 *
 *     load --to HOST:PORT|unix:PATH [--seconds S | --requests N] GROUP...
 *     load --to unix:/tmp/s get,clients=50,pipeline=16,keys=100000,value=64
 *     load --to 127.0.0.1:6379 get,clients=25,rate=10000 get,name=misses,clients=25,rate=10000,order=sequence,reply=any
 *
 * A group is a verb and what its connections do; groups run side by side and are counted apart. One thread, one
 * io_uring. A connection sends `pipeline` commands, waits for all their replies and sends again (closed loop). With a
 * rate, batches are due at fixed times whatever the server does (open loop), and latency counts from the time a batch
 * was due, so that a server that falls behind is not flattered.
 *
 * Key n is PREFIX followed by n in 12 digits; its value begins with the same digits, and its length follows from n, so
 * that the replies' sizes and order are verified. Prints one line of JSON; exit status 1 when a reply was wrong. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <liburing.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define NUMBER_DIGITS 12
#define NUMBER_END UINT64_C(1000000000000)
#define GROUPS_MAX 8
#define VALUE_BYTES_MAX (64u << 20)
#define RING_ENTRIES 4096
#define DRAIN_NS_MAX (5 * UINT64_C(1000000000))

/* ---- histogram: 64 buckets for each power of two, at most 1.6% too high ---------------------------------------- */

#define HISTOGRAM_BUCKETS (59 * 64)

struct histogram {
    uint64_t count[HISTOGRAM_BUCKETS];
    uint64_t total;
    uint64_t max_ns;
};

static void histogram_add(struct histogram *histogram, uint64_t ns) {
    unsigned shift = ns < 64 ? 0 : 63u - (unsigned)__builtin_clzll(ns) - 6u;
    unsigned bucket = ns < 64 ? (unsigned)ns : (shift + 1) * 64 + (unsigned)(ns >> shift) - 64;
    histogram->count[bucket]++;
    histogram->total++;
    if (ns > histogram->max_ns) histogram->max_ns = ns;
}

/* The upper bound, in microseconds, of the bucket that holds this share of the samples. */
static double histogram_us(const struct histogram *histogram, double share) {
    uint64_t rank = (uint64_t)ceil(share * (double)histogram->total), seen = 0;
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        seen += histogram->count[i];
        if (seen < rank || seen == 0) continue;
        uint64_t bound = i < 64 ? i : ((uint64_t)(i % 64 + 65) << (i / 64 - 1)) - 1;
        return (double)(bound < histogram->max_ns ? bound : histogram->max_ns) / 1e3;
    }
    return 0;
}

/* ---- what is asked for ----------------------------------------------------------------------------------------- */

enum verb { VERB_GET, VERB_SET, VERB_HGET, VERB_HSET, VERB_COUNT };
enum reply { REPLY_VALUE, REPLY_NULL, REPLY_ANY };

struct verb_row {
    const char *name;
    const char *head; /* what stands before the key's bulk string */
    const char *tail; /* what stands between the key and the value */
    bool has_value;
    char answer; /* first byte of the reply; '$' may be a null, if the group allows it */
};

static const struct verb_row verbs[VERB_COUNT] = {
    [VERB_GET] = {"get", "*2\r\n$3\r\nGET\r\n", "", false, '$'},
    [VERB_SET] = {"set", "*3\r\n$3\r\nSET\r\n", "", true, '+'},
    [VERB_HGET] = {"hget", "*3\r\n$4\r\nHGET\r\n", "$5\r\nfield\r\n", false, '$'},
    [VERB_HSET] = {"hset", "*4\r\n$4\r\nHSET\r\n", "$5\r\nfield\r\n", true, ':'},
};

struct group {
    const struct verb_row *verb;
    const char *name;
    const char *prefix;
    uint64_t keys; /* numbers of keys lie in [0, keys) */
    uint64_t next; /* the next number, when in sequence; wraps at `keys` */
    bool sequence; /* else numbers are random */
    bool reads;    /* false: sends and never reads a reply */
    enum reply reply;
    uint32_t clients;
    uint32_t pipeline;
    uint32_t value_min, value_max; /* bytes; 0: replies of any length */
    double rate;                   /* requests per second of the whole group; 0: closed loop */

    char *head; /* everything before the key's digits */
    size_t head_length;
    uint64_t wanted; /* requests to send; UINT64_MAX: until the time is up */
    uint64_t sent, answered, errors, unanswered;
    struct histogram *latency;       /* replies that were as expected */
    struct histogram *error_latency; /* error replies */
    uint32_t *idle;                  /* open loop: connections that wait for their time */
    uint32_t idle_count;
};

struct connection {
    struct group *group;
    int fd;
    bool open;
    uint32_t due;      /* replies outstanding */
    uint32_t answered; /* replies of this batch that have come */
    uint64_t sent_ns;  /* when the batch was sent, or should have been */
    uint64_t *numbers; /* of the batch's keys */
    uint32_t *lengths; /* of the batch's values */
    char *out;
    size_t out_length, out_done;
    char *in;

    /* The reply being received: a line, or the body of a bulk string. */
    char line[160];
    uint32_t line_length;
    uint64_t body_left; /* with its CR LF; 0: in a line */
    uint32_t body_length;
    uint32_t digits_seen;
    bool digits_wrong;
};

struct load {
    struct io_uring ring;
    struct group groups[GROUPS_MAX];
    uint32_t group_count;
    struct connection *connections;
    uint32_t connection_count, open_count;
    uint32_t in_bytes;
    uint64_t due; /* replies outstanding in all */
    uint64_t random;
    uint64_t begin_ns, end_ns;
    uint64_t closed;
    bool stopping;
    char first_error[200];
    char *filler; /* what values consist of after their digits */
};

static void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "load: ");
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\n");
    va_end(arguments);
    exit(2);
}

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static uint64_t random_next(struct load *load) {
    load->random ^= load->random << 13;
    load->random ^= load->random >> 7;
    load->random ^= load->random << 17;
    return load->random;
}

static void error_note(struct load *load, struct group *group, const char *format, ...) {
    group->errors++;
    if (load->first_error[0] != 0) return;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(load->first_error, sizeof load->first_error, format, arguments);
    va_end(arguments);
}

/* ---- requests -------------------------------------------------------------------------------------------------- */

/* Lengths between min and max, each power of two as frequent as any other; the same for the same number. */
static uint32_t value_length(const struct group *group, uint64_t number) {
    if (group->value_min == group->value_max) return group->value_min;
    uint64_t hash = (number + 1) * UINT64_C(0x9E3779B97F4A7C15);
    double share = (double)(hash >> 11) / (double)(UINT64_C(1) << 53);
    double ratio = (double)group->value_max / (double)group->value_min;
    return (uint32_t)((double)group->value_min * pow(ratio, share));
}

static void number_write(char *at, uint64_t number) {
    for (int i = NUMBER_DIGITS - 1; i >= 0; i--) {
        at[i] = (char)('0' + number % 10);
        number /= 10;
    }
}

static size_t value_write(const struct load *load, char *at, uint64_t number, uint32_t length) {
    char digits[NUMBER_DIGITS];
    size_t head = (size_t)sprintf(at, "$%u\r\n", length);
    number_write(digits, number);
    memcpy(at + head, load->filler, length);
    memcpy(at + head, digits, length < NUMBER_DIGITS ? length : NUMBER_DIGITS);
    memcpy(at + head + length, "\r\n", 2);
    return head + length + 2;
}

static uint64_t number_next(struct load *load, struct group *group) {
    if (!group->sequence) return random_next(load) % group->keys;
    uint64_t number = group->next;
    group->next = number + 1 == group->keys ? 0 : number + 1;
    return number;
}

static size_t request_bytes_max(const struct group *group) {
    size_t bytes = group->head_length + NUMBER_DIGITS + 2 + strlen(group->verb->tail);
    return bytes + (group->verb->has_value ? group->value_max + 16 : 0);
}

static void request_write(struct load *load, struct connection *connection, uint32_t index) {
    struct group *group = connection->group;
    uint64_t number = number_next(load, group);
    char *at = connection->out + connection->out_length;
    memcpy(at, group->head, group->head_length);
    at += group->head_length;
    number_write(at, number);
    at += NUMBER_DIGITS;
    memcpy(at, "\r\n", 2);
    at += 2;
    size_t tail = strlen(group->verb->tail);
    memcpy(at, group->verb->tail, tail);
    at += tail;
    connection->numbers[index] = number;
    connection->lengths[index] = value_length(group, number);
    if (group->verb->has_value) at += value_write(load, at, number, connection->lengths[index]);
    connection->out_length = (size_t)(at - connection->out);
}

/* ---- the ring -------------------------------------------------------------------------------------------------- */

/* user_data: the connection's index, and whether it was a receive. */
static uint64_t tag(const struct load *load, const struct connection *connection, bool receive) {
    return (uint64_t)(connection - load->connections) << 1 | receive;
}

static struct io_uring_sqe *sqe_next(struct load *load) {
    struct io_uring_sqe *sqe = io_uring_get_sqe(&load->ring);
    while (sqe == NULL) {
        io_uring_submit(&load->ring);
        sqe = io_uring_get_sqe(&load->ring);
    }
    return sqe;
}

static void receive(struct load *load, struct connection *connection) {
    struct io_uring_sqe *sqe = sqe_next(load);
    io_uring_prep_recv(sqe, connection->fd, connection->in, load->in_bytes, 0);
    sqe->ioprio |= IORING_RECVSEND_POLL_FIRST;
    sqe->user_data = tag(load, connection, true);
}

static void send_rest(struct load *load, struct connection *connection) {
    struct io_uring_sqe *sqe = sqe_next(load);
    io_uring_prep_send(sqe, connection->fd, connection->out + connection->out_done,
                       connection->out_length - connection->out_done, MSG_NOSIGNAL);
    sqe->user_data = tag(load, connection, false);
}

/* The whole batch in one send; only a failure makes a completion. The buffer is written again when every reply has
 * come, by which time the kernel has let go of it. */
static void batch_send(struct load *load, struct connection *connection, uint64_t sent_ns) {
    struct group *group = connection->group;
    uint64_t left = group->wanted - group->sent;
    uint32_t count = left < group->pipeline ? (uint32_t)left : group->pipeline;
    connection->out_length = 0;
    connection->out_done = 0;
    for (uint32_t i = 0; i < count; i++) request_write(load, connection, i);
    connection->due = count;
    connection->answered = 0;
    connection->sent_ns = sent_ns;
    group->sent += count;
    if (!group->reads) {
        send_rest(load, connection);
        return;
    }
    load->due += count;
    struct io_uring_sqe *sqe = sqe_next(load);
    io_uring_prep_send(sqe, connection->fd, connection->out, connection->out_length, MSG_NOSIGNAL | MSG_WAITALL);
    sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
    sqe->user_data = tag(load, connection, false);
}

static void connection_close(struct load *load, struct connection *connection) {
    if (!connection->open) return;
    connection->open = false;
    close(connection->fd);
    load->closed++;
    load->open_count--;
    if (connection->group->reads) {
        load->due -= connection->due;
        connection->group->unanswered += connection->due;
    }
    connection->due = 0;
}

/* Every reply of the batch has come, or this is the first one. */
static void batch_next(struct load *load, struct connection *connection, uint64_t now) {
    struct group *group = connection->group;
    if (load->stopping || group->sent == group->wanted) return;
    if (group->rate > 0) group->idle[group->idle_count++] = (uint32_t)(connection - load->connections);
    else batch_send(load, connection, now);
}

/* Sends what is due by the clock; returns when the next batch is due. */
static uint64_t pace(struct load *load, struct group *group, uint64_t now) {
    while (!load->stopping && group->sent < group->wanted) {
        uint64_t due_ns = load->begin_ns + (uint64_t)((double)group->sent * 1e9 / group->rate);
        if (due_ns > now) return due_ns;
        if (group->idle_count == 0) return UINT64_MAX; /* all are busy: a reply will come first */
        struct connection *connection = &load->connections[group->idle[--group->idle_count]];
        if (connection->open) batch_send(load, connection, due_ns);
    }
    return UINT64_MAX;
}

/* ---- replies --------------------------------------------------------------------------------------------------- */

static void reply_end(struct load *load, struct connection *connection, uint64_t now, bool is_error) {
    struct group *group = connection->group;
    uint64_t ns = now > connection->sent_ns ? now - connection->sent_ns : 0;
    histogram_add(is_error ? group->error_latency : group->latency, ns);
    group->answered++;
    connection->answered++;
    connection->due--;
    load->due--;
    if (connection->due == 0) batch_next(load, connection, now);
}

static void body_end(struct load *load, struct connection *connection, uint64_t now) {
    struct group *group = connection->group;
    uint32_t expected = connection->lengths[connection->answered];
    if (group->value_max > 0 && connection->body_length != expected)
        error_note(load, group, "a value of %u bytes where %u were expected", connection->body_length, expected);
    else if (connection->digits_wrong)
        error_note(load, group, "the value of another key than %" PRIu64, connection->numbers[connection->answered]);
    reply_end(load, connection, now, false);
}

/* One line without its CR LF. False when it is not RESP, or a reply to nothing. */
static bool line_end(struct load *load, struct connection *connection, const char *line, uint32_t length,
                     uint64_t now) {
    struct group *group = connection->group;
    if (connection->due == 0 || length == 0) return false;
    char type = line[0];
    bool null = (type == '_') || (type == '$' && length > 1 && line[1] == '-');
    if (type == '-') {
        error_note(load, group, "%.*s", (int)length, line);
        reply_end(load, connection, now, true);
        return true;
    }
    if ((null ? '$' : type) != group->verb->answer) {
        error_note(load, group, "a reply beginning with '%c' to %s", type, group->verb->name);
        return false;
    }
    if (type == '$' && !null) {
        uint64_t size = 0;
        for (uint32_t i = 1; i < length; i++) {
            if (line[i] < '0' || line[i] > '9' || size > VALUE_BYTES_MAX) return false;
            size = size * 10 + (uint64_t)(line[i] - '0');
        }
        if (group->reply == REPLY_NULL) error_note(load, group, "a value where null was expected");
        connection->body_length = (uint32_t)size;
        connection->body_left = size + 2;
        connection->digits_seen = 0;
        connection->digits_wrong = false;
        return true;
    }
    if (null && group->reply == REPLY_VALUE) error_note(load, group, "null where a value was expected");
    reply_end(load, connection, now, false);
    return true;
}

/* The first digits of a value must be those of its key: replies are in order. */
static void digits_check(struct connection *connection, const char *bytes, uint64_t length) {
    if (connection->digits_seen >= NUMBER_DIGITS || connection->body_length < NUMBER_DIGITS) return;
    char digits[NUMBER_DIGITS];
    number_write(digits, connection->numbers[connection->answered]);
    for (uint64_t i = 0; i < length && connection->digits_seen < NUMBER_DIGITS; i++)
        connection->digits_wrong |= bytes[i] != digits[connection->digits_seen++];
}

/* Takes received bytes, cut anywhere. False when the connection is beyond use. */
static bool scan(struct load *load, struct connection *connection, const char *bytes, size_t length, uint64_t now) {
    while (length > 0) {
        size_t taken;
        if (connection->body_left > 0) {
            taken = length < connection->body_left ? length : connection->body_left;
            digits_check(connection, bytes, taken);
            connection->body_left -= taken;
            if (connection->body_left == 0) body_end(load, connection, now);
        } else {
            const char *end = memchr(bytes, '\n', length);
            taken = end == NULL ? length : (size_t)(end - bytes) + 1;
            const char *line = bytes;
            size_t line_length = taken;
            if (end == NULL || connection->line_length > 0) {
                size_t room = sizeof connection->line - connection->line_length;
                size_t copied = taken < room ? taken : room;
                memcpy(connection->line + connection->line_length, bytes, copied);
                connection->line_length += (uint32_t)copied;
                line = connection->line;
                line_length = connection->line_length;
            }
            if (end != NULL) {
                connection->line_length = 0;
                while (line_length > 0 && (line[line_length - 1] == '\n' || line[line_length - 1] == '\r'))
                    line_length--;
                if (!line_end(load, connection, line, (uint32_t)line_length, now)) return false;
            }
        }
        bytes += taken;
        length -= taken;
    }
    return true;
}

/* ---- the run --------------------------------------------------------------------------------------------------- */

static void completion(struct load *load, const struct io_uring_cqe *cqe, uint64_t now) {
    struct connection *connection = &load->connections[cqe->user_data >> 1];
    if (!connection->open) return;
    if (cqe->user_data & 1) {
        if (cqe->res <= 0 || !scan(load, connection, connection->in, (size_t)cqe->res, now))
            connection_close(load, connection);
        else receive(load, connection);
        return;
    }
    if (cqe->res < 0) {
        connection_close(load, connection);
        return;
    }
    if (connection->group->reads) {
        /* MSG_WAITALL ended short: the peer has gone, and the receive will say so. */
        return;
    }
    connection->out_done += (size_t)cqe->res;
    if (connection->out_done < connection->out_length) send_rest(load, connection);
    else batch_next(load, connection, now);
}

static bool finished(const struct load *load) {
    if (load->open_count == 0) return true;
    for (uint32_t i = 0; i < load->group_count; i++) {
        const struct group *group = &load->groups[i];
        if (!load->stopping && group->sent < group->wanted) return false;
    }
    return load->due == 0;
}

/* Sleeps until a completion or the given time. */
static void wait_until(struct load *load, uint64_t wake_ns, uint64_t now) {
    uint64_t sleep_ns = wake_ns > now ? wake_ns - now : 0;
    struct __kernel_timespec timeout = {(int64_t)(sleep_ns / 1000000000u), (long long)(sleep_ns % 1000000000u)};
    struct io_uring_cqe *cqe;
    int status = io_uring_submit_and_wait_timeout(&load->ring, &cqe, 1, &timeout, NULL);
    if (status < 0 && status != -ETIME && status != -EINTR) fail("io_uring: %s", strerror(-status));
}

static void run(struct load *load, double seconds) {
    load->begin_ns = now_ns();
    uint64_t now = load->begin_ns;
    uint64_t stop_ns = seconds > 0 ? now + (uint64_t)(seconds * 1e9) : UINT64_MAX;
    uint64_t give_up_ns = UINT64_MAX;
    for (uint32_t i = 0; i < load->connection_count; i++) {
        struct connection *connection = &load->connections[i];
        if (connection->group->reads) receive(load, connection);
        batch_next(load, connection, now);
    }
    while (!finished(load) && now < give_up_ns) {
        if (!load->stopping && now >= stop_ns) {
            load->stopping = true;
            give_up_ns = now + DRAIN_NS_MAX;
        }
        uint64_t wake_ns = load->stopping ? give_up_ns : stop_ns;
        for (uint32_t i = 0; i < load->group_count; i++) {
            uint64_t due_ns = load->groups[i].rate > 0 ? pace(load, &load->groups[i], now) : UINT64_MAX;
            wake_ns = due_ns < wake_ns ? due_ns : wake_ns;
        }
        /* A second at most, so that a run by count notices that nobody answers. */
        wait_until(load, wake_ns < now + 1000000000u ? wake_ns : now + 1000000000u, now);
        now = now_ns();
        struct io_uring_cqe *cqe;
        unsigned head, seen = 0;
        io_uring_for_each_cqe(&load->ring, head, cqe) {
            seen++;
            completion(load, cqe, now);
        }
        io_uring_cq_advance(&load->ring, seen);
        if (seen > 0) load->end_ns = now;
        else if (seconds <= 0 && now > load->end_ns + 2 * DRAIN_NS_MAX && load->end_ns > 0) break;
    }
    for (uint32_t i = 0; i < load->connection_count; i++)
        if (load->connections[i].group->reads) load->connections[i].group->unanswered += load->connections[i].due;
}

/* ---- setting up ------------------------------------------------------------------------------------------------ */

static int connect_to(const char *target) {
    int fd;
    if (strncmp(target, "unix:", 5) == 0) {
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        if (strlen(target + 5) >= sizeof address.sun_path) fail("%s: path too long for a Unix socket", target + 5);
        strcpy(address.sun_path, target + 5);
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
            fail("%s: %s", target, strerror(errno));
        return fd;
    }
    char host[64];
    const char *colon = strrchr(target, ':');
    if (colon == NULL || (size_t)(colon - target) >= sizeof host)
        fail("%s: expected HOST:PORT, with a numeric address, or unix:PATH", target);
    snprintf(host, sizeof host, "%.*s", (int)(colon - target), target);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(colon + 1))};
    if (inet_pton(AF_INET, host, &address.sin_addr) != 1) fail("%s: expected a numeric IPv4 address", host);
    fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0) fail("%s: %s", target, strerror(errno));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    return fd;
}

static void *allocate(size_t bytes) {
    void *memory = calloc(1, bytes ? bytes : 1);
    if (memory == NULL) fail("out of memory");
    return memory;
}

static uint64_t number_parse(const char *key, const char *text, uint64_t max) {
    char *end;
    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    if (errno != 0 || end == text || *end != 0 || number > max)
        fail("%s=%s: expected a number up to %" PRIu64, key, text, max);
    return number;
}

static void value_parse(struct group *group, char *text) {
    char *max = strchr(text, '-');
    if (max != NULL) *max++ = 0;
    group->value_min = (uint32_t)number_parse("value", text, VALUE_BYTES_MAX);
    group->value_max = max != NULL ? (uint32_t)number_parse("value", max, VALUE_BYTES_MAX) : group->value_min;
    if (group->value_max < group->value_min || (group->value_min == 0 && group->value_max > 0))
        fail("value=%s-%s: expected MIN-MAX, MIN at least 1", text, max);
}

static void option_parse(struct group *group, const char *key, char *value) {
    if (strcmp(key, "name") == 0) group->name = value;
    else if (strcmp(key, "prefix") == 0) group->prefix = value;
    else if (strcmp(key, "clients") == 0) group->clients = (uint32_t)number_parse(key, value, 100000);
    else if (strcmp(key, "pipeline") == 0) group->pipeline = (uint32_t)number_parse(key, value, 100000);
    else if (strcmp(key, "keys") == 0) group->keys = number_parse(key, value, NUMBER_END);
    else if (strcmp(key, "first") == 0) group->next = number_parse(key, value, NUMBER_END - 1);
    else if (strcmp(key, "rate") == 0) group->rate = (double)number_parse(key, value, 100000000);
    else if (strcmp(key, "value") == 0) value_parse(group, value);
    else if (strcmp(key, "order") == 0 && strcmp(value, "sequence") == 0) group->sequence = true;
    else if (strcmp(key, "read") == 0 && strcmp(value, "no") == 0) group->reads = false;
    else if (strcmp(key, "reply") == 0 && strcmp(value, "null") == 0) group->reply = REPLY_NULL;
    else if (strcmp(key, "reply") == 0 && strcmp(value, "any") == 0) group->reply = REPLY_ANY;
    else
        fail("%s=%s: expected name, prefix, clients, pipeline, keys, first, rate, value=MIN[-MAX], order=sequence, "
             "read=no, reply=null|any",
             key, value);
}

static void group_parse(struct load *load, char *text, uint64_t requests, double seconds) {
    if (load->group_count == GROUPS_MAX) fail("more than %d groups", GROUPS_MAX);
    struct group *group = &load->groups[load->group_count++];
    *group = (struct group){.prefix = "key:", .keys = 100000, .clients = 1, .pipeline = 1, .reads = true};
    char *rest = NULL, *word = strtok_r(text, ",", &rest);
    for (int i = 0; word != NULL && i < VERB_COUNT; i++)
        if (strcmp(word, verbs[i].name) == 0) group->verb = &verbs[i];
    if (group->verb == NULL)
        fail("%s: expected a group beginning with get, set, hget or hset", word != NULL ? word : "");
    group->name = group->verb->name;
    while ((word = strtok_r(NULL, ",", &rest)) != NULL) {
        char *value = strchr(word, '=');
        if (value == NULL) fail("%s: expected KEY=VALUE", word);
        *value++ = 0;
        option_parse(group, word, value);
    }
    if (group->keys == 0 || group->clients == 0 || group->pipeline == 0 || group->next >= group->keys)
        fail("%s: keys, clients and pipeline must not be 0, and first must be below keys", group->name);
    if (group->verb->has_value && group->value_max == 0) group->value_min = group->value_max = 64;
    group->wanted = requests > 0 ? requests : UINT64_MAX;
    if (group->rate > 0 && requests == 0) group->wanted = (uint64_t)(group->rate * seconds);
    size_t key_length = strlen(group->prefix) + NUMBER_DIGITS;
    if (asprintf(&group->head, "%s$%zu\r\n%s", group->verb->head, key_length, group->prefix) < 0) fail("out of memory");
    group->head_length = strlen(group->head);
    group->latency = allocate(sizeof *group->latency);
    group->error_latency = allocate(sizeof *group->error_latency);
    group->idle = allocate(group->clients * sizeof *group->idle);
}

static void connections_open(struct load *load, const char *target) {
    uint32_t value_max = 0;
    for (uint32_t i = 0; i < load->group_count; i++) {
        load->connection_count += load->groups[i].clients;
        value_max = load->groups[i].value_max > value_max ? load->groups[i].value_max : value_max;
    }
    load->open_count = load->connection_count;
    load->connections = allocate(load->connection_count * sizeof *load->connections);
    load->filler = allocate(value_max + NUMBER_DIGITS);
    memset(load->filler, 'x', value_max + NUMBER_DIGITS);
    load->in_bytes = load->connection_count <= 128 ? 1 << 16 : 1 << 14;
    uint32_t next = 0;
    for (uint32_t i = 0; i < load->group_count; i++) {
        struct group *group = &load->groups[i];
        for (uint32_t n = 0; n < group->clients; n++) {
            struct connection *connection = &load->connections[next++];
            connection->group = group;
            connection->fd = connect_to(target);
            connection->open = true;
            connection->in = group->reads ? allocate(load->in_bytes) : NULL;
            connection->out = allocate(group->pipeline * request_bytes_max(group));
            connection->numbers = allocate(group->pipeline * sizeof *connection->numbers);
            connection->lengths = allocate(group->pipeline * sizeof *connection->lengths);
        }
    }
}

static void ring_open(struct load *load) {
    unsigned cq_entries = RING_ENTRIES * 2;
    while (cq_entries < 3 * load->connection_count) cq_entries *= 2;
    struct io_uring_params params = {
        .flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_CQSIZE,
        .cq_entries = cq_entries,
    };
    int status = io_uring_queue_init_params(RING_ENTRIES, &load->ring, &params);
    if (status < 0) fail("io_uring: %s (the load generator needs Linux 6.1 and io_uring allowed)", strerror(-status));
}

/* ---- the outcome ----------------------------------------------------------------------------------------------- */

static void json_string(const char *text) {
    putchar('"');
    for (; *text != 0; text++)
        if (*text == '"' || *text == '\\') printf("\\%c", *text);
        else putchar((unsigned char)*text < 32 || (unsigned char)*text > 126 ? '?' : *text);
    putchar('"');
}

static void histogram_print(const char *name, const struct histogram *histogram) {
    printf("\"%s\":{\"count\":%" PRIu64 ",\"p50\":%.1f,\"p99\":%.1f,\"p999\":%.1f,\"max\":%.1f}", name,
           histogram->total, histogram_us(histogram, 0.5), histogram_us(histogram, 0.99),
           histogram_us(histogram, 0.999), (double)histogram->max_ns / 1e3);
}

/* True when every reply came and was right. */
static bool report(const struct load *load) {
    uint64_t requests = 0, errors = 0, unanswered = 0;
    for (uint32_t i = 0; i < load->group_count; i++) {
        requests += load->groups[i].answered;
        errors += load->groups[i].errors;
        unanswered += load->groups[i].unanswered;
    }
    uint64_t end_ns = load->end_ns > load->begin_ns ? load->end_ns : now_ns();
    printf("{\"requests\":%" PRIu64 ",\"seconds\":%.6f,\"errors\":%" PRIu64 ",\"unanswered\":%" PRIu64
           ",\"closed\":%" PRIu64 ",\"first_error\":",
           requests, (double)(end_ns - load->begin_ns) / 1e9, errors, unanswered, load->closed);
    json_string(load->first_error);
    printf(",\"groups\":[");
    for (uint32_t i = 0; i < load->group_count; i++) {
        const struct group *group = &load->groups[i];
        printf("%s{\"name\":", i > 0 ? "," : "");
        json_string(group->name);
        printf(",\"sent\":%" PRIu64 ",\"requests\":%" PRIu64 ",\"errors\":%" PRIu64 ",\"next\":%" PRIu64 ",",
               group->sent, group->answered, group->errors, group->next);
        histogram_print("us", group->latency);
        printf(",");
        histogram_print("error_us", group->error_latency);
        printf("}");
    }
    printf("]}\n");
    return errors == 0 && unanswered == 0 && load->closed == 0;
}

int main(int argc, char **argv) {
    static const struct option options[] = {
        {"to", required_argument, NULL, 't'},
        {"seconds", required_argument, NULL, 's'},
        {"requests", required_argument, NULL, 'n'},
        {NULL, 0, NULL, 0},
    };
    static struct load load = {.random = 88172645463325252u};
    const char *target = NULL;
    double seconds = 0;
    uint64_t requests = 0;
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (option == 't') target = optarg;
        else if (option == 's') seconds = strtod(optarg, NULL);
        else if (option == 'n') requests = number_parse("requests", optarg, UINT64_MAX - 1);
        else return 2;
    }
    if (target == NULL || optind == argc)
        fail("expected --to HOST:PORT|unix:PATH and at least one group, such as get,clients=50,pipeline=16");
    if (seconds <= 0 && requests == 0) seconds = 1;
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_TIMERSLACK, 1); /* the pace needs better than the usual 50 us */
    for (int i = optind; i < argc; i++) group_parse(&load, argv[i], requests, seconds);
    load.random += (uint64_t)getpid();
    connections_open(&load, target);
    ring_open(&load);
    run(&load, seconds);
    return report(&load) ? 0 : 1;
}
