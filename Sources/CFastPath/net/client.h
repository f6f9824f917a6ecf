/* client — a connection of the application: receives, cuts requests, sends what is due.
 *
 *   loop DATA ─► client_data ─► resp_parse ─► dispatch ─► session.out ─► client_flush ─► loop_send
 *
 * A request that is complete in a receive buffer is parsed where it lies. What is left over (a part of a request, or
 * requests that must wait) is gathered in `in`, one contiguous buffer; the client is not read from while that holds
 * requests that wait. Events point into receive buffers and into `in`, so neither moves before the next turn. */
#ifndef FERRITE_NET_CLIENT_H
#define FERRITE_NET_CLIENT_H

#include "net/inbox.h"
#include "net/loop.h"
#include "net/socket.h"
#include "serve/session.h"

struct client {
    struct table_item item;
    struct loop_conn conn;
    struct session session;
    struct inbox in;
    struct resp_progress progress; /* of the request at the front of `in` */
    bool paused;
    bool blocked;         /* waits for LOOP_WRITABLE */
    uint64_t blocked_ns;  /* since then */
    bool failed;          /* its last send did: ended at the next flush */
    bool eof;             /* the peer has sent all it will: answer what it asked, then close */
    uint64_t ended_ns;    /* since then the rest of what it asked waits to be passed on */
    bool end_told;        /* and its own link has been told */
    bool narrow;          /* has the narrow buffers, and no more than NARROW_SEND_BYTES are sent at once */
    uint32_t offered;     /* bytes of the last loop_send */
    size_t kernel_bytes;  /* charged for the socket: see measure_kernel */
    size_t arrival_bytes; /* kept free for what it may still receive while it is paused */
    uint64_t active_ns;   /* last time it sent something */
    struct client *idle_prev, *idle_next;
    size_t missing;     /* bytes of the request at the front of `in` that are still to come, at least */
    size_t large_bytes; /* of a large request that has its turn to be gathered: see turns */
    bool waits_turn;
    bool lost_turn; /* it was silent in the middle of its request while others waited */
    struct client *turn_next;
};

#define NARROW_SEND_BYTES 8192u
#define CLIENTS_A_TURN 1024u /* sent to in one turn */

struct links;

struct clients {
    struct serve *serve;
    struct loop *loop;
    struct links *links;
    struct table table;
    struct client *flying[CLIENTS_A_TURN]; /* sent in this turn */
    uint32_t flying_count;
    struct client *idle_first, *idle_last; /* the longest silent first */
    struct inboxes inboxes;
    uint64_t idle_timeout_ns; /* 0: none */
    /* A client with out_share unsent gets no further answer, and one whose requests must wait is read from until it has
     * sent in_share: but for when memory is nearly spent, and nobody is to
     * take more before he has read: see hold_back. */
    size_t out_share, in_share;
    size_t in_bytes_high;
    bool sips;
    uint64_t end_timeout_ns;
    bool some_ended;   /* and wait, see clients_give_up_ended */
    bool some_wait;    /* though nothing that is to be sent will tell them when to go on */
    uint64_t spent_ns; /* since then there is no block for a reply; 0: there is */
    uint64_t next_number;
    uint32_t clients_max;
    uint32_t sample_cursor; /* the next client whose socket is measured */
    /* The first `roomy_max` clients get the wide buffers. */
    struct socket_buffers wide, narrow;
    uint32_t roomy_max;
    size_t request_bytes_max;
    /* Turns: large requests are gathered together only as far as memory goes; the others wait unread. */
    struct client *turn_first, *turn_last;
    size_t large_bytes, large_bytes_max;
};

bool clients_init(struct clients *clients, struct serve *serve, struct loop *loop, uint32_t clients_max);
void clients_deinit(struct clients *clients);

/* Takes an accepted socket over, or refuses it in Redis' words. `fresh`: nothing is answered from the cache. */
void client_accept(struct clients *clients, int fd, bool fresh);
void client_data(struct clients *clients, struct client *client, const uint8_t *bytes, size_t length);
void client_closed(struct clients *clients, struct client *client, int error);
void client_writable(struct clients *clients, struct client *client);

/* Lets stalled clients go on. */
void clients_run(struct clients *clients);
/* Lets those go on that wait for this. */
void clients_release(struct clients *clients, enum stall stall);
/* Hands what is due to the loop; true if something could not be handed over yet and the loop must not sleep. */
bool clients_flush(struct clients *clients);
/* After loop_wait: what was sent is gone from the chains. */
void clients_settle(struct clients *clients);
/* Measures what the kernel holds for the next few clients and books it. At a steady pace, for replies that wait in the
 * kernel unread cannot be seen otherwise before its buffer is full. */
void clients_sample_kernel(struct clients *clients);
/* Whether clients are given as much as they can send: see loop_sip. Each turn. */
void clients_sip(struct clients *clients);
/* The store has given nearly all it can. */
bool clients_near_the_end(const struct clients *clients);
/* Takes the turn from those who do not use it. From time to time. */
void clients_pass_turns(struct clients *clients);
/* Ends clients that have ended their side, and of whose requests nothing goes on. From time to time. */
void clients_give_up_ended(struct clients *clients);
/* Closes clients that were silent for too long; returns when to look again (UINT64_MAX: never). */
uint64_t clients_expire_idle(struct clients *clients, uint64_t now_ns);

static inline struct client *client_of(struct session *session) {
    return (struct client *)((uint8_t *)session - offsetof(struct client, session));
}

#endif
