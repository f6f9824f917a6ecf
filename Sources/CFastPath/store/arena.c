/* arena — reserve, take, drop: see arena.h. */
#include "store/arena.h"

#include <sys/mman.h>

#include "base/check.h"

bool arena_init(struct arena *arena, struct budget *budget, size_t reserved, size_t limit, size_t granule) {
    void *base = mmap(NULL, reserved, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) return false;
    /* A huge page would make one touched byte cost 2 MiB that nobody has paid for. Fails only on kernels that know no
     * huge pages. */
    (void)madvise(base, reserved, MADV_NOHUGEPAGE);
    *arena = (struct arena){.base = base, .reserved = reserved, .limit = limit, .granule = granule, .budget = budget};
    return true;
}

void arena_deinit(struct arena *arena) { CHECK(munmap(arena->base, arena->reserved) == 0); }

bool arena_take(struct arena *arena, enum budget_owner owner, size_t bytes) {
    if (bytes > arena_left(arena)) return false;
    if (!budget_take(arena->budget, owner, bytes)) return false;
    arena->used += bytes;
    return true;
}

void arena_drop(struct arena *arena, enum budget_owner owner, void *address, size_t bytes) {
    if (bytes == 0) return;
    CHECK(madvise(address, bytes, MADV_DONTNEED) == 0);
    CHECK(bytes <= arena->used);
    arena->used -= bytes;
    budget_give(arena->budget, owner, bytes);
}
