/* inbox — received bytes that could not be used up where they lay: half a request or reply, or what must wait.
 *
 * One contiguous piece each. Events point into it, so what this turn's events point to is neither moved nor freed
 * before the next turn: it is retired, and freed by inboxes_recycle. Loop thread only. */
#ifndef FERRITE_NET_INBOX_H
#define FERRITE_NET_INBOX_H

#include "base/bytes.h"

struct inbox {
    struct buffer buffer;
    size_t start;       /* bytes already used */
    uint64_t lent_turn; /* the last turn whose events point into it */
};

/* What all inboxes of one owner share. */
struct inboxes {
    struct budget *budget;
    enum budget_owner owner;
    uint64_t turn; /* counts from 1 */
    struct buffer *retired;
    uint32_t retired_count, retired_capacity;
};

void inboxes_init(struct inboxes *inboxes, struct budget *budget, enum budget_owner owner);
void inboxes_deinit(struct inboxes *inboxes);
/* At the start of a turn. */
void inboxes_recycle(struct inboxes *inboxes);

/* Appends; false when that makes it longer than max or the budget is spent. */
bool inbox_gather(struct inboxes *inboxes, struct inbox *inbox, const uint8_t *bytes, size_t length, size_t max);
/* Makes room for n more bytes that are known to come, if that can be done in this turn. */
void inbox_expect(struct inboxes *inboxes, struct inbox *inbox, size_t n);
/* Frees it now or, if lent, at the next turn. */
void inbox_drop(struct inboxes *inboxes, struct inbox *inbox);
/* n further bytes are used; events of this turn point to them. */
void inbox_used(struct inboxes *inboxes, struct inbox *inbox, size_t n);

static inline size_t inbox_left(const struct inbox *inbox) { return inbox->buffer.length - inbox->start; }
static inline const uint8_t *inbox_rest(const struct inbox *inbox) { return inbox->buffer.bytes + inbox->start; }

#endif
