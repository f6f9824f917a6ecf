/* frame_test — replies: where one ends, in pieces of any size, and what is no RESP. */
#include <stdlib.h>

#include "resp/frame.h"
#include "test.h"

/* Frames a copy of exactly n bytes, so that a sanitizer sees every byte read beyond them. */
static enum resp_framed frame(struct resp_framer *framer, const void *bytes, size_t n, size_t *length, uint64_t *need) {
    uint8_t *copy = malloc(n ? n : 1);
    memcpy(copy, bytes, n);
    enum resp_framed framed = resp_frame(framer, copy, n, length, need);
    free(copy);
    return framed;
}

static enum resp_framed frame_once(const void *bytes, size_t n) {
    struct resp_framer framer = {0};
    size_t length;
    uint64_t need;
    return frame(&framer, bytes, n, &length, &need);
}
#define FRAME(text) frame_once(text, sizeof text - 1)

static const char *const corpus[] = {
    "+OK\r\n",
    "+\r\n",
    "+a\rb\nc\r\n",
    "-ERR no\r\n",
    ":0\r\n",
    ":-9223372036854775808\r\n",
    ":9223372036854775807\r\n",
    "$0\r\n\r\n",
    "$5\r\nhello\r\n",
    "$2\r\n\r\n\r\n",
    "$-1\r\n",
    "*-1\r\n",
    "*0\r\n",
    "*2\r\n$1\r\na\r\n$-1\r\n",
    "*2\r\n*2\r\n:1\r\n*0\r\n*1\r\n*1\r\n*1\r\n+deep\r\n",
    "%2\r\n+a\r\n:1\r\n+b\r\n*2\r\n:1\r\n_\r\n",
    "%0\r\n",
    "~3\r\n#t\r\n#f\r\n_\r\n",
    ">3\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n+x\r\n",
    ">2\r\n$10\r\ninvalidate\r\n_\r\n",
    ",3.14\r\n",
    ",-inf\r\n",
    "(3492890328409238509324850943850943825024385\r\n",
    "=9\r\ntxt:hello\r\n",
    "!8\r\nERR a\r\nb\r\n",
    "|1\r\n+ttl\r\n:3600\r\n$1\r\nv\r\n",
    "*2\r\n|2\r\n+a\r\n:1\r\n+b\r\n*1\r\n:2\r\n:5\r\n:6\r\n",
};
#define CORPUS (sizeof corpus / sizeof *corpus)

TEST("a reply is complete at its last byte and not before, whatever follows it") {
    for (size_t i = 0; i < CORPUS; i++) {
        size_t n = strlen(corpus[i]), length = 0;
        uint64_t need;
        for (size_t cut = 0; cut < n; cut++) {
            struct resp_framer framer = {0};
            EXPECT(frame(&framer, corpus[i], cut, &length, &need) == RESP_PARTIAL);
            EXPECT(need > cut && need <= n);
            EXPECT(frame(&framer, corpus[i], n, &length, &need) == RESP_REPLY && length == n);
            EXPECT(!framer.scanned && !framer.owed && !framer.searched);
        }
        char followed[200];
        sprintf(followed, "%s%s", corpus[i], "*1\r\n");
        struct resp_framer framer = {0};
        EXPECT(frame(&framer, followed, n + 4, &length, &need) == RESP_REPLY && length == n);
    }
}

TEST("a reply that comes byte by byte is the same reply") {
    for (size_t i = 0; i < CORPUS; i++) {
        struct resp_framer framer = {0};
        size_t n = strlen(corpus[i]), length = 0;
        uint64_t need;
        for (size_t have = 0; have < n; have++) EXPECT(frame(&framer, corpus[i], have, &length, &need) == RESP_PARTIAL);
        EXPECT(frame(&framer, corpus[i], n, &length, &need) == RESP_REPLY && length == n);
    }
}

TEST("every element of a complete reply can be read") {
    for (size_t i = 0; i < CORPUS; i++) {
        const uint8_t *bytes = (const uint8_t *)corpus[i];
        size_t n = strlen(corpus[i]), at = 0;
        while (at < n) {
            struct resp_element element;
            bool read = resp_element(bytes + at, n - at, &element);
            EXPECT(read);
            if (!read) break;
            at += element.size;
        }
        EXPECT(at == n);
    }
}

