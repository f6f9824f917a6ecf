/* inbox — received bytes that could not be used up where they lay; see inbox.h. */
#include "net/inbox.h"

#include "base/check.h"

void inboxes_init(struct inboxes *inboxes, struct budget *budget, enum budget_owner owner) {
    *inboxes = (struct inboxes){.budget = budget, .owner = owner, .turn = 1};
}

static void retire(struct inboxes *inboxes, struct buffer *buffer) {
    if (inboxes->retired_count == inboxes->retired_capacity) {
        uint32_t capacity = inboxes->retired_capacity ? inboxes->retired_capacity * 2 : 16;
        budget_force(inboxes->budget, inboxes->owner, (capacity - inboxes->retired_capacity) * sizeof *buffer);
        inboxes->retired = realloc(inboxes->retired, capacity * sizeof *buffer);
        CHECK(inboxes->retired);
        inboxes->retired_capacity = capacity;
    }
    inboxes->retired[inboxes->retired_count++] = *buffer;
    *buffer = (struct buffer){0};
}

void inboxes_recycle(struct inboxes *inboxes) {
    for (uint32_t i = 0; i < inboxes->retired_count; i++)
        buffer_free(&inboxes->retired[i], inboxes->budget, inboxes->owner);
    inboxes->retired_count = 0;
    inboxes->turn++;
}

void inboxes_deinit(struct inboxes *inboxes) {
    inboxes_recycle(inboxes);
    budget_give(inboxes->budget, inboxes->owner, inboxes->retired_capacity * sizeof(struct buffer));
    free(inboxes->retired);
    inboxes->retired = NULL;
}

void inbox_drop(struct inboxes *inboxes, struct inbox *inbox) {
    if (inbox->lent_turn == inboxes->turn) retire(inboxes, &inbox->buffer);
    else buffer_free(&inbox->buffer, inboxes->budget, inboxes->owner);
    *inbox = (struct inbox){0};
}

void inbox_expect(struct inboxes *inboxes, struct inbox *inbox, size_t n) {
    if (inbox->lent_turn != inboxes->turn) buffer_reserve(&inbox->buffer, inboxes->budget, inboxes->owner, n);
}

void inbox_used(struct inboxes *inboxes, struct inbox *inbox, size_t n) {
    inbox->start += n;
    if (n) inbox->lent_turn = inboxes->turn;
    if (inbox->start == inbox->buffer.length) inbox_drop(inboxes, inbox);
}

bool inbox_gather(struct inboxes *inboxes, struct inbox *inbox, const uint8_t *bytes, size_t length, size_t max) {
    size_t left = inbox_left(inbox);
    if (left + length > max) return false;
    /* In place when that moves nothing that is lent, and nothing much has been used: so each byte is copied a few times
     * at most, however long the inbox grows. */
    bool stays = inbox->buffer.capacity - inbox->buffer.length >= length;
    bool lent = inbox->lent_turn == inboxes->turn;
    if (stays || (!lent && inbox->start <= left))
        return buffer_append(&inbox->buffer, inboxes->budget, inboxes->owner, bytes, length);
    struct inbox fresh = {0};
    bool fits = buffer_append(&fresh.buffer, inboxes->budget, inboxes->owner, inbox_rest(inbox), left) &&
                buffer_append(&fresh.buffer, inboxes->budget, inboxes->owner, bytes, length);
    if (!fits) {
        buffer_free(&fresh.buffer, inboxes->budget, inboxes->owner);
        return false;
    }
    inbox_drop(inboxes, inbox);
    *inbox = fresh;
    return true;
}
