/* link — a connection to an upstream; see link.h. */
#include "net/link.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "net/kernel.h"
#include "net/owner.h"
#include "resp/error.h"
#include "resp/reply.h"
#include "serve/session.h"

#define BLOCKS_KEPT 32u

bool links_init(struct links *links, struct serve *serve, struct loop *loop, uint32_t links_max) {
    links->serve = serve;
    links->loop = loop;
    links->links_max = links_max;
    inboxes_init(&links->inboxes, serve->budget, BUDGET_LINKS);
    pieces_init(&links->decrypted, serve->budget, BUDGET_TLS);
    block_pool_init(&links->blocks, serve->budget, BLOCKS_KEPT);
    links->blocks.owner = BUDGET_LINKS;
    if (!budget_take(serve->budget, BUDGET_LINKS, links_max * sizeof *links->flying)) return false;
    links->flying = calloc(links_max, sizeof *links->flying);
    CHECK(links->flying);
    return table_init(&links->table, sizeof(struct link), links_max, serve->budget, BUDGET_LINKS);
}

static void mark_dirty(struct links *links, struct link *link) {
    if (link->is_dirty) return;
    link->is_dirty = true;
    link->dirty_next = links->dirty;
    links->dirty = link;
}

#define SEALED_BYTES_MAX 49152u /* what one send takes, with what a record has beside its bytes */

static void decrypt(struct links *links, struct link *link, const uint8_t *bytes, size_t length);

static bool begin_tls(struct links *links, struct link *link) {
    if (!budget_take(links->serve->budget, BUDGET_TLS, TLS_HANDSHAKE_BYTES)) return false;
    link->tls_bytes = TLS_HANDSHAKE_BYTES;
    link->tls = tls_begin(links->tls, &link->sealed, &links->blocks);
    if (!link->tls) budget_give(links->serve->budget, BUDGET_TLS, link->tls_bytes);
    return link->tls;
}

static void end_tls(struct links *links, struct link *link) {
    if (!link->tls) return;
    tls_end(link->tls);
    chain_clear(&link->sealed, &links->blocks);
    budget_give(links->serve->budget, BUDGET_TLS, link->tls_bytes);
}

static void open_tls(struct links *links, struct link *link) {
    link->tls_open = true;
    budget_give(links->serve->budget, BUDGET_TLS, link->tls_bytes);
    link->tls_bytes = tls_idle_bytes(link->tls);
    budget_force(links->serve->budget, BUDGET_TLS, link->tls_bytes);
}

fp_link link_open(struct links *links, const void *address, uint32_t address_length) {
    struct budget *budget = links->serve->budget;
    struct socket_address to = {.length = address_length};
    if (address_length > sizeof to.storage) return 0;
    memcpy(&to.storage, address, address_length);
    if (!budget_take(budget, BUDGET_KERNEL, SOCKET_RECORD_BYTES)) return 0;
    struct link *link = table_take(&links->table);
    if (link && links->tls && !begin_tls(links, link)) {
        table_give(&links->table, link);
        link = NULL;
    }
    int fd = link ? loop_open(links->loop, &to, &links->buffers) : -1;
    if (link) link->conn.owner = OWNER_LINK;
    if (fd < 0 || !loop_connect(links->loop, &link->conn, fd, address, address_length)) {
        if (fd >= 0) close(fd);
        if (link) {
            end_tls(links, link);
            table_give(&links->table, link);
        }
        budget_give(budget, BUDGET_KERNEL, SOCKET_RECORD_BYTES);
        return 0;
    }
    link->kernel_bytes = SOCKET_RECORD_BYTES;
    return table_id(&link->item);
}

static void link_end(struct links *links, struct link *link) {
    struct serve *serve = links->serve;
    loop_remove(links->loop, &link->conn);
    for (struct link **at = &links->dirty; link->is_dirty && *at; at = &(*at)->dirty_next) {
        if (*at != link) continue;
        *at = link->dirty_next;
        break;
    }
    if (link->waiting) links->waiting_count--;
    end_tls(links, link);
    chain_clear(&link->out, &links->blocks);
    inbox_drop(&links->inboxes, &link->in);
    budget_give(serve->budget, BUDGET_KERNEL, link->kernel_bytes);
    table_give(&links->table, link);
}

