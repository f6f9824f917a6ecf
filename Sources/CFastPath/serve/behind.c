/* behind — see behind.h. */
#include "serve/behind.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

#define WRITTEN_MAX (1u << 20)
#define BUCKETS (1u << 14)
#define HEAP_BYTES 16u /* what malloc adds to a piece */
/* A heartbeat that takes longer is late as well. */
#define LATE_NS (NS_PER_S / 2)

bool behind_init(struct behind *behind, struct budget *budget, size_t bytes_max) {
    behind->budget = budget;
    behind->bytes_max = bytes_max;
    behind->queued_first = behind->queued_last = behind->flying_first = behind->flying_last = TABLE_NONE;
    behind->stuck_first = behind->done_first = behind->done_last = TABLE_NONE;
    behind->next_place = 1;
    journal_init(&behind->journal, budget);
    if (bytes_max == 0) return true;
    if (!budget_take(budget, BUDGET_BEHIND, BUCKETS * sizeof(uint32_t))) return false;
    behind->buckets = malloc(BUCKETS * sizeof(uint32_t));
    CHECK(behind->buckets);
    memset(behind->buckets, 0xff, BUCKETS * sizeof(uint32_t));
    behind->bucket_mask = BUCKETS - 1;
    return table_init(&behind->table, sizeof(struct written), WRITTEN_MAX, budget, BUDGET_BEHIND);
}

static struct written *at(const struct behind *behind, uint32_t index) {
    return index == TABLE_NONE ? NULL : table_record(&behind->table, index);
}

static uint32_t *bucket_of(const struct behind *behind, uint64_t hash) {
    return &behind->buckets[hash & behind->bucket_mask];
}

static size_t held_bytes(uint32_t key_length, uint32_t value_length) {
    return (size_t)key_length + value_length + HEAP_BYTES;
}

/* What a write counts for, its record included. */
static size_t cost(size_t bytes) { return bytes + HEAP_BYTES + sizeof(struct written); }

static void free_bytes(struct behind *behind, struct written *written) {
    if (!written->bytes) return;
    size_t bytes = held_bytes(written->key_length, written->value_length);
    free(written->bytes);
    written->bytes = NULL;
    budget_give(behind->budget, BUDGET_BEHIND, bytes);
    behind->bytes -= cost((size_t)written->key_length + written->value_length);
}

static void leave_bucket(struct behind *behind, struct written *written) {
    uint32_t *link = bucket_of(behind, written->hash);
    while (*link != written->item.index) link = &at(behind, *link)->bucket_next;
    *link = written->bucket_next;
}

static void end(struct behind *behind, struct written *written) {
    if (!written->ghost) leave_bucket(behind, written);
    free_bytes(behind, written);
    table_give(&behind->table, written);
}

void behind_deinit(struct behind *behind) {
    journal_deinit(&behind->journal);
    if (behind->bytes_max == 0) return;
    for (uint32_t i = 0; i < behind->table.used; i++) {
        struct written *written = table_record(&behind->table, i);
        if (written->item.generation & 1) end(behind, written);
    }
    table_deinit(&behind->table);
    budget_give(behind->budget, BUDGET_BEHIND, BUCKETS * sizeof(uint32_t));
    free(behind->buckets);
}

/* ---- finding ---- */

static struct written *find_last(const struct behind *behind, const struct store_key *key) {
    struct written *written = at(behind, *bucket_of(behind, key->hash));
    for (; written; written = at(behind, written->bucket_next)) {
        if (written->hash == key->hash && written->key_length == key->length &&
            memcmp(written->bytes, key->bytes, key->length) == 0)
            return written;
    }
    return NULL;
}

struct written *behind_find(const struct behind *behind, const struct store_key *key) {
    struct written *written = find_last(behind, key);
    return written && !written->done ? written : NULL;
}

bool behind_has_hash(const struct behind *behind, uint64_t hash) {
    struct written *written = at(behind, *bucket_of(behind, hash));
    while (written && written->hash != hash) written = at(behind, written->bucket_next);
    return written;
}

bool behind_has_room(const struct behind *behind, uint32_t count, size_t bytes) {
    return behind->bytes + bytes + count * cost(0) <= behind->bytes_max && behind->table.live + count < WRITTEN_MAX;
}

