/* parse_test — requests: whole, in pieces, malformed, at their limits, and random. */
#include <stdlib.h>

#include "resp/parse.h"
#include "test.h"

static struct budget budget;
static struct resp_args args;

static void begin(void) {
    budget_init(&budget, 64u << 20);
    EXPECT(resp_args_init(&args, &budget));
}

static void end(void) {
    resp_args_deinit(&args);
    EXPECT(budget.used == 0);
}

struct result {
    enum resp_parsed parsed;
    size_t length, need;
    const char *error;
};

/* Parses a copy of exactly n bytes, so that a sanitizer sees every byte read beyond them. The arguments then point
 * into freed memory: compare lengths only, or use parse_kept. */
static struct result parse_copy(struct resp_progress *progress, const void *bytes, size_t n) {
    struct result result = {0};
    uint8_t *copy = malloc(n ? n : 1);
    memcpy(copy, bytes, n);
    result.parsed = resp_parse(&args, progress, copy, n, &result.length, &result.need, &result.error);
    free(copy);
    return result;
}

static struct result parse_kept(const void *bytes, size_t n) {
    struct result result = {0};
    struct resp_progress progress = {0};
    result.parsed = resp_parse(&args, &progress, bytes, n, &result.length, &result.need, &result.error);
    return result;
}

static bool arg_is(uint32_t i, const char *text) {
    return i < args.count && args.args[i].length == strlen(text) &&
           memcmp(args.args[i].bytes, text, args.args[i].length) == 0;
}

static bool fails_with(const void *bytes, size_t n, const char *error) {
    struct resp_progress progress = {0};
    struct result result = parse_copy(&progress, bytes, n);
    return result.parsed == RESP_MALFORMED && strcmp(result.error, error) == 0;
}
#define FAILS(text, error) fails_with(text, sizeof text - 1, "-ERR Protocol error: " error "\r\n")

TEST("a GET is read without a copy and its size is told") {
    begin();
    static const char bytes[] = "*2\r\n$3\r\nGET\r\n$16\r\nkey:000000012345\r\n*1\r\n$4\r\nPING\r\n";
    struct result result = parse_kept(bytes, sizeof bytes - 1);
    EXPECT(result.parsed == RESP_REQUEST && result.length == 36);
    EXPECT(args.count == 2 && arg_is(0, "GET") && arg_is(1, "key:000000012345"));
    EXPECT((const char *)args.args[1].bytes == bytes + 18);
    result = parse_kept(bytes + 36, sizeof bytes - 1 - 36);
    EXPECT(result.parsed == RESP_REQUEST && result.length == 14 && args.count == 1 && arg_is(0, "PING"));
    end();
}

TEST("arguments may be empty, binary, and of one to five digits' length") {
    begin();
    static char bytes[40000];
    static const uint32_t lengths[] = {0, 1, 9, 10, 99, 100, 999, 1000, 9999, 10000, 20000};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        int at = sprintf(bytes, "*3\r\n$3\r\nSET\r\n$2\r\n\r\n\r\n$%u\r\n", lengths[i]);
        memset(bytes + at, '\r', lengths[i]);
        memcpy(bytes + at + lengths[i], "\r\n", 2);
        struct result result = parse_kept(bytes, (size_t)at + lengths[i] + 2);
        EXPECT(result.parsed == RESP_REQUEST && result.length == (size_t)at + lengths[i] + 2);
        EXPECT(args.count == 3 && arg_is(1, "\r\n") && args.args[2].length == lengths[i]);
    }
    end();
}

