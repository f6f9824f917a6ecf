/* pieces — memory for what is made of received bytes and must last as long as they: until the next turn.
 *
 * Twice what a turn has received bounds it. One piece is kept; it is charged for as long as it is there. Loop thread
 * only. */
#ifndef FERRITE_NET_PIECES_H
#define FERRITE_NET_PIECES_H

#include "base/budget.h"

#define PIECE_BYTES (40960u - 8) /* with what leads to the next: a size that the allocator has */

struct piece;

struct pieces {
    struct budget *budget;
    enum budget_owner owner;
    struct piece *newest;
    size_t used; /* of the newest */
};

void pieces_init(struct pieces *pieces, struct budget *budget, enum budget_owner owner);
void pieces_deinit(struct pieces *pieces);
/* At the start of a turn. */
void pieces_recycle(struct pieces *pieces);

/* Room for n (<= PIECE_BYTES / 2) bytes, until pieces_recycle once pieces_used has said how many were written. */
void *pieces_room(struct pieces *pieces, size_t n);
static inline void pieces_used(struct pieces *pieces, size_t n) { pieces->used += n; }

#endif
