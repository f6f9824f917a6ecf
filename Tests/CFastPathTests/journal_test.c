/* journal — write-behind with its journal, against an upstream, clients and a process that dies again and again.
 * FERRITE_TEST_SEED replays a failing run. */
#include "serve/journal.h"

#include <stdlib.h>

#include "serve/behind.h"
#include "store/hash.h"
#include "test.h"

#define KEYS 6u
#define PLACES 4096u

struct file {
    uint8_t bytes[1 << 20];
    size_t length;
};

struct model {
    struct budget budget;
    struct behind behind;
    struct file file;
    uint64_t random;
    uint32_t next;           /* values only grow */
    uint32_t asked[KEYS];    /* the last value that a client has asked to be written */
    uint32_t told[KEYS];     /* and that was acknowledged */
    uint32_t upstream[KEYS]; /* what it has */
    uint32_t passed[KEYS];   /* carried out by a command that had waited for what was written before */
    struct {
        uint32_t key, value;
        uint64_t number;
    } waiting[PLACES]; /* for the journal, to be acknowledged */
    uint32_t waiting_first, waiting_last;
    uint32_t sent[PLACES][2];
    uint32_t sent_first, sent_last;
};

static uint32_t pick(struct model *model, uint32_t below) { return (uint32_t)(hash_mix_next(&model->random) % below); }

static struct store_key key_of(uint32_t number, char *name) {
    name[0] = 'k';
    name[1] = (char)('a' + number);
    return (struct store_key){.bytes = (const uint8_t *)name, .length = 2, .hash = number / 2 * 16384 + 7};
}

static void put(struct model *model) {
    uint32_t number = pick(model, KEYS), value = ++model->next;
    char name[2];
    struct store_key key = key_of(number, name);
    EXPECT(journal_has_room(&model->behind.journal, 1, 6));
    EXPECT(behind_put(&model->behind, &key, (const uint8_t *)&value, sizeof value, STORE_NEVER, 1));
    uint32_t at = model->waiting_last++ % PLACES;
    model->waiting[at].key = number;
    model->waiting[at].value = value;
    model->waiting[at].number = journal_number(&model->behind.journal);
    model->asked[number] = value;
}

static void send(struct model *model) {
    const struct written *written = behind_send(&model->behind, 1);
    if (!written) return;
    uint32_t *sent = model->sent[model->sent_last++ % PLACES];
    sent[0] = (uint32_t)(written->bytes[1] - 'a');
    memcpy(&sent[1], written->bytes + written->key_length, sizeof sent[1]);
}

/* What had been carried out before another command touched the key is not carried out again behind it. */
static void carry_out(struct model *model, const uint32_t *sent) {
    EXPECT(sent[1] >= model->passed[sent[0]]);
    model->upstream[sent[0]] = sent[1];
}

static void answer(struct model *model) {
    if (model->sent_first == model->sent_last) return;
    const uint32_t *sent = model->sent[model->sent_first++ % PLACES];
    bool refused = pick(model, 6) == 0;
    if (!refused) carry_out(model, sent);
    behind_done(&model->behind, refused ? BEHIND_RETRIED : BEHIND_CONFIRMED, 1);
}

static void lose_link(struct model *model) {
    uint32_t arrived = pick(model, model->sent_last - model->sent_first + 1);
    for (uint32_t i = 0; i < arrived; i++) carry_out(model, model->sent[(model->sent_first + i) % PLACES]);
    model->sent_first = model->sent_last;
    behind_unsend(&model->behind);
}

static void append_to_file(struct model *model) {
    const struct buffer *writing = &model->behind.journal.writing;
    EXPECT(model->file.length + writing->length <= sizeof model->file.bytes);
    memcpy(model->file.bytes + model->file.length, writing->bytes, writing->length);
    model->file.length += writing->length;
}

static void take_batch(struct model *model) {
    if (!journal_take(&model->behind.journal)) return;
    EXPECT(!journal_take(&model->behind.journal));
}

static void finish_batch(struct model *model) {
    struct journal *journal = &model->behind.journal;
    if (!journal->is_writing) return;
    append_to_file(model);
    journal_written(journal);
    uint64_t number = journal->filling_number - 1;
    behind_noted(&model->behind, number);
    for (; model->waiting_first != model->waiting_last; model->waiting_first++) {
        uint32_t at = model->waiting_first % PLACES;
        if (model->waiting[at].number > number) break;
        model->told[model->waiting[at].key] = model->waiting[at].value;
    }
}

/* DEL, INCR or a script: it touches a key when nothing of that is queued. */
static void pass(struct model *model) {
    uint32_t number = pick(model, KEYS);
    char name[2];
    struct store_key key = key_of(number, name);
    if (behind_has_hash(&model->behind, key.hash)) return;
    uint32_t value = ++model->next;
    model->asked[number] = model->told[number] = model->passed[number] = model->upstream[number] = value;
}

static uint64_t number_at(const uint8_t *bytes, int length) {
    uint64_t number = 0;
    memcpy(&number, bytes, (size_t)length);
    return number;
}

/* The next process: what of the file is not done is restored, in the order of places. */
static void restore(struct model *model) {
    const uint8_t *live[PLACES] = {0};
    uint64_t places = 1;
    for (size_t at = 0; at < model->file.length;) {
        const uint8_t *record = model->file.bytes + at;
        uint64_t place = number_at(record + 1, 8);
        EXPECT((record[0] == 'P' || record[0] == 'D') && place < PLACES);
        live[place] = record[0] == 'P' ? record : NULL;
        if (record[0] == 'P' && place >= places) places = place + 1;
        at += record[0] == 'P' ? 25 + number_at(record + 17, 4) + number_at(record + 21, 4) : 9;
    }
    if (model->behind.next_place < places) model->behind.next_place = places;
    journal_turn_on(&model->behind.journal);
    for (uint64_t place = 1; place < places; place++) {
        const uint8_t *record = live[place];
        if (!record) continue;
        char name[2];
        struct store_key key = key_of((uint32_t)(record[26] - 'a'), name);
        EXPECT(behind_restore(&model->behind, place, &key, record + 27, 4, number_at(record + 9, 8), 1));
    }
}

