/* frame_fuzz — libFuzzer: a reply framed whole and in pieces is the same; what is framed can be read and rewritten.
 *
 *   clang -std=gnu2x -fsanitize=fuzzer,address,undefined -fuse-ld=lld -ISources/CFastPath Tests/Fuzz/frame_fuzz.c \
 *       Sources/CFastPath/resp/{parse,frame,reply,commands}.c Sources/CFastPath/base/{budget,bytes}.c */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "resp/commands.h"
#include "resp/frame.h"

static struct budget budget;
static struct block_pool pool;

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc, (void)argv;
    budget_init(&budget, (size_t)64 << 20);
    block_pool_init(&pool, &budget, 16);
    return 0;
}

static void read_elements(const uint8_t *reply, size_t n) {
    struct resp_element element;
    for (size_t at = 0; at < n; at += element.size) CHECK(resp_element(reply + at, n - at, &element));
}

static void rewrite(const uint8_t *reply, size_t n) {
    for (int rule = RESP2_SAME; rule <= RESP2_PAIRS; rule++) {
        struct chain chain = {0};
        resp2_append(&chain, &pool, (enum resp2_rule)rule, reply, n);
        chain_clear(&chain, &pool);
        CHECK(pool.live_count == 0);
    }
}

static void learn(const uint8_t *reply, size_t n) {
    struct commands *commands = commands_create();
    CHECK(commands);
    commands_learn(commands, reply, n);
    commands_destroy(commands);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n) {
    struct resp_framer whole = {0}, pieces = {0};
    size_t length = 0, piece_length = 0;
    uint64_t need = 0;
    enum resp_framed framed = resp_frame(&whole, bytes, n, &length, &need);
    CHECK(framed != RESP_PARTIAL || need > n);
    CHECK(framed != RESP_REPLY || (length >= 3 && length <= n));
    size_t step = n > 4096 ? n / 64 : 1;
    enum resp_framed trickled = RESP_PARTIAL;
    for (size_t have = 0; trickled == RESP_PARTIAL; have = have + step < n ? have + step : n) {
        uint8_t *copy = malloc(have + 1);
        memcpy(copy, bytes, have);
        trickled = resp_frame(&pieces, copy, have, &piece_length, &need);
        free(copy);
        if (have == n) break;
    }
    CHECK(trickled == framed);
    if (framed != RESP_REPLY) return 0;
    CHECK(piece_length == length);
    read_elements(bytes, length);
    rewrite(bytes, length);
    learn(bytes, length);
    return 0;
}
