/* CFastPath — the whole boundary between C, which moves bytes and keeps the store, and Swift, which decides.
 *
 *     engine = fp_create(&config, &error)            any thread
 *     fp_attach(engine, &error), fp_listen_…         the loop thread, once
 *     while (running) {
 *         fp_batch batch = fp_turn(engine, deadline) every byte of I/O; hits are served to the end in here
 *         … look at batch.events, give orders …      orders only note what to do; the next turn carries them out
 *     }
 *     fp_destroy(engine)
 *
 * Threads: everything but fp_create and fp_wake is for the one thread that called fp_attach.
 * Lifetimes: bytes of an event live until the next fp_turn. Orders copy what they are given before they return.
 * Ids: clients, slots, flights and links are named by index and generation in one integer, 0 meaning none. An order
 * with a stale id is a silent no-op: late replies and departed clients need no bookkeeping.
 * Orders never call back and never fail half-way. */
#ifndef CFASTPATH_H
#define CFASTPATH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__clang__)
#define FP_ENUM(name, type) enum __attribute__((enum_extensibility(closed))) name : type
#else
#define FP_ENUM(name, type) enum name : type
#endif

typedef struct fp_engine fp_engine;
typedef uint64_t fp_client;   /* a connection of the application */
typedef uint64_t fp_slot;     /* a place in a client's order of replies */
typedef uint64_t fp_flight;   /* one fetch of one missing key */
typedef uint64_t fp_link;     /* a connection to an upstream */
typedef uint64_t fp_fence;    /* a PING on the tracked link, by its number; 0: none */
typedef struct fp_tls fp_tls; /* what a TLS link trusts, and shows of us */

/* ---- configuration ------------------------------------------------------------------------------------------- */

typedef FP_ENUM(fp_network, uint8_t){FP_NETWORK_AUTO, FP_NETWORK_IO_URING, FP_NETWORK_EPOLL} fp_network;
typedef FP_ENUM(fp_eviction, uint8_t){FP_EVICTION_LRU, FP_EVICTION_LFU, FP_EVICTION_RANDOM} fp_eviction;

typedef struct fp_config {
    uint64_t local_memory;     /* bytes; bounds the process, at least 32 MiB */
    uint64_t local_memory_max; /* what fp_resize may raise it to, in addresses only; less: no more than it is */
    uint64_t seed;             /* hashing and random eviction; 0: from the kernel */
    uint32_t clients_max;      /* connections of the application */
    uint32_t links_max;        /* connections to upstreams, pinned ones included */
    uint32_t idle_timeout_ms;  /* 0: none */
    uint32_t link_timeout_ms;  /* a link whose peer acknowledges nothing for so long is lost */
    uint32_t value_bytes_max;  /* larger values are answered, not stored */
    uint32_t prefetch_percent; /* of local_memory: fp_fetch fetches nothing while the store holds as much */
    uint64_t behind_bytes_max; /* of acknowledged writes that are not carried out yet; 0: there are none */
    fp_network network;
    fp_eviction eviction;
    struct fp_sim *sim; /* tests: the network and the clock are these (CFastPathSim.h); NULL: the system's */
    bool allow_admin;   /* SHUTDOWN and its like go upstream instead of being refused */
} fp_config;

/* Defaults as documented in docs/configuration.md. */
void fp_config_init(fp_config *config);

/* A sentence with cause and remedy. Static or owned by the engine; valid until the next call. */
typedef const char *fp_error;

/* NULL and *error when the budget cannot even hold the fixed parts. */
fp_engine *fp_create(const fp_config *config, fp_error *error);

/* The credentials by which the sidecar itself is known upstream. A client that authenticates with the same stays on the
 * shared links; any other identity gets a pinned one. NULL password: none. */
void fp_identity(fp_engine *engine, const char *username, const char *password);

/* What HELLO tells clients: the upstream's own words, once they are known. Copied; an empty text: as before. */
typedef struct fp_upstream {
    const char *version, *mode, *role;
    uint8_t protocol; /* 3 is to be had only if the upstream speaks it */
} fp_upstream;

void fp_upstream_is(fp_engine *engine, const fp_upstream *upstream);

