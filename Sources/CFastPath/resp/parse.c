/* parse — requests: from bytes to a command and its arguments, without a copy.
 *
 *   resp_parse ─► parse_small      a complete array of at most nine short bulk strings: nearly every request
 *              ├► parse_multibulk  any array, in pieces of any size
 *              └► parse_inline     words on a line
 *
 * What redis-server 7.0 only would wait for or read past, and what could part our idea of a request's end from the
 * upstream's, is refused: a line or bulk string without its CRLF, a NUL in an inline line. */
#include "resp/parse.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"

#define ARGS_KEPT 1024u             /* capacity that is kept between requests: 16 KiB */
#define ARGS_MAX (1024u * 1024u)    /* arguments of one request */
#define BULK_MAX (512ll << 20)      /* proto-max-bulk-len */
#define LINE_MAX_BYTES (64u * 1024) /* PROTO_INLINE_MAX_SIZE: an inline request, or a line that holds a length */

#define PROTOCOL_ERROR(text) "-ERR Protocol error: " text "\r\n"

bool resp_args_init(struct resp_args *args, struct budget *budget) {
    *args = (struct resp_args){.budget = budget};
    size_t bytes = ARGS_KEPT * sizeof *args->args;
    if (!budget_take(budget, BUDGET_CLIENTS, bytes)) return false;
    args->args = malloc(bytes);
    if (!args->args) {
        budget_give(budget, BUDGET_CLIENTS, bytes);
        return false;
    }
    args->capacity = ARGS_KEPT;
    return true;
}

void resp_args_deinit(struct resp_args *args) {
    if (!args->budget) return;
    budget_give(args->budget, BUDGET_CLIENTS, args->capacity * sizeof *args->args + args->inline_capacity);
    free(args->args);
    free(args->inline_bytes);
    *args = (struct resp_args){0};
}

static bool args_resize(struct resp_args *args, uint32_t capacity) {
    size_t old = args->capacity * sizeof *args->args, new = capacity * sizeof *args->args;
    if (new > old && !budget_take(args->budget, BUDGET_CLIENTS, new - old)) return false;
    struct resp_arg *moved = realloc(args->args, new);
    if (!moved) {
        if (new > old) budget_give(args->budget, BUDGET_CLIENTS, new - old);
        return false;
    }
    if (new < old) budget_give(args->budget, BUDGET_CLIENTS, old - new);
    args->args = moved;
    args->capacity = capacity;
    return true;
}

static bool args_add(struct resp_args *args, const uint8_t *bytes, uint32_t length) {
    if (unlikely(args->count == args->capacity) && !args_resize(args, args->capacity * 2)) return false;
    args->args[args->count++] = (struct resp_arg){bytes, length};
    return true;
}

static enum resp_parsed malformed(const char **error, const char *text) {
    *error = text;
    return RESP_MALFORMED;
}

static enum resp_parsed memory_spent(const char **error) {
    return malformed(error, "-ERR the request has more arguments than local_memory has room for\r\n");
}

static enum resp_parsed incomplete(size_t *need, size_t missing) {
    *need = missing;
    return RESP_INCOMPLETE;
}

static inline bool is_crlf(const uint8_t *at) { return at[0] == '\r' && at[1] == '\n'; }

/* A number as Redis' string2ll takes it: no sign but '-', no leading zero, no space. */
static bool read_number(const uint8_t *text, size_t n, int64_t *value) {
    bool negative = n && *text == '-';
    if (negative) text++, n--;
    if (n == 0 || n > 18 || (text[0] == '0' && (n > 1 || negative))) return false;
    int64_t sum = 0;
    for (size_t i = 0; i < n; i++) {
        uint8_t digit = (uint8_t)(text[i] - '0');
        if (digit > 9) return false;
        sum = sum * 10 + digit;
    }
    *value = negative ? -sum : sum;
    return true;
}

/* ---- arrays of bulk strings ---------------------------------------------------------------------------------- */

/* The common request, complete in one piece. False when it is anything else, which is for parse_multibulk to find
 * out. The shortest bulk string, "$0\r\n\r\n", has six bytes: once they are there, four digits can be read. */
static inline bool parse_small(struct resp_args *args, const uint8_t *bytes, size_t n, size_t *length) {
    if (n < 4 || bytes[0] != '*' || !is_crlf(bytes + 2)) return false;
    uint32_t count = bytes[1] - (uint32_t)'0';
    if (count - 1 > 8) return false;

    const uint8_t *at = bytes + 4, *end = bytes + n;
    struct resp_arg *arg = args->args;
    for (uint32_t i = 0; i < count; i++, arg++) {
        if (unlikely(end - at < 6) || at[0] != '$') return false;
        uint32_t size = at[1] - (uint32_t)'0';
        if (size > 9) return false;
        at += 2;
        if (*at != '\r') {
            if (size == 0) return false;
            const uint8_t *last = at + 3;
            do {
                uint32_t digit = *at - (uint32_t)'0';
                if (digit > 9 || at == last) return false;
                size = size * 10 + digit;
            } while (*++at != '\r');
        }
        if ((size_t)(end - at) < (size_t)size + 4) return false;
        if (!is_crlf(at) || !is_crlf(at + 2 + size)) return false;
        *arg = (struct resp_arg){at + 2, size};
        at += size + 4;
    }
    args->count = count;
    *length = (size_t)(at - bytes);
    return true;
}

