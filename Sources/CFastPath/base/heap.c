/* heap — jemalloc's settings, and what the process really holds; see heap.h. */
#define _GNU_SOURCE
#include "base/heap.h"

#include <fcntl.h>
#include <link.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Read by jemalloc when it starts. What is freed goes back to the kernel at once, since it is in no owner's sum any
 * more; the hit path does not come here, and blocks have a pool of their own. Two arenas, so that the loop shares
 * none with most of the control plane. */
const char *malloc_conf = "narenas:2,dirty_decay_ms:0,muzzy_decay_ms:0,tcache_max:1024";

int heap_open(void) { return open("/proc/self/statm", O_RDONLY | O_CLOEXEC); }

size_t heap_resident(int statm_fd) {
    char text[128];
    ssize_t n = pread(statm_fd, text, sizeof text - 1, 0);
    if (n <= 0) return 0;
    text[n] = 0;
    const char *resident = strchr(text, ' ');
    return resident ? strtoull(resident, NULL, 10) * (size_t)sysconf(_SC_PAGESIZE) : 0;
}

size_t heap_page_tables(void) {
    char text[4096];
    int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0) return 0;
    text[n] = 0;
    const char *at = strstr(text, "VmPTE:");
    return at ? strtoull(at + 6, NULL, 10) << 10 : 0;
}

/* Segments that are never written to are read from their file again when they are missed. */
static int forget_segments(struct dl_phdr_info *object, size_t size, void *context) {
    (void)size, (void)context;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (uint32_t i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &object->dlpi_phdr[i];
        if (segment->p_type != PT_LOAD || (segment->p_flags & PF_W)) continue;
        uintptr_t start = (object->dlpi_addr + segment->p_vaddr) & ~(page - 1);
        uintptr_t end = object->dlpi_addr + segment->p_vaddr + segment->p_memsz;
        madvise((void *)start, end - start, MADV_DONTNEED);
    }
    return 0;
}

void heap_forget_code(void) { dl_iterate_phdr(forget_segments, NULL); }
