/* ring_reason — a table of the steps of making a ring and of the ways in which each is known to fail. */
#include "net/ring_reason.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <unistd.h>

enum cause { PROFILE, SYSCTL, NO_CALL, NO_MEMORY, OLD_KERNEL, NO_DESCRIPTOR, SILENCE, OTHER, CAUSE_COUNT };

#define CAUSES(call)                                                                                                 \
    {                                                                                                                \
        [PROFILE] = call ": Operation not permitted: a seccomp profile denies it, as containerd 2 and Docker 25 do " \
                         "by default",                                                                               \
        [SYSCTL] = call ": Operation not permitted: the sysctl kernel.io_uring_disabled forbids it",                 \
        [NO_CALL] = call ": Function not implemented: a seccomp profile hides it, or the kernel has no io_uring",    \
        [NO_MEMORY] = call ": Cannot allocate memory: the memlock limit (ulimit -l) is too small",                   \
        [OLD_KERNEL] = call ": Invalid argument: the kernel is older than 6.1",                                      \
        [NO_DESCRIPTOR] = call ": Too many open files: the limit of descriptors (ulimit -n) is too small",           \
        [SILENCE] = call ": Timer expired: it did not complete within a second",                                     \
        [OTHER] = call ": failed in a way that is not expected of any kernel",                                       \
    }

static const char *const reasons[][CAUSE_COUNT] = {
    [RING_SETUP] = CAUSES("io_uring_setup"),
    [RING_BUFFERS] = CAUSES("io_uring_register (buffer ring)"),
    [RING_SEND] = CAUSES("io_uring_enter (send)"),
    [RING_RECEIVE] = CAUSES("io_uring_enter (multishot receive)"),
};

static bool is_disabled(void) {
    char value = '0';
    int fd = open("/proc/sys/kernel/io_uring_disabled", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    bool known = read(fd, &value, 1) == 1;
    close(fd);
    return known && value != '0';
}

static enum cause cause_of(int error) {
    switch (error) {
    case EPERM:
    case EACCES: return is_disabled() ? SYSCTL : PROFILE;
    case ENOSYS: return NO_CALL;
    case ENOMEM: return NO_MEMORY;
    case EINVAL: return OLD_KERNEL;
    case EMFILE:
    case ENFILE: return NO_DESCRIPTOR;
    case ETIME: return SILENCE;
    default: return OTHER;
    }
}

const char *ring_reason(enum ring_step step, int error) { return reasons[step][cause_of(error)]; }