void link_close(struct links *links, struct link *link) { link_end(links, link); }

void link_abort(struct links *links, struct link *link) {
    loop_abort(links->loop, &link->conn);
    link_end(links, link);
}

/* Room for this event is what SERVE_EVENTS_SPARE keeps. */
static void link_down_because(struct links *links, struct link *link, int error, const char *why) {
    if (link->session) link->session->link_fits = false;
    fp_event *event = serve_event(links->serve, FP_EVENT_LINK_DOWN);
    event->link = table_id(&link->item);
    event->error = error;
    event->bytes = (const uint8_t *)why;
    event->length = why ? (uint32_t)strlen(why) : 0;
    /* What it still holds must not arrive behind what is sent elsewhere in its place. Before TLS is open that is
     * nothing, and the server's log is to have our reason. */
    if (!link->tls || link->tls_open) loop_abort(links->loop, &link->conn);
    else if (link->connected && !link->blocked && link->sealed.bytes)
        loop_send(links->loop, &link->conn, chain_iovecs(&link->sealed, link->conn.iov, LOOP_IOVECS));
    link_end(links, link);
}

static void link_down(struct links *links, struct link *link, int error) {
    link_down_because(links, link, error, NULL);
}

void link_connected(struct links *links, struct link *link, int error) {
    if (error) {
        link_down(links, link, error);
        return;
    }
    link->connected = true;
    serve_event(links->serve, FP_EVENT_LINK_UP)->link = table_id(&link->item);
    if (link->out.bytes) mark_dirty(links, link);
    if (link->tls) decrypt(links, link, NULL, 0);
}

/* Replies that came before it are not lost, though they wait for the next batch. */
void link_closed(struct links *links, struct link *link, int error) {
    if (!link->waiting || link->error || error) link_down(links, link, error);
    else link->ended = true;
}

static void send_end(struct links *links, struct link *link) {
    if (!link->finishing || !link->connected || link->out.bytes || link->sealed.bytes) return;
    if (!link->tls || link->tls_finished) loop_finish(links->loop, &link->conn);
    else mark_dirty(links, link);
}

void link_finish(struct links *links, struct link *link) {
    link->finishing = true;
    send_end(links, link);
}

void link_writable(struct links *links, struct link *link) {
    link->blocked = false;
    mark_dirty(links, link);
}

static void mark_waiting(struct links *links, struct link *link) {
    if (link->waiting) return;
    link->waiting = true;
    links->waiting_count++;
}

/* Short of memory for an order, the link cannot go on in order: it ends like a lost one, with the next batch. */
static void starve(struct links *links, struct link *link) {
    link->error = ENOMEM;
    mark_waiting(links, link);
}

void link_send_bulk(struct links *links, struct link *link, const uint8_t *bytes, size_t length) {
    if (link->error) return;
    if (reply_bulk(&link->out, &links->blocks, bytes, (uint32_t)length)) mark_dirty(links, link);
    else starve(links, link);
}

void link_send(struct links *links, struct link *link, const void *bytes, size_t length) {
    if (link->error) return;
    if (chain_append(&link->out, &links->blocks, bytes, length)) mark_dirty(links, link);
    else starve(links, link);
}

static void count_error(struct links *links, const uint8_t *reply, size_t length) {
    struct stats *stats = &links->serve->stats;
    uint64_t *by_kind = &stats->upstream_error_err; /* the rows stand in the order of the kinds */
    _Static_assert(offsetof(struct stats, upstream_error_other) - offsetof(struct stats, upstream_error_err) ==
                       (RESP_ERROR_COUNT - 1) * sizeof(uint64_t),
                   "a row for each kind");
    by_kind[resp_error_of(reply, length)]++;
}

