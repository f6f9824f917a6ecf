/* parse_fuzz — libFuzzer: a request read whole and read in pieces is the same, and stays within its bytes.
 *
 *   clang -std=gnu2x -fsanitize=fuzzer,address,undefined -fuse-ld=lld -ISources/CFastPath Tests/Fuzz/parse_fuzz.c \
 *       Sources/CFastPath/resp/{parse,frame,reply,commands}.c Sources/CFastPath/base/{budget,bytes}.c */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "resp/commands.h"

static struct budget budget;
static struct resp_args args;
static struct commands *commands;

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc, (void)argv;
    budget_init(&budget, (size_t)64 << 20);
    commands = commands_create();
    return commands && resp_args_init(&args, &budget) ? 0 : -1;
}

/* What dispatch does with every request. */
static void look_up(void) {
    if (args.count == 0) return;
    const struct command *command = commands_find(commands, args.args, args.count);
    if (!command) return;
    uint32_t cursor = 0, key, keys = 0;
    while (command_next_key(command, args.args, args.count, &cursor, &key)) {
        CHECK(key < args.count);
        CHECK(++keys <= args.count);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n) {
    struct resp_progress whole = {0}, pieces = {0};
    size_t length = 0, piece_length = 0, need = 0;
    const char *error = NULL, *piece_error = NULL;
    enum resp_parsed parsed = resp_parse(&args, &whole, bytes, n, &length, &need, &error);
    if (parsed == RESP_REQUEST) look_up();
    CHECK(parsed != RESP_REQUEST || (length >= 1 && length <= n));
    CHECK(parsed != RESP_INCOMPLETE || need >= 1);
    size_t step = n > 4096 ? n / 64 : 1;
    enum resp_parsed trickled = RESP_INCOMPLETE;
    for (size_t have = 0; trickled == RESP_INCOMPLETE; have = have + step < n ? have + step : n) {
        uint8_t *copy = malloc(have + 1);
        memcpy(copy, bytes, have);
        trickled = resp_parse(&args, &pieces, copy, have, &piece_length, &need, &piece_error);
        free(copy);
        if (have == n) break;
    }
    CHECK(trickled == parsed);
    CHECK(parsed != RESP_REQUEST || piece_length == length);
    return 0;
}
