/* client — a connection of the application; see client.h. */
#include "net/client.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/kernel.h"
#include "net/link.h"
#include "net/owner.h"
#include "resp/parse.h"
#include "serve/dispatch.h"
#include "serve/slots.h"

/* Far above any id that an upstream gives: CLIENT KILL ID and UNBLOCK are passed on as they are, and must not find the
 * connection of somebody else. Below 2^53, for clients that know only doubles. */
#define CLIENT_NUMBERS_FROM (UINT64_C(1) << 48)

bool clients_init(struct clients *clients, struct serve *serve, struct loop *loop, uint32_t clients_max) {
    clients->serve = serve;
    clients->loop = loop;
    clients->clients_max = clients_max;
    clients->next_number = CLIENT_NUMBERS_FROM;
    inboxes_init(&clients->inboxes, serve->budget, BUDGET_CLIENTS);
    return table_init(&clients->table, sizeof(struct client), clients_max, serve->budget, BUDGET_CLIENTS);
}

/* ---- the idle list ---- */

static void idle_unlink(struct clients *clients, struct client *client) {
    if (client->idle_prev) client->idle_prev->idle_next = client->idle_next;
    else clients->idle_first = client->idle_next;
    if (client->idle_next) client->idle_next->idle_prev = client->idle_prev;
    else clients->idle_last = client->idle_prev;
    client->idle_prev = client->idle_next = NULL;
}

static void idle_append(struct clients *clients, struct client *client) {
    client->active_ns = clients->serve->now_ns;
    client->idle_prev = clients->idle_last;
    if (clients->idle_last) clients->idle_last->idle_next = client;
    else clients->idle_first = client;
    clients->idle_last = client;
}

/* ---- opening and closing ---- */

static void refuse(struct clients *clients, int fd, const char *why) {
    clients->serve->stats.clients_refused++;
    send(fd, why, strlen(why), MSG_DONTWAIT | MSG_NOSIGNAL);
    close(fd);
}

static void client_end(struct clients *clients, struct client *client);

/* ---- memory that the kernel holds for a client ---- */

/* The socket's record from the start; what its buffers hold as measured, by turns and when what is sent does not leave;
 * and while it is not read from, room for all that it may still receive. */
static void book_kernel(struct clients *clients, struct client *client, size_t held, size_t arrivals) {
    kernel_book(clients->serve->budget, BUDGET_KERNEL, &client->kernel_bytes, held);
    kernel_book(clients->serve->budget, BUDGET_ARRIVALS, &client->arrival_bytes, arrivals);
}

/* Returns what has been sent and not been read. */
static size_t measure_kernel(struct clients *clients, struct client *client) {
    const struct socket_buffers *buffers = client->narrow ? &clients->narrow : &clients->wide;
    struct socket_memory held = loop_memory(clients->loop, &client->conn);
    size_t most = client->paused ? 2 * (size_t)buffers->receive_bytes : 0; /* the kernel doubles what it is asked for */
    size_t arrivals = most > held.received ? most - held.received : 0;
    book_kernel(clients, client, SOCKET_RECORD_BYTES + held.unsent + held.received, arrivals);
    return held.unsent;
}

#define SAMPLE_CLIENTS 16u
#define SPARE_SHARE 32 /* so much of the budget is kept for those who read */
/* With no more left than this, and what everybody may still come to hold though nothing more is read from him (a block
 * of replies, and what his socket receives), nobody is given more than that block before he has read it. */
#define HOLD_SHARE 16
#define UNREAD_BYTES 16384u
/* Clients are not given as much as they can send at once with more than this in our own memory, or so many of them that
 * it could become more before anything can be done about it. */
#define SIP_SHARE 16
#define BURST_BYTES ((size_t)65536)
#define BURSTS_SHARE 4

/* No more than this is left when the store has given all it can. */
static bool is_left(const struct clients *clients, size_t bytes) {
    const struct budget *budget = clients->serve->budget;
    return budget->used - budget->used_by[BUDGET_SLABS] + bytes > budget->total;
}

bool clients_near_the_end(const struct clients *clients) {
    return is_left(clients, clients->serve->budget->total / SPARE_SHARE);
}

#define UNREAD_NS (200 * NS_PER_MS) /* who has read nothing for so long does not just take its time */