static const struct {
    const char *text;
    uint32_t count, last_length;
} corpus[] = {
    {"*1\r\n$4\r\nPING\r\n", 1, 4},
    {"*2\r\n$3\r\nGET\r\n$16\r\nkey:000000012345\r\n", 2, 16},
    {"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$0\r\n\r\n", 3, 0},
    {"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$10\r\n0123456789\r\n", 3, 10},
    {"*12\r\n$4\r\nMGET\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n$1\r\nd\r\n$1\r\ne\r\n$1\r\nf\r\n$1\r\ng\r\n$1\r\nh\r\n"
     "$1\r\ni\r\n$1\r\nj\r\n"
     "$3\r\n\r\n\n\r\n",
     12, 3},
    {"*0\r\n", 0, 0},
    {"*-1\r\n", 0, 0},
    {"*-17\r\n", 0, 0},
    {"\r\n", 0, 0},
    {"\n", 0, 0},
    {"  \t\v\f \r\n", 0, 0},
    {"PING\r\n", 1, 4},
    {"PING\n", 1, 4},
    {" get\tkey \r\r\n", 2, 3},
    {"ECHO \"a\\x41\\n\\q\\x4\\\"\"\r\n", 2, 7},
    {"ECHO 'a\\'\\n'\r\n", 2, 4},
    {"ECHO a\"b c\"\r\n", 2, 4},
    {"ECHO a\vb\r\n", 2, 3},
    {"\"\" \"\"\r\n", 2, 0},
    {"PING \"a\"\v\r\n", 2, 1},
};
#define CORPUS (sizeof corpus / sizeof *corpus)

TEST("a request in two pieces, cut at any byte, is the same request") {
    begin();
    for (size_t i = 0; i < CORPUS; i++) {
        size_t n = strlen(corpus[i].text);
        for (size_t cut = 0; cut < n; cut++) {
            struct resp_progress progress = {0};
            struct result first = parse_copy(&progress, corpus[i].text, cut);
            EXPECT(first.parsed == RESP_INCOMPLETE && first.need >= 1 && first.need <= n - cut);
            struct result second = parse_copy(&progress, corpus[i].text, n);
            EXPECT(second.parsed == RESP_REQUEST && second.length == n && args.count == corpus[i].count);
            EXPECT(!args.count || args.args[args.count - 1].length == corpus[i].last_length);
            EXPECT(!progress.scanned && !progress.args_left && !progress.args_count);
        }
    }
    end();
}

TEST("a request that comes byte by byte, with others parsed between, is the same request") {
    begin();
    for (size_t i = 0; i < CORPUS; i++) {
        struct resp_progress progress = {0};
        size_t n = strlen(corpus[i].text);
        for (size_t have = 0; have < n; have++) {
            EXPECT(parse_copy(&progress, corpus[i].text, have).parsed == RESP_INCOMPLETE);
            EXPECT(parse_kept("*1\r\n$6\r\nOTHERS\r\n", 16).parsed == RESP_REQUEST);
            EXPECT(parse_kept("OTHER inline\r\n", 14).parsed == RESP_REQUEST);
        }
        struct result result = {0};
        result.parsed = resp_parse(&args, &progress, (const uint8_t *)corpus[i].text, n, &result.length, &result.need,
                                   &result.error);
        EXPECT(result.parsed == RESP_REQUEST && result.length == n && args.count == corpus[i].count);
        EXPECT(!args.count || args.args[args.count - 1].length == corpus[i].last_length);
    }
    end();
}

TEST("inline words are unquoted as redis-server does it") {
    begin();
    EXPECT(parse_kept("ECHO \"a\\x41\\n\\q\\x4\\t\\\\\"\r\n", 25).parsed == RESP_REQUEST && arg_is(1, "aA\nqx4\t\\"));
    EXPECT(parse_kept("ECHO 'a\\'b\\n'\r\n", 15).parsed == RESP_REQUEST && arg_is(1, "a'b\\n"));
    EXPECT(parse_kept("ECHO a\"b c\" d\r\n", 15).parsed == RESP_REQUEST && args.count == 3 && arg_is(1, "ab c"));
    EXPECT(parse_kept("ECHO a\vb\r\n", 10).parsed == RESP_REQUEST && arg_is(1, "a\vb"));
    EXPECT(parse_kept("\"\" x\r\n", 6).parsed == RESP_REQUEST && args.count == 2 && arg_is(0, "") && arg_is(1, "x"));
    end();
}