/* Makes the calling thread the loop thread and chooses the network engine by a real probe. False and *error when the
 * one asked for is not to be had. */
bool fp_attach(fp_engine *engine, fp_error *error);

/* "io_uring" or "epoll". */
const char *fp_network_name(const fp_engine *engine);
/* Why `auto` fell back to epoll, or "". */
const char *fp_network_reason(const fp_engine *engine);

/* Listens on a numeric IPv4 or IPv6 address (port 0: the kernel's choice, returned in *bound) or on a Unix socket,
 * whose stale file is replaced. Clients of a `fresh` one are never answered from the cache. Waits up to a second for an
 * address that is taken. False and *error otherwise. */
bool fp_listen_tcp(fp_engine *engine, const char *address, uint16_t port, bool fresh, uint16_t *bound, fp_error *error);
bool fp_listen_unix(fp_engine *engine, const char *path, fp_error *error);
/* Closes the listeners (and removes the Unix socket's file). Clients stay. */
void fp_unlisten(fp_engine *engine);

/* Closes everything and frees everything; CHECKs that the budget's sums come back to the base. */
void fp_destroy(fp_engine *engine);

/* ---- events: what C cannot decide alone ---------------------------------------------------------------------- */

/* The way a command wants to travel. */
typedef FP_ENUM(fp_lane, uint8_t){
    FP_LANE_TRACKED, /* the shared RESP3 link whose pushes are applied */
    FP_LANE_RESP2,   /* a shared RESP2 link: the reply cannot be derived from the RESP3 one */
    FP_LANE_PINNED   /* the client's own link, event.link */
} fp_lane;

typedef FP_ENUM(fp_event_kind, uint8_t){
    FP_EVENT_MISS,        /* ticket: a flight to fetch, bytes: its key; perhaps nobody waits for it */
    FP_EVENT_MGET_KEY,    /* ticket: a flight that the MGET behind will fill, bytes: its key */
    FP_EVENT_MGET,        /* ticket: the first of those, which speaks for all; bytes: the whole request */
    FP_EVENT_COMMAND,     /* ticket: the slot, bytes: the whole request (RESP or inline), lane and command say what */
    FP_EVENT_ASK,         /* ticket: the slot, bytes: the whole request: answered by Swift (INFO) */
    FP_EVENT_PIN,         /* client stalls until fp_pin or fp_pin_fail: it needs a link of its own, speaking `protocol`;
                             bytes: the name it gave itself by CLIENT SETNAME, if any */
    FP_EVENT_CLIENT_GONE, /* a pinned client has left */
    FP_EVENT_CLIENT_END,  /* a pinned client has sent all it will, and still reads: fp_link_finish */
    FP_EVENT_REPLY,       /* link: bytes are its next complete reply */
    FP_EVENT_PUSH,        /* link: bytes are a complete RESP3 push */
    FP_EVENT_LINK_UP,     /* the socket of link is connected */
    FP_EVENT_LINK_DOWN,   /* link is gone: error is an errno, 0 for an orderly close, EPROTO for what is not RESP, or
                             one of FP_ERROR_…, of which bytes tell more in English; those are static */
    FP_EVENT_WAKE         /* fp_wake was called */
} fp_event_kind;

typedef struct fp_event {
    fp_event_kind kind;
    fp_lane lane;
    uint8_t protocol;     /* 2 or 3: the client's */
    uint8_t type;         /* REPLY, PUSH: the first byte */
    uint16_t command;     /* row of the command table, FP_COMMAND_UNKNOWN */
    uint8_t command_kind; /* enum command_kind of resp/commands.h */
    bool uncached;        /* MISS, MGET_KEY: by its rule the key is not kept */
    int32_t error;        /* LINK_DOWN */
    uint32_t length;      /* of bytes */
    const uint8_t *bytes;
    uint64_t ticket; /* slot or flight; PIN: what CLIENT ID tells the client */
    fp_client client;
    fp_link link;
} fp_event;

#define FP_COMMAND_UNKNOWN UINT16_MAX

#define FP_ERROR_CERTIFICATE (-1) /* the upstream's certificate is not accepted */
#define FP_ERROR_TLS (-2)         /* anything else of TLS: the upstream speaks none, or will not have ours */

