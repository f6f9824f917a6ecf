/* place — the table behind an engine's connections: a token that comes back late finds nothing.
 *
 *     token   [ generation 32 | place 24 | kind 8 ]     goes into the kernel with every request, comes back with it
 *
 * A place is an index that is used again; its generation moves on when a connection leaves it, so that a token of
 * a connection that has gone no longer matches, and its loop_conn, freed by then, is never touched.
 * Also the listeners, which are few. Included by the engines only. */
#ifndef FERRITE_NET_PLACE_H
#define FERRITE_NET_PLACE_H

#include <errno.h>
#include <stdlib.h>

#include "net/loop.h"

#define PLACES_MAX (1u << 24)
#define PLACE_NONE UINT32_MAX /* the end of a list */
#define PLACE_UNQUEUED (UINT32_MAX - 1)
#define LISTENERS_MAX 8u
#define ACCEPT_RETRY_NS (50 * NS_PER_MS)

struct place {
    struct loop_conn *conn;
    uint32_t generation;
    uint32_t turn;        /* io_uring: the last turn with a request that points into the connection's memory */
    uint32_t next_free;   /* places that are free, newest first */
    uint32_t next_queued; /* io_uring: connections that wait for a receive buffer, oldest first */
};

struct places {
    struct place *at;
    uint32_t count;
    uint32_t first_free;
};

struct listener_slot {
    int fd; /* -1: free */
    uint32_t tag;
    uint32_t generation;
};

static inline bool places_init(struct places *places, uint32_t count) {
    if (count == 0 || count > PLACES_MAX) return false;
    places->at = calloc(count, sizeof *places->at);
    if (!places->at) return false;
    places->count = count;
    places->first_free = 0;
    for (uint32_t i = 0; i < count; i++) {
        places->at[i].next_free = i + 1 < count ? i + 1 : PLACE_NONE;
        places->at[i].next_queued = PLACE_UNQUEUED;
    }
    return true;
}

static inline void places_deinit(struct places *places) { free(places->at); }

/* Gives conn a place and sets its fields to those of a fresh connection; false when all are taken. */
static inline bool places_take(struct places *places, struct loop_conn *conn, int fd) {
    uint32_t index = places->first_free;
    if (index == PLACE_NONE) return false;
    struct place *place = &places->at[index];
    places->first_free = place->next_free;
    place->conn = conn;
    conn->fd = fd;
    conn->state = 0;
    conn->sent = 0;
    conn->send_error = 0;
    conn->place = index;
    conn->generation = place->generation;
    return true;
}

static inline void places_release(struct places *places, struct loop_conn *conn) {
    struct place *place = &places->at[conn->place];
    place->conn = NULL;
    place->generation++;
    place->next_free = places->first_free;
    places->first_free = conn->place;
    conn->fd = -1;
}

static inline uint64_t token_of(uint32_t generation, uint32_t place, uint32_t kind) {
    return (uint64_t)generation << 32 | place << 8 | kind;
}
static inline uint32_t token_kind(uint64_t token) { return (uint32_t)token & 0xff; }
static inline uint32_t token_place(uint64_t token) { return (uint32_t)token >> 8; }
static inline uint32_t token_generation(uint64_t token) { return (uint32_t)(token >> 32); }

/* The connection that the token was made for, or NULL when it has gone. */
static inline struct loop_conn *places_find(const struct places *places, uint64_t token) {
    const struct place *place = &places->at[token_place(token)];
    return place->generation == token_generation(token) ? place->conn : NULL;
}

/* After an accept that failed: whether the next would fail as well, so that trying at once would spin (out of
 * descriptors or memory). Not so if only that one peer had gone again. */
static inline bool accept_must_rest(int error) {
    return error > 0 && error != ECONNABORTED && error != EAGAIN && error != EINTR;
}

static inline void listeners_init(struct listener_slot *slots) {
    for (uint32_t i = 0; i < LISTENERS_MAX; i++) slots[i] = (struct listener_slot){.fd = -1};
}

/* A free slot, or NULL. */
static inline struct listener_slot *listeners_take(struct listener_slot *slots, int fd, uint32_t tag) {
    for (uint32_t i = 0; i < LISTENERS_MAX; i++) {
        if (slots[i].fd >= 0) continue;
        slots[i].fd = fd;
        slots[i].tag = tag;
        return &slots[i];
    }
    return NULL;
}

static inline struct listener_slot *listeners_find(struct listener_slot *slots, uint64_t token) {
    struct listener_slot *slot = &slots[token_place(token)];
    return slot->fd >= 0 && slot->generation == token_generation(token) ? slot : NULL;
}

#endif
