/* pieces_test — what is written into a turn's pieces lasts until the next, and is charged for. */
#include "net/pieces.h"

#include "test.h"

TEST("what was written stays until the next turn, in however many pieces, and one piece is kept") {
    struct budget budget;
    budget_init(&budget, 1 << 20);
    struct pieces pieces;
    pieces_init(&pieces, &budget, BUDGET_TLS);
    char *written[10];
    for (int i = 0; i < 10; i++) {
        written[i] = pieces_room(&pieces, PIECE_BYTES / 2);
        memset(written[i], 'a' + i, 10000);
        pieces_used(&pieces, 10000);
    }
    for (int i = 0; i < 10; i++) {
        for (int at = 0; at < 10000; at++) EXPECT(written[i][at] == 'a' + i);
    }
    size_t held = budget.used_by[BUDGET_TLS];
    EXPECT(held >= 100000);
    pieces_recycle(&pieces);
    EXPECT(budget.used_by[BUDGET_TLS] >= PIECE_BYTES && budget.used_by[BUDGET_TLS] < 2 * PIECE_BYTES);
    EXPECT(pieces_room(&pieces, 1) == pieces_room(&pieces, 1));
    pieces_deinit(&pieces);
    EXPECT(budget.used == 0);
}