typedef struct fp_batch {
    const fp_event *events;
    uint32_t count;
    uint64_t now_ns; /* the time at which the batch was gathered, monotonic */
} fp_batch;

/* Carries out the orders given, moves bytes and serves hits until there is an event, deadline_ns (monotonic) has
 * passed, or a write has been acknowledged that is to be sent; in the last two cases the batch is empty. */
fp_batch fp_turn(fp_engine *engine, uint64_t deadline_ns);

/* Any thread, signal handlers too: ends the turn with FP_EVENT_WAKE. */
void fp_wake(fp_engine *engine);

/* Monotonic nanoseconds on the engine's clock. */
uint64_t fp_now(const fp_engine *engine);

/* ---- orders to links ----------------------------------------------------------------------------------------- */

/* What TLS links trust and show. PEM, copied; no bytes: the system's authorities, no certificate of ours. */
typedef struct fp_tls_config {
    const char
        *server_name; /* a name or numeric address that the upstream's certificate must be for; a name is told as SNI */
    const void *ca, *certificate, *key; /* `certificate`: ours, and behind it those that lead to an authority */
    size_t ca_length, certificate_length, key_length;
    bool is_1_3; /* TLS 1.2 is not spoken */
} fp_tls_config;

/* What of it is wrong. */
typedef FP_ENUM(fp_tls_part, uint8_t){FP_TLS_LIBRARY, FP_TLS_NAME, FP_TLS_CA, FP_TLS_CERTIFICATE,
                                      FP_TLS_KEY} fp_tls_part;

/* NULL, *part and *error (a static clause: "there is no certificate in it") when something is wrong. Any thread. */
fp_tls *fp_tls_create(const fp_tls_config *config, fp_tls_part *part, fp_error *error);
/* NULL is none. Any thread, but not one that has been given to the engine. */
void fp_tls_free(fp_tls *tls);

/* Links that are opened from now on speak TLS, not NULL; the engine owns it. Those that are open stay as they are. */
void fp_link_tls(fp_engine *engine, fp_tls *tls);

/* Begins to connect to a sockaddr (resolved elsewhere). LINK_UP or LINK_DOWN follows; with TLS, LINK_UP comes before
 * its handshake, and what is sent waits for that. 0 when links_max is reached. */
fp_link fp_link_open(fp_engine *engine, const void *address, uint32_t address_length);

/* Appends bytes to what the link sends at the next turn. */
void fp_link_send(fp_engine *engine, fp_link link, const void *bytes, size_t length);
/* The same as "$<length>\r\n<bytes>\r\n". */
void fp_link_send_bulk(fp_engine *engine, fp_link link, const void *bytes, size_t length);

/* An answer of the upstream took so long: for the metric of its latency. */
void fp_upstream_took(fp_engine *engine, uint64_t duration_ns);

/* Bytes not yet taken by the kernel; 0 for a stale id. The caller bounds it by holding clients back (fp_hold). */
size_t fp_link_backlog(const fp_engine *engine, fp_link link);

/* While a part of a reply has come: when the last of it did, monotonic nanoseconds. 0: nothing is in part, or the id is
 * stale. */
uint64_t fp_link_arriving(const fp_engine *engine, fp_link link);

/* Closes; no event of the link follows. */
void fp_link_close(fp_engine *engine, fp_link link);
/* The same by a reset: what the kernel still holds is not sent, so that it cannot arrive behind what is sent elsewhere.
 */
void fp_link_abort(fp_engine *engine, fp_link link);
/* From now on the link ends so whenever it ends, with the process too, however that ends. */
void fp_link_reset_at_end(fp_engine *engine, fp_link link);
/* Nothing more will be sent: behind what is unsent the upstream sees an end of file, answers what it was asked, ends
 * what blocks, and closes. */
void fp_link_finish(fp_engine *engine, fp_link link);

/* ---- orders to clients --------------------------------------------------------------------------------------- */