/* A line with a length in it. RESP_REQUEST when both bytes of its end have come: *size is its own size without them. */
static enum resp_parsed read_line(const uint8_t *line, size_t n, size_t *size, size_t *need, const char *too_big,
                                  const char **error) {
    size_t searched = n > LINE_MAX_BYTES + 1 ? LINE_MAX_BYTES + 1 : n;
    const uint8_t *end = searched ? memchr(line, '\r', searched) : NULL;
    if (!end) return n > LINE_MAX_BYTES ? malformed(error, too_big) : incomplete(need, n ? 2 : 4);
    *size = (size_t)(end - line);
    return *size + 2 > n ? incomplete(need, 1) : RESP_REQUEST;
}

/* "*<count>\r\n". */
static enum resp_parsed read_header(struct resp_progress *progress, const uint8_t *bytes, size_t n, size_t *need,
                                    const char **error) {
    size_t line;
    enum resp_parsed parsed = read_line(bytes, n, &line, need, PROTOCOL_ERROR("too big mbulk count string"), error);
    if (parsed != RESP_REQUEST) return parsed;
    int64_t count;
    if (!is_crlf(bytes + line) || !read_number(bytes + 1, line - 1, &count) || count > ARGS_MAX)
        return malformed(error, PROTOCOL_ERROR("invalid multibulk length"));
    progress->scanned = line + 2;
    progress->args_count = progress->args_left = count > 0 ? (uint32_t)count : 0;
    return RESP_REQUEST;
}

/* The one text that tells what came; a NUL ends it, and line ends become spaces, as in Redis. */
static enum resp_parsed not_a_bulk(struct resp_args *args, uint8_t got, const char **error) {
    uint8_t shown = got == '\r' || got == '\n' ? ' ' : got;
    char *to = stpcpy(args->error, "-ERR Protocol error: expected '$', got '");
    if (shown) {
        *to++ = (char)shown;
        *to++ = '\'';
    }
    strcpy(to, "\r\n");
    return malformed(error, args->error);
}

/* "$<size>\r\n<bytes>\r\n" at the front of bytes[0..n). */
static enum resp_parsed read_bulk(struct resp_args *args, const uint8_t *bytes, size_t n, struct resp_arg *bulk,
                                  size_t *need, const char **error) {
    size_t line;
    enum resp_parsed parsed = read_line(bytes, n, &line, need, PROTOCOL_ERROR("too big bulk count string"), error);
    if (parsed != RESP_REQUEST) return parsed;
    if (bytes[0] != '$') return not_a_bulk(args, bytes[0], error);
    int64_t size;
    if (!is_crlf(bytes + line) || !read_number(bytes + 1, line - 1, &size) || size < 0 || size > BULK_MAX)
        return malformed(error, PROTOCOL_ERROR("invalid bulk length"));
    uint64_t whole = line + 2 + (uint64_t)size + 2;
    if (n < whole) return incomplete(need, whole - n);
    if (!is_crlf(bytes + whole - 2)) return malformed(error, PROTOCOL_ERROR("bulk string does not end with CRLF"));
    *bulk = (struct resp_arg){bytes + line + 2, (uint32_t)size};
    return RESP_REQUEST;
}

static enum resp_parsed parse_multibulk(struct resp_args *args, struct resp_progress *progress, const uint8_t *bytes,
                                        size_t n, size_t *length, size_t *need, const char **error) {
    bool resumed = progress->args_left > 0;
    args->count = 0;
    if (!resumed) {
        enum resp_parsed parsed = read_header(progress, bytes, n, need, error);
        if (parsed != RESP_REQUEST) return parsed;
    }
    for (;;) {
        while (progress->args_left) {
            struct resp_arg bulk;
            enum resp_parsed parsed =
                read_bulk(args, bytes + progress->scanned, n - progress->scanned, &bulk, need, error);
            if (parsed != RESP_REQUEST) return parsed;
            if (!resumed && !args_add(args, bulk.bytes, bulk.length)) return memory_spent(error);
            progress->scanned = (uint64_t)(bulk.bytes - bytes) + bulk.length + 2;
            progress->args_left--;
        }
        if (!resumed) break;
        /* It came in pieces and is complete now: its arguments are gathered in a second walk, since the scratch has
         * served others meanwhile. */
        resumed = false;
        progress->args_left = progress->args_count;
        progress->scanned = (uint64_t)((const uint8_t *)memchr(bytes, '\n', n) + 1 - bytes);
    }
    *length = progress->scanned;
    *progress = (struct resp_progress){0};
    return RESP_REQUEST;
}

