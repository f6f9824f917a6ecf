/* poll_test — what only epoll owes: working on old kernels and under old profiles. The rest is in loop_test. */
#include "denied.h"
#include "net/loop.h"
#include "test.h"

static bool waits_and_wakes(const void *context) {
    (void)context;
    struct loop_options options = {.connections_max = 4, .receive_buffers = 4};
    struct budget budget;
    const char *why;
    budget_init(&budget, 64u << 20);
    struct loop *loop = loop_poll_create(&options, &budget, &why);
    struct loop_event event;
    if (!loop) return false;
    uint64_t before_ns = clock_now(&loop->clock);
    loop_wait(loop, before_ns + NS_PER_MS / 2);
    bool slept = clock_now(&loop->clock) >= before_ns + NS_PER_MS / 2 && !loop_next(loop, &event);
    loop_wake(loop);
    loop_wait(loop, LOOP_NO_DEADLINE);
    bool woken = loop_next(loop, &event) && event.kind == LOOP_WOKEN && !loop_next(loop, &event);
    loop_destroy(loop);
    return slept && woken;
}

TEST("epoll works without epoll_pwait2, which kernels before 5.11 lack and old profiles deny") {
    EXPECT(holds_when_denied(SYS_epoll_pwait2, ANY_ARGUMENT, ENOSYS, waits_and_wakes, NULL));
    EXPECT(holds_when_denied(SYS_epoll_pwait2, ANY_ARGUMENT, EPERM, waits_and_wakes, NULL));
}
