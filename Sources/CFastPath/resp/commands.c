/* commands — the table of commands, and the way from a name to its row.
 *
 *   name, subcommand ─► lower case, zero-padded ─► hash ─► places[] ─► row of commands.def, or a learnt one
 *
 * Rows are numbered: first those of commands.def, then the learnt ones in the order they came. A container's
 * subcommands follow it, so that looking at the next row tells whether a name has any. */
#include "resp/commands.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "resp/frame.h"

#define NAME_BYTES sizeof(((struct command *)0)->name)
#define PLACES 8192u /* a power of two, at least three times the rows that can ever be */
#define LEARNT_MAX 2048u
#define CHUNK_ROWS 128u

static const struct command rows[] = {
/* clang-format off */
#define COMMAND(name, subcommand, id, arity, keys, first, last, step, kind, resp2, drops, family)                    \
    {name, subcommand, arity, first, last, step, COMMAND_KEYS_##keys, COMMAND_##kind, RESP2_##resp2,                 \
     COMMAND_DROPS_##drops, COMMAND_ID_##id, family},
/* clang-format on */
#include "resp/commands.def"
#undef COMMAND
};

_Static_assert((COMMAND_ID_COUNT + LEARNT_MAX) * 3 <= PLACES, "probing stays short");
_Static_assert(NAME_BYTES == 24, "names are compared and hashed as three words");

struct commands {
    uint16_t places[PLACES]; /* row + 1; 0: free */
    struct command *chunks[LEARNT_MAX / CHUNK_ROWS];
    uint32_t learnt;
};

/* ---- from a name to its row ---------------------------------------------------------------------------------- */

struct name {
    uint64_t words[3];
};

/* A-Z to a-z in eight bytes at once; what is not ASCII stays. */
static inline uint64_t lower(uint64_t word) {
    const uint64_t ones = 0x0101010101010101;
    uint64_t low = word & 0x7f * ones;
    uint64_t from_a = low + (0x80 - 'A') * ones, past_z = low + (0x80 - 'Z' - 1) * ones;
    uint64_t upper = (from_a ^ past_z) & ~word & 0x80 * ones;
    return word | upper >> 2;
}

/* Between 1 and 8 bytes, the first one lowest; no byte beyond them is read. */
static inline uint64_t load_up_to_8(const uint8_t *bytes, uint32_t n) {
    if (n >= 4) {
        uint32_t head, tail;
        memcpy(&head, bytes, 4);
        memcpy(&tail, bytes + n - 4, 4);
        return head | (uint64_t)tail << (n - 4) * 8;
    }
    return bytes[0] | (uint64_t)bytes[n / 2] << n / 2 * 8 | (uint64_t)bytes[n - 1] << (n - 1) * 8;
}
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "names are read as little-endian words");

/* False for what cannot be a name of ours: empty, too long, or with a zero at its end. */
static inline bool name_of(struct name *name, const uint8_t *bytes, uint32_t length) {
    *name = (struct name){0};
    if (length == 0 || length >= NAME_BYTES || bytes[length - 1] == 0) return false;
    for (uint32_t at = 0; at < length; at += 8)
        name->words[at / 8] = lower(load_up_to_8(bytes + at, length - at < 8 ? length - at : 8));
    return true;
}

static inline bool is_name(const char text[NAME_BYTES], const struct name *name) {
    struct name other;
    memcpy(&other, text, NAME_BYTES);
    return other.words[0] == name->words[0] && other.words[1] == name->words[1] && other.words[2] == name->words[2];
}

static inline uint32_t place_of(const struct name *name, const struct name *sub) {
    uint64_t hash = name->words[0] * 0x9e3779b97f4a7c15 ^ name->words[1] * 0xc2b2ae3d27d4eb4f ^
                    name->words[2] * 0x165667b19e3779f9 ^ sub->words[0] * 0xd6e8feb86659fd93 ^
                    sub->words[1] * 0xa0761d6478bd642f ^ sub->words[2] * 0xe7037ed1a0b428db;
    hash ^= hash >> 32;
    return (uint32_t)(hash * 0x9e3779b97f4a7c15 >> 51);
}
_Static_assert(1u << (64 - 51) == PLACES, "the hash's upper bits are a place");

const struct command *commands_row(const struct commands *commands, uint32_t row) {
    if (row < COMMAND_ID_COUNT) return &rows[row];
    uint32_t learnt = row - COMMAND_ID_COUNT;
    if (learnt >= commands->learnt) return NULL;
    return &commands->chunks[learnt / CHUNK_ROWS][learnt % CHUNK_ROWS];
}