/* Answers a slot with one complete reply; no bytes end it in silence, as CLIENT REPLY OFF wants it. For a RESP2 client
 * the reply of a RESP3 link is rewritten by the command's own rule when `from_resp3`. The keys of a write that did not
 * travel on the tracked link are dropped, and their flights spoiled, before it is delivered (rule 2). With a fence it
 * is delivered when that has passed (rule 3), in the client's order, and what is behind it waits too. */
void fp_answer(fp_engine *engine, fp_slot slot, const void *reply, size_t length, bool from_resp3, fp_fence fence);

/* Answers a slot with one complete error of ours, at once: what it asked was not sent, or will not be answered. */
void fp_answer_error(fp_engine *engine, fp_slot slot, const void *error, size_t length);

/* For a client whose writes are not answered (CLIENT REPLY OFF or SKIP): behind those so far something is sent on its
 * link that will be; and it has been, so that their outcome is known and they are dropped again (rule 2). One at a
 * time. */
void fp_silent_mark(fp_engine *engine, fp_client client);
void fp_silent_settle(fp_engine *engine, fp_client client);

/* Answers with a reply that is followed by more for the same slot (SUBSCRIBE a b gives two). The last by fp_answer,
 * whose fence is theirs too: `fenced` when it will have one. */
void fp_answer_more(fp_engine *engine, fp_slot slot, const void *reply, size_t length, bool fenced);

/* Sends bytes that answer nothing (a pub/sub message), behind what has come for the client before, once the fence has
 * passed. */
void fp_tell(fp_engine *engine, fp_client client, const void *bytes, size_t length, fp_fence fence);

/* Everything that waits for this fence, or one with a lower number, is delivered. */
void fp_fence_passed(fp_engine *engine, fp_fence fence);

/* The link that a client asked for with FP_EVENT_PIN cannot be had: the command it wanted it for is answered with this
 * error, and the client goes on as before. */
void fp_pin_fail(fp_engine *engine, fp_client client, const void *error, size_t length);

/* Gives the client that asked with FP_EVENT_PIN its link; its commands come as FP_LANE_PINNED from now on. */
void fp_pin(fp_engine *engine, fp_client client, fp_link link);
/* Nothing is held on the client's link: its next commands travel as before, and are answered from the cache, until one
 * needs the link again, which stays its own. False, and nothing happens, while commands on it are unanswered or a MULTI
 * has been sent that nothing has ended: the upstream may have refused it. */
bool fp_unpin(fp_engine *engine, fp_client client);
/* The client's link is gone. Who has given it back goes on without; who has not is closed. */
void fp_pin_lost(fp_engine *engine, fp_client client);

/* Closes the client's connection once what has come for it has been sent, behind its fence; unanswered slots are
 * forgotten. */
void fp_client_close(fp_engine *engine, fp_client client);
/* Closes the client that a slot belongs to: for a write whose fate is unknown. */
void fp_slot_close(fp_engine *engine, fp_slot slot);

typedef FP_ENUM(fp_hold_kind, uint8_t){
    FP_HOLD_NOTHING,  /* each of them holds less than the next */
    FP_HOLD_COMMANDS, /* all but the fetches of GET and MGET, whose events still come */
    FP_HOLD_ALL       /* whatever needs an upstream, but on a client's own link */
} fp_hold_kind;

/* Clients stall at the first command that is held; hits are served. Used during the short time in which a first
 * connection is being made, and while a link's backlog is full. */
void fp_hold(fp_engine *engine, fp_hold_kind what);

/* While there is an error, commands for a shared link are answered with it at once, since they cannot be sent, and
 * drop nothing: what is cached stays. No bytes end it. Misses still come as events. */
void fp_refuse(fp_engine *engine, const void *error, size_t length);

/* ---- orders to the store ------------------------------------------------------------------------------------- */

#define FP_TTL_NONE INT64_C(-1)    /* the key has no expiry */
#define FP_TTL_MISSING INT64_C(-2) /* the key does not exist */

typedef FP_ENUM(fp_keep, uint8_t){
    FP_KEEP_NOTHING, /* the read was not tracked though it should have been; it may answer but is not stored */
    FP_KEEP_VALUE,   /* nothing announces that a missing key has come to be: only a value is stored */
    FP_KEEP_ANSWER   /* a value, or that there is none */
} fp_keep;

