/* denied — runs a body in a child to which a seccomp filter denies a system call, as container runtimes do. */
#ifndef FERRITE_TEST_DENIED_H
#define FERRITE_TEST_DENIED_H

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define ANY_ARGUMENT UINT32_MAX

/* Denies the call with `error`; only if its second argument is `argument`, unless that is ANY_ARGUMENT. */
static bool deny(uint32_t call, uint32_t argument, uint32_t error) {
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, argument, 0, argument == ANY_ARGUMENT ? 0 : 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof filter / sizeof *filter, .filter = filter};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

/* Whether the body, run where the call is denied, returned true. */
static bool holds_when_denied(uint32_t call, uint32_t argument, uint32_t error, bool (*body)(const void *),
                              const void *context) {
    pid_t child = fork();
    if (child == 0) _exit(deny(call, argument, error) && body(context) ? EXIT_SUCCESS : EXIT_FAILURE);
    int status = -1;
    return child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SUCCESS;
}

#endif