TEST("what is malformed is refused with redis-server's words") {
    begin();
    EXPECT(FAILS("*a\r\n", "invalid multibulk length"));
    EXPECT(FAILS("*\r\n", "invalid multibulk length"));
    EXPECT(FAILS("*01\r\n", "invalid multibulk length"));
    EXPECT(FAILS("*+1\r\n", "invalid multibulk length"));
    EXPECT(FAILS("*-0\r\n", "invalid multibulk length"));
    EXPECT(FAILS("* 1\r\n", "invalid multibulk length"));
    EXPECT(FAILS("*1 \r\n", "invalid multibulk length"));
    EXPECT(FAILS("*1048577\r\n", "invalid multibulk length"));
    EXPECT(FAILS("*2147483648\r\n", "invalid multibulk length"));
    EXPECT(FAILS("*9223372036854775808\r\n", "invalid multibulk length"));
    EXPECT(FAILS("*99999999999999999999999999999999\r\n", "invalid multibulk length"));
    EXPECT(FAILS("*1\r\nX4\r\n", "expected '$', got 'X'"));
    EXPECT(FAILS("*2\r\n$4\r\nPING\r\n:1\r\n", "expected '$', got ':'"));
    EXPECT(FAILS("*1\r\n\r\n", "expected '$', got ' '"));
    EXPECT(FAILS("*1\r\n\nabc\r\n", "expected '$', got ' '"));
    EXPECT(FAILS("*1\r\n\xff\r\n", "expected '$', got '\xff'"));
    EXPECT(FAILS("*1\r\n$a\r\n", "invalid bulk length"));
    EXPECT(FAILS("*1\r\n$\r\n", "invalid bulk length"));
    EXPECT(FAILS("*1\r\n$-1\r\n", "invalid bulk length"));
    EXPECT(FAILS("*1\r\n$04\r\nPING\r\n", "invalid bulk length"));
    EXPECT(FAILS("*1\r\n$536870913\r\n", "invalid bulk length"));
    EXPECT(FAILS("*1\r\n$18446744073709551616\r\n", "invalid bulk length"));
    EXPECT(FAILS("PING \"\r\n", "unbalanced quotes in request"));
    EXPECT(FAILS("PING '\r\n", "unbalanced quotes in request"));
    EXPECT(FAILS("PING \"a\"b\r\n", "unbalanced quotes in request"));
    EXPECT(FAILS("PING a'b'c\r\n", "unbalanced quotes in request"));
    EXPECT(FAILS("PING \"a\\\"\r\n", "unbalanced quotes in request"));
    EXPECT(FAILS("PING \"a\\\r\n", "unbalanced quotes in request"));
    end();
}

TEST("what could part our idea of a request's end from the upstream's is refused") {
    begin();
    EXPECT(FAILS("*1\r\n$4\r\nPINGXX", "bulk string does not end with CRLF"));
    EXPECT(FAILS("*1\r\n$4\r\nPING\n\r", "bulk string does not end with CRLF"));
    EXPECT(FAILS("*1\rX$4\r\nPING\r\n", "invalid multibulk length"));
    EXPECT(FAILS("*1\r\n$4\rXPING\r\n", "invalid bulk length"));
    EXPECT(FAILS("GET a\0b\r\n", "NUL in inline request"));
    EXPECT(fails_with("*1\r\n\0\r\n", 7, "-ERR Protocol error: expected '$', got '\r\n"));
    end();
}

TEST("a bulk string of 512 MB is awaited, and what is missing of it is told") {
    begin();
    struct resp_progress progress = {0};
    struct result result = parse_copy(&progress, "*1\r\n$536870912\r\nabc", 19);
    EXPECT(result.parsed == RESP_INCOMPLETE && result.need == 536870912u + 2 - 3);
    end();
}

