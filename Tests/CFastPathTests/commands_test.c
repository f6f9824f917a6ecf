/* commands_test — the table: finding rows, their keys and rules, and learning what it does not name. */
#include <ctype.h>
#include <stdlib.h>

#include "resp/commands.h"
#include "test.h"

static struct commands *commands;

static void begin(void) {
    commands = commands_create();
    EXPECT(commands != NULL);
}

static void end(void) { commands_destroy(commands); }

/* A request from words parted by single spaces; up to 32. Returns their number. */
static uint32_t words(struct resp_arg args[32], const char *text) {
    uint32_t count = 0;
    while (*text) {
        size_t length = strcspn(text, " ");
        args[count++] = (struct resp_arg){(const uint8_t *)text, (uint32_t)length};
        text += length + (text[length] == ' ');
    }
    return count;
}

static const struct command *find(const char *text) {
    struct resp_arg args[32];
    return commands_find(commands, args, words(args, text));
}

static bool finds(const char *text, enum command_id id) {
    const struct command *command = find(text);
    return command && command->id == id;
}

TEST("every row is found by its name, in any case, and lies at its own number") {
    begin();
    for (uint32_t id = 0; id < COMMAND_ID_COUNT; id++) {
        const struct command *row = commands_row(commands, id);
        char upper[64], mixed[64];
        int length =
            snprintf(upper, sizeof upper, "%s%s%s x", row->name, row->subcommand[0] ? " " : "", row->subcommand);
        memcpy(mixed, upper, (size_t)length + 1);
        for (int i = 0; i < length; i++) upper[i] = (char)toupper((unsigned char)upper[i]);
        for (int i = 0; i < length; i += 2) mixed[i] = upper[i];
        EXPECT(row->id == id);
        EXPECT(finds(upper, id) && finds(mixed, id));
    }
    EXPECT(commands_row(commands, COMMAND_ID_COUNT) == NULL);
    end();
}

TEST("containers stand before their subcommands and answer for those without a row") {
    begin();
    for (uint32_t id = 0; id < COMMAND_ID_COUNT; id++) {
        const struct command *row = commands_row(commands, id), *before = id ? commands_row(commands, id - 1) : NULL;
        EXPECT(!row->subcommand[0] || (before && !strcmp(before->name, row->name)));
    }
    EXPECT(finds("client", COMMAND_ID_CLIENT) && finds("CLIENT nosuch", COMMAND_ID_CLIENT));
    EXPECT(finds("client no-evict on", COMMAND_ID_CLIENT_NO_EVICT));
    EXPECT(finds("client averyveryveryverylongsubcommand", COMMAND_ID_CLIENT));
    EXPECT(finds("object encoding k", COMMAND_ID_OBJECT_ENCODING));
    end();
}

TEST("what is no name of ours is not found") {
    begin();
    static const char *const names[] = {
        "g",     "ge",           "gets", "mge",  "nosuch",   "client|id", "averyveryveryverylongcommandname",
        "get\r", "\xc7\x45\x54", "@GET", "GET{", "mget\x01", "host:",     "post"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) EXPECT(find(names[i]) == NULL);
    struct resp_arg zero = {(const uint8_t *)"ping\0", 5}, empty = {(const uint8_t *)"", 0};
    struct resp_arg inside = {(const uint8_t *)"pi\0g", 4};
    EXPECT(!commands_find(commands, &zero, 1) && !commands_find(commands, &empty, 1));
    EXPECT(!commands_find(commands, &inside, 1));
    end();
}

TEST("rows keep to the rules of the table") {
    begin();
    for (uint32_t id = 0; id < COMMAND_ID_COUNT; id++) {
        const struct command *row = commands_row(commands, id);
        EXPECT(row->kind != COMMAND_READ || id == COMMAND_ID_GET || id == COMMAND_ID_MGET);
        EXPECT(row->kind != COMMAND_PASS || row->drops == COMMAND_DROPS_NOTHING);
        EXPECT(row->drops != COMMAND_DROPS_KEYS || row->keys != COMMAND_KEYS_NONE);
        EXPECT(row->keys == COMMAND_KEYS_NONE || (row->first > 0 && row->step > 0));
        EXPECT(row->arity != 0);
    }
    end();
}

TEST("the number of arguments is judged as Redis judges it") {
    begin();
    EXPECT(command_arity_fits(find("get"), 2) && !command_arity_fits(find("get"), 1) &&
           !command_arity_fits(find("get"), 3));
    EXPECT(command_arity_fits(find("set"), 3) && command_arity_fits(find("set"), 9) &&
           !command_arity_fits(find("set"), 2));
    end();
}

/* The keys of a request, parted by spaces, are those wanted. */
static bool keys_are(const char *text, const char *wanted) {
    struct resp_arg args[32];
    uint32_t count = words(args, text), cursor = 0, key;
    const struct command *command = commands_find(commands, args, count);
    char keys[256] = "";
    while (command_next_key(command, args, count, &cursor, &key) && strlen(keys) < 200) {
        EXPECT(key < count);
        sprintf(keys + strlen(keys), "%s%.*s", *keys ? " " : "", (int)args[key].length, (const char *)args[key].bytes);
    }
    if (strcmp(keys, wanted)) fprintf(stderr, "%s: keys %s\n", text, keys);
    return !strcmp(keys, wanted);
}