static void reply_event(struct links *links, struct link *link, const uint8_t *bytes, size_t length) {
    fp_event *event = serve_event(links->serve, bytes[0] == '>' ? FP_EVENT_PUSH : FP_EVENT_REPLY);
    event->type = bytes[0];
    event->link = table_id(&link->item);
    event->bytes = bytes;
    event->length = (uint32_t)length;
}

/* Passes over the reply at the front; its end becomes an event with an error. Returns the bytes used. */
static size_t skip(struct links *links, struct link *link, const uint8_t *bytes, size_t length, int *error) {
    static const char too_large[] = "-ERR the reply is larger than the sidecar can hold within local_memory\r\n";
    static const char spent[] = "-ERR local_memory is spent: the reply cannot be held\r\n";
    size_t used = 0;
    enum resp_framed framed = resp_skip(&link->skipper, bytes, length, &used);
    if (framed == RESP_BROKEN) *error = EPROTO;
    if (framed != RESP_REPLY) return used;
    link->skipping = false;
    if (link->skips_for_now) reply_event(links, link, (const uint8_t *)spent, sizeof spent - 1);
    else reply_event(links, link, (const uint8_t *)too_large, sizeof too_large - 1);
    return used;
}

/* A push cannot be passed over: what it announces would be missed. */
static bool begin_skip(struct link *link, uint8_t type, bool for_now) {
    if (type == '>') return false;
    link->skipping = true;
    link->skips_for_now = for_now;
    link->skipper = (struct resp_skipper){0};
    link->framer = (struct resp_framer){0};
    return true;
}

/* Frames complete replies from the front into events; returns the bytes used. Sets *error when it is not RESP. */
static size_t frame_all(struct links *links, struct link *link, const uint8_t *bytes, size_t length, int *error) {
    struct serve *serve = links->serve;
    size_t at = 0;
    while (at < length) {
        if (unlikely(link->skipping)) {
            if (!serve_events_fit(serve, SERVE_EVENTS_SPARE)) {
                mark_waiting(links, link);
                break;
            }
            at += skip(links, link, bytes + at, length - at, error);
            if (link->skipping) break;
            continue;
        }
        size_t reply_length;
        uint64_t need;
        enum resp_framed framed = resp_frame(&link->framer, bytes + at, length - at, &reply_length, &need);
        if (framed == RESP_PARTIAL) {
            if (need <= links->reply_bytes_max) break;
            if (begin_skip(link, bytes[at], false)) continue;
            *error = EMSGSIZE;
            break;
        }
        if (framed == RESP_BROKEN) {
            *error = EPROTO;
            break;
        }
        if (!serve_events_fit(serve, SERVE_EVENTS_SPARE)) {
            /* The framer has read this reply; it is read again with the next batch. */
            link->framer = (struct resp_framer){0};
            mark_waiting(links, link);
            break;
        }
        if (unlikely(bytes[at] == '-')) count_error(links, bytes + at, reply_length);
        reply_event(links, link, bytes + at, reply_length);
        at += reply_length;
    }
    return at;
}

/* False when that has ended the link. */
static bool frame_inbox(struct links *links, struct link *link) {
    int error = 0;
    struct inbox *in = &link->in;
    inbox_used(&links->inboxes, in, frame_all(links, link, inbox_rest(in), inbox_left(in), &error));
    if (error) link_down(links, link, error);
    return !error;
}

/* Keeps what is not used up. Short of memory for the reply in hand, passes over it instead. */
static int keep(struct links *links, struct link *link, const uint8_t *bytes, size_t length) {
    struct inbox *in = &link->in;
    size_t max = links->reply_bytes_max + LOOP_BUFFER_BYTES;
    int error = 0;
    if (length == 0 || inbox_gather(&links->inboxes, in, bytes, length, max)) return 0;
    if (link->waiting || link->skipping) return ENOMEM;
    bool gathered = inbox_left(in) > 0;
    if (!begin_skip(link, gathered ? *inbox_rest(in) : *bytes, true)) return ENOMEM;
    if (gathered) inbox_used(&links->inboxes, in, frame_all(links, link, inbox_rest(in), inbox_left(in), &error));
    else {
        size_t used = frame_all(links, link, bytes, length, &error);
        bytes += used;
        length -= used;
    }
    if (error || length == 0) return error;
    return inbox_gather(&links->inboxes, in, bytes, length, max) ? 0 : ENOMEM;
}