static size_t held_by(const struct client *client) {
    return client->kernel_bytes + client->arrival_bytes + inbox_left(&client->in) + client->session.out.bytes +
           client->session.held_bytes;
}

/* Who was held back though nothing due to him is to be sent looks again now and then: nothing else would tell him. */
static void retry(struct clients *clients) {
    bool any = false;
    for (uint32_t i = 0; clients->some_wait && i < clients->table.used; i++) {
        struct client *client = table_record(&clients->table, i);
        struct session *session = &client->session;
        if (!(client->item.generation & 1) || session->stall != STALL_OUT || session->out.bytes) continue;
        session_mark_runnable(clients->serve, session);
        any = true;
    }
    clients->some_wait = any;
    if (!any) clients->spent_ns = 0;
}

void clients_sample_kernel(struct clients *clients) {
    uint64_t now_ns = clients->serve->now_ns;
    uint32_t places = clients->table.used < SAMPLE_CLIENTS ? clients->table.used : SAMPLE_CLIENTS;
    bool stands_still = clients->spent_ns && clients->spent_ns + UNREAD_NS < now_ns;
    struct client *most = NULL;
    for (; places > 0; places--) {
        if (clients->sample_cursor >= clients->table.used) clients->sample_cursor = 0;
        struct client *client = table_record(&clients->table, clients->sample_cursor++);
        if (!(client->item.generation & 1)) continue;
        measure_kernel(clients, client);
        bool reads = !client->blocked || client->blocked_ns + UNREAD_NS > now_ns;
        if ((!reads || stands_still) && (!most || held_by(client) > held_by(most))) most = client;
    }
    /* Who takes memory by not reading pays first, and before somebody who reads finds none. */
    if (most && clients_near_the_end(clients)) {
        clients->serve->stats.clients_starved++;
        client_end(clients, most);
    }
    retry(clients);
}

/* Looked at for each client, since one turn can give out all there is. Near the end a client gets no further reply
 * while the last ones lie in the kernel unread, for they would join them there. */
static void hold_back(struct clients *clients, struct client *client) {
    struct serve *serve = clients->serve;
    size_t still_to_come = clients->table.live * (BLOCK_BYTES + 2 * (size_t)clients->narrow.receive_bytes);
    size_t total = serve->budget->total;
    bool near = is_left(clients, total / HOLD_SHARE + still_to_come);
    serve->out_bytes_high = clients->out_share;
    clients->in_bytes_high = clients->in_share;
    if (likely(!near)) return;
    clients->in_bytes_high = 1;
    bool spent = !serve->blocks.free_count && is_left(clients, total / SPARE_SHARE + BLOCK_BYTES);
    bool waits = spent || measure_kernel(clients, client) > UNREAD_BYTES;
    serve->out_bytes_high = waits ? 0 : BLOCK_ROOM / 2;
    clients->some_wait |= waits;
    if (!spent) clients->spent_ns = 0;
    else if (!clients->spent_ns) clients->spent_ns = serve->now_ns;
}

void clients_sip(struct clients *clients) {
    const struct budget *budget = clients->serve->budget;
    bool sips = budget->used_by[BUDGET_CLIENTS] > budget->total / (clients->sips ? 2 * SIP_SHARE : SIP_SHARE) ||
                clients->table.live * BURST_BYTES > budget->total / BURSTS_SHARE;
    if (sips == clients->sips) return;
    clients->sips = sips;
    loop_sip(clients->loop, sips);
}

/* What most clients come to need at the worst, in the kernel and in our own memory: half a request, and some replies
 * that they have not read yet. */
#define CLIENT_ROOM_BYTES 28672u
#define STORE_SHARE_MIN 8 /* an eighth of the budget stays for the store, however many clients there are */

/* A client is refused when all clients together could crowd out the store. */
static bool has_room(const struct clients *clients) {
    const struct budget *budget = clients->serve->budget;
    const size_t *by = budget->used_by;
    size_t theirs = by[BUDGET_CLIENTS] + by[BUDGET_SLOTS] + by[BUDGET_FLIGHTS];
    size_t fixed = budget->used - by[BUDGET_SLABS] - by[BUDGET_KERNEL] - by[BUDGET_ARRIVALS] - theirs;
    size_t room = (size_t)clients->table.live * CLIENT_ROOM_BYTES;
    if (room < theirs) room = theirs;
    return fixed + room + CLIENT_ROOM_BYTES <= budget->total - budget->total / STORE_SHARE_MIN;
}