/* The row of exactly this name and subcommand; *place is where it is or would be. */
static const struct command *look_up(const struct commands *commands, const struct name *name, const struct name *sub,
                                     uint32_t *place) {
    for (*place = place_of(name, sub); commands->places[*place]; *place = (*place + 1) % PLACES) {
        const struct command *row = commands_row(commands, commands->places[*place] - 1u);
        if (is_name(row->name, name) && is_name(row->subcommand, sub)) return row;
    }
    return NULL;
}

static bool has_subcommands(const struct commands *commands, const struct command *row) {
    const struct command *next = commands_row(commands, row->id + 1u);
    return next && next->subcommand[0] && !memcmp(next->name, row->name, NAME_BYTES);
}

const struct command *commands_find(const struct commands *commands, const struct resp_arg *args, uint32_t count) {
    const uint8_t *bytes = args[0].bytes;
    /* Of letters only, so that setting bit 5 makes them lower case and nothing else equal to them. */
    if (args[0].length == 3) {
        uint32_t word = bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | 0x202020;
        if (word == ('g' | 'e' << 8 | 't' << 16)) return &rows[COMMAND_ID_GET];
        if (word == ('s' | 'e' << 8 | 't' << 16)) return &rows[COMMAND_ID_SET];
    } else if (args[0].length == 4) {
        uint32_t word;
        memcpy(&word, bytes, 4);
        if ((word | 0x20202020) == ('m' | 'g' << 8 | 'e' << 16 | (uint32_t)'t' << 24)) return &rows[COMMAND_ID_MGET];
    }
    static const struct name none;
    struct name name, sub;
    uint32_t place;
    if (!name_of(&name, bytes, args[0].length)) return NULL;
    const struct command *row = look_up(commands, &name, &none, &place);
    if (!row || count < 2 || !has_subcommands(commands, row)) return row;
    if (!name_of(&sub, args[1].bytes, args[1].length)) return row;
    const struct command *exact = look_up(commands, &name, &sub, &place);
    return exact ? exact : row;
}

struct commands *commands_create(void) {
    struct commands *commands = calloc(1, sizeof *commands);
    if (!commands) return NULL;
    for (uint32_t id = 0; id < COMMAND_ID_COUNT; id++) {
        struct name name, sub;
        uint32_t place;
        memcpy(&name, rows[id].name, NAME_BYTES);
        memcpy(&sub, rows[id].subcommand, NAME_BYTES);
        const struct command *twin = look_up(commands, &name, &sub, &place);
        CHECK(!twin);
        commands->places[place] = (uint16_t)(id + 1);
    }
    return commands;
}

void commands_destroy(struct commands *commands) {
    if (!commands) return;
    for (uint32_t i = 0; i < LEARNT_MAX / CHUNK_ROWS; i++) free(commands->chunks[i]);
    free(commands);
}

/* ---- keys ---------------------------------------------------------------------------------------------------- */

static bool next_in_range(const struct command *command, uint32_t count, uint32_t *cursor, uint32_t *key) {
    int64_t last = command->last < 0 ? (int64_t)count + command->last : command->last;
    int64_t at = command->first + (int64_t)*cursor * command->step;
    if (at > last || at >= count) return false;
    *key = (uint32_t)at;
    ++*cursor;
    return true;
}

/* A number of keys, as a small non-negative decimal. */
static bool read_key_count(const struct resp_arg *arg, uint32_t *keys) {
    if (arg->length == 0 || arg->length > 7) return false;
    uint32_t sum = 0;
    for (uint32_t i = 0; i < arg->length; i++) {
        uint32_t digit = arg->bytes[i] - (uint32_t)'0';
        if (digit > 9) return false;
        sum = sum * 10 + digit;
    }
    *keys = sum;
    return true;
}

static bool next_counted(const struct command *command, const struct resp_arg *args, uint32_t count, uint32_t *cursor,
                         uint32_t *key) {
    uint32_t first = (uint32_t)command->first, step = (uint32_t)command->step, keys;
    if (first >= count || !read_key_count(&args[first], &keys)) return false;
    if ((uint64_t)keys * step > count - first - 1) return false;
    bool further = command->last != 0;
    if (*cursor >= keys + further) return false;
    if (further && *cursor == 0) *key = (uint32_t)command->last;
    else *key = first + 1 + (*cursor - further) * step;
    ++*cursor;
    return true;
}

static bool is_word(const struct resp_arg *arg, const char *word, uint32_t length) {
    struct name name;
    return arg->length == length && name_of(&name, arg->bytes, length) && !memcmp(&name, word, length);
}

