/* link — a connection to an upstream: sends what Swift orders, frames what comes into events.
 *
 *   fp_link_send ─► link.out ─► links_flush (─► tls_write ─► link.sealed) ─► loop_send
 *   loop DATA ─► link_data (─► tls_read) ─► resp_frame ─► events REPLY, PUSH (pointers into the receive buffer)
 *
 * A reply that is too large to hold is passed over, and an error stands in its place: the link and all who share it
 * go on. The bytes of a link are never reordered: events of one link come in its byte order. Loop thread only. */
#ifndef FERRITE_NET_LINK_H
#define FERRITE_NET_LINK_H

#include "net/inbox.h"
#include "net/loop.h"
#include "net/pieces.h"
#include "net/socket.h"
#include "net/tls.h"
#include "resp/frame.h"
#include "serve/serve.h"

struct link {
    struct table_item item;
    struct loop_conn conn;
    struct chain out;
    struct chain sealed;     /* records of TLS: what of `out` has been sealed, handshakes, alerts */
    struct tls_session *tls; /* NULL: plain */
    size_t tls_bytes;        /* taken for it */
    struct inbox in;
    struct resp_framer framer;   /* of the reply at the front of `in` */
    struct resp_skipper skipper; /* of the same reply, when it is too large to hold */
    bool skipping;
    bool skips_for_now; /* for want of memory, not for the reply's size */
    bool connected;
    bool blocked;            /* waits for LOOP_WRITABLE */
    bool waiting;            /* replies wait in `in` for the next batch, or the link is to end with it */
    bool ended;              /* the peer has closed behind replies that wait for the next batch */
    bool finishing;          /* nothing more will be sent: the peer is told so when all has left */
    bool tls_open;           /* its handshake is done: `out` may be sealed */
    bool tls_finished;       /* the peer has been told within TLS that nothing more will be sent */
    struct session *session; /* of a pinned link: waits with STALL_UNSENT while too much is unsent */
    int error; /* of a failed send, or ENOMEM when memory was too short for an order: ends at the next turn */
    bool is_dirty;
    uint32_t offered;
    size_t kernel_bytes; /* charged for the socket: as measured by turns, and when it blocks */
    uint64_t heard_ns;   /* when bytes last came */
    struct link *dirty_next;
};

struct links {
    struct serve *serve;
    struct loop *loop;
    struct table table;
    struct link *dirty;
    struct link **flying; /* links_max entries */
    uint32_t flying_count;
    uint32_t waiting_count;
    uint32_t links_max;
    struct inboxes inboxes;
    fp_tls *tls; /* of the links to come; NULL: they are plain */
    struct pieces decrypted;
    struct block_pool blocks;
    struct socket_buffers buffers;
    uint32_t sample_cursor; /* the next link whose socket is measured */
    size_t reply_bytes_max;
};

bool links_init(struct links *links, struct serve *serve, struct loop *loop, uint32_t links_max);
void links_deinit(struct links *links);

/* 0 when there is no room for another. LOOP_CONNECTED tells how it went. */
fp_link link_open(struct links *links, const void *address, uint32_t address_length);
void link_send(struct links *links, struct link *link, const void *bytes, size_t length);
void link_send_bulk(struct links *links, struct link *link, const uint8_t *bytes, size_t length);
void link_close(struct links *links, struct link *link);
/* The same by a reset: what is unsent, in the kernel too, is not sent. */
void link_abort(struct links *links, struct link *link);
/* Sends what is unsent and then an end of file: the upstream answers what it was asked, ends what blocks, closes. */
void link_finish(struct links *links, struct link *link);

void link_connected(struct links *links, struct link *link, int error);
void link_data(struct links *links, struct link *link, const uint8_t *bytes, size_t length);
void link_closed(struct links *links, struct link *link, int error);
void link_writable(struct links *links, struct link *link);

/* At the start of a turn. */
void links_recycle(struct links *links);
/* Frames what waited for room in the batch. */
void links_run(struct links *links);
/* True if something is left to hand over and the loop must not sleep. */
bool links_flush(struct links *links);
void links_settle(struct links *links);
/* Measures what the kernel holds for the next few links and books it. */
void links_sample_kernel(struct links *links);

#define LINK_UNSENT_HIGH (256u << 10) /* of a pinned link: from there on its client waits */

static inline bool link_is_full(const struct link *link) { return link->out.bytes > LINK_UNSENT_HIGH; }

static inline struct link *link_at(struct links *links, fp_link id) { return table_at(&links->table, id); }

#endif