/* False when that has ended the link. */
static bool plain_data(struct links *links, struct link *link, const uint8_t *bytes, size_t length) {
    bool direct = inbox_left(&link->in) == 0;
    int error = 0;
    size_t done = direct ? frame_all(links, link, bytes, length, &error) : 0;
    if (!error) error = keep(links, link, bytes + done, length - done);
    if (error) link_down(links, link, error);
    else if (!direct && !link->waiting) return frame_inbox(links, link);
    return !error;
}

/* What is decrypted lasts as long as received bytes do, for events point into it. */
static void decrypt(struct links *links, struct link *link, const uint8_t *bytes, size_t length) {
    tls_feed(link->tls, bytes, length);
    for (;;) {
        int error;
        const char *why;
        size_t plain_length;
        uint8_t *plain = pieces_room(&links->decrypted, TLS_RECORD_BYTES);
        switch (tls_read(link->tls, plain, TLS_RECORD_BYTES, &plain_length, &error, &why)) {
        case TLS_PLAIN:
            pieces_used(&links->decrypted, plain_length);
            if (!plain_data(links, link, plain, plain_length)) return;
            continue;
        case TLS_OPENED: open_tls(links, link); continue;
        case TLS_MORE:
            /* A peer may ask to be answered (KeyUpdate), and take no answer. */
            if (link->sealed.bytes > SEALED_BYTES_MAX + TLS_RECORD_BYTES)
                link_down_because(links, link, FP_ERROR_TLS, "it asks for more than it takes");
            else mark_dirty(links, link);
            return;
        case TLS_CLOSED: link_closed(links, link, 0); return;
        case TLS_FAILED: link_down_because(links, link, error, why); return;
        }
    }
}

void link_data(struct links *links, struct link *link, const uint8_t *bytes, size_t length) {
    links->serve->stats.upstream_bytes_received += length;
    link->heard_ns = links->serve->now_ns;
    if (unlikely(link->tls)) decrypt(links, link, bytes, length);
    else plain_data(links, link, bytes, length);
}

void links_recycle(struct links *links) {
    inboxes_recycle(&links->inboxes);
    pieces_recycle(&links->decrypted);
}

void links_run(struct links *links) {
    for (uint32_t i = 0; i < links->table.used && links->waiting_count; i++) {
        struct link *link = table_record(&links->table, i);
        if (!(link->item.generation & 1) || !link->waiting) continue;
        if (!serve_events_fit(links->serve, SERVE_EVENTS_SPARE)) return;
        link->waiting = false;
        links->waiting_count--;
        if (link->error) link_down(links, link, link->error);
        else if (frame_inbox(links, link) && link->ended && !link->waiting) link_down(links, link, 0);
    }
}

/* False when there is no memory for a record. */
static bool seal(struct links *links, struct link *link) {
    while (link->out.bytes && link->sealed.bytes + TLS_RECORD_BYTES <= SEALED_BYTES_MAX) {
        const struct block *head = link->out.head;
        size_t length = head->end - head->start;
        const uint8_t *bytes = head->bytes + head->start;
        if (length < link->out.bytes && length < TLS_RECORD_BYTES) {
            /* One record, and one call, for what lies in several blocks. */
            uint8_t *gathered = pieces_room(&links->decrypted, TLS_RECORD_BYTES);
            length = chain_copy(&link->out, gathered, TLS_RECORD_BYTES);
            bytes = gathered;
        } else if (length > TLS_RECORD_BYTES) length = TLS_RECORD_BYTES;
        enum tls_wrote wrote = tls_write(link->tls, bytes, length);
        if (wrote != TLS_WROTE) return wrote == TLS_LATER; /* decrypt marks it dirty again */
        chain_sent(&link->out, &links->blocks, length);
    }
    if (link->finishing && !link->out.bytes && !link->tls_finished) {
        enum tls_wrote wrote = tls_finish(link->tls);
        if (wrote != TLS_WROTE) return wrote == TLS_LATER;
        link->tls_finished = true;
    }
    return true;
}

