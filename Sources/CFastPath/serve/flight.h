/* flight — one fetch of one missing key, and who waits for it.
 *
 * Rule 4. A flight is sent as CACHING YES, PTTL, GET. PTTL's reply *arms* it: from there on the upstream announces
 * every change of the key on the same link, in order, so a push between PTTL's reply and GET's reply says that the
 * two may not belong together, and *spoils* the flight: it answers, but is not stored. A push before PTTL's reply is
 * older than both. A push after GET's reply finds the stored entry and drops it. A flight is *closed* when a write of
 * its key by this pod is parsed: a read behind the write must not join a fetch before it. A later read starts a new
 * flight, so a key may have several; the table is searched newest first.
 *
 * The flights of an MGET are a group: each is armed and spoiled by itself, the first of them leads, and what is said to
 * the leader (its reply, an array; an error) is said to all. */
#ifndef FERRITE_SERVE_FLIGHT_H
#define FERRITE_SERVE_FLIGHT_H

#include "serve/slots.h"

#define FLIGHT_KEY_INLINE 64

enum flight_role { FLIGHT_SINGLE, FLIGHT_LEADS, FLIGHT_FOLLOWS };

struct flight {
    struct table_item item;
    uint32_t bucket_next; /* older flight in the same bucket, TABLE_NONE */
    uint32_t key_length;
    uint32_t group_next; /* the next flight of the same MGET, TABLE_NONE */
    uint32_t fetch_next; /* the next whose event is for the next batch, TABLE_NONE */
    bool closed, spoiled, armed;
    bool unasked; /* nobody has asked for it: a refresh, behind a write, or ahead */
    bool ahead;   /* a prefetch: takes nobody's place in the store */
    bool behind;  /* who began it has an unanswered command of the key: no copy answers in its place */
    bool audits;  /* compares what a hit has just been answered with: `served` */
    uint64_t served;
    uint64_t served_until_ms; /* the upstream's own expiry of that */
    fp_keep keep;
    bool missing; /* PTTL says that there is no such key */
    const struct rule *rule;
    uint32_t era;          /* serve.flight_era when it began: another since then spoils and closes it */
    enum flight_role role; /* only a single one is ever joined */
    uint64_t hash;
    uint64_t expire_at_ms; /* STORE_NEVER, or the upstream's own expiry */
    uint64_t started_ns;
    struct slot *first_waiter, *last_waiter;
    uint8_t *key; /* key_inline, or malloc'd and charged to BUDGET_FLIGHTS */
    uint8_t key_inline[FLIGHT_KEY_INLINE];
};

/* A new flight for the key; NULL when memory is short. */
struct flight *flight_start(struct serve *serve, const struct store_key *key, enum flight_role role);
/* Whether the key is being fetched, be it by a flight that takes nobody any more. */
bool flight_is_under_way(struct serve *serve, const struct store_key *key);
/* The open flight of a key, NULL if none. */
struct flight *flight_find(struct serve *serve, const struct store_key *key);
void flight_wait(struct serve *serve, struct flight *flight, struct slot *slot);
/* Takes a slot off its flight's waiters; the flight stays in the air. */
void flight_forget(struct serve *serve, struct slot *slot);

void flight_arm(struct serve *serve, struct flight *flight, int64_t pttl_ms, uint64_t sent_ns, fp_keep keep);
/* The reply to the flight's GET, or to the MGET that it leads: stored if it may be, and given to all who wait. The
 * flight ends, and its followers with it. */
void flight_fill(struct serve *serve, struct flight *flight, const uint8_t *reply, size_t length);
/* A flight that nobody waits for, and its event; false when memory is short. `why`: what the trace says of it. */
bool flight_send(struct serve *serve, const struct store_key *key, fp_trace_kind why);
/* The same behind a hit, to tell whether the value that was served is what the upstream has. */
bool flight_audit(struct serve *serve, const struct store_key *key, uint64_t served, uint64_t served_until_ms);
/* Of a value that is served, as flight_audit wants it. */
uint64_t flight_digest(const struct serve *serve, const uint8_t *bytes, uint32_t length, bool absent);
/* The same outside of a turn: its event is the next batch's. */
bool flight_send_later(struct serve *serve, const struct store_key *key, fp_trace_kind why);
/* A prefetch, likewise. */
bool flight_send_ahead(struct serve *serve, const struct store_key *key);
/* Those events. */
void flights_announce(struct serve *serve);
/* The event by which Swift fetches it. */
void flight_announce(struct serve *serve, struct flight *flight, fp_event_kind kind);
/* Answers all waiters with an error, or with a copy that may be served though it is stale; the flight ends, or stays in
 * the air for a late reply, and takes readers for as long as any other does. Nothing for a follower: its leader is told
 * too. */
void flight_fail(struct serve *serve, struct flight *flight, const uint8_t *error, size_t length, bool ends);

/* When the oldest flight of the key began; 0: there is none. */
uint64_t flight_since(struct serve *serve, const struct store_key *key);

/* A push of the key (by hash: at worst too many): spoils armed flights. */
void flights_spoil_armed(struct serve *serve, uint64_t hash);
/* A write of the key by this pod: spoils and closes its flights. */
void flights_close(struct serve *serve, uint64_t hash);
/* Everything is untrue: spoils and closes all, in O(1). */
void flights_close_all(struct serve *serve);

#endif
