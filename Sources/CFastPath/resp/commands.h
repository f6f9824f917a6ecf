/* commands — what is known of each command, one row each in commands.def.
 *
 * Our own table, completed at run time by the upstream's COMMAND (commands_learn) for what it does not name: modules.
 * Lookup is by name, any case, with a subcommand where the row has one. Calls nobody but base. */
#ifndef FERRITE_RESP_COMMANDS_H
#define FERRITE_RESP_COMMANDS_H

#include <stdbool.h>
#include <stdint.h>

#include "resp/parse.h"
#include "resp/reply.h"

/* The way of a command through the sidecar. */
enum command_kind {
    COMMAND_READ,  /* GET, MGET: from the store, missed by a flight */
    COMMAND_LOCAL, /* answered by the sidecar itself: PING, HELLO, SELECT, CLIENT …, QUIT, RESET, ECHO, AUTH, INFO */
    COMMAND_PASS,  /* a plain read, may be sent twice: travels on the tracked link */
    COMMAND_WRITE, /* a plain write: its keys, if it has any, can be named; must not be sent twice */
    COMMAND_UNKEYED, /* may write keys that we cannot name: EVAL, FCALL, MIGRATE */
    COMMAND_STATE,   /* holds state on its connection, or blocks it: MULTI, WATCH, SUBSCRIBE, BLPOP, MONITOR … */
    COMMAND_ADMIN    /* refused unless allow_admin: SHUTDOWN, REPLICAOF, DEBUG, CONFIG SET … ; with it, like STATE */
};

/* What a command makes untrue in the store. */
enum command_drops {
    COMMAND_DROPS_NOTHING,
    COMMAND_DROPS_KEYS, /* its keys, by the key rule */
    COMMAND_DROPS_ALL   /* FLUSHALL, FLUSHDB, SWAPDB, MIGRATE */
};

/* Where the keys stand. */
enum command_keys {
    COMMAND_KEYS_NONE,
    COMMAND_KEYS_RANGE,   /* first..last step `step`; last counts from the end if negative, as in COMMAND's reply */
    COMMAND_KEYS_COUNTED, /* argument `first` holds the number of keys, which follow it every `step` arguments (EVAL,
                             ZUNION, …); `last` != 0 names one further key at that fixed place (ZUNIONSTORE: 1) */
    COMMAND_KEYS_STORE    /* `first`, and what follows the words STORE and STOREDIST (SORT, GEORADIUS) */
};

struct command {
    char name[24];       /* lower case */
    char subcommand[24]; /* lower case, "" for none */
    int16_t arity;       /* as in COMMAND: the name counts, negative means at least */
    int16_t first, last, step;
    uint8_t keys;       /* enum command_keys */
    uint8_t kind;       /* enum command_kind */
    uint8_t resp2;      /* enum resp2_rule */
    uint8_t drops;      /* enum command_drops */
    uint16_t id;        /* row number, stable within a build; COMMAND_<NAME> constants for the ones code names */
    const char *family; /* "string", "sorted-set"; NULL for what was learnt */
};

struct commands; /* the table with what was learnt */
struct commands *commands_create(void);
void commands_destroy(struct commands *commands);

/* The row for a request, NULL if unknown. args must hold at least one argument. The container row (CLIENT) answers for
 * a subcommand that has no row of its own. O(1). */
const struct command *commands_find(const struct commands *commands, const struct resp_arg *args, uint32_t count);

/* True when the number of arguments fits. */
static inline bool command_arity_fits(const struct command *command, uint32_t count) {
    return command->arity >= 0 ? count == (uint32_t)command->arity : count >= (uint32_t)-command->arity;
}

/* The rule for the reply to this request of `count` arguments: the row's, or a better one where the row says
 * RESP2_SEPARATE only because options change the reply and the count tells which were given. */
enum resp2_rule command_resp2(const struct command *command, uint32_t count);

/* False when it may read or write keys that it does not name: a script, a module's command, SORT with BY or GET, or
 * what has no keys at all and looks at all of them. */
bool command_names_its_keys(const struct command *command);

/* Walks the keys of a request: sets *key to the argument number of the next one and returns true; start with
 * *cursor = 0. False at the end, or when the request does not fit its own key rule. */
bool command_next_key(const struct command *command, const struct resp_arg *args, uint32_t count, uint32_t *cursor,
                      uint32_t *key);

/* Adds rows from the upstream's reply to COMMAND (complete, RESP2 or RESP3) for names that the table does not have:
 * write flag -> COMMAND_UNKEYED, for a module may write more than the keys it names; readonly -> COMMAND_PASS;
 * blocking/pubsub/admin/noscript, movablekeys or none of these -> COMMAND_STATE; resp2 = RESP2_SEPARATE.
 * Returns how many; at most 2,048 are learnt. Rows never move or change once there. */
uint32_t commands_learn(struct commands *commands, const uint8_t *reply, size_t n);

/* Row by number, for tables and tests; NULL past the end. */
const struct command *commands_row(const struct commands *commands, uint32_t row);

/* Ids of the rows that code names, in the order of commands.def: COMMAND_ID_GET, COMMAND_ID_CLIENT_ID, … */
enum command_id {
#define COMMAND(name, subcommand, id, arity, keys, first, last, step, kind, resp2, drops, family) COMMAND_ID_##id,
#include "resp/commands.def"
#undef COMMAND
    COMMAND_ID_COUNT
};

#endif