bool behind_finds_room(const struct behind *behind, const void *who, uint32_t count, size_t bytes) {
    if (behind->kept_for == who) return behind_has_room(behind, count, bytes);
    return behind_has_room(behind, count + behind->kept_count, bytes + behind->kept_bytes);
}

bool behind_may_note(struct behind *behind, const void *who, uint32_t count, size_t bytes) {
    bool is_kept = behind->kept_journal && behind->kept_for != who;
    return !is_kept && journal_has_room(&behind->journal, count, bytes);
}

void behind_keep_room(struct behind *behind, const void *who, uint32_t count, size_t bytes, bool in_journal) {
    if (behind->kept_for && behind->kept_for != who) return;
    behind->kept_for = who;
    behind->kept_count = count;
    behind->kept_bytes = bytes;
    behind->kept_journal = in_journal;
}

void behind_give_up_room(struct behind *behind, const void *who) {
    if (behind->kept_for != who) return;
    behind->kept_for = NULL;
    behind->kept_count = 0;
    behind->kept_bytes = 0;
    behind->kept_journal = false;
}

/* A quarter, so that one does not make all others wait. */
bool behind_could_hold(const struct behind *behind, uint32_t count, size_t bytes) {
    return bytes + count * cost(0) <= behind->bytes_max / 4;
}

/* ---- taking ---- */

static void append(struct behind *behind, struct written *written) {
    written->next = TABLE_NONE;
    if (behind->queued_last == TABLE_NONE) behind->queued_first = written->item.index;
    else at(behind, behind->queued_last)->next = written->item.index;
    behind->queued_last = written->item.index;
    behind->queued++;
}

static uint8_t *copy(struct behind *behind, const struct store_key *key, const uint8_t *value, uint32_t length) {
    if (!budget_take(behind->budget, BUDGET_BEHIND, held_bytes(key->length, length))) return NULL;
    uint8_t *bytes = malloc((size_t)key->length + length + 1);
    CHECK(bytes);
    memcpy(bytes, key->bytes, key->length);
    memcpy(bytes + key->length, value, length);
    return bytes;
}

/* `place`: of a new one. */
static struct written *take(struct behind *behind, const struct store_key *key, const uint8_t *value, uint32_t length,
                            uint64_t expire_at_ms, uint64_t place, uint64_t now_ns) {
    struct written *old = find_last(behind, key);
    uint8_t *bytes = copy(behind, key, value, length);
    if (!bytes) return NULL;
    bool replaces = old && !old->flies;
    struct written *written = replaces ? old : table_take(&behind->table);
    if (!written) {
        free(bytes);
        budget_give(behind->budget, BUDGET_BEHIND, held_bytes(key->length, length));
        return NULL;
    }
    if (replaces) {
        free_bytes(behind, written);
    } else {
        if (old) {
            old->ghost = true;
            leave_bucket(behind, old);
        }
        written->hash = key->hash;
        written->place = place;
        written->taken_ns = now_ns;
        if (behind->next_place <= place) behind->next_place = place + 1;
        written->is_read = old && old->is_read;
        written->refused_ns = old ? old->refused_ns : 0;
        written->bucket_next = *bucket_of(behind, key->hash);
        *bucket_of(behind, key->hash) = written->item.index;
        append(behind, written);
    }
    written->bytes = bytes;
    written->key_length = key->length;
    written->value_length = length;
    written->expire_at_ms = expire_at_ms;
    written->is_late = false;
    behind->bytes += cost((size_t)key->length + length);
    return written;
}

bool behind_put(struct behind *behind, const struct store_key *key, const uint8_t *value, uint32_t length,
                uint64_t expire_at_ms, uint64_t now_ns) {
    const struct written *written = take(behind, key, value, length, expire_at_ms, behind->next_place, now_ns);
    if (written) journal_put(&behind->journal, written->place, key, value, length, expire_at_ms);
    return written;
}

/* ---- order ---- */

static bool begins_at(const struct behind *behind, uint32_t first, uint64_t place) {
    return first == TABLE_NONE || at(behind, first)->place >= place;
}

/* What was refused for now has been sent again, behind what had been sent meanwhile. */
static bool flies_in_disorder(const struct behind *behind, uint64_t place) {
    for (uint32_t i = behind->flying_first; i != TABLE_NONE; i = at(behind, i)->next)
        if (at(behind, i)->place < place) return true;
    return false;
}