/* What is to be sent as it is. */
static struct chain *outgoing(struct link *link) { return unlikely(link->tls) ? &link->sealed : &link->out; }

bool links_flush(struct links *links) {
    bool more = false;
    while (links->dirty) {
        struct link *link = links->dirty;
        links->dirty = link->dirty_next;
        link->is_dirty = false;
        link->dirty_next = NULL;
        if (!link->connected || link->blocked) continue;
        if (unlikely(link->tls_open) && !link->error && !seal(links, link)) starve(links, link);
        struct chain *chain = outgoing(link);
        if (!chain->bytes) continue;
        int count = chain_iovecs(chain, link->conn.iov, LOOP_IOVECS);
        link->offered = 0;
        for (int i = 0; i < count; i++) link->offered += (uint32_t)link->conn.iov[i].iov_len;
        loop_send(links->loop, &link->conn, count);
        links->flying[links->flying_count++] = link;
        /* A send that goes well wakes nobody. */
        more |= chain->bytes > link->offered || (link->tls_open && link->out.bytes) ||
                (link->session && link->session->stall == STALL_UNSENT);
    }
    return more || links->waiting_count > 0;
}

static void measure_kernel(struct links *links, struct link *link) {
    struct socket_memory held = loop_memory(links->loop, &link->conn);
    size_t bytes = SOCKET_RECORD_BYTES + held.received + held.unsent;
    kernel_book(links->serve->budget, BUDGET_KERNEL, &link->kernel_bytes, bytes);
}

void links_settle(struct links *links) {
    struct serve *serve = links->serve;
    for (uint32_t i = 0; i < links->flying_count; i++) {
        struct link *link = links->flying[i];
        chain_sent(outgoing(link), &links->blocks, link->conn.sent);
        serve->stats.upstream_bytes_sent += link->conn.sent;
        if (link->conn.send_error) {
            /* Ended with the next batch, behind what it has still said. */
            link->error = link->conn.send_error;
            mark_waiting(links, link);
            continue;
        }
        link->blocked = link->conn.sent < link->offered;
        if (link->blocked) measure_kernel(links, link);
        if (!link->blocked && (link->out.bytes || link->sealed.bytes)) mark_dirty(links, link);
        if (link->session && link->session->stall == STALL_UNSENT && link->out.bytes <= LINK_UNSENT_HIGH / 2)
            session_mark_runnable(serve, link->session);
        send_end(links, link);
    }
    links->flying_count = 0;
}

#define SAMPLE_LINKS 8u

void links_sample_kernel(struct links *links) {
    uint32_t places = links->table.used < SAMPLE_LINKS ? links->table.used : SAMPLE_LINKS;
    for (; places > 0; places--) {
        if (links->sample_cursor >= links->table.used) links->sample_cursor = 0;
        struct link *link = table_record(&links->table, links->sample_cursor++);
        if (!(link->item.generation & 1)) continue;
        measure_kernel(links, link);
    }
}

void links_deinit(struct links *links) {
    for (uint32_t i = 0; i < links->table.used; i++) {
        struct link *link = table_record(&links->table, i);
        if (link->item.generation & 1) link_end(links, link);
    }
    inboxes_deinit(&links->inboxes);
    pieces_deinit(&links->decrypted);
    fp_tls_free(links->tls);
    block_pool_deinit(&links->blocks);
    table_deinit(&links->table);
    budget_give(links->serve->budget, BUDGET_LINKS, links->links_max * sizeof *links->flying);
    free(links->flying);
}
