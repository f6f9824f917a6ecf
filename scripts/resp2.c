/* resp2 — rewrites RESP3 replies as the engine would for a RESP2 client; part of scripts/commands --resp2.
 *
 * stdin:  "<request bytes> <reply bytes>\n", the request, its RESP3 reply; again and again
 * stdout: "<bytes>\n" and the reply rewritten by the request's own rule, or "-1\n" when it needs a RESP2 link */
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
#include "resp/commands.h"

static uint8_t *read_bytes(size_t n) {
    uint8_t *bytes = malloc(n + 1);
    CHECK(bytes && fread(bytes, 1, n, stdin) == n);
    return bytes;
}

static void write_chain(struct chain *chain, struct block_pool *pool) {
    printf("%zu\n", chain->bytes);
    for (const struct block *block = chain->head; block; block = block->next)
        fwrite(block->bytes + block->start, 1, block->end - block->start, stdout);
    chain_clear(chain, pool);
}

int main(void) {
    struct budget budget;
    struct block_pool pool;
    struct resp_args args;
    struct commands *commands = commands_create();
    budget_init(&budget, (size_t)1 << 30);
    block_pool_init(&pool, &budget, 16);
    CHECK(commands && resp_args_init(&args, &budget));

    size_t request_bytes, reply_bytes;
    while (scanf("%zu %zu", &request_bytes, &reply_bytes) == 2 && getchar() == '\n') {
        uint8_t *request = read_bytes(request_bytes), *reply = read_bytes(reply_bytes);
        struct resp_progress progress = {0};
        size_t length, need;
        const char *error;
        CHECK(resp_parse(&args, &progress, request, request_bytes, &length, &need, &error) == RESP_REQUEST);
        const struct command *command = commands_find(commands, args.args, args.count);
        CHECK(command);
        enum resp2_rule rule = command_resp2(command, args.count);
        struct chain chain = {0};
        if (rule == RESP2_SEPARATE) {
            printf("-1\n");
        } else {
            CHECK(resp2_append(&chain, &pool, rule, reply, reply_bytes));
            write_chain(&chain, &pool);
        }
        fflush(stdout);
        free(request);
        free(reply);
    }
    return 0;
}
