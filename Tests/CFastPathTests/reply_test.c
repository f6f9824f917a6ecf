/* reply_test — what is written, and what a RESP3 reply becomes for a RESP2 client. */
#include <inttypes.h>
#include <stdlib.h>

#include "resp/frame.h"
#include "resp/reply.h"
#include "test.h"

static struct budget budget;
static struct block_pool pool;
static struct chain chain;

static void begin(void) {
    budget_init(&budget, 64u << 20);
    block_pool_init(&pool, &budget, 4);
    pool.owner = BUDGET_LINKS; /* which may take the last byte */
    chain = (struct chain){0};
}

static void end(void) {
    chain_clear(&chain, &pool);
    block_pool_deinit(&pool);
    EXPECT(budget.used == 0);
}

/* What the chain holds, in memory that the caller frees. */
static char *contents(void) {
    char *text = malloc(chain.bytes + 1);
    size_t at = 0;
    for (const struct block *block = chain.head; block; block = block->next) {
        memcpy(text + at, block->bytes + block->start, block->end - block->start);
        at += block->end - block->start;
    }
    EXPECT(at == chain.bytes);
    text[at] = 0;
    return text;
}

static bool holds(const char *wanted) {
    char *text = contents();
    bool same = chain.bytes == strlen(wanted) && memcmp(text, wanted, chain.bytes) == 0;
    if (!same) fprintf(stderr, "holds %s\n", text);
    free(text);
    return same;
}

static bool becomes(enum resp2_rule rule, const char *reply, const char *wanted) {
    begin();
    bool same = resp2_append(&chain, &pool, rule, (const uint8_t *)reply, strlen(reply)) && holds(wanted);
    end();
    return same;
}

TEST("decimal digits are those of printf, around every power of ten") {
    uint64_t power = 1;
    for (int i = 0; i < 20; i++, power *= 10) {
        for (int64_t offset = -2; offset <= 2; offset++) {
            char wanted[24];
            uint8_t text[20];
            uint64_t value = power + (uint64_t)offset;
            int length = sprintf(wanted, "%" PRIu64, value);
            EXPECT(decimal(text, value) == (uint32_t)length && !memcmp(text, wanted, (size_t)length));
        }
    }
}

TEST("small replies are written as RESP has them") {
    begin();
    EXPECT(reply_bulk(&chain, &pool, (const uint8_t *)"hello", 5));
    EXPECT(reply_bulk(&chain, &pool, NULL, 0));
    EXPECT(reply_aggregate(&chain, &pool, '*', 12));
    EXPECT(reply_aggregate(&chain, &pool, '%', 0));
    EXPECT(reply_integer(&chain, &pool, INT64_MIN) && reply_integer(&chain, &pool, -1));
    EXPECT(reply_integer(&chain, &pool, INT64_MAX) && reply_integer(&chain, &pool, 0));
    EXPECT(reply_null(&chain, &pool, 2) && reply_null(&chain, &pool, 3));
    EXPECT(holds("$5\r\nhello\r\n$0\r\n\r\n*12\r\n%0\r\n:-9223372036854775808\r\n:-1\r\n:9223372036854775807\r\n:0\r\n"
                 "$-1\r\n_\r\n"));
    end();
}

TEST("a bulk of any size around a block's is written whole") {
    static char value[3 * BLOCK_BYTES], wanted[3 * BLOCK_BYTES + 32];
    memset(value, 'v', sizeof value);
    for (uint32_t n = BLOCK_ROOM - 40; n < BLOCK_ROOM + 4; n++) {
        begin();
        EXPECT(reply_integer(&chain, &pool, 7) && reply_bulk(&chain, &pool, (const uint8_t *)value, n));
        sprintf(wanted, ":7\r\n$%u\r\n%.*s\r\n", n, (int)n, value);
        EXPECT(holds(wanted));
        end();
    }
    begin();
    EXPECT(reply_bulk(&chain, &pool, (const uint8_t *)value, sizeof value));
    sprintf(wanted, "$%zu\r\n%.*s\r\n", sizeof value, (int)sizeof value, value);
    EXPECT(holds(wanted));
    end();
}