/* *cursor is the argument to look at next. A pattern or a number called "store" at worst names too many. */
static bool next_stored(const struct command *command, const struct resp_arg *args, uint32_t count, uint32_t *cursor,
                        uint32_t *key) {
    if (*cursor == 0) {
        *key = (uint32_t)command->first;
        *cursor = *key + 1;
        return *key < count;
    }
    for (; *cursor + 1 < count; ++*cursor) {
        const struct resp_arg *arg = &args[*cursor];
        if (!is_word(arg, "store", 5) && !is_word(arg, "storedist", 9)) continue;
        *key = ++*cursor;
        return true;
    }
    return false;
}

/* XREAD and XREADGROUP: behind STREAMS stand keys, and as many ids. */
static bool next_stream(const struct resp_arg *args, uint32_t count, uint32_t *cursor, uint32_t *key) {
    uint32_t first = 1;
    while (first < count && !is_word(&args[first], "streams", 7)) {
        bool one = is_word(&args[first], "count", 5) || is_word(&args[first], "block", 5);
        first += is_word(&args[first], "group", 5) ? 3 : one ? 2 : 1;
    }
    first++;
    if (first >= count || *cursor >= (count - first) / 2) return false;
    *key = first + *cursor;
    ++*cursor;
    return true;
}

bool command_next_key(const struct command *command, const struct resp_arg *args, uint32_t count, uint32_t *cursor,
                      uint32_t *key) {
    switch (command->keys) {
    case COMMAND_KEYS_RANGE: return next_in_range(command, count, cursor, key);
    case COMMAND_KEYS_COUNTED: return next_counted(command, args, count, cursor, key);
    case COMMAND_KEYS_STORE: return next_stored(command, args, count, cursor, key);
    default:
        if (command->id != COMMAND_ID_XREAD && command->id != COMMAND_ID_XREADGROUP) return false;
        return next_stream(args, count, cursor, key);
    }
}

bool command_names_its_keys(const struct command *command) {
    switch (command->id) {
    case COMMAND_ID_SORT:
    case COMMAND_ID_SORT_RO:
    case COMMAND_ID_EVAL_RO:
    case COMMAND_ID_EVALSHA_RO:
    case COMMAND_ID_FCALL_RO: return false;
    default:
        return command->id < COMMAND_ID_COUNT && command->keys != COMMAND_KEYS_NONE && command->kind != COMMAND_UNKEYED;
    }
}

enum resp2_rule command_resp2(const struct command *command, uint32_t count) {
    switch (command->id) {
    case COMMAND_ID_LPOP: /* a count makes nothing a null array */
    case COMMAND_ID_RPOP: return count <= 2 ? RESP2_NULL : RESP2_NULL_ARRAY;
    case COMMAND_ID_ZRANK: /* WITHSCORE does */
    case COMMAND_ID_ZREVRANK: return count <= 3 ? RESP2_NULL : RESP2_NULL_ARRAY;
    case COMMAND_ID_XPENDING: /* without a range it holds both kinds of null */
        return count <= 3 ? RESP2_SEPARATE : RESP2_SAME;
    default: return command->resp2;
    }
}

/* ---- learning ------------------------------------------------------------------------------------------------ */

struct reader {
    const uint8_t *at;
    size_t left;
};

static bool take(struct reader *reader, struct resp_element *element) {
    if (!resp_element(reader->at, reader->left, element)) return false;
    reader->at += element->size;
    reader->left -= element->size;
    return true;
}

/* Any one value with all that is in it. */
static bool skip(struct reader *reader) {
    struct resp_framer framer = {0};
    size_t length;
    uint64_t need;
    if (resp_frame(&framer, reader->at, reader->left, &length, &need) != RESP_REPLY) return false;
    reader->at += length;
    reader->left -= length;
    return true;
}

static bool is_list(const struct resp_element *element) {
    return (element->type == '*' || element->type == '~') && element->number >= 0;
}

static bool is_text(const struct resp_element *element) {
    return element->type == '+' || (element->type == '$' && element->number >= 0);
}

static bool take_small(struct reader *reader, int16_t *value) {
    struct resp_element element;
    if (!take(reader, &element) || element.type != ':') return false;
    if (element.number < INT16_MIN || element.number > INT16_MAX) return false;
    *value = (int16_t)element.number;
    return true;
}

struct flags {
    bool write, readonly, pinned;
};