bool behind_is_settled(const struct behind *behind, uint64_t place) {
    return begins_at(behind, behind->flying_first, place) && begins_at(behind, behind->queued_first, place) &&
           begins_at(behind, behind->stuck_first, place) && begins_at(behind, behind->done_first, place) &&
           !(behind->disordered && flies_in_disorder(behind, place));
}

static const struct written *older(const struct written *one, const struct written *other) {
    return !one || (other && other->place < one->place) ? other : one;
}

static const struct written *find_oldest(const struct behind *behind) {
    const struct written *oldest = older(at(behind, behind->queued_first), at(behind, behind->stuck_first));
    for (uint32_t i = behind->flying_first; i != TABLE_NONE; i = at(behind, i)->next) {
        oldest = older(oldest, at(behind, i));
        if (!behind->disordered) break;
    }
    return oldest;
}

uint64_t behind_oldest(const struct behind *behind) {
    const struct written *oldest = find_oldest(behind);
    return oldest ? oldest->place : behind->next_place;
}

uint64_t behind_oldest_ns(const struct behind *behind) {
    const struct written *oldest = find_oldest(behind);
    return oldest ? oldest->taken_ns : 0;
}

/* ---- sending ---- */

const struct written *behind_queued(const struct behind *behind) { return at(behind, behind->queued_first); }

static bool is_over(const struct written *written, uint64_t now_ns) {
    return written->expire_at_ms <= now_ns / NS_PER_MS; /* never, of one without an end */
}

struct written *behind_send(struct behind *behind, uint64_t now_ns) {
    struct written *written = at(behind, behind->queued_first);
    if (!written) return NULL;
    behind->queued_first = written->next;
    if (behind->queued_first == TABLE_NONE) behind->queued_last = TABLE_NONE;
    behind->queued--;
    written->next = TABLE_NONE;
    if (behind->flying_last == TABLE_NONE) behind->flying_first = written->item.index;
    else {
        behind->disordered |= written->place < at(behind, behind->flying_last)->place;
        at(behind, behind->flying_last)->next = written->item.index;
    }
    behind->flying_last = written->item.index;
    behind->flying++;
    written->flies = true;
    written->sent_ns = now_ns;
    written->deletes = is_over(written, now_ns);
    return written;
}

const struct written *behind_flying(const struct behind *behind) { return at(behind, behind->flying_first); }

static struct written *take_flying(struct behind *behind) {
    struct written *written = at(behind, behind->flying_first);
    if (!written) return NULL;
    behind->flying_first = written->next;
    if (behind->flying_first == TABLE_NONE) {
        behind->flying_last = TABLE_NONE;
        behind->disordered = false;
    }
    behind->flying--;
    return written;
}

/* Back into the queue at its place, at `from` at the earliest; returns where the next one may stand. */
static uint32_t *requeue(struct behind *behind, uint32_t *from, struct written *written) {
    while (*from != TABLE_NONE && at(behind, *from)->place < written->place) from = &at(behind, *from)->next;
    written->flies = false;
    written->next = *from;
    *from = written->item.index;
    if (written->next == TABLE_NONE) behind->queued_last = written->item.index;
    behind->queued++;
    return &written->next;
}

static bool same_key(const struct written *one, const struct written *other) {
    return one->hash == other->hash && one->key_length == other->key_length &&
           memcmp(one->bytes, other->bytes, one->key_length) == 0;
}

/* It is over: gone at once, or when the journal says so. */
static void retire(struct behind *behind, struct written *written) {
    if (behind->journal.state == JOURNAL_NONE) {
        end(behind, written);
        return;
    }
    journal_done(&behind->journal, written->place);
    written->done = true;
    written->noted_by = journal_number(&behind->journal);
    /* Nearly always behind the last. */
    struct written *last = at(behind, behind->done_last);
    uint32_t *link = last && last->place < written->place ? &last->next : &behind->done_first;
    for (struct written *other; (other = at(behind, *link)) && other->place < written->place;) link = &other->next;
    written->next = *link;
    *link = written->item.index;
    if (written->next == TABLE_NONE) behind->done_last = written->item.index;
}

void behind_noted(struct behind *behind, uint64_t number) {
    struct written *written;
    while ((written = at(behind, behind->done_first)) && written->noted_by <= number) {
        behind->done_first = written->next;
        end(behind, written);
    }
    if (behind->done_first == TABLE_NONE) behind->done_last = TABLE_NONE;
}