/* ---- inline requests ----------------------------------------------------------------------------------------- */

static inline bool is_blank(uint8_t c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

static int hex_value(uint8_t c) {
    if (c >= '0' && c <= '9') return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* What follows a backslash between double quotes: one byte to *out; returns how many were read. */
static size_t unescape(const uint8_t *text, size_t n, uint8_t *out) {
    if (n >= 3 && text[0] == 'x' && hex_value(text[1]) >= 0 && hex_value(text[2]) >= 0) {
        *out = (uint8_t)(hex_value(text[1]) << 4 | hex_value(text[2]));
        return 3;
    }
    switch (text[0]) {
    case 'n': *out = '\n'; break;
    case 'r': *out = '\r'; break;
    case 't': *out = '\t'; break;
    case 'b': *out = '\b'; break;
    case 'a': *out = '\a'; break;
    default: *out = text[0];
    }
    return 1;
}

/* One word from line[*at..n) to out. False when its quotes are unbalanced or text follows the closing one.
 * The rules of sdssplitargs: a quote may open inside a word, and closes the word. */
static bool read_word(const uint8_t *line, size_t n, size_t *at, uint8_t *out, size_t *length) {
    size_t i = *at, written = 0;
    uint8_t quote = 0;
    for (; i < n; i++) {
        uint8_t c = line[i];
        if (!quote) {
            if (c == ' ' || c == '\n' || c == '\r' || c == '\t') break;
            if (c == '"' || c == '\'') quote = c;
            else out[written++] = c;
        } else if (c == quote) {
            if (i + 1 < n && !is_blank(line[i + 1])) return false;
            quote = 0;
            i++;
            break;
        } else if (c == '\\' && quote == '"' && i + 1 < n) {
            i += unescape(line + i + 1, n - i - 1, &out[written++]);
        } else if (c == '\\' && quote == '\'' && i + 1 < n && line[i + 1] == '\'') {
            out[written++] = '\'';
            i++;
        } else {
            out[written++] = c;
        }
    }
    *at = i;
    *length = written;
    return !quote;
}

static bool inline_reserve(struct resp_args *args, size_t n) {
    if (n <= args->inline_capacity) return true;
    if (!budget_take(args->budget, BUDGET_CLIENTS, n - args->inline_capacity)) return false;
    uint8_t *moved = realloc(args->inline_bytes, n);
    if (!moved) {
        budget_give(args->budget, BUDGET_CLIENTS, n - args->inline_capacity);
        return false;
    }
    args->inline_bytes = moved;
    args->inline_capacity = n;
    return true;
}

static enum resp_parsed parse_inline(struct resp_args *args, struct resp_progress *progress, const uint8_t *bytes,
                                     size_t n, size_t *length, size_t *need, const char **error) {
    size_t searched = n > LINE_MAX_BYTES + 1 ? LINE_MAX_BYTES + 1 : n;
    const uint8_t *end = memchr(bytes + progress->scanned, '\n', searched - progress->scanned);
    if (!end) {
        if (n > LINE_MAX_BYTES) return malformed(error, PROTOCOL_ERROR("too big inline request"));
        progress->scanned = n;
        return incomplete(need, 1);
    }
    *length = (size_t)(end + 1 - bytes);
    size_t line = *length - 1;
    if (line && bytes[line - 1] == '\r') line--;
    /* Redis would not see the line's end behind a NUL, and wait for ever. */
    if (memchr(bytes, 0, line)) return malformed(error, PROTOCOL_ERROR("NUL in inline request"));
    if (!inline_reserve(args, line)) return memory_spent(error);

    args->count = 0;
    uint8_t *out = args->inline_bytes;
    for (size_t at = 0;;) {
        while (at < line && is_blank(bytes[at])) at++;
        if (at == line) break;
        size_t word;
        if (!read_word(bytes, line, &at, out, &word))
            return malformed(error, PROTOCOL_ERROR("unbalanced quotes in request"));
        if (!args_add(args, out, (uint32_t)word)) return memory_spent(error);
        out += word;
    }
    *progress = (struct resp_progress){0};
    return RESP_REQUEST;
}

enum resp_parsed resp_parse(struct resp_args *args, struct resp_progress *progress, const uint8_t *bytes, size_t n,
                            size_t *length, size_t *need, const char **error) {
    if (unlikely(args->capacity > ARGS_KEPT)) args_resize(args, ARGS_KEPT);
    if (likely(progress->scanned == 0) && likely(parse_small(args, bytes, n, length))) return RESP_REQUEST;
    if (n == 0) return incomplete(need, 1);
    if (bytes[0] == '*') return parse_multibulk(args, progress, bytes, n, length, need, error);
    return parse_inline(args, progress, bytes, n, length, need, error);
}
