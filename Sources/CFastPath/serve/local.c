/* local — what the sidecar answers itself: handshakes and small talk, as redis-server 7.0 words them. */
#include "serve/local.h"

#include <string.h>
#include <strings.h>

#include "serve/slots.h"

static bool is_word(const struct resp_arg *arg, const char *word) {
    return arg->length == strlen(word) && strncasecmp((const char *)arg->bytes, word, arg->length) == 0;
}

static bool is_exactly(const struct resp_arg *arg, const char *text) {
    return arg->length == strlen(text) && memcmp(arg->bytes, text, arg->length) == 0;
}

static void settle(struct serve *serve, struct session *session, bool fits) {
    if (!fits) session_starve(serve, session);
}

static bool text(struct serve *serve, struct session *session, const char *bytes) {
    return chain_append(slot_sink(session), &serve->blocks, bytes, strlen(bytes));
}

void local_reply(struct serve *serve, struct session *session, const char *reply) {
    serve->told_error |= reply[0] == '-';
    settle(serve, session, text(serve, session, reply));
}

static void reply_arg(struct serve *serve, struct session *session, const struct resp_arg *arg) {
    settle(serve, session, reply_bulk(slot_sink(session), &serve->blocks, arg->bytes, arg->length));
}

static void ping(struct serve *serve, struct session *session) {
    const struct resp_args *args = &serve->args;
    if (args->count == 1) local_reply(serve, session, "+PONG\r\n");
    else if (args->count == 2) reply_arg(serve, session, &args->args[1]);
    else local_reply(serve, session, "-ERR wrong number of arguments for 'ping' command\r\n");
}

/* The sidecar serves the pod under its own identity: these credentials change nothing. */
static bool is_own_identity(const struct serve *serve, const struct resp_arg *username,
                            const struct resp_arg *password) {
    if (!serve->password || !is_exactly(password, serve->password)) return false;
    return is_exactly(username, serve->username ? serve->username : "default");
}

static bool auth(struct serve *serve, struct session *session) {
    const struct resp_args *args = &serve->args;
    static const struct resp_arg by_default = {(const uint8_t *)"default", 7};
    const struct resp_arg *username = args->count == 3 ? &args->args[1] : &by_default;
    if (args->count > 3 || !is_own_identity(serve, username, &args->args[args->count - 1])) return false;
    local_reply(serve, session, "+OK\r\n");
    return true;
}

static bool set_name(struct session *session, const struct resp_arg *name) {
    if (name->length > SESSION_NAME_MAX) return false;
    for (uint32_t i = 0; i < name->length; i++)
        if (name->bytes[i] < '!' || name->bytes[i] > '~') return false;
    memcpy(session->name, name->bytes, name->length);
    session->name_length = (uint8_t)name->length;
    session->link_fits = false;
    return true;
}

static const char bad_name[] = "-ERR Client names cannot contain spaces, newlines or special characters.\r\n";

static bool reply_word(struct serve *serve, struct session *session, const char *word) {
    return reply_bulk(slot_sink(session), &serve->blocks, (const uint8_t *)word, (uint32_t)strlen(word));
}

/* The reply to HELLO: a map, or its flat array for RESP2. */
static void reply_hello(struct serve *serve, struct session *session) {
    struct chain *chain = slot_sink(session);
    struct block_pool *blocks = &serve->blocks;
    bool fits = text(serve, session, session->protocol == 3 ? "%7\r\n" : "*14\r\n") &&
                text(serve, session, "$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n") &&
                reply_word(serve, session, serve->upstream_version) && text(serve, session, "$5\r\nproto\r\n") &&
                reply_integer(chain, blocks, session->protocol) && text(serve, session, "$2\r\nid\r\n") &&
                reply_integer(chain, blocks, (int64_t)session->number) && text(serve, session, "$4\r\nmode\r\n") &&
                reply_word(serve, session, serve->upstream_mode) && text(serve, session, "$4\r\nrole\r\n") &&
                reply_word(serve, session, serve->upstream_role) && text(serve, session, "$7\r\nmodules\r\n*0\r\n");
    settle(serve, session, fits);
}

/* As Redis reads integers: nothing but one canonical spelling of each. */
static bool is_integer(const struct resp_arg *arg, int64_t *value) {
    char text[24], again[24];
    if (arg->length == 0 || arg->length >= sizeof text) return false;
    memcpy(text, arg->bytes, arg->length);
    text[arg->length] = 0;
    *value = strtoll(text, NULL, 10);
    snprintf(again, sizeof again, "%lld", (long long)*value);
    return strcmp(text, again) == 0;
}

