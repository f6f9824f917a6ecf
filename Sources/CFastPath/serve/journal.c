/* journal — see journal.h. */
#include "serve/journal.h"

#include <string.h>

#define FILL_MAX ((size_t)1 << 20)  /* of one batch, unless one acknowledgement alone is larger */
#define KEPT_MAX ((size_t)64 << 10) /* of a buffer that is empty */
#define PUT_BYTES 25u
#define DONE_BYTES 9u
/* What the kernel may hold of the file that is not on the disk yet: the writer sees to it. */
#define DIRTY_BYTES ((size_t)2 << 20)

void journal_init(struct journal *journal, struct budget *budget) {
    journal->budget = budget;
    journal->filling_number = 1;
}

void journal_deinit(struct journal *journal) {
    journal_turn_off(journal);
    journal->state = JOURNAL_NONE;
}

static void append(struct journal *journal, const void *bytes, size_t length) {
    journal->is_short |= !buffer_append(&journal->filling, journal->budget, BUDGET_JOURNAL, bytes, length);
}

bool journal_has_room(struct journal *journal, uint32_t count, size_t bytes) {
    if (journal->state != JOURNAL_ON) return journal->state == JOURNAL_NONE;
    size_t room = count * (size_t)PUT_BYTES + bytes;
    /* What is done comes as it comes, and keeps nobody out. */
    if (journal->filling_puts && journal->filling_puts + room > FILL_MAX) return false;
    return buffer_room(&journal->filling, journal->budget, BUDGET_JOURNAL, room);
}

void journal_put(struct journal *journal, uint64_t place, const struct store_key *key, const uint8_t *value,
                 uint32_t length, uint64_t expire_at_ms) {
    if (journal->state != JOURNAL_ON) return;
    uint8_t head[PUT_BYTES] = {'P'};
    memcpy(head + 1, &place, 8);
    memcpy(head + 9, &expire_at_ms, 8);
    memcpy(head + 17, &key->length, 4);
    memcpy(head + 21, &length, 4);
    append(journal, head, sizeof head);
    append(journal, key->bytes, key->length);
    append(journal, value, length);
    journal->filling_puts += sizeof head + key->length + length;
}

void journal_done(struct journal *journal, uint64_t place) {
    if (journal->state != JOURNAL_ON) return;
    uint8_t record[DONE_BYTES] = {'D'};
    memcpy(record + 1, &place, 8);
    append(journal, record, sizeof record);
}

uint64_t journal_number(const struct journal *journal) {
    return journal->state == JOURNAL_OFF ? UINT64_MAX : journal->filling_number;
}

bool journal_take(struct journal *journal) {
    if (journal->is_writing || !journal->filling.length) return false;
    struct buffer empty = journal->writing;
    journal->writing = journal->filling;
    journal->filling = empty;
    journal->filling_puts = 0;
    journal->is_writing = true;
    journal->filling_number++;
    return true;
}

static void empty(struct journal *journal, struct buffer *buffer) {
    buffer->length = 0;
    if (buffer->capacity > KEPT_MAX) buffer_free(buffer, journal->budget, BUDGET_JOURNAL);
}

void journal_written(struct journal *journal) {
    journal->is_writing = false;
    empty(journal, &journal->writing);
}

void journal_turn_on(struct journal *journal) {
    if (journal->state == JOURNAL_ON) return;
    journal->state = JOURNAL_ON;
    budget_force(journal->budget, BUDGET_JOURNAL, DIRTY_BYTES);
}

void journal_turn_off(struct journal *journal) {
    if (journal->state == JOURNAL_ON) budget_give(journal->budget, BUDGET_JOURNAL, DIRTY_BYTES);
    journal->state = JOURNAL_OFF;
    journal->is_writing = journal->is_short = false;
    journal->filling_puts = 0;
    buffer_free(&journal->filling, journal->budget, BUDGET_JOURNAL);
    buffer_free(&journal->writing, journal->budget, BUDGET_JOURNAL);
}