TEST("a reply that the budget has no room for leaves nothing behind") {
    static uint8_t value[40 * BLOCK_BYTES];
    static const char before[] = "+before\r\n";
    memset(value, 'v', sizeof value);
    for (int with_head = 0; with_head < 2; with_head++) {
        for (size_t blocks = 1; blocks < 44; blocks++) {
            begin();
            budget.total = blocks * sizeof(struct block);
            if (with_head) EXPECT(chain_append(&chain, &pool, before, sizeof before - 1));
            bool written = reply_bulk(&chain, &pool, value, sizeof value);
            EXPECT(written || holds(with_head ? before : ""));
            EXPECT(written || pool.live_count == (size_t)with_head);
            end();
        }
    }
}

TEST("a rewritten reply that the budget has no room for leaves nothing behind") {
    static char reply[20 * BLOCK_BYTES];
    size_t n = (size_t)sprintf(reply, "~3000\r\n");
    for (int i = 0; i < 3000; i++) n += (size_t)sprintf(reply + n, ",%d.5\r\n", i);
    bool once = false;
    for (size_t blocks = 1; blocks < 16; blocks++) {
        begin();
        budget.total = blocks * sizeof(struct block);
        EXPECT(chain_append(&chain, &pool, "+before\r\n", 9));
        bool written = resp2_append(&chain, &pool, RESP2_CONVERT, (const uint8_t *)reply, n);
        EXPECT(written || holds("+before\r\n"));
        EXPECT(written || pool.live_count == 1);
        once |= written;
        end();
    }
    EXPECT(once);
}

TEST("scalars, errors and the same rule pass as they are") {
    static const char *const replies[] = {"+OK\r\n",     "-ERR x\r\n", ":1\r\n",
                                          "$1\r\nx\r\n", "$-1\r\n",    "*2\r\n:1\r\n$1\r\n_\r\n"};
    for (size_t i = 0; i < sizeof replies / sizeof *replies; i++)
        for (int rule = RESP2_SAME; rule <= RESP2_NULL_ARRAY; rule++) EXPECT(becomes(rule, replies[i], replies[i]));
    EXPECT(becomes(RESP2_SAME, "%1\r\n:1\r\n_\r\n", "%1\r\n:1\r\n_\r\n"));
}

TEST("the null rule changes nulls and nothing else, wherever they stand") {
    EXPECT(becomes(RESP2_NULL, "_\r\n", "$-1\r\n"));
    EXPECT(becomes(RESP2_NULL, "*4\r\n$3\r\n_\r\n\r\n_\r\n:1\r\n_\r\n", "*4\r\n$3\r\n_\r\n\r\n$-1\r\n:1\r\n$-1\r\n"));
    EXPECT(becomes(RESP2_NULL, "*1\r\n*2\r\n_\r\n,1\r\n", "*1\r\n*2\r\n$-1\r\n,1\r\n"));
}

TEST("the general rule rewrites every type of RESP3") {
    EXPECT(becomes(RESP2_CONVERT, "_\r\n", "$-1\r\n"));
    EXPECT(becomes(RESP2_CONVERT, "%2\r\n+a\r\n%1\r\n+b\r\n_\r\n+c\r\n~0\r\n",
                   "*4\r\n+a\r\n*2\r\n+b\r\n$-1\r\n+c\r\n*0\r\n"));
    EXPECT(becomes(RESP2_CONVERT, "~2\r\n#t\r\n#f\r\n", "*2\r\n:1\r\n:0\r\n"));
    EXPECT(becomes(RESP2_CONVERT, ",3.25\r\n", "$4\r\n3.25\r\n"));
    EXPECT(becomes(RESP2_CONVERT, ",-inf\r\n", "$4\r\n-inf\r\n"));
    EXPECT(becomes(RESP2_CONVERT, "(12345678901234567890\r\n", "$20\r\n12345678901234567890\r\n"));
    EXPECT(becomes(RESP2_CONVERT, "=9\r\ntxt:hello\r\n", "$5\r\nhello\r\n"));
    EXPECT(becomes(RESP2_CONVERT, "!10\r\nERR a\r\nb\nc\r\n", "-ERR a  b c\r\n"));
    EXPECT(becomes(RESP2_CONVERT, ">2\r\n+message\r\n:1\r\n", "*2\r\n+message\r\n:1\r\n"));
    EXPECT(becomes(RESP2_CONVERT, "|1\r\n+ttl\r\n*2\r\n:1\r\n,1\r\n~1\r\n:5\r\n", "*1\r\n:5\r\n"));
    EXPECT(becomes(RESP2_CONVERT, "*2\r\n:1\r\n|2\r\n+a\r\n_\r\n+b\r\n%1\r\n:1\r\n:2\r\n,5\r\n",
                   "*2\r\n:1\r\n$1\r\n5\r\n"));
}

