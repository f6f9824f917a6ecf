/* error — the kinds of error replies; see error.h. */
#include "resp/error.h"

#include <string.h>

static const char *const words[RESP_ERROR_OTHER] = {
    [RESP_ERROR_ERR] = "ERR",
    [RESP_ERROR_WRONGTYPE] = "WRONGTYPE",
    [RESP_ERROR_OOM] = "OOM",
    [RESP_ERROR_READONLY] = "READONLY",
    [RESP_ERROR_LOADING] = "LOADING",
    [RESP_ERROR_BUSY] = "BUSY",
    [RESP_ERROR_MISCONF] = "MISCONF",
    [RESP_ERROR_NOAUTH] = "NOAUTH",
    [RESP_ERROR_WRONGPASS] = "WRONGPASS",
    [RESP_ERROR_NOPERM] = "NOPERM",
    [RESP_ERROR_NOSCRIPT] = "NOSCRIPT",
    [RESP_ERROR_EXECABORT] = "EXECABORT",
    [RESP_ERROR_MASTERDOWN] = "MASTERDOWN",
    [RESP_ERROR_NOREPLICAS] = "NOREPLICAS",
    [RESP_ERROR_MOVED] = "MOVED",
    [RESP_ERROR_CLUSTERDOWN] = "CLUSTERDOWN",
    [RESP_ERROR_CROSSSLOT] = "CROSSSLOT",
    [RESP_ERROR_NOGROUP] = "NOGROUP",
    [RESP_ERROR_BUSYGROUP] = "BUSYGROUP",
};

enum resp_error resp_error_of(const uint8_t *reply, size_t length) {
    size_t end = 1;
    while (end < length && reply[end] != ' ' && reply[end] != '\r') end++;
    for (enum resp_error error = 0; error < RESP_ERROR_OTHER; error++) {
        if (strlen(words[error]) == end - 1 && memcmp(words[error], reply + 1, end - 1) == 0) return error;
    }
    return RESP_ERROR_OTHER;
}
