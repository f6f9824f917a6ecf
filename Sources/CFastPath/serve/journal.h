/* journal — what has been acknowledged and what has been carried out, as records for a file. Somebody else writes the
 * file, a batch at a time, while the next batch fills:
 *
 *   journal_put, journal_done ─► filling ──journal_take──► writing ──journal_written──► in the file
 *
 * Batches are numbered; what waits for a record waits for the number of the batch that has it. A record, its numbers
 * with the lowest byte first:
 *
 *   'P' place:8 expire_at_ms:8 key_length:4 value_length:4 key value   acknowledged; replaces what had the place before
 *   'D' place:8                                                        carried out, or given up
 *
 * Memory: owner BUDGET_JOURNAL, for two batches. Loop thread only. */
#ifndef FERRITE_SERVE_JOURNAL_H
#define FERRITE_SERVE_JOURNAL_H

#include "base/bytes.h"
#include "store/store.h"

enum journal_state {
    JOURNAL_NONE, /* nothing is noted, and nothing waits for it */
    JOURNAL_ON,
    JOURNAL_OFF /* it cannot be written: nothing is noted, and what waits does so until its file is gone */
};

struct journal {
    enum journal_state state;
    struct budget *budget;
    struct buffer filling, writing;
    size_t filling_puts; /* of its bytes, those of acknowledgements */
    bool is_writing;
    bool is_short;           /* a record found no memory: the file no longer tells the truth */
    uint64_t filling_number; /* from 1 */
};

void journal_init(struct journal *journal, struct budget *budget);
void journal_deinit(struct journal *journal);

/* Whether so many acknowledgements, with so many bytes of keys and values, can be noted now: then journal_put will not
 * fail for them. */
bool journal_has_room(struct journal *journal, uint32_t count, size_t bytes);
void journal_put(struct journal *journal, uint64_t place, const struct store_key *key, const uint8_t *value,
                 uint32_t length, uint64_t expire_at_ms);
void journal_done(struct journal *journal, uint64_t place);

/* The number of the batch in which what is noted now will stand; UINT64_MAX while it is off. */
uint64_t journal_number(const struct journal *journal);

/* There is nothing to be written, nor being written. */
static inline bool journal_is_idle(const struct journal *journal) {
    return !journal->is_writing && journal->filling.length == 0;
}

/* What has been noted, to be written; false when there is nothing, or the last batch is not written yet. */
bool journal_take(struct journal *journal);
void journal_written(struct journal *journal);

void journal_turn_on(struct journal *journal);
/* What was noted and is not written is forgotten. */
void journal_turn_off(struct journal *journal);

#endif
