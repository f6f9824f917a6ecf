/* ring_test — what only io_uring owes: saying why it cannot be had. The rest is in loop_test. */
#include "denied.h"
#include "net/loop.h"
#include "test.h"

#define REGISTER_BUFFER_RING 22 /* IORING_REGISTER_PBUF_RING */

static const struct loop_options options = {.connections_max = 16, .receive_buffers = 8};

/* Whether creating fails for a reason that begins and ends so, and leaves nothing charged. */
struct expected {
    const char *begins;
    const char *holds;
};

static bool fails_because(const void *context) {
    const struct expected *expected = context;
    struct budget budget;
    const char *why = NULL;
    budget_init(&budget, 64u << 20);
    struct loop *loop = loop_ring_create(&options, &budget, &why);
    bool good = !loop && why && strncmp(why, expected->begins, strlen(expected->begins)) == 0 &&
                strstr(why, expected->holds) && budget.used == 0;
    if (!good) fprintf(stderr, "io_uring: %s\n", loop ? "was not denied" : why ? why : "no reason given");
    return good;
}

static bool explains(uint32_t call, uint32_t argument, uint32_t error, const char *begins, const char *holds) {
    return holds_when_denied(call, argument, error, fails_because, &(struct expected){begins, holds});
}

TEST("io_uring says which call failed and the likely cause") {
    EXPECT(explains(SYS_io_uring_setup, ANY_ARGUMENT, EPERM, "io_uring_setup: Operation not permitted: ", "denies it"));
    EXPECT(explains(SYS_io_uring_setup, ANY_ARGUMENT, ENOSYS, "io_uring_setup: Function not implemented: ", "seccomp"));
    EXPECT(explains(SYS_io_uring_setup, ANY_ARGUMENT, ENOMEM, "io_uring_setup: Cannot allocate memory: ", "memlock"));
    EXPECT(explains(SYS_io_uring_setup, ANY_ARGUMENT, EINVAL, "io_uring_setup: Invalid argument: ", "older than 6.1"));
}

TEST("io_uring is given up when only a part of it is denied") {
    struct budget budget;
    const char *why;
    budget_init(&budget, 64u << 20);
    struct loop *loop = loop_ring_create(&options, &budget, &why);
    if (!loop) return; /* all of it is denied here */
    loop_destroy(loop);
    EXPECT(explains(SYS_io_uring_register, REGISTER_BUFFER_RING, EINVAL, "io_uring_register (buffer ring): ", "6.1"));
    EXPECT(explains(SYS_io_uring_enter, ANY_ARGUMENT, EPERM, "io_uring_enter (multishot receive): ", "not permitted"));
}

TEST("an engine that does not fit into the budget is not made") {
    struct budget budget;
    const char *why = NULL;
    budget_init(&budget, 8 * LOOP_BUFFER_BYTES);
    EXPECT(!loop_ring_create(&options, &budget, &why) && strstr(why, "local_memory") && budget.used == 0);
    EXPECT(!loop_poll_create(&options, &budget, &why) && strstr(why, "local_memory") && budget.used == 0);
}