TEST("the null array rule is the general rule with null arrays") {
    EXPECT(becomes(RESP2_NULL_ARRAY, "_\r\n", "*-1\r\n"));
    EXPECT(becomes(RESP2_NULL_ARRAY, "*2\r\n*2\r\n,1.5\r\n,2\r\n_\r\n", "*2\r\n*2\r\n$3\r\n1.5\r\n$1\r\n2\r\n*-1\r\n"));
}

TEST("pairs are dissolved into the top array, and what has none stays flat") {
    EXPECT(becomes(RESP2_PAIRS, "*2\r\n*2\r\n$1\r\na\r\n,1\r\n*2\r\n$1\r\nb\r\n,2.5\r\n",
                   "*4\r\n$1\r\na\r\n$1\r\n1\r\n$1\r\nb\r\n$3\r\n2.5\r\n"));
    EXPECT(becomes(RESP2_PAIRS, "*2\r\n$1\r\na\r\n,1\r\n", "*2\r\n$1\r\na\r\n$1\r\n1\r\n"));
    EXPECT(becomes(RESP2_PAIRS, "|1\r\n+a\r\n+b\r\n*1\r\n*2\r\n:1\r\n,1\r\n", "*2\r\n:1\r\n$1\r\n1\r\n"));
    EXPECT(becomes(RESP2_PAIRS, "*0\r\n", "*0\r\n"));
    EXPECT(becomes(RESP2_PAIRS, "*-1\r\n", "*-1\r\n"));
    EXPECT(becomes(RESP2_PAIRS, "_\r\n", "$-1\r\n"));
}

static uint64_t random_next(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    return *state ^= *state << 17;
}

/* A random complete reply of every type; returns its size. */
static size_t generate(char *to, uint64_t *state, int depth) {
    static const char *const leaves[] = {"_\r\n",          "#t\r\n",          ",1.5\r\n",        ":7\r\n",
                                         "+s\r\n",         "$3\r\na\r\n\r\n", "=5\r\ntxt:x\r\n", "(99\r\n",
                                         "!3\r\nE\nx\r\n", "-ERR\r\n",        "$-1\r\n"};
    static const char aggregates[] = "*~>%|";
    if (depth == 0 || random_next(state) % 3 == 0) {
        const char *leaf = leaves[random_next(state) % (sizeof leaves / sizeof *leaves)];
        return (size_t)sprintf(to, "%s", leaf);
    }
    char type = aggregates[random_next(state) % 5];
    unsigned count = random_next(state) % 4;
    size_t at = (size_t)sprintf(to, "%c%u\r\n", type, count);
    unsigned elements = count * (type == '%' || type == '|' ? 2 : 1) + (type == '|');
    for (unsigned i = 0; i < elements; i++) at += generate(to + at, state, depth - 1);
    return at;
}

TEST("whatever the reply, the general rules give one complete RESP2 reply") {
    uint64_t state = 123456789;
    static char reply[1 << 20];
    for (int round = 0; round < 3000; round++) {
        size_t n = generate(reply, &state, 5);
        for (int rule = RESP2_CONVERT; rule <= RESP2_NULL_ARRAY; rule++) {
            begin();
            EXPECT(resp2_append(&chain, &pool, rule, (const uint8_t *)reply, n));
            char *text = contents();
            struct resp_framer framer = {0};
            size_t length = 0, at = 0;
            uint64_t need;
            EXPECT(resp_frame(&framer, (const uint8_t *)text, chain.bytes, &length, &need) == RESP_REPLY);
            EXPECT(length == chain.bytes);
            struct resp_element element;
            while (at < length && resp_element((const uint8_t *)text + at, length - at, &element)) {
                EXPECT(strchr("+-:$*", element.type) != NULL);
                at += element.size;
            }
            EXPECT(at == length);
            free(text);
            end();
        }
    }
}