void client_accept(struct clients *clients, int fd, bool fresh) {
    struct serve *serve = clients->serve;
    if (clients->table.live >= clients->clients_max) {
        refuse(clients, fd, "-ERR max number of clients reached\r\n");
        return;
    }
    bool narrow = clients->table.live >= clients->roomy_max;
    const struct socket_buffers *buffers = narrow ? &clients->narrow : &clients->wide;
    if (!has_room(clients)) {
        refuse(clients, fd, "-ERR local_memory is spent: no further client can be served\r\n");
        return;
    }
    socket_set_buffers(fd, buffers);
    struct client *client = table_take(&clients->table);
    if (client) client->conn.owner = OWNER_CLIENT;
    if (!client || !loop_add(clients->loop, &client->conn, fd)) {
        if (client) table_give(&clients->table, client);
        refuse(clients, fd, "-ERR local_memory is spent: no further client can be served\r\n");
        return;
    }
    client->narrow = narrow;
    book_kernel(clients, client, SOCKET_RECORD_BYTES, 0);
    session_init(&client->session, table_id(&client->item));
    client->session.number = ++clients->next_number;
    client->session.opened_ns = serve->now_ns;
    client->session.fresh = fresh;
    idle_append(clients, client);
    serve->stats.clients_opened++;
    serve->stats.clients++;
}

/* Swift must let go of its link, or of its wish for one. */
static void tell_gone(struct serve *serve, const struct client *client) {
    if (!client->session.link && client->session.stall != STALL_PIN) return;
    fp_event *event = serve_event(serve, FP_EVENT_CLIENT_GONE);
    event->client = client->session.id;
    event->link = client->session.link;
}

static void give_turn(struct clients *clients, struct client *client);

static void forget(struct clients *clients, struct client *client) {
    struct serve *serve = clients->serve;
    give_turn(clients, client);
    if (client->session.link) {
        struct link *link = link_at(clients->links, client->session.link);
        if (link) link->session = NULL;
        serve->stats.clients_pinned--;
    }
    loop_remove(clients->loop, &client->conn);
    session_deinit(serve, &client->session);
    inbox_drop(&clients->inboxes, &client->in);
    idle_unlink(clients, client);
    budget_give(serve->budget, BUDGET_KERNEL, client->kernel_bytes);
    budget_give(serve->budget, BUDGET_ARRIVALS, client->arrival_bytes);
    serve->stats.clients--;
    table_give(&clients->table, client);
}

static void client_end(struct clients *clients, struct client *client) {
    tell_gone(clients->serve, client);
    forget(clients, client);
}

/* A pinned client has asked all it will: the upstream is told, and does with it what it does with such a client. Not
 * before all that was asked has been passed on; but when nothing goes on, since what was passed on blocks, nothing ever
 * will. */
static void pass_end_on(struct clients *clients, struct client *client) {
    struct session *session = &client->session;
    session_go_back(session);
    if (session->lane != FP_LANE_PINNED) client->ended_ns = 0;
    if (!client->eof || client->end_told || session->lane != FP_LANE_PINNED) return;
    if (session->stall != STALL_NONE) {
        client->ended_ns = clients->serve->now_ns;
        clients->some_ended = true;
        return;
    }
    if (!serve_events_fit(clients->serve, 1)) {
        session_mark_runnable(clients->serve, session);
        return;
    }
    client->end_told = true;
    fp_event *event = serve_event(clients->serve, FP_EVENT_CLIENT_END);
    event->client = session->id;
    event->link = session->link;
}

/* As Redis, which has answered before it notices an orderly end: what was asked is answered first. One that has gone
 * altogether makes the next send fail. */
void client_closed(struct clients *clients, struct client *client, int error) {
    if (error) {
        client_end(clients, client);
        return;
    }
    client->eof = true;
    pass_end_on(clients, client);
    session_mark_dirty(clients->serve, &client->session);
}

void clients_give_up_ended(struct clients *clients) {
    bool any = false;
    for (uint32_t i = 0; clients->some_ended && i < clients->table.used; i++) {
        struct client *client = table_record(&clients->table, i);
        bool waits = (client->item.generation & 1) && client->eof && client->session.stall != STALL_NONE;
        if (!waits || !client->ended_ns || client->session.lane != FP_LANE_PINNED) continue;
        bool over = client->ended_ns + clients->end_timeout_ns <= clients->serve->now_ns;
        if (over && serve_events_fit(clients->serve, 1)) client_end(clients, client);
        else any = true;
    }
    clients->some_ended = any;
}

