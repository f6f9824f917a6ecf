/* session — a client as serve/ sees it: what is due to it, in which order, and where its commands travel. */
#ifndef FERRITE_SERVE_SESSION_H
#define FERRITE_SERVE_SESSION_H

#include "serve/serve.h"

struct slot;

/* Why a session's next command waits. */
enum stall {
    STALL_NONE,
    STALL_LANE,   /* it needs another link than the commands still unanswered */
    STALL_HELD,   /* the upstream is being connected, or its queue is full */
    STALL_PIN,    /* its own link is being made */
    STALL_SLOTS,  /* too many unanswered commands */
    STALL_OUT,    /* it does not read what is due to it */
    STALL_UNSENT, /* its own link has not taken what it sent before */
    STALL_WRITES, /* acknowledged writes must be carried out first, or the queue is full */
    STALL_EVENTS  /* this batch is full: goes on next turn */
};

#define SESSION_NAME_MAX 64

struct session {
    fp_client id;
    uint64_t number; /* what CLIENT ID says */
    uint64_t opened_ns;
    struct chain out;   /* replies due, in order, being sent */
    struct slot *first; /* slots whose reply is not due yet: the first is unanswered, or waits for its fence */
    struct slot *last;
    struct slot *ripe; /* the last of the leading slots that are answered: fences are all they wait for; NULL: none */
    uint32_t slot_count;
    uint32_t slots_opened;  /* ever; wraps */
    uint32_t lane_count;    /* of the slots: those travelling in `lane` */
    uint64_t written_place; /* what it has written behind has places below this */
    uint64_t awaited_place; /* stalled until all below this are carried out; 0: not */
    uint64_t passed_place;  /* writes behind with places below this came before the last command that it has sent */

    /* Rule 5: bits of the key hashes of unanswered commands that are not flights. Reset when none is left, so it errs
     * only towards asking the upstream. */
    uint64_t filter;
    uint32_t filtered;

    size_t held_bytes; /* replies waiting in slots, but for the last slot's `after`, which still grows */

    fp_lane lane;
    uint8_t protocol; /* 2 or 3 */
    uint8_t stall;    /* enum stall */
    bool closing;     /* no further command is read; closes when all is sent */
    bool is_dirty, is_runnable;
    bool fresh;              /* nothing is answered from the cache */
    bool pin_refused;        /* the command in hand asked for a link that could not be had */
    bool in_multi;           /* between MULTI and EXEC on its pinned link */
    bool multi_refused;      /* something between was refused by us: EXEC must not carry out the rest */
    bool multi_all;          /* what is queued drops everything */
    bool multi_sweeps;       /* and nothing announces it */
    bool multi_looks_around; /* what is queued reads keys that it does not name */
    uint8_t name_length;
    char name[SESSION_NAME_MAX];
    fp_link link;    /* its own; 0: none */
    bool link_fits;  /* that speaks the client's protocol and has its name */
    bool gives_back; /* nothing is held on it: when all is delivered, what follows goes as before it was pinned */
    struct buffer multi_written; /* keys of the writes queued in MULTI, uint64_t each */
    struct buffer multi_looked;  /* and of the reads */
    struct buffer pin_error;     /* what to answer when pin_refused */
    /* CLIENT REPLY OFF: keys of writes that nothing will answer, and the numbers of their slots; until something behind
     * them is answered. */
    struct buffer silent_writes;
    uint32_t silent_last;     /* the last slot that was not answered */
    uint32_t silent_marked;   /* the same when something of ours was sent behind it */
    uint32_t silent_all_slot; /* the last whose keys are not kept, being too many or all */
    bool silent_all;          /* there is one */

    struct session *dirty_next, *runnable_next;
};

void session_init(struct session *session, fp_client id);
/* Forgets every slot; flights stay in the air without this waiter. */
void session_deinit(struct serve *serve, struct session *session);

static inline void session_mark_dirty(struct serve *serve, struct session *session) {
    if (session->is_dirty) return;
    session->is_dirty = true;
    session->dirty_next = serve->dirty;
    serve->dirty = session;
}

/* Who has given back its link's state goes on like everybody: by the cache, and by links that are shared. It keeps the
 * link for the next command that needs one. Not before all that came by it is delivered, which fences may hold up:
 * the cache may still be older. */
static inline void session_go_back(struct session *session) {
    if (!session->gives_back || session->first) return;
    session->gives_back = false;
    session->lane = FP_LANE_TRACKED;
}

/* Lets a stalled session go on at the start of the next turn. */
static inline void session_mark_runnable(struct serve *serve, struct session *session) {
    if (session->is_runnable) return;
    session->is_runnable = true;
    session->runnable_next = serve->runnable;
    serve->runnable = session;
}

#endif