TEST("keys are found where each command has them") {
    begin();
    EXPECT(keys_are("set k v", "k") && keys_are("get k", "k") && keys_are("ping", ""));
    EXPECT(keys_are("del a b c", "a b c") && keys_are("del", ""));
    EXPECT(keys_are("mset a 1 b 2", "a b") && keys_are("mset a 1 b", "a b"));
    EXPECT(keys_are("rename a b", "a b") && keys_are("bitop and d a b", "d a b"));
    EXPECT(keys_are("blpop a b 0", "a b") && keys_are("blpop", ""));
    EXPECT(keys_are("object encoding k", "k") && keys_are("xgroup create k g 0", "k"));
    EXPECT(keys_are("eval s 2 a b x", "a b") && keys_are("eval s 0 x", "") && keys_are("eval s 3 a b", ""));
    EXPECT(keys_are("eval s -1 a", "") && keys_are("eval s 99999999999 a", "") && keys_are("eval s", ""));
    EXPECT(keys_are("zunionstore d 2 a b weights 1 2", "d a b") && keys_are("zunionstore d 9 a b", ""));
    EXPECT(keys_are("lmpop 2 a b left", "a b") && keys_are("blmpop 0 1 a left", "a"));
    EXPECT(keys_are("msetex 2 a 1 b 2 ex 5", "a b") && keys_are("msetex 2 a 1 b", ""));
    EXPECT(keys_are("sort k by p_* STORE d", "k d") && keys_are("sort k store", "k") && keys_are("sort k", "k"));
    EXPECT(keys_are("georadius g 1 1 5 km store a storedist b", "g a b"));
    end();
}

TEST("the count of arguments tells which null a reply has") {
    begin();
    EXPECT(command_resp2(find("lpop"), 2) == RESP2_NULL && command_resp2(find("lpop"), 3) == RESP2_NULL_ARRAY);
    EXPECT(command_resp2(find("rpop"), 2) == RESP2_NULL && command_resp2(find("zrank"), 3) == RESP2_NULL);
    EXPECT(command_resp2(find("zrevrank"), 4) == RESP2_NULL_ARRAY && command_resp2(find("get"), 2) == RESP2_NULL);
    EXPECT(command_resp2(find("xpending"), 3) == RESP2_SEPARATE && command_resp2(find("xpending"), 6) == RESP2_SAME);
    end();
}

static uint32_t learn(const char *reply) {
    size_t n = strlen(reply);
    uint8_t *copy = malloc(n ? n : 1);
    memcpy(copy, reply, n);
    uint32_t added = commands_learn(commands, copy, n);
    free(copy);
    return added;
}

#define TAIL "*0\r\n*0\r\n*0\r\n"

TEST("what the upstream names and we do not is learnt, once, with its way") {
    begin();
    static const char resp2[] =
        "*6\r\n"
        "*10\r\n$8\r\njson.set\r\n:-4\r\n*2\r\n+write\r\n+denyoom\r\n:1\r\n:1\r\n:1\r\n" TAIL "*0\r\n"
        "*10\r\n$8\r\nJSON.GET\r\n:-2\r\n*1\r\n+readonly\r\n:1\r\n:1\r\n:1\r\n" TAIL "*0\r\n"
        "*10\r\n$9\r\nft.create\r\n:-2\r\n*1\r\n+write\r\n:0\r\n:0\r\n:0\r\n" TAIL "*0\r\n"
        "*10\r\n$6\r\nx.wait\r\n:-2\r\n*2\r\n+write\r\n+blocking\r\n:1\r\n:-2\r\n:1\r\n" TAIL "*0\r\n"
        "*10\r\n$3\r\nget\r\n:99\r\n*1\r\n+write\r\n:1\r\n:1\r\n:1\r\n" TAIL "*0\r\n"
        "*10\r\n$3\r\nbox\r\n:-2\r\n*0\r\n:0\r\n:0\r\n:0\r\n" TAIL
        "*1\r\n*10\r\n$7\r\nbox|put\r\n:3\r\n*1\r\n+write\r\n:2\r\n:2\r\n:1\r\n" TAIL "*0\r\n";
    EXPECT(learn(resp2) == 6);
    EXPECT(learn(resp2) == 0);
    const struct command *set = find("JSON.SET k"), *get = find("json.get k"), *create = find("ft.create");
    EXPECT(set && set->kind == COMMAND_UNKEYED && set->drops == COMMAND_DROPS_KEYS && set->resp2 == RESP2_SEPARATE);
    EXPECT(keys_are("json.set k . v", "k"));
    EXPECT(get && get->kind == COMMAND_PASS && get->drops == COMMAND_DROPS_NOTHING && !strcmp(get->name, "json.get"));
    EXPECT(create && create->kind == COMMAND_UNKEYED);
    EXPECT(find("x.wait") && find("x.wait")->kind == COMMAND_STATE && keys_are("x.wait a b 0", "a b"));
    EXPECT(find("get")->arity == 2);
    EXPECT(find("box") && find("box")->kind == COMMAND_STATE && find("box nosuch") == find("box"));
    EXPECT(find("box put k") && find("box put k")->kind == COMMAND_UNKEYED && keys_are("box put k", "k"));
    EXPECT(commands_row(commands, set->id) == set && !commands_row(commands, COMMAND_ID_COUNT + 6));
    end();
}