static struct resp_element element_of(const char *text) {
    struct resp_element element = {0};
    EXPECT(resp_element((const uint8_t *)text, strlen(text), &element));
    return element;
}

TEST("an element tells its number, payload and size") {
    struct resp_element element = element_of(":-9223372036854775808\r\n");
    EXPECT(element.type == ':' && element.number == INT64_MIN && element.length == 20 && element.size == 23);
    element = element_of("$5\r\nhello\r\n");
    EXPECT(element.number == 5 && element.length == 5 && !memcmp(element.bytes, "hello", 5) && element.size == 11);
    element = element_of("$-1\r\n");
    EXPECT(element.number == -1 && element.length == 0 && element.size == 5);
    element = element_of("*-1\r\n");
    EXPECT(element.number == -1 && element.size == 5);
    element = element_of("%2\r\n+a\r\n:1\r\n+b\r\n:2\r\n");
    EXPECT(element.type == '%' && element.number == 2 && element.size == 4);
    element = element_of("-ERR no\r\n");
    EXPECT(element.length == 6 && !memcmp(element.bytes, "ERR no", 6) && element.size == 9);
    element = element_of("#t\r\n");
    EXPECT(element.number == 1 && element.size == 4);
    element = element_of(",1.5\r\n");
    EXPECT(element.length == 3 && element.size == 6);
    struct resp_element none;
    EXPECT(!resp_element((const uint8_t *)"$5\r\nhell", 8, &none));
    EXPECT(!resp_element((const uint8_t *)"", 0, &none));
    EXPECT(!resp_element((const uint8_t *)"?", 1, &none));
}

TEST("what is not RESP is broken at once") {
    EXPECT(FRAME("HTTP/1.1 200 OK\r\n") == RESP_BROKEN);
    EXPECT(FRAME("\r\n") == RESP_BROKEN);
    EXPECT(FRAME("\0") == RESP_BROKEN);
    EXPECT(FRAME("$a") == RESP_BROKEN);
    EXPECT(FRAME("$\r\n") == RESP_BROKEN);
    EXPECT(FRAME("$-2\r\n") == RESP_BROKEN);
    EXPECT(FRAME("$?\r\n") == RESP_BROKEN);
    EXPECT(FRAME("*?\r\n") == RESP_BROKEN);
    EXPECT(FRAME("%-1\r\n") == RESP_BROKEN);
    EXPECT(FRAME("~-1\r\n") == RESP_BROKEN);
    EXPECT(FRAME("=-1\r\n") == RESP_BROKEN);
    EXPECT(FRAME("*-\r\n") == RESP_BROKEN);
    EXPECT(FRAME("$5\rXhello\r\n") == RESP_BROKEN);
    EXPECT(FRAME("$5\r\nhelloXX") == RESP_BROKEN);
    EXPECT(FRAME(":1x\r\n") == RESP_BROKEN);
    EXPECT(FRAME(":\r\n") == RESP_BROKEN);
    EXPECT(FRAME("#x\r\n") == RESP_BROKEN);
    EXPECT(FRAME("#\r\n") == RESP_BROKEN);
    EXPECT(FRAME("_x\r\n") == RESP_BROKEN);
    EXPECT(FRAME("*1\r\n$1\r\naXX") == RESP_BROKEN);
}

TEST("absurd numbers are broken or awaited, never added up") {
    EXPECT(FRAME(":9223372036854775808\r\n") == RESP_BROKEN);
    EXPECT(FRAME(":-9223372036854775809\r\n") == RESP_BROKEN);
    EXPECT(FRAME("$9223372036854775807\r\n") == RESP_BROKEN);
    EXPECT(FRAME("$18446744073709551615\r\n") == RESP_BROKEN);
    EXPECT(FRAME("$99999999999999999999999999") == RESP_BROKEN);
    EXPECT(FRAME("*9223372036854775807\r\n") == RESP_BROKEN);
    EXPECT(FRAME("%4611686018427387904\r\n") == RESP_BROKEN);
    EXPECT(FRAME("*1099511627776\r\n*1099511627776\r\n") == RESP_PARTIAL);
    EXPECT(FRAME("$1099511627776\r\n") == RESP_PARTIAL);
}