void behind_unnote(struct behind *behind) {
    for (struct written *written = at(behind, behind->done_first); written; written = at(behind, written->next))
        written->noted_by = UINT64_MAX;
}

/* A ghost's successor stands for it from now on, and its place is kept until that is carried out. Of several of one key
 * the oldest place is enough. */
static void stick(struct behind *behind, struct written *ghost) {
    uint32_t *link = &behind->stuck_first;
    for (struct written *other; (other = at(behind, *link)); link = &other->next) {
        if (same_key(other, ghost) && other->place < ghost->place) {
            retire(behind, ghost);
            return;
        }
        if (other->place > ghost->place) break;
    }
    ghost->next = *link;
    *link = ghost->item.index;
}

/* A write of the key has been carried out, or given up: nobody waits for what was before it. */
static void unstick(struct behind *behind, const struct written *written) {
    uint32_t *link = &behind->stuck_first;
    for (struct written *ghost; (ghost = at(behind, *link));) {
        if (!same_key(ghost, written) || ghost->place > written->place) {
            link = &ghost->next;
            continue;
        }
        *link = ghost->next;
        retire(behind, ghost);
    }
}

static void leave_queue(struct behind *behind, struct written *written) {
    struct written *before = NULL;
    uint32_t *link = &behind->queued_first;
    while (*link != written->item.index) {
        before = at(behind, *link);
        link = &before->next;
    }
    *link = written->next;
    if (behind->queued_last == written->item.index) behind->queued_last = before ? before->item.index : TABLE_NONE;
    behind->queued--;
}

/* Two of one key: the first was on its way, or was to be sent no more, when the second was taken. */
bool behind_restore(struct behind *behind, uint64_t place, const struct store_key *key, const uint8_t *value,
                    uint32_t length, uint64_t expire_at_ms, uint64_t now_ns) {
    struct written *old = find_last(behind, key);
    if (old) {
        leave_queue(behind, old);
        leave_bucket(behind, old);
        old->ghost = true;
        stick(behind, old);
    }
    return take(behind, key, value, length, expire_at_ms, place, now_ns);
}

/* Since when the server refuses the key is its last write's to know: whoever waits for the key's place is not to wait
 * anew with each write. */
static void note_refused(struct behind *behind, const struct written *ghost, uint64_t since_ns) {
    struct written *last = at(behind, *bucket_of(behind, ghost->hash));
    while (last && !same_key(last, ghost)) last = at(behind, last->bucket_next);
    if (last && (since_ns == 0 || last->refused_ns == 0)) last->refused_ns = since_ns;
}

/* Who has been told that it is gone must not see it again, nor anybody for much longer than was asked for. */
static bool must_be_sent_again(struct written *written, uint64_t now_ns) {
    if (written->ghost || written->deletes || written->expire_at_ms == STORE_NEVER) return false;
    if (is_over(written, now_ns)) return true;
    bool is_late = !written->is_late && now_ns - written->sent_ns >= LATE_NS;
    written->is_late |= is_late;
    return is_late;
}

enum behind_outcome behind_done(struct behind *behind, enum behind_outcome outcome, uint64_t now_ns) {
    struct written *written = take_flying(behind);
    if (!written) return outcome;
    if (outcome == BEHIND_CONFIRMED && must_be_sent_again(written, now_ns)) {
        requeue(behind, &behind->queued_first, written);
        return BEHIND_RETRIED;
    }
    if (outcome == BEHIND_RETRIED || (outcome == BEHIND_REFUSED && written->ghost)) {
        if (written->refused_ns == 0) written->refused_ns = now_ns;
        if (written->ghost) {
            note_refused(behind, written, written->refused_ns);
            stick(behind, written);
        } else {
            requeue(behind, &behind->queued_first, written);
        }
        return outcome;
    }
    written->refused_ns = 0; /* a later write of the key is not to inherit it */
    if (written->ghost) note_refused(behind, written, 0);
    unstick(behind, written);
    retire(behind, written);
    return outcome;
}

void behind_unsend(struct behind *behind) {
    uint32_t *from = &behind->queued_first;
    uint64_t last = 0;
    struct written *written;
    while ((written = take_flying(behind))) {
        if (written->ghost) {
            stick(behind, written);
            continue;
        }
        from = requeue(behind, written->place > last ? from : &behind->queued_first, written);
        last = written->place;
    }
}
