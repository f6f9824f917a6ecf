/* behind — write-behind's queue: against a dictionary that stands for the upstream, and one that stands for what
 * clients were told. FERRITE_TEST_SEED replays a failing run. */
#include "serve/behind.h"

#include <stdlib.h>

#include "base/clock.h"
#include "store/hash.h"
#include "test.h"

#define KEYS 12u

struct model {
    struct budget budget;
    struct behind behind;
    uint64_t random;
    uint32_t told[KEYS];     /* the last value acknowledged of each key */
    uint32_t upstream[KEYS]; /* what it has; values of a key only ever grow, or the upstream has gone back */
    uint32_t next;
    uint64_t awaited;         /* a place, 0: none */
    uint32_t told_then[KEYS]; /* and what had been told before it */
    uint32_t sent[4096][2];   /* on the link, in its order: key and value */
    uint32_t sent_first, sent_last;
};

static uint32_t pick(struct model *model, uint32_t below) { return (uint32_t)(hash_mix_next(&model->random) % below); }

static struct store_key key_of(uint32_t number, char *name) {
    name[0] = 'k';
    name[1] = (char)('a' + number);
    /* Some share a bucket, two a hash. */
    return (struct store_key){.bytes = (const uint8_t *)name, .length = 2, .hash = number / 2 * 16384 + 7};
}

static void put(struct model *model, uint32_t number) {
    char name[2];
    struct store_key key = key_of(number, name);
    uint32_t value = ++model->next;
    EXPECT(behind_put(&model->behind, &key, (const uint8_t *)&value, sizeof value, STORE_NEVER, 1));
    model->told[number] = value;
}

static void send(struct model *model) {
    const struct written *written = behind_send(&model->behind, 1);
    if (!written) return;
    uint32_t *sent = model->sent[model->sent_last++ % 4096];
    sent[0] = (uint32_t)(written->bytes[1] - 'a');
    memcpy(&sent[1], written->bytes + written->key_length, sizeof sent[1]);
}

static void carry_out(struct model *model, const uint32_t *sent) {
    EXPECT(sent[1] >= model->upstream[sent[0]]);
    model->upstream[sent[0]] = sent[1];
}

static void answer(struct model *model) {
    if (model->sent_first == model->sent_last) return;
    const uint32_t *sent = model->sent[model->sent_first++ % 4096];
    bool refused = pick(model, 6) == 0;
    if (!refused) carry_out(model, sent);
    behind_done(&model->behind, refused ? BEHIND_RETRIED : BEHIND_CONFIRMED, 1);
}

static void lose_link(struct model *model) {
    /* The first of what is on the way may have arrived. */
    uint32_t arrived = pick(model, model->sent_last - model->sent_first + 1);
    for (uint32_t i = 0; i < arrived; i++) carry_out(model, model->sent[(model->sent_first + i) % 4096]);
    model->sent_first = model->sent_last;
    behind_unsend(&model->behind);
}

/* Somebody waits for all that was written so far; what he then finds upstream is that, or newer. */
static void await(struct model *model) {
    if (model->awaited == 0) {
        model->awaited = model->behind.next_place;
        memcpy(model->told_then, model->told, sizeof model->told);
    }
    if (!behind_is_settled(&model->behind, model->awaited)) return;
    model->awaited = 0;
    for (uint32_t number = 0; number < KEYS; number++) EXPECT(model->upstream[number] >= model->told_then[number]);
}

/* What a reader is answered from the queue, or else what the upstream has, is what clients were told last. */
static void read_all(struct model *model) {
    for (uint32_t number = 0; number < KEYS; number++) {
        char name[2];
        struct store_key key = key_of(number, name);
        const struct written *written = behind_find(&model->behind, &key);
        uint32_t value = model->upstream[number];
        if (written) memcpy(&value, written->bytes + written->key_length, sizeof value);
        EXPECT(value == model->told[number]);
        EXPECT(!written || behind_has_hash(&model->behind, key.hash));
    }
}