TEST("depth costs nothing") {
    enum { DEPTH = 100000 };
    char *bytes = malloc(DEPTH * 4 + 4);
    for (int i = 0; i < DEPTH; i++) memcpy(bytes + i * 4, "*1\r\n", 4);
    memcpy(bytes + DEPTH * 4, ":1\r\n", 4);
    EXPECT(frame_once(bytes, DEPTH * 4) == RESP_PARTIAL);
    EXPECT(frame_once(bytes, DEPTH * 4 + 4) == RESP_REPLY);
    free(bytes);
}

TEST("how long a reply will be at the least is told as soon as it is known") {
    struct resp_framer framer = {0};
    size_t length;
    uint64_t need;
    EXPECT(frame(&framer, "$2000000\r\nabc", 13, &length, &need) == RESP_PARTIAL && need == 2000012);
    framer = (struct resp_framer){0};
    EXPECT(frame(&framer, "*1000\r\n$10\r\n", 12, &length, &need) == RESP_PARTIAL && need == 7 + 17 + 999 * 3);
}

static uint64_t random_next(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    return *state ^= *state << 17;
}

TEST("random bytes, made of the pieces of replies, never break the framer, whole or in pieces") {
    static const char *const pieces[] = {"*2\r\n",  "%1\r\n",  "~1\r\n", ">2\r\n",  "|1\r\n", "$3\r\n",
                                         "abc\r\n", "$-1\r\n", "_\r\n",  ":1\r\n",  "+a\r\n", ",1\r\n",
                                         "#t\r\n",  "\r",      "\n",     "*-1\r\n", "$",      "9223372036854775807",
                                         "(1\r\n"};
    uint64_t state = 2463534242u;
    for (int round = 0; round < 20000; round++) {
        char bytes[200];
        size_t n = 0;
        while (n < 150 && random_next(&state) % 12) {
            if (random_next(&state) % 16 == 0) bytes[n++] = (char)random_next(&state);
            const char *piece = pieces[random_next(&state) % (sizeof pieces / sizeof *pieces)];
            memcpy(bytes + n, piece, strlen(piece));
            n += strlen(piece);
        }
        struct resp_framer framer = {0}, slow = {0};
        size_t length = 0, slow_length = 0;
        uint64_t need = 0;
        enum resp_framed whole = frame(&framer, bytes, n, &length, &need), trickled = RESP_PARTIAL;
        EXPECT(whole != RESP_PARTIAL || need > n);
        for (size_t have = 0; have <= n && trickled == RESP_PARTIAL; have++)
            trickled = frame(&slow, bytes, have, &slow_length, &need);
        EXPECT(whole == trickled);
        EXPECT(whole != RESP_REPLY || (length == slow_length && length <= n));
    }
}

/* One reply offered in pieces, as a link does: what was not used comes again with the next piece. */
static bool skipped_in_pieces(const char *reply, size_t piece) {
    struct resp_skipper skipper = {0};
    size_t n = strlen(reply), start = 0;
    for (size_t end = piece < n ? piece : n;; end = end + piece < n ? end + piece : n) {
        size_t used = 0;
        enum resp_framed framed = resp_skip(&skipper, (const uint8_t *)reply + start, end - start, &used);
        start += used;
        if (framed == RESP_REPLY) return start == n;
        if (framed == RESP_BROKEN || end == n) return false;
    }
}

TEST("a reply is passed over to its very end, in pieces of any size") {
    static const char *const replies[] = {
        "$10\r\n0123456789\r\n",
        "*3\r\n$3\r\nabc\r\n:12\r\n*2\r\n+ok\r\n$-1\r\n",
        "%1\r\n+k\r\n~2\r\n_\r\n,1.5\r\n",
        "|1\r\n+a\r\n:1\r\n$2\r\nhi\r\n",
        "*0\r\n",
        "-ERR no\r\n",
    };
    for (size_t i = 0; i < sizeof replies / sizeof *replies; i++)
        for (size_t piece = 1; piece <= strlen(replies[i]); piece++) EXPECT(skipped_in_pieces(replies[i], piece));
}