/* The upstream has answered the flight's PTTL: pttl_ms counts from sent_ns. From here on a push of the key spoils the
 * flight (rule 4). May be given again: the last time counts, and what has spoiled the flight stays. */
void fp_arm(fp_engine *engine, fp_flight flight, int64_t pttl_ms, uint64_t sent_ns, fp_keep keep);

/* The upstream's reply to the flight's GET: stores a bulk value if the flight was armed and not spoiled, and answers
 * all who wait. What is not stored removes the key's older entry. Ends the flight. For the first flight of an MGET it
 * is that one's reply, and fills, answers and ends all of its flights. */
void fp_fill(fp_engine *engine, fp_flight flight, const void *reply, size_t length);

/* Answers all who wait for the flight with an error, or with the copy that is there past its time if the key's rule
 * says so, but leaves it in the air: a late reply may still be stored. An MGET's error is told to its first flight; the
 * others take none. */
void fp_flight_timeout(fp_engine *engine, fp_flight flight, const void *error, size_t length);

/* The same for an error that ends the flight: its link is lost, there is none, or it is not asked. */
void fp_flight_fail(fp_engine *engine, fp_flight flight, const void *error, size_t length);

typedef FP_ENUM(fp_ahead, uint8_t){
    FP_AHEAD_BEGUN, /* or there is nothing to fetch: there is a copy, or a flight */
    FP_AHEAD_NEVER, /* its rule keeps no copy */
    FP_AHEAD_LATER, /* so many are under way that clients' answers would wait behind them: when one has been answered */
    FP_AHEAD_FULL   /* prefetch_percent is reached, or so little is free that a value might take another's place */
} fp_ahead;

/* Begins to fetch a key that nobody has asked for: a MISS of the next batch. */
fp_ahead fp_fetch(fp_engine *engine, const void *key, size_t length);

/* Whether a name matches a pattern, as the upstream's SCAN would say. Any thread. */
bool fp_glob(const void *pattern, size_t pattern_length, const void *name, size_t length);

/* Those that are under way take nobody else, and what they bring is not kept. */
void fp_flights_close(fp_engine *engine);

/* A push: drops the name in every database and spoils its armed flights. */
void fp_drop(fp_engine *engine, const void *key, size_t length);
/* A null push, or the end of all certainty: drops everything and spoils all flights. */
void fp_drop_all(fp_engine *engine);

/* While on, every read is the upstream's answer: nothing is served from the store, kept, or fetched behind a write, and
 * a read of an acknowledged write's key goes when that is upstream. */
void fp_bypass(fp_engine *engine, bool on);

/* Drops entries whose names match, looking at `steps` places from `cursor` on (0 begins); returns where to go on, 0 at
 * the end. Fetches under way are not kept. An entry that is moved meanwhile may be missed: walk again until nothing is
 * dropped. */
uint64_t fp_drop_matching(fp_engine *engine, const void *pattern, size_t length, uint64_t cursor, uint32_t steps,
                          uint64_t *dropped);

/* A copy's name, and how hot it is: how lately it was used (lru; 255: a moment ago) or how often (lfu). With random
 * eviction nothing tells. Its bytes are valid until the next turn. */
typedef struct fp_hot_name {
    const uint8_t *bytes;
    uint32_t length;
    uint8_t heat;
} fp_hot_name;

/* Names of copies that are at least so hot, looking at `steps` places from `cursor` on (0 begins), for which `names`
 * has room; returns where to go on, 0 at the end. */
uint64_t fp_hot_names(const fp_engine *engine, uint8_t heat, uint64_t cursor, uint32_t steps, fp_hot_name *names,
                      uint32_t *count);

/* Entries filled from now on belong to `epoch`; entries of other epochs, or all while `trusted` is false or after
 * `until_ns`, are suspect: fetched again before they are served, unless `serve_suspect` (the upstream is unreachable).
 */
void fp_trust(fp_engine *engine, uint32_t epoch, bool trusted, uint64_t until_ns, bool serve_suspect);

/* How long a fetch takes further readers, in milliseconds; told, and not left to deadlines, since a process that was
 * stopped goes on with readers first. */
void fp_joinable(fp_engine *engine, uint64_t joinable_ms);