TEST("write-behind: whatever is refused, lost and sent again, the upstream gets each key's writes in order, and the "
     "last") {
    const char *given = getenv("FERRITE_TEST_SEED");
    uint64_t seed = given ? strtoull(given, NULL, 10) : 1;
    for (uint64_t end = given ? seed : 300; seed <= end; seed++) {
        struct model model = {.random = seed};
        budget_init(&model.budget, 64 << 20);
        EXPECT(behind_init(&model.behind, &model.budget, 1 << 20));
        for (int step = 0; step < 600; step++) {
            switch (pick(&model, 12)) {
            case 0 ... 3: put(&model, pick(&model, pick(&model, 2) ? KEYS : 2)); break;
            case 4 ... 6: send(&model); break;
            case 7 ... 10: answer(&model); break;
            default:
                if (pick(&model, 4) == 0) lose_link(&model);
            }
            EXPECT(model.behind.flying == model.sent_last - model.sent_first);
            await(&model);
            if (step % 16 == 0) read_all(&model);
        }
        uint64_t place = model.behind.next_place;
        for (int i = 0; i < 10000 && !behind_is_empty(&model.behind); i++) {
            EXPECT(!behind_is_settled(&model.behind, place));
            send(&model);
            answer(&model);
        }
        EXPECT(behind_is_empty(&model.behind) && behind_is_settled(&model.behind, place));
        bool same = memcmp(model.told, model.upstream, sizeof model.told) == 0;
        EXPECT(same);
        EXPECT(model.behind.bytes == 0);
        behind_deinit(&model.behind);
        EXPECT(model.budget.used == 0);
        if (!same) fprintf(stderr, "write-behind model: FERRITE_TEST_SEED=%d\n", (int)seed);
    }
}

TEST("write-behind: what was written before a moment is settled when that is, whatever is written after") {
    struct model model = {.random = 5};
    budget_init(&model.budget, 64 << 20);
    behind_init(&model.behind, &model.budget, 1 << 20);
    put(&model, 0);
    send(&model);
    put(&model, 0); /* the first one flies: this is another */
    put(&model, 1);
    uint64_t place = model.behind.next_place;
    behind_done(&model.behind, BEHIND_CONFIRMED, 1);
    EXPECT(!behind_is_settled(&model.behind, place));
    send(&model);
    send(&model);
    put(&model, 0);
    put(&model, 2);
    behind_done(&model.behind, BEHIND_RETRIED,
                1); /* replaced since: it is not sent again, but its successor is awaited */
    EXPECT(!behind_is_settled(&model.behind, place));
    behind_done(&model.behind, BEHIND_CONFIRMED, 1);
    EXPECT(!behind_is_settled(&model.behind, place) && model.behind.queued == 2);
    send(&model);
    behind_done(&model.behind, BEHIND_CONFIRMED, 1);
    EXPECT(behind_is_settled(&model.behind, place) && model.behind.queued == 1);
    behind_deinit(&model.behind);
}

/* "v", and how long it lives. */
static struct written *put_for(struct model *model, uint64_t expire_at_ms) {
    char name[2];
    struct store_key key = key_of(0, name);
    EXPECT(behind_put(&model->behind, &key, (const uint8_t *)"v", 1, expire_at_ms, 1));
    return behind_find(&model->behind, &key);
}

