/* syncs — counts the process's calls of fdatasync, in the file that FERRITE_SYNCS names: eight bytes, in the machine's
 * order. While there is a file of that name with ".hangs" behind it they do not return. Loaded by LD_PRELOAD. */
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static _Atomic uint64_t *calls;
static char hangs[4096];

__attribute__((constructor)) static void begin(void) {
    int fd = open(getenv("FERRITE_SYNCS"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, sizeof *calls) != 0) abort();
    calls = mmap(NULL, sizeof *calls, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (calls == MAP_FAILED) abort();
    close(fd);
    snprintf(hangs, sizeof hangs, "%s.hangs", getenv("FERRITE_SYNCS"));
}

int fdatasync(int fd) {
    atomic_fetch_add(calls, 1);
    while (access(hangs, F_OK) == 0) usleep(10000);
    return (int)syscall(SYS_fdatasync, fd);
}
