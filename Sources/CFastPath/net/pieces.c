/* pieces — memory that lasts a turn; see pieces.h. */
#include "net/pieces.h"

#include <stdint.h>
#include <stdlib.h>

#include "base/check.h"

struct piece {
    struct piece *older;
    uint8_t bytes[PIECE_BYTES];
};

void pieces_init(struct pieces *pieces, struct budget *budget, enum budget_owner owner) {
    *pieces = (struct pieces){.budget = budget, .owner = owner};
}

static void free_from(struct pieces *pieces, struct piece *piece) {
    while (piece) {
        struct piece *older = piece->older;
        free(piece);
        budget_give(pieces->budget, pieces->owner, sizeof *piece);
        piece = older;
    }
}

void pieces_recycle(struct pieces *pieces) {
    pieces->used = 0;
    if (likely(!pieces->newest || !pieces->newest->older)) return;
    free_from(pieces, pieces->newest->older);
    pieces->newest->older = NULL;
}

void pieces_deinit(struct pieces *pieces) {
    free_from(pieces, pieces->newest);
    pieces->newest = NULL;
}

void *pieces_room(struct pieces *pieces, size_t n) {
    CHECK(n <= PIECE_BYTES / 2);
    if (unlikely(!pieces->newest || PIECE_BYTES - pieces->used < n)) {
        struct piece *piece = malloc(sizeof *piece);
        CHECK(piece);
        budget_force(pieces->budget, pieces->owner, sizeof *piece);
        piece->older = pieces->newest;
        pieces->newest = piece;
        pieces->used = 0;
    }
    return pieces->newest->bytes + pieces->used;
}