TEST("write-behind: since when a key's writes are refused is not forgotten when it is written anew, but when one is "
     "carried out") {
    struct model model = {.random = 5};
    budget_init(&model.budget, 64 << 20);
    behind_init(&model.behind, &model.budget, 1 << 20);
    put_for(&model, STORE_NEVER);
    behind_send(&model.behind, 1);
    EXPECT(behind_done(&model.behind, BEHIND_RETRIED, 100) == BEHIND_RETRIED);
    EXPECT(put_for(&model, STORE_NEVER)->refused_ns == 100); /* in its place */
    behind_send(&model.behind, 200);
    EXPECT(put_for(&model, STORE_NEVER)->refused_ns == 100); /* behind it */
    behind_done(&model.behind, BEHIND_CONFIRMED, 300);
    EXPECT(put_for(&model, STORE_NEVER)->refused_ns == 0);
    behind_send(&model.behind, 400);
    struct written *last = put_for(&model, STORE_NEVER);
    EXPECT(last->refused_ns == 0);
    behind_done(&model.behind, BEHIND_RETRIED, 500); /* the one that it follows */
    EXPECT(last->refused_ns == 500);
    behind_send(&model.behind, 600);
    behind_done(&model.behind, BEHIND_REFUSED, 700);
    EXPECT(put_for(&model, STORE_NEVER)->refused_ns == 0 && behind_is_settled(&model.behind, 3));
    behind_deinit(&model.behind);
    EXPECT(model.budget.used == 0);
}

TEST("write-behind: what is confirmed when its time is over is deleted; what is confirmed late is sent once more") {
    struct model model = {.random = 5};
    budget_init(&model.budget, 64 << 20);
    behind_init(&model.behind, &model.budget, 1 << 20);
    put_for(&model, 100);
    EXPECT(!behind_send(&model.behind, 10 * NS_PER_MS)->deletes);
    EXPECT(behind_done(&model.behind, BEHIND_CONFIRMED, 100 * NS_PER_MS) == BEHIND_RETRIED);
    EXPECT(!behind_is_settled(&model.behind, 2));
    EXPECT(behind_send(&model.behind, 101 * NS_PER_MS)->deletes);
    EXPECT(behind_done(&model.behind, BEHIND_CONFIRMED, 102 * NS_PER_MS) == BEHIND_CONFIRMED);
    EXPECT(behind_is_empty(&model.behind));
    put_for(&model, 10000);
    for (int round = 0; round < 2; round++) {
        behind_send(&model.behind, 200 * NS_PER_MS);
        enum behind_outcome became = behind_done(&model.behind, BEHIND_CONFIRMED, 700 * NS_PER_MS);
        EXPECT(became == (round == 0 ? BEHIND_RETRIED : BEHIND_CONFIRMED));
    }
    put_for(&model, 10000);
    behind_send(&model.behind, 200 * NS_PER_MS);
    EXPECT(behind_done(&model.behind, BEHIND_CONFIRMED, 699 * NS_PER_MS) == BEHIND_CONFIRMED);
    put_for(&model, STORE_NEVER);
    behind_send(&model.behind, 200 * NS_PER_MS);
    EXPECT(behind_done(&model.behind, BEHIND_CONFIRMED, 9000 * NS_PER_MS) == BEHIND_CONFIRMED);
    EXPECT(behind_is_empty(&model.behind));
    behind_deinit(&model.behind);
    EXPECT(model.budget.used == 0);
}

TEST("write-behind: bytes are bounded, and every one is given back") {
    struct model model = {.random = 5};
    budget_init(&model.budget, 64 << 20);
    behind_init(&model.behind, &model.budget, 100000);
    char name[16], value[1000] = {0};
    int taken = 0;
    for (; behind_has_room(&model.behind, 1, 10 + sizeof value); taken++) {
        int length = snprintf(name, sizeof name, "key%07d", taken);
        struct store_key key = {.bytes = (const uint8_t *)name, .length = (uint32_t)length, .hash = (uint64_t)taken};
        EXPECT(behind_put(&model.behind, &key, (const uint8_t *)value, sizeof value, STORE_NEVER, 1));
    }
    EXPECT(taken > 80 && taken < 100 && model.behind.bytes <= 100000);
    EXPECT(behind_could_hold(&model.behind, 1, 20000) && !behind_could_hold(&model.behind, 1, 30000));
    while (behind_send(&model.behind, 1)) behind_done(&model.behind, BEHIND_REFUSED, 1);
    EXPECT(model.behind.bytes == 0 && model.behind.table.live == 0);
    behind_deinit(&model.behind);
    EXPECT(model.budget.used == 0);
}
