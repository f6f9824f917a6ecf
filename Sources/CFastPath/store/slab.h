/* slab — memory for entries: runs of frames, cut into places of one size.
 *
 *   frames  | run of class 3 | free | run of class 40, 4 frames | large entry, 5 frames … |
 *   run     [ place | place | … | not yet used ]
 *
 * A frame is 16 KiB of addresses. A run is one or more frames in a row; it belongs to a size class, or is one large
 * entry. Frames are paid for one by one as a run fills; the last frame of a large entry by the kernel's pages. What
 * becomes free stays paid for (`warm`) until it is used again or slab_trim returns it.
 * Evicts nothing and knows no index: when there is no memory, it says so. Owner BUDGET_SLABS. Loop thread only. */
#ifndef FERRITE_STORE_SLAB_H
#define FERRITE_STORE_SLAB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/arena.h"
#include "store/entry.h"

#define FRAME_BYTES 16384u
#define NO_RUN UINT32_MAX
#define NO_PLACE UINT16_MAX
#define SLAB_CLASS_MAX 64u
#define SLAB_LARGE (SLAB_CLASS_MAX - 1) /* the class of all entries that are a run of their own */
#define SLAB_PLACE_MAX 21840u           /* the largest place: three in a run of four frames */

enum run_state {
    RUN_FREE = 0,
    RUN_HEAD,    /* the run begins in this frame */
    RUN_INNER,   /* the run began `distance` frames before */
    RUN_DRAINING /* as HEAD: being emptied, nothing is allocated here */
};

/* One per frame; but for state and distance it is meaningful at a run's first frame only. */
struct run {
    uint32_t ring_next, ring_previous;       /* all runs of the class */
    uint32_t partial_next, partial_previous; /* those with freed places */
    uint16_t live;                           /* places taken */
    uint16_t fresh;                          /* places from here on were never used */
    uint16_t free;                           /* list of freed places */
    uint16_t held;                           /* entries with holds */
    uint16_t frames;
    uint16_t distance;
    uint8_t slab_class;
    uint8_t state;
    uint8_t tail_granules; /* of a large entry: paid-for pages of its last frame, 0: the whole frame */
    uint8_t partial;       /* on the partial list */
};
_Static_assert(sizeof(struct run) == 32, "two runs a cache line");

struct slab_class {
    uint32_t place_bytes;
    uint16_t places; /* in a run */
    uint16_t frames; /* of a run */
    uint32_t ring;   /* any run of the class */
    uint32_t partial;
    uint32_t fresh_run; /* the one run that still has places never used */
    uint32_t run_count;
    uint32_t hand_run; /* where eviction stands in the ring, and in each run */
    uint32_t hand_place;
    uint32_t hand_stride; /* no common divisor with places: the hand comes to every place */
    uint32_t free_places; /* freed, over all runs */
    uint32_t coldness;    /* of what eviction has found here lately: see eviction.h */
};

struct slab {
    struct arena *arena;
    uint8_t *frames;
    struct run *runs;
    uint64_t *used; /* one bit a frame */
    uint64_t *paid; /* one bit a frame: wholly paid for */
    uint32_t frame_count;
    uint32_t first_free; /* no frame before it is free */
    uint32_t frame_high; /* no frame from here on was ever used */
    uint32_t runs_paid;  /* frames whose struct run is paid for */
    uint32_t warm_count; /* frames that are paid for and free */
    uint32_t class_count;
    size_t taken;      /* bytes from the arena for frames */
    size_t runs_taken; /* and for the run table, owner BUDGET_INDEX */
    struct slab_class classes[SLAB_CLASS_MAX];
    uint8_t class_of[SLAB_PLACE_MAX / 8 + 1]; /* by size in units of 8, rounded up */
};

/* Bytes of bitmaps and run table for so many frames. */
size_t slab_bitmap_bytes(uint32_t frame_count);

/* bitmaps: zeroed and paid for. runs: addresses only. */
void slab_init(struct slab *slab, struct arena *arena, uint64_t *bitmaps, struct run *runs, uint8_t *frames,
               uint32_t frame_count);

static inline uint32_t slab_class_for(const struct slab *slab, size_t bytes) {
    return bytes <= SLAB_PLACE_MAX ? slab->class_of[(bytes + 7) / 8] : SLAB_LARGE;
}

/* A place for an entry of so many bytes, marked ENTRY_USED; NULL when nothing is free and nothing can be paid for. */
struct entry *slab_take(struct slab *slab, uint32_t slab_class, size_t bytes);
/* The same from the class's freed places only. */
struct entry *slab_take_freed(struct slab *slab, uint32_t slab_class);
void slab_give(struct slab *slab, struct entry *entry);

/* Whether a large entry of `bytes` fits where `entry` lies, no more memory and no less. */
bool slab_large_fits(const struct slab *slab, const struct entry *entry, size_t bytes);

/* The first frame of the run that an entry lies in. */
uint32_t slab_run_of(const struct slab *slab, const struct entry *entry);

/* A run that gives up its entries: takes it out of the ring, so that neither slab_take nor eviction's hand comes here.
 * When it is empty, slab_drained frees it. */
void slab_drain(struct slab *slab, uint32_t run);
void slab_drained(struct slab *slab, uint32_t run);

/* Returns free frames to the kernel until `bytes` have gone or none is left; the bytes returned. */
size_t slab_trim(struct slab *slab, size_t bytes);

/* Whether so many frames in a row are free. */
bool slab_has_room(const struct slab *slab, uint32_t frames);

static inline struct entry *slab_entry(const struct slab *slab, uint32_t run, uint32_t place) {
    uint32_t place_bytes = slab->classes[slab->runs[run].slab_class].place_bytes;
    return (struct entry *)(slab->frames + (size_t)run * FRAME_BYTES + (size_t)place * place_bytes);
}

#endif