/* True when all that was owed has been sent. */
static bool may_end(const struct client *client) {
    const struct session *session = &client->session;
    if (client->failed) return true;
    bool needs_link = session->lane == FP_LANE_PINNED && !session->gives_back;
    bool asked_all = client->eof && session->stall == STALL_NONE && !needs_link;
    bool last_words = session->closing || asked_all;
    return last_words && !session->slot_count && !session->out.bytes;
}

/* ---- receiving ---- */

/* A pinned client whose commands need no answer is held back by nothing else. */
static bool link_must_wait(struct clients *clients, struct session *session) {
    const struct link *link = link_at(clients->links, session->link);
    if (!link || !link_is_full(link)) return false;
    session->stall = STALL_UNSENT;
    clients->serve->stats.clients_stalled++;
    return true;
}

/* Dispatches complete requests from the front; returns how many bytes are done with. */
static size_t dispatch_all(struct clients *clients, struct client *client, const uint8_t *bytes, size_t length) {
    struct serve *serve = clients->serve;
    struct session *session = &client->session;
    size_t at = 0;
    client->missing = 0;
    while (at < length && !session->closing) {
        size_t used, need;
        const char *error;
        enum resp_parsed parsed =
            resp_parse(&serve->args, &client->progress, bytes + at, length - at, &used, &need, &error);
        if (parsed == RESP_INCOMPLETE) {
            client->missing = need;
            break;
        }
        if (parsed == RESP_MALFORMED) {
            serve->stats.protocol_errors++;
            chain_append(slot_sink(session), &serve->blocks, error, strlen(error));
            session->closing = true;
            return length;
        }
        if (serve->args.count == 0) {
            at += used;
            continue;
        }
        if (unlikely(session->lane == FP_LANE_PINNED) && link_must_wait(clients, session)) break;
        enum dispatched done = dispatch(serve, session, bytes + at, used);
        if (done == DISPATCH_STALL) break;
        at += used;
        if (done == DISPATCH_CLOSE) return length;
    }
    return session->closing ? length : at;
}

static void dispatch_inbox(struct clients *clients, struct client *client) {
    struct inbox *in = &client->in;
    inbox_used(&clients->inboxes, in, dispatch_all(clients, client, inbox_rest(in), inbox_left(in)));
}

/* A client with requests that wait is read from a while longer: it may be one that sends a long pipeline before it
 * reads the first reply, as libraries do. Requests are mostly small, so they are what is kept, not the replies. */
static void pause_or_resume(struct clients *clients, struct client *client) {
    bool waits = client->session.stall != STALL_NONE && inbox_left(&client->in) >= clients->in_bytes_high;
    waits |= client->session.closing | client->waits_turn;
    if (waits == client->paused) return;
    client->paused = waits;
    if (waits) {
        measure_kernel(clients, client);
        loop_pause(clients->loop, &client->conn);
    } else loop_resume(clients->loop, &client->conn);
}

/* ---- turns: memory for large requests ---- */

/* Gathering them all at once would leave memory for none; a large one is gathered when those before it leave room, or
 * alone. Its turn ends when it has been sent on. */
#define LARGE_BYTES 65536u

static void begin_turn(struct clients *clients, struct client *client, size_t whole) {
    client->large_bytes = whole;
    clients->large_bytes += whole;
    /* No room is made for what will be refused. */
    if (whole <= clients->request_bytes_max) inbox_expect(&clients->inboxes, &client->in, client->missing);
}

static bool turn_fits(const struct clients *clients, size_t whole) {
    return clients->large_bytes == 0 || clients->large_bytes + whole <= clients->large_bytes_max;
}

static void leave_queue(struct clients *clients, struct client *client) {
    struct client *before = NULL;
    for (struct client *at = clients->turn_first; at != client; at = at->turn_next) before = at;
    if (before) before->turn_next = client->turn_next;
    else clients->turn_first = client->turn_next;
    if (clients->turn_last == client) clients->turn_last = before;
    client->turn_next = NULL;
    client->waits_turn = false;
}

