/* undeclared.c — a module for tests: undeclared.set DECLARED KEY VALUE writes KEY, though it names DECLARED as its key;
   undeclared.get DECLARED KEY reads it.
   The few declarations that it needs of redismodule.h stand here, since no package brings that file. */
typedef struct RedisModuleCtx RedisModuleCtx;
typedef struct RedisModuleString RedisModuleString;
typedef struct RedisModuleCallReply RedisModuleCallReply;
typedef int (*Command)(RedisModuleCtx *, RedisModuleString **, int);

static void (*set_attributes)(RedisModuleCtx *, const char *name, int version, int api_version);
static int (*create_command)(RedisModuleCtx *, const char *name, Command, const char *flags, int first_key,
                             int last_key, int step);
static RedisModuleCallReply *(*call)(RedisModuleCtx *, const char *command, const char *format, ...);
static int (*reply_with)(RedisModuleCtx *, RedisModuleCallReply *);
static void (*free_reply)(RedisModuleCallReply *);
static int (*wrong_arity)(RedisModuleCtx *);

static int pass_on(RedisModuleCtx *context, RedisModuleCallReply *reply) {
    reply_with(context, reply);
    free_reply(reply);
    return 0;
}

static int undeclared_set(RedisModuleCtx *context, RedisModuleString **words, int count) {
    return count == 4 ? pass_on(context, call(context, "SET", "!ss", words[2], words[3])) : wrong_arity(context);
}

static int undeclared_get(RedisModuleCtx *context, RedisModuleString **words, int count) {
    return count == 3 ? pass_on(context, call(context, "GET", "s", words[2])) : wrong_arity(context);
}

int RedisModule_OnLoad(RedisModuleCtx *context) {
    /* A module finds the server's functions by name, and the function that finds them first in its context. */
    int (*find)(const char *, void *) = *(int (**)(const char *, void *))context;
    find("RedisModule_SetModuleAttribs", &set_attributes);
    find("RedisModule_CreateCommand", &create_command);
    find("RedisModule_Call", &call);
    find("RedisModule_ReplyWithCallReply", &reply_with);
    find("RedisModule_FreeCallReply", &free_reply);
    find("RedisModule_WrongArity", &wrong_arity);
    set_attributes(context, "undeclared", 1, 1);
    int refused = create_command(context, "undeclared.set", undeclared_set, "write", 1, 1, 1);
    return refused | create_command(context, "undeclared.get", undeclared_get, "readonly", 1, 1, 1);
}