TEST("lines longer than 64 KiB are refused, shorter ones awaited") {
    begin();
    static char bytes[70000];
    struct resp_progress progress = {0};
    memset(bytes, 'a', sizeof bytes);
    EXPECT(parse_copy(&progress, bytes, 65536).parsed == RESP_INCOMPLETE);
    EXPECT(fails_with(bytes, 65537, "-ERR Protocol error: too big inline request\r\n"));
    memset(bytes, '1', sizeof bytes);
    bytes[0] = '*';
    progress = (struct resp_progress){0};
    EXPECT(parse_copy(&progress, bytes, 65536).parsed == RESP_INCOMPLETE);
    EXPECT(fails_with(bytes, 65537, "-ERR Protocol error: too big mbulk count string\r\n"));
    memcpy(bytes, "*1\r\n$", 5);
    progress = (struct resp_progress){0};
    EXPECT(parse_copy(&progress, bytes, 65540).parsed == RESP_INCOMPLETE);
    EXPECT(fails_with(bytes, 65541, "-ERR Protocol error: too big bulk count string\r\n"));
    memset(bytes, ' ', sizeof bytes);
    memcpy(bytes + 65530, "PING\r\n", 6);
    EXPECT(parse_kept(bytes, sizeof bytes).parsed == RESP_REQUEST && args.count == 1);
    end();
}

/* "*<count>\r\n" and count times "$1\r\nx\r\n"; returns its size. */
static size_t many(char *bytes, uint32_t count) {
    size_t at = (size_t)sprintf(bytes, "*%u\r\n", count);
    for (uint32_t i = 0; i < count; i++, at += 7) memcpy(bytes + at, "$1\r\nx\r\n", 7);
    return at;
}

TEST("the scratch grows for many arguments, is charged, and shrinks with the next request") {
    begin();
    char *bytes = malloc(1048576 * 7 + 16);
    size_t before = budget.used, n = many(bytes, 1048576);
    struct result result = parse_kept(bytes, n);
    EXPECT(result.parsed == RESP_REQUEST && result.length == n && args.count == 1048576);
    EXPECT(budget.used == before + (1048576u - 1024u) * sizeof(struct resp_arg));
    EXPECT(parse_kept("*1\r\n$4\r\nPING\r\n", 14).parsed == RESP_REQUEST && budget.used == before);
    free(bytes);
    end();
}

TEST("more arguments than the budget has room for are refused, and parsing goes on") {
    begin();
    char *bytes = malloc(200000 * 7 + 16);
    size_t n = many(bytes, 200000);
    budget.total = budget.used + 100000;
    EXPECT(fails_with(bytes, n, "-ERR the request has more arguments than local_memory has room for\r\n"));
    EXPECT(parse_kept("*1\r\n$4\r\nPING\r\n", 14).parsed == RESP_REQUEST && args.count == 1);
    free(bytes);
    end();
}

static uint64_t random_next(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    return *state ^= *state << 17;
}

TEST("random bytes, made of the pieces of requests, never break the parser, whole or in pieces") {
    begin();
    static const char *const pieces[] = {"*1\r\n",
                                         "*3\r\n",
                                         "*-1\r\n",
                                         "$4\r\n",
                                         "PING\r\n",
                                         "$0\r\n\r\n",
                                         "\r\n",
                                         "\r",
                                         "\n",
                                         "$",
                                         "*",
                                         "\"",
                                         "'",
                                         "\\x4",
                                         "a",
                                         " ",
                                         "9223372036854775807",
                                         "-1",
                                         "$1\r\nx\r\n"};
    uint64_t state = 88172645463325252u;
    for (int round = 0; round < 20000; round++) {
        char bytes[200];
        size_t n = 0;
        while (n < 150 && random_next(&state) % 12) {
            if (random_next(&state) % 8 == 0) bytes[n++] = (char)random_next(&state);
            const char *piece = pieces[random_next(&state) % (sizeof pieces / sizeof *pieces)];
            memcpy(bytes + n, piece, strlen(piece));
            n += strlen(piece);
        }
        struct resp_progress progress = {0}, slow = {0};
        struct result whole = parse_copy(&progress, bytes, n), trickled = {.parsed = RESP_INCOMPLETE};
        for (size_t have = 0; have <= n && trickled.parsed == RESP_INCOMPLETE; have++)
            trickled = parse_copy(&slow, bytes, have);
        EXPECT(whole.parsed == trickled.parsed);
        EXPECT(whole.parsed != RESP_REQUEST || (whole.length == trickled.length && whole.length <= n));
        EXPECT(whole.parsed != RESP_INCOMPLETE || whole.need >= 1);
    }
    end();
}