static void give_turn(struct clients *clients, struct client *client) {
    if (client->waits_turn) leave_queue(clients, client);
    clients->large_bytes -= client->large_bytes;
    client->large_bytes = 0;
    while (clients->turn_first) {
        struct client *next = clients->turn_first;
        size_t whole = inbox_left(&next->in) + next->missing;
        if (!turn_fits(clients, whole)) break;
        leave_queue(clients, next);
        begin_turn(clients, next, whole);
        pause_or_resume(clients, next);
    }
}

static void see_turn(struct clients *clients, struct client *client) {
    size_t whole = inbox_left(&client->in) + client->missing;
    bool gathers = client->missing && whole > LARGE_BYTES && !client->session.closing;
    bool is_held = client->large_bytes && client->session.stall != STALL_NONE;
    client->lost_turn &= gathers;
    if (!gathers && !is_held) give_turn(clients, client);
    else if (client->large_bytes || client->waits_turn || client->lost_turn) return;
    else if (turn_fits(clients, whole)) begin_turn(clients, client, whole);
    else {
        client->waits_turn = true;
        if (clients->turn_last) clients->turn_last->turn_next = client;
        else clients->turn_first = client;
        clients->turn_last = client;
    }
}

#define TURN_SILENCE_NS NS_PER_S

void clients_pass_turns(struct clients *clients) {
    for (uint32_t i = 0; i < clients->table.used && clients->turn_first; i++) {
        struct client *client = table_record(&clients->table, i);
        bool has_none = !(client->item.generation & 1) || !client->large_bytes;
        /* Its request may be whole and wait for the client to read: that may take for ever. */
        if (has_none || client->active_ns + TURN_SILENCE_NS > clients->serve->now_ns) continue;
        client->lost_turn = true;
        give_turn(clients, client);
    }
}

static void after_dispatch(struct clients *clients, struct client *client) {
    struct session *session = &client->session;
    if (session->out.bytes || session->closing) session_mark_dirty(clients->serve, session);
    if (unlikely(client->missing | client->large_bytes | client->waits_turn)) see_turn(clients, client);
    pause_or_resume(clients, client);
}

/* More came than can be kept: because it is one request too large, or because memory is short. */
static void cannot_gather(struct clients *clients, struct client *client, size_t length) {
    static const char large[] = "-ERR request is larger than the sidecar can hold within local_memory\r\n";
    static const char spent[] = "-ERR local_memory is spent: the request cannot be held\r\n";
    struct session *session = &client->session;
    bool too_large = inbox_left(&client->in) + length > clients->request_bytes_max;
    const char *error = too_large ? large : spent;
    if (!too_large) clients->serve->stats.clients_starved++;
    chain_append(slot_sink(session), &clients->serve->blocks, error, strlen(error));
    session->closing = true;
}

void client_data(struct clients *clients, struct client *client, const uint8_t *bytes, size_t length) {
    struct serve *serve = clients->serve;
    struct session *session = &client->session;
    serve->stats.bytes_received += length;
    if (session->closing) return;
    client->active_ns = serve->now_ns;
    if (clients->idle_timeout_ns) {
        idle_unlink(clients, client);
        idle_append(clients, client);
    }
    size_t max = clients->request_bytes_max;
    hold_back(clients, client);
    if (inbox_left(&client->in) == 0) {
        size_t done = dispatch_all(clients, client, bytes, length);
        if (done < length && !inbox_gather(&clients->inboxes, &client->in, bytes + done, length - done, max))
            cannot_gather(clients, client, length - done);
    } else if (!inbox_gather(&clients->inboxes, &client->in, bytes, length, max)) {
        cannot_gather(clients, client, length);
    } else if (session->stall == STALL_NONE) {
        dispatch_inbox(clients, client);
    }
    after_dispatch(clients, client);
}

void clients_run(struct clients *clients) {
    struct serve *serve = clients->serve;
    struct session *session = serve->runnable;
    serve->runnable = NULL;
    while (session) {
        struct session *next = session->runnable_next;
        struct client *client = client_of(session);
        session->is_runnable = false;
        session->runnable_next = NULL;
        session->stall = STALL_NONE;
        hold_back(clients, client);
        if (inbox_left(&client->in)) dispatch_inbox(clients, client);
        after_dispatch(clients, client);
        pass_end_on(clients, client);
        if (client->eof) session_mark_dirty(serve, session);
        session = next;
    }
}