static bool take_flags(struct reader *reader, struct flags *flags) {
    struct resp_element list, flag;
    *flags = (struct flags){0};
    if (!take(reader, &list) || !is_list(&list)) return false;
    for (int64_t i = 0; i < list.number; i++) {
        if (!take(reader, &flag) || !is_text(&flag)) return false;
        struct resp_arg word = {flag.bytes, flag.length};
        if (is_word(&word, "write", 5)) flags->write = true;
        else if (is_word(&word, "readonly", 8)) flags->readonly = true;
        else if (is_word(&word, "blocking", 8) || is_word(&word, "pubsub", 6) || is_word(&word, "admin", 5) ||
                 is_word(&word, "noscript", 8) || is_word(&word, "movablekeys", 11))
            flags->pinned = true;
    }
    return true;
}

static void set_way(struct command *row, const struct flags *flags) {
    bool keyed = row->first > 0 && row->step > 0;
    row->keys = keyed ? COMMAND_KEYS_RANGE : COMMAND_KEYS_NONE;
    row->drops = keyed && flags->write ? COMMAND_DROPS_KEYS : COMMAND_DROPS_NOTHING;
    row->resp2 = RESP2_SEPARATE;
    if (flags->pinned) row->kind = COMMAND_STATE;
    else if (flags->write) row->kind = COMMAND_UNKEYED;
    else row->kind = flags->readonly ? COMMAND_PASS : COMMAND_STATE;
}

/* "name" or "name|subcommand"; false for what does not fit a row. */
static bool split_name(const struct resp_element *text, struct name *name, struct name *sub) {
    *sub = (struct name){0};
    if (!is_text(text) || text->length == 0) return false;
    const uint8_t *bar = memchr(text->bytes, '|', text->length);
    uint32_t length = bar ? (uint32_t)(bar - text->bytes) : text->length;
    if (!name_of(name, text->bytes, length)) return false;
    return !bar || name_of(sub, bar + 1, text->length - length - 1);
}

/* Adds a row unless there is one or the table is full; true when it was added. */
static bool add(struct commands *commands, const struct name *name, const struct name *sub, struct command row) {
    uint32_t place, learnt = commands->learnt;
    if (learnt == LEARNT_MAX || look_up(commands, name, sub, &place)) return false;
    struct command **chunk = &commands->chunks[learnt / CHUNK_ROWS];
    if (!*chunk && !(*chunk = calloc(CHUNK_ROWS, sizeof **chunk))) return false;
    memcpy(row.name, name, NAME_BYTES);
    memcpy(row.subcommand, sub, NAME_BYTES);
    row.id = (uint16_t)(COMMAND_ID_COUNT + learnt);
    (*chunk)[learnt % CHUNK_ROWS] = row;
    commands->places[place] = (uint16_t)(row.id + 1);
    commands->learnt++;
    return true;
}

/* Redis 7: name, arity, flags, first, last, step, categories, tips, key specs, subcommands. */
#define SUBCOMMANDS_AT 9

/* One entry of COMMAND's reply. False when it is not of that form. */
static bool learn(struct commands *commands, struct reader *reader, bool nested, uint32_t *added) {
    struct resp_element entry, text;
    struct command row = {0};
    struct flags flags;
    struct name name, sub;
    if (!take(reader, &entry)) return false;
    if (entry.type == '_' || entry.number < 0) return true; /* COMMAND INFO of an unknown name */
    if (entry.type != '*' || entry.number < 6) return false;
    if (!take(reader, &text)) return false;
    bool named = split_name(&text, &name, &sub) && nested == (sub.words[0] != 0);
    if (!take_small(reader, &row.arity) || !take_flags(reader, &flags) || !take_small(reader, &row.first) ||
        !take_small(reader, &row.last) || !take_small(reader, &row.step))
        return false;
    set_way(&row, &flags);
    /* Subcommands of a container that we know already stay under its row, which has judged them. */
    bool is_new = named && add(commands, &name, &sub, row);
    *added += is_new;

    for (int64_t i = 6; i < entry.number; i++) {
        struct resp_element list;
        if (i != SUBCOMMANDS_AT || nested || !is_new) {
            if (!skip(reader)) return false;
            continue;
        }
        if (!take(reader, &list) || !is_list(&list)) return false;
        for (int64_t k = 0; k < list.number; k++)
            if (!learn(commands, reader, true, added)) return false;
    }
    return true;
}

uint32_t commands_learn(struct commands *commands, const uint8_t *reply, size_t n) {
    struct reader reader = {reply, n};
    struct resp_element list;
    uint32_t added = 0;
    if (!take(&reader, &list) || !is_list(&list)) return 0;
    for (int64_t i = 0; i < list.number; i++)
        if (!learn(commands, &reader, false, &added)) break;
    return added;
}