/* What holds for the keys whose names match. */
typedef struct fp_rule {
    const uint8_t *pattern; /* as KEYS takes it */
    uint32_t pattern_length;
    uint64_t
        ttl_ms; /* how long after it was asked for a value is served; a tenth less for some, lest what came together
                          go together */
    uint64_t stale_ms;  /* how much longer while the upstream does not answer; 0: no longer */
    bool caches;        /* false: read each time, though by one flight for all who ask at the same time */
    bool fills_behind;  /* a write of the key is followed by a flight that fetches it: write-through */
    bool writes_behind; /* SET and its like are acknowledged before they are carried out: write-behind */
} fp_rule;

/* Behind one hit in `every`, on average, the upstream is asked for the same key: ferrite_sidecar_audit_total tells what
 * came of it. 0: never. */
void fp_audit(fp_engine *engine, uint64_t every);

/* The first rule that matches a key holds; the last one holds for every key, whatever its pattern. Copied. Once, before
 * the first turn. */
void fp_rules(fp_engine *engine, const fp_rule *rules, uint32_t count);

/* ---- write-behind: what is acknowledged and not yet carried out ------------------------------------------------- */

/* How many writes wait to be sent, and how many have been sent and not answered. */
typedef struct fp_behind {
    uint32_t queued, flying;
} fp_behind;

fp_behind fp_behind_look(const fp_engine *engine);

/* Sends the oldest queued writes on the link, `count` at most and only until `backlog_max` bytes are unsent there, each
 * as one command with one reply; returns how many: fewer while memory for a large one is short. What is past its own
 * expiry is sent as DEL. Keys that somebody reads are fetched behind: MISS events of the next turn. */
uint32_t fp_behind_send(fp_engine *engine, fp_link link, uint32_t count, size_t backlog_max);

typedef FP_ENUM(fp_write_outcome, uint8_t){
    FP_WRITE_CONFIRMED, /* carried out */
    FP_WRITE_RETRIED,   /* refused for now: queued again at its place */
    FP_WRITE_REFUSED    /* refused for good: given up */
} fp_write_outcome;

/* The reply to the write that has been on the way longest: what became of it. Its key is valid until the next order;
 * NULL when it was written again meanwhile, so that its outcome is nobody's concern. */
typedef struct fp_name {
    const uint8_t *bytes;
    uint32_t length;
    uint64_t refused_ns; /* when it was first refused for now; 0: it was not */
} fp_name;

fp_name fp_behind_flying(const fp_engine *engine);
void fp_behind_done(fp_engine *engine, fp_write_outcome outcome);

/* The link is lost: what was sent on it and not answered is queued again, in its order. */
void fp_behind_unsend(fp_engine *engine);

/* From now on every write is acknowledged when the upstream has carried it out, so that the queue empties. */
void fp_behind_close(fp_engine *engine);

/* ---- write-behind's journal: acknowledged writes that survive the process --------------------------------------- */

/* From now on a write is acknowledged when it is in the journal's file; nothing may be acknowledged and not carried out
 * yet. No record of the file has the place `next`, or a higher one. */
void fp_journal_on(fp_engine *engine, uint64_t next);

/* The records that are to be written next, for a file that is read by Swift (serve/journal.h tells their form). */
typedef struct fp_journal_batch {
    const uint8_t *bytes; /* valid, for any thread, until fp_journal_written or fp_journal_off */
    size_t length;
    uint64_t oldest; /* with this batch in the file, places before this one are of no use in it */
    uint64_t next;   /* the first place that no record has yet */
} fp_journal_batch;

/* False when nothing is to be written, or the last batch is not written yet. */
bool fp_journal_take(fp_engine *engine, fp_journal_batch *batch);
/* The batch that was taken is in the file: what waited for it goes on. */
void fp_journal_written(fp_engine *engine);

/* A record has found no memory: what is written of it no longer tells the truth. */
bool fp_journal_is_short(const fp_engine *engine);
/* It cannot be written: no write is acknowledged before it is carried out, until it is on again. Who waits for the file
 * waits on, until there is no file any more, or until he is forsaken. A batch that was taken is not read any more. */