static void begin(struct model *model) {
    EXPECT(behind_init(&model->behind, &model->budget, 1 << 20));
    restore(model);
}

static void crash(struct model *model) {
    uint32_t arrived = pick(model, model->sent_last - model->sent_first + 1);
    for (uint32_t i = 0; i < arrived; i++) carry_out(model, model->sent[(model->sent_first + i) % PLACES]);
    /* A batch that was being written is in the file, or is not. */
    if (model->behind.journal.is_writing && pick(model, 2)) append_to_file(model);
    behind_deinit(&model->behind);
    EXPECT(model->budget.used == 0);
    memset(&model->behind, 0, sizeof model->behind);
    model->waiting_first = model->waiting_last = model->sent_first = model->sent_last = 0;
    begin(model);
}

TEST(
    "journal: whenever the process dies, nothing acknowledged is lost, and nothing is sent behind what waited for it") {
    const char *given = getenv("FERRITE_TEST_SEED");
    uint64_t seed = given ? strtoull(given, NULL, 10) : 1;
    struct model *model = calloc(1, sizeof *model);
    for (uint64_t end = given ? seed : 400; seed <= end; seed++) {
        *model = (struct model){.random = seed};
        budget_init(&model->budget, 64 << 20);
        begin(model);
        for (int step = 0; step < 800; step++) {
            switch (pick(model, 20)) {
            case 0 ... 4: put(model); break;
            case 5 ... 7: send(model); break;
            case 8 ... 11: answer(model); break;
            case 12 ... 13: take_batch(model); break;
            case 14 ... 15: finish_batch(model); break;
            case 16 ... 17: pass(model); break;
            case 18:
                if (pick(model, 4) == 0) lose_link(model);
                break;
            default:
                if (pick(model, 6) == 0) crash(model);
            }
            EXPECT(!model->behind.journal.is_short);
            EXPECT(behind_oldest(&model->behind) <= model->behind.next_place);
        }
        crash(model);
        for (int i = 0; i < 10000 && !behind_is_empty(&model->behind); i++) {
            send(model);
            answer(model);
            take_batch(model);
            finish_batch(model);
        }
        EXPECT(behind_is_empty(&model->behind) && behind_oldest(&model->behind) == model->behind.next_place);
        bool kept = true;
        for (uint32_t key = 0; key < KEYS; key++)
            kept = kept && model->upstream[key] >= model->told[key] && model->upstream[key] <= model->asked[key];
        EXPECT(kept);
        behind_deinit(&model->behind);
        EXPECT(model->budget.used == 0);
        /* All is done: nobody who comes has anything to send. */
        memset(&model->behind, 0, sizeof model->behind);
        begin(model);
        EXPECT(behind_is_empty(&model->behind));
        behind_deinit(&model->behind);
        if (!kept) fprintf(stderr, "journal model: FERRITE_TEST_SEED=%d\n", (int)seed);
    }
    free(model);
}

TEST("journal: what is noted is bounded, batches are taken one at a time, and bytes are given back") {
    struct budget budget;
    budget_init(&budget, 64 << 20);
    struct journal journal = {0};
    journal_init(&journal, &budget);
    EXPECT(journal_has_room(&journal, 1000, 1u << 30)); /* there is none: nothing is noted */
    journal_done(&journal, 7);
    EXPECT(!journal_take(&journal));
    journal_turn_on(&journal);
    static uint8_t value[100000];
    struct store_key key = {.bytes = (const uint8_t *)"k", .length = 1};
    uint64_t place = 0;
    while (journal_has_room(&journal, 1, 1 + sizeof value)) {
        uint64_t number = journal_number(&journal);
        journal_put(&journal, ++place, &key, value, sizeof value, STORE_NEVER);
        EXPECT(number == 1);
    }
    EXPECT(place == 10 && !journal.is_short);
    EXPECT(journal_take(&journal) && journal_number(&journal) == 2);
    EXPECT(journal.writing.bytes[0] == 'P' && journal.writing.bytes[1] == 1);
    journal_done(&journal, 3);
    EXPECT(!journal_take(&journal));
    journal_written(&journal);
    EXPECT(journal_take(&journal) && journal.writing.length == 9);
    journal_written(&journal);
    journal_turn_off(&journal);
    EXPECT(budget.used == 0 && journal_number(&journal) == UINT64_MAX);
    EXPECT(!journal_has_room(&journal, 1, 10));
    journal_deinit(&journal);
}

TEST("journal: a record that finds no memory is told") {
    struct budget budget;
    budget_init(&budget, 3 << 20);
    struct journal journal = {0};
    journal_init(&journal, &budget);
    journal_turn_on(&journal);
    EXPECT(budget_take(&budget, BUDGET_SLOTS, budget.total - budget.used));
    EXPECT(!journal_has_room(&journal, 1, 10));
    journal_done(&journal, 1);
    EXPECT(journal.is_short);
    journal_turn_off(&journal);
    EXPECT(!journal.is_short);
    budget_give(&budget, BUDGET_SLOTS, budget.used);
    journal_deinit(&journal);
}