static bool hello(struct serve *serve, struct session *session) {
    const struct resp_args *args = &serve->args;
    const struct resp_arg *name = NULL;
    uint8_t protocol = session->protocol;
    if (args->count > 1) {
        const struct resp_arg *version = &args->args[1];
        int64_t number;
        if (!is_integer(version, &number)) {
            local_reply(serve, session, "-ERR Protocol version is not an integer or out of range\r\n");
            return true;
        }
        bool known = is_exactly(version, "2") || (is_exactly(version, "3") && serve->upstream_protocol == 3);
        if (!known) {
            local_reply(serve, session, "-NOPROTO unsupported protocol version\r\n");
            return true;
        }
        protocol = version->bytes[0] - '0';
    }
    for (uint32_t i = 2; i < args->count; i++) {
        const struct resp_arg *option = &args->args[i];
        uint32_t left = args->count - i - 1;
        if (is_word(option, "auth") && left >= 2) {
            if (!is_own_identity(serve, &args->args[i + 1], &args->args[i + 2])) return false;
            i += 2;
        } else if (is_word(option, "setname") && left >= 1) {
            name = &args->args[++i];
        } else {
            char reply[128];
            snprintf(reply, sizeof reply, "-ERR Syntax error in HELLO option '%.*s'\r\n",
                     (int)(option->length < 60 ? option->length : 60), (const char *)option->bytes);
            local_reply(serve, session, reply);
            return true;
        }
    }
    if (name && !set_name(session, name)) {
        local_reply(serve, session, bad_name);
        return true;
    }
    if (protocol != session->protocol) session->link_fits = false;
    session->protocol = protocol;
    reply_hello(serve, session);
    return true;
}

/* Database 0 is the shared one; any other is a state of the client's own link. */
static bool select_database(struct serve *serve, struct session *session) {
    const struct resp_arg *arg = &serve->args.args[1];
    int64_t index;
    if (!is_integer(arg, &index)) {
        local_reply(serve, session, "-ERR value is not an integer or out of range\r\n");
    } else if (index < INT32_MIN || index > INT32_MAX) {
        local_reply(serve, session, "-ERR value is out of range, value must between -2147483648 and 2147483647\r\n");
    } else if (index < 0) {
        local_reply(serve, session, "-ERR DB index is out of range\r\n");
    } else if (index == 0) {
        local_reply(serve, session, "+OK\r\n");
    } else {
        return false;
    }
    return true;
}

static void client_setname(struct serve *serve, struct session *session) {
    local_reply(serve, session, set_name(session, &serve->args.args[2]) ? "+OK\r\n" : bad_name);
}

static void client_getname(struct serve *serve, struct session *session) {
    struct chain *chain = slot_sink(session);
    bool fits = session->name_length
                    ? reply_bulk(chain, &serve->blocks, (const uint8_t *)session->name, session->name_length)
                    : reply_null(chain, &serve->blocks, session->protocol);
    settle(serve, session, fits);
}

static void client_info(struct serve *serve, struct session *session) {
    char text[256];
    uint64_t age_s = (serve->now_ns - session->opened_ns) / NS_PER_S;
    int n =
        snprintf(text, sizeof text, "id=%llu name=%.*s age=%llu idle=0 flags=N db=0 cmd=client|info user=%s resp=%d\n",
                 (unsigned long long)session->number, session->name_length, session->name, (unsigned long long)age_s,
                 serve->username ? serve->username : "default", session->protocol);
    uint32_t length = n < (int)sizeof text ? (uint32_t)n : (uint32_t)sizeof text - 1;
    settle(serve, session, reply_bulk(slot_sink(session), &serve->blocks, (const uint8_t *)text, length));
}

static void client_setinfo(struct serve *serve, struct session *session) {
    const struct resp_arg *option = &serve->args.args[2];
    bool known = is_word(option, "lib-name") || is_word(option, "lib-ver");
    local_reply(serve, session, known ? "+OK\r\n" : "-ERR Unrecognized option for CLIENT SETINFO\r\n");
}

static void on_or_off(struct serve *serve, struct session *session) {
    const struct resp_arg *option = &serve->args.args[2];
    bool fits = is_word(option, "on") || is_word(option, "off");
    local_reply(serve, session, fits ? "+OK\r\n" : "-ERR syntax error\r\n");
}

static void reset(struct serve *serve, struct session *session) {
    if (session->protocol != 2 || session->name_length) session->link_fits = false;
    session->protocol = 2;
    session->name_length = 0;
    local_reply(serve, session, "+RESET\r\n");
}

bool local_answer(struct serve *serve, struct session *session, const struct command *command) {
    switch (command->id) {
    case COMMAND_ID_PING: ping(serve, session); return true;
    case COMMAND_ID_ECHO: reply_arg(serve, session, &serve->args.args[1]); return true;
    case COMMAND_ID_HELLO: return hello(serve, session);
    case COMMAND_ID_AUTH: return auth(serve, session);
    case COMMAND_ID_SELECT: return select_database(serve, session);
    case COMMAND_ID_CLIENT_ID:
        settle(serve, session, reply_integer(slot_sink(session), &serve->blocks, (int64_t)session->number));
        return true;
    case COMMAND_ID_CLIENT_GETNAME: client_getname(serve, session); return true;
    case COMMAND_ID_CLIENT_SETNAME: client_setname(serve, session); return true;
    case COMMAND_ID_CLIENT_SETINFO: client_setinfo(serve, session); return true;
    case COMMAND_ID_CLIENT_INFO: client_info(serve, session); return true;
    case COMMAND_ID_CLIENT_CAPA: local_reply(serve, session, "+OK\r\n"); return true;
    case COMMAND_ID_CLIENT_NO_EVICT:
    case COMMAND_ID_CLIENT_NO_TOUCH: on_or_off(serve, session); return true;
    case COMMAND_ID_RESET: reset(serve, session); return true;
    case COMMAND_ID_QUIT:
        local_reply(serve, session, "+OK\r\n");
        session->closing = true;
        return true;
    default: return false;
    }
}
