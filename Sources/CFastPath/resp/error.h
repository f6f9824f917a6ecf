/* error — the kinds of error replies, by their first word: those that an operator tells apart, and one for the rest. */
#ifndef FERRITE_RESP_ERROR_H
#define FERRITE_RESP_ERROR_H

#include <stddef.h>
#include <stdint.h>

/* In the order of the rows of ferrite_sidecar_upstream_error_replies_total in base/stats.def. */
enum resp_error {
    RESP_ERROR_ERR,
    RESP_ERROR_WRONGTYPE,
    RESP_ERROR_OOM,
    RESP_ERROR_READONLY,
    RESP_ERROR_LOADING,
    RESP_ERROR_BUSY,
    RESP_ERROR_MISCONF,
    RESP_ERROR_NOAUTH,
    RESP_ERROR_WRONGPASS,
    RESP_ERROR_NOPERM,
    RESP_ERROR_NOSCRIPT,
    RESP_ERROR_EXECABORT,
    RESP_ERROR_MASTERDOWN,
    RESP_ERROR_NOREPLICAS,
    RESP_ERROR_MOVED,
    RESP_ERROR_CLUSTERDOWN,
    RESP_ERROR_CROSSSLOT,
    RESP_ERROR_NOGROUP,
    RESP_ERROR_BUSYGROUP,
    RESP_ERROR_OTHER,
    RESP_ERROR_COUNT
};

/* Of a complete reply that begins with '-'. */
enum resp_error resp_error_of(const uint8_t *reply, size_t length);

#endif