TEST("COMMAND of a RESP3 link, and of servers older than Redis 7, is learnt from too") {
    begin();
    EXPECT(learn("*3\r\n*10\r\n$2\r\nm1\r\n:2\r\n~1\r\n+readonly\r\n:1\r\n:1\r\n:1\r\n~1\r\n+@x\r\n~0\r\n*1\r\n%1\r\n$"
                 "1\r\na\r\n:1\r\n*0\r\n"
                 "_\r\n*7\r\n$2\r\nm2\r\n:2\r\n~1\r\n+write\r\n:1\r\n:1\r\n:1\r\n~0\r\n") == 2);
    EXPECT(learn("*2\r\n*-1\r\n*6\r\n$2\r\nm3\r\n:2\r\n*1\r\n+write\r\n:1\r\n:-1\r\n:2\r\n") == 1);
    EXPECT(find("m1")->kind == COMMAND_PASS && find("m2")->kind == COMMAND_UNKEYED && keys_are("m3 a b c", "a c"));
    end();
}

TEST("what is not COMMAND's reply teaches nothing and harms nothing") {
    begin();
    EXPECT(learn("") == 0 && learn("-ERR unknown command\r\n") == 0 && learn("*-1\r\n") == 0 && learn("_\r\n") == 0);
    EXPECT(learn("*1\r\n:1\r\n") == 0 && learn("*1\r\n*2\r\n$1\r\na\r\n:1\r\n") == 0 && learn("*999999\r\n") == 0);
    EXPECT(learn("*1\r\n*6\r\n$1\r\na\r\n:99999\r\n*0\r\n:0\r\n:0\r\n:0\r\n") == 0);
    EXPECT(learn("*1\r\n*6\r\n$30\r\nabcdefghijabcdefghijabcdefghij\r\n:2\r\n*0\r\n:0\r\n:0\r\n:0\r\n") == 0);
    EXPECT(learn("*1\r\n*6\r\n$3\r\na|b\r\n:2\r\n*0\r\n:0\r\n:0\r\n:0\r\n") == 0);
    EXPECT(learn("*1\r\n*6\r\n$1\r\na\r\n:2\r\n*99\r\n+write\r\n") == 0);
    EXPECT(find("a") == NULL);
    end();
}

TEST("at most 2,048 rows are learnt, and rows do not move") {
    begin();
    static char reply[3000 * 64];
    size_t at = (size_t)sprintf(reply, "*3000\r\n");
    for (int i = 0; i < 3000; i++)
        at += (size_t)sprintf(reply + at, "*6\r\n$6\r\nm.%04d\r\n:2\r\n*1\r\n+readonly\r\n:1\r\n:1\r\n:1\r\n", i);
    EXPECT(learn("*1\r\n*6\r\n$5\r\nfirst\r\n:2\r\n*1\r\n+write\r\n:1\r\n:1\r\n:1\r\n") == 1);
    const struct command *first = find("first");
    EXPECT(learn(reply) == 2047);
    EXPECT(find("first") == first && find("m.0000") && find("m.2046") && !find("m.2047"));
    end();
}

TEST("a reply of COMMAND cut or changed anywhere is read within its bounds") {
    static const char whole[] =
        "*2\r\n*10\r\n$2\r\nm1\r\n:2\r\n~1\r\n+readonly\r\n:1\r\n:1\r\n:1\r\n~1\r\n+@x\r\n~0\r\n*1\r\n%1\r\n$"
        "1\r\na\r\n:1\r\n"
        "*1\r\n*6\r\n$5\r\nm1|ab\r\n:2\r\n*0\r\n:0\r\n:0\r\n:0\r\n*6\r\n$2\r\nm2\r\n:2\r\n*0\r\n:0\r\n:0\r\n:0\r\n";
    static const char changes[] = "*$:_9-\r\n\0|";
    begin();
    for (size_t cut = 0; cut < sizeof whole; cut++) {
        char copy[sizeof whole];
        for (size_t change = 0; change < sizeof changes; change++) {
            memcpy(copy, whole, sizeof whole);
            copy[cut] = changes[change];
            uint8_t *exact = malloc(sizeof whole - 1);
            memcpy(exact, copy, sizeof whole - 1);
            EXPECT(commands_learn(commands, exact, sizeof whole - 1) <= 3);
            free(exact);
        }
        memcpy(copy, whole, cut);
        copy[cut] = 0;
        EXPECT(learn(copy) <= 3);
    }
    end();
}