void clients_release(struct clients *clients, enum stall stall) {
    for (uint32_t i = 0; i < clients->table.used; i++) {
        struct client *client = table_record(&clients->table, i);
        if ((client->item.generation & 1) && client->session.stall == stall)
            session_mark_runnable(clients->serve, &client->session);
    }
}

/* ---- sending ---- */

/* What the next send holds: into conn.iov, their count returned. */
static int offer(struct client *client) {
    struct iovec *iov = client->conn.iov;
    int count = chain_iovecs(&client->session.out, iov, LOOP_IOVECS);
    uint32_t left = client->narrow ? NARROW_SEND_BYTES : UINT32_MAX;
    client->offered = 0;
    for (int i = 0; i < count; i++) {
        if (iov[i].iov_len >= left) {
            iov[i].iov_len = left;
            count = i + 1;
        }
        left -= (uint32_t)iov[i].iov_len;
        client->offered += (uint32_t)iov[i].iov_len;
    }
    return count;
}

bool clients_flush(struct clients *clients) {
    struct serve *serve = clients->serve;
    bool more = false;
    while (serve->dirty && clients->flying_count < CLIENTS_A_TURN && serve_events_fit(serve, 1)) {
        struct session *session = serve->dirty;
        struct client *client = client_of(session);
        serve->dirty = session->dirty_next;
        session->is_dirty = false;
        session->dirty_next = NULL;
        if (may_end(client)) {
            client_end(clients, client);
            continue;
        }
        if (client->blocked || !session->out.bytes) continue;
        loop_send(clients->loop, &client->conn, offer(client));
        clients->flying[clients->flying_count++] = client;
        /* A send that goes well wakes nobody. */
        more |= session->out.bytes > client->offered || session->closing || client->eof || session->stall == STALL_OUT;
    }
    return more || serve->dirty || serve->runnable;
}

void clients_settle(struct clients *clients) {
    struct serve *serve = clients->serve;
    for (uint32_t i = 0; i < clients->flying_count; i++) {
        struct client *client = clients->flying[i];
        struct session *session = &client->session;
        chain_sent(&session->out, &serve->blocks, client->conn.sent);
        serve->stats.bytes_sent += client->conn.sent;
        if (client->conn.send_error) {
            /* A client that is not read from is not told of otherwise. The flush ends it, which sees to room for
             * events. */
            client->failed = true;
            session_mark_dirty(serve, session);
            continue;
        }
        client->blocked = client->conn.sent < client->offered;
        if (client->blocked) {
            client->blocked_ns = serve->now_ns;
            measure_kernel(clients, client);
        }
        if (!client->blocked && (session->out.bytes || session->closing || client->eof))
            session_mark_dirty(serve, session);
        if (session->stall == STALL_OUT && session->out.bytes + session->held_bytes <= serve->out_bytes_high / 2)
            session_mark_runnable(serve, session);
    }
    clients->flying_count = 0;
}

void client_writable(struct clients *clients, struct client *client) {
    client->blocked = false;
    session_mark_dirty(clients->serve, &client->session);
}

/* By us. Who does not read what is due to it may be idle. */
static bool is_held_up(const struct session *session) {
    return session->stall != STALL_NONE && session->stall != STALL_OUT;
}

uint64_t clients_expire_idle(struct clients *clients, uint64_t now_ns) {
    if (!clients->idle_timeout_ns) return UINT64_MAX;
    while (clients->idle_first && clients->idle_first->active_ns + clients->idle_timeout_ns <= now_ns &&
           serve_events_fit(clients->serve, 1)) {
        struct client *client = clients->idle_first;
        session_go_back(&client->session);
        /* Who waits for an answer, a message, or to be let go on, is not idle. */
        if (client->session.slot_count || is_held_up(&client->session) || client->session.lane == FP_LANE_PINNED) {
            idle_unlink(clients, client);
            idle_append(clients, client);
            continue;
        }
        clients->serve->stats.clients_idle_closed++;
        client_end(clients, client);
    }
    return clients->idle_first ? clients->idle_first->active_ns + clients->idle_timeout_ns : UINT64_MAX;
}

void clients_deinit(struct clients *clients) {
    for (uint32_t i = 0; i < clients->table.used; i++) {
        struct client *client = table_record(&clients->table, i);
        if (client->item.generation & 1) forget(clients, client); /* nobody takes events any more */
    }
    inboxes_deinit(&clients->inboxes);
    table_deinit(&clients->table);
}