void fp_journal_off(fp_engine *engine);
/* While it is off: everything acknowledged has been carried out, and the file is gone. */
void fp_journal_gone(fp_engine *engine);
/* Clients who wait for an acknowledgement are closed: the fate of their writes is unknown. */
void fp_journal_forsake(fp_engine *engine);

/* A write of an earlier process, with its place, behind fp_journal_on, in the order of places. Its expiry on the
 * engine's clock in ms, UINT64_MAX: none. False when write_behind.memory, or the budget, cannot hold it. */
bool fp_journal_restore(fp_engine *engine, uint64_t place, const void *key, size_t key_length, const void *value,
                        size_t value_length, uint64_t expire_at_ms);

/* ---- one key's life --------------------------------------------------------------------------------------------- */

typedef FP_ENUM(fp_trace_kind, uint8_t){
    FP_TRACE_HIT,           /* answered from the copy; number: how many times running */
    FP_TRACE_SUSPECT_HIT,   /* answered from a suspect copy, the upstream being unreachable */
    FP_TRACE_FETCH,         /* asked for and not to be answered from a copy: a flight begins */
    FP_TRACE_JOIN,          /* asked for while a flight is under way */
    FP_TRACE_REFRESH,       /* answered from the copy, whose time is nearly over: a flight begins behind the answer */
    FP_TRACE_PREFETCH,      /* a flight begins though nobody has asked */
    FP_TRACE_AUDIT,         /* answered from the copy, which is compared with the upstream behind the answer */
    FP_TRACE_AUDIT_STALE,   /* and it was another value, though nothing had announced a change */
    FP_TRACE_BEHIND_WRITE,  /* a flight begins behind a write of the key (write-through) */
    FP_TRACE_SUSPECT,       /* there is a copy, but it is suspect; number: its epoch */
    FP_TRACE_STALE,         /* there is a copy, but its ttl is over */
    FP_TRACE_STALE_HIT,     /* answered from such a copy, the upstream not answering */
    FP_TRACE_FILLED,        /* a copy is kept; number: bytes of the value */
    FP_TRACE_ABSENT,        /* that there is no such key is kept */
    FP_TRACE_NOT_KEPT,      /* an answer was not kept, and no older copy left */
    FP_TRACE_SPOILED,       /* the same, since the key had changed meanwhile */
    FP_TRACE_CHANGED,       /* the upstream announced a change; number: copies dropped */
    FP_TRACE_WRITTEN,       /* a client of the pod writes it; number: copies dropped */
    FP_TRACE_TAKEN,         /* the same, acknowledged at once and to be carried out later (write-behind) */
    FP_TRACE_OWN,           /* answered from such a write */
    FP_TRACE_SENT,          /* such a write is sent to the upstream */
    FP_TRACE_CONFIRMED,     /* and carried out */
    FP_TRACE_ANSWERED,      /* a write that travelled elsewhere has been answered; number: copies dropped */
    FP_TRACE_LOOKED_AT,     /* another command has read it, and the copy was suspect; number: copies dropped */
    FP_TRACE_LOOKED_AROUND, /* another command has read keys that it does not name: copies that are suspect are gone */
    FP_TRACE_FLUSHED,       /* everything was dropped */
    FP_TRACE_EVICTED,       /* the copy made room for another */
    FP_TRACE_EXPIRED,       /* the upstream's time to live was over */
    FP_TRACE_STALE_OVER,    /* the copy was stale for too long */
    FP_TRACE_LOST           /* more happened than could be noted; number: how much */
} fp_trace_kind;

typedef struct fp_trace_record {
    fp_trace_kind kind;
    uint64_t number;
} fp_trace_record;

/* From now on notes what happens to this key; no length: to none. Loop thread. */
void fp_trace(fp_engine *engine, const void *key, size_t length);
/* What was noted since, in its order; 0 too while hits run on that began less than a second ago. Loop thread.
 * The records are valid until the next turn. */
uint32_t fp_trace_take(fp_engine *engine, const fp_trace_record **records);

/* ---- the command table --------------------------------------------------------------------------------------- */

/* Completes the table by the upstream's reply to COMMAND; returns how many rows were new. */
uint32_t fp_commands_learn(fp_engine *engine, const void *reply, size_t length);
/* Lower-case name and subcommand ("" for none) of a row; NULL past the end. */
const char *fp_command_name(const fp_engine *engine, uint16_t command);
const char *fp_command_subcommand(const fp_engine *engine, uint16_t command);

/* ---- memory, numbers, inspection ----------------------------------------------------------------------------- */

/* Swift's own memory, charged to the budget's owner "swift". */
void fp_charge(fp_engine *engine, size_t bytes);
void fp_release(fp_engine *engine, size_t bytes);

/* Lets go of code that is not in use, measures what the process holds beside the budget's owners (binary, stacks, page
 * tables) and books it as "base". */
void fp_measure_base(fp_engine *engine);

typedef FP_ENUM(fp_metric_kind, uint8_t){
    FP_METRIC_COUNTER, FP_METRIC_GAUGE, FP_METRIC_HISTOGRAM,
    FP_METRIC_SECONDS /* a gauge of nanoseconds, which Prometheus is shown as seconds */
} fp_metric_kind;

typedef struct fp_metric {
    const char *name;   /* as Prometheus shows it */
    const char *labels; /* way="hit", or "" */
    const char *help;   /* "" for the second and further rows of a name */
    fp_metric_kind kind;
    uint32_t offset; /* of its value in fp_stats_read's array; a histogram takes FP_HISTOGRAM_BUCKETS counts, not
                           cumulated, and then the sum in nanoseconds */
} fp_metric;

#define FP_HISTOGRAM_BUCKETS 108

/* The table of metrics, one row each of base/stats.def; *count rows. Static. Any thread. */
const fp_metric *fp_metric_table(uint32_t *count);
/* How many values fp_stats_read fills. Any thread. */
uint32_t fp_stats_count(void);
/* Copies all values. */
void fp_stats_read(fp_engine *engine, uint64_t *values);
/* How a command was answered. */
typedef FP_ENUM(fp_outcome, uint8_t){
    FP_OUTCOME_NEGATIVE, /* from the cache: there is no such key */
    FP_OUTCOME_HIT,      /* from the cache */
    FP_OUTCOME_STALE,    /* from the cache, past its ttl or while the upstream was unreachable */
    FP_OUTCOME_MISS,     /* a fetch was waited for */
    FP_OUTCOME_PASSED,   /* the upstream's answer, by a link that is shared */
    FP_OUTCOME_WRITTEN,  /* the same, to what may write */
    FP_OUTCOME_PINNED,   /* the upstream's answer, by a link of the client's own */
    FP_OUTCOME_BEHIND,   /* acknowledged, to be carried out later */
    FP_OUTCOME_LOCAL,    /* the sidecar's own */
    FP_OUTCOME_ERROR     /* an error, whoever gave it */
} fp_outcome;
#define FP_OUTCOME_COUNT 10

/* "hit"; NULL past the last. Static. Any thread. */
const char *fp_outcome_name(uint32_t outcome);

/* How often a command was answered. Names are static or the engine's own. */
typedef struct fp_calls {
    const char *name;         /* lower case; "other" for all that our own table does not have */
    const char *subcommand;   /* "" for none */
    const char *family;       /* "string", "sorted-set", as in COMMAND DOCS; "other" */
    const uint64_t *outcomes; /* FP_OUTCOME_COUNT of them; the engine's own, which go on counting */
} fp_calls;

/* Of row `row` of the command table, counted from 0; false past the last. */
bool fp_calls_read(const fp_engine *engine, uint32_t row, fp_calls *calls);

/* Upper bound of a histogram bucket in nanoseconds, UINT64_MAX for the last. Any thread. */
uint64_t fp_histogram_bound(uint32_t bucket);

/* From now on local_memory is this, or what comes nearest to it; returns what it is. It is within 32 MiB and
 * local_memory_max, and never less than what is held beside the cache with room to let it go: again when that is less.
 * When it shrinks, entries are evicted at once: a large step takes its time. */
uint64_t fp_resize(fp_engine *engine, uint64_t local_memory);

/* Clients connected now; for a drain. */
uint32_t fp_client_count(const fp_engine *engine);

#endif
