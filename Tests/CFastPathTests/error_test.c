/* error_test — an error reply's kind is its first word, whole. */
#include "resp/error.h"

#include "base/stats.h"
#include "test.h"

static enum resp_error kind_of(const char *reply) { return resp_error_of((const uint8_t *)reply, strlen(reply)); }

TEST("an error reply is counted by its first word, and what is not known as other") {
    EXPECT(kind_of("-ERR unknown command\r\n") == RESP_ERROR_ERR);
    EXPECT(kind_of("-OOM command not allowed\r\n") == RESP_ERROR_OOM);
    EXPECT(kind_of("-CROSSSLOT\r\n") == RESP_ERROR_CROSSSLOT);
    EXPECT(kind_of("-BUSYGROUP there is one\r\n") == RESP_ERROR_BUSYGROUP);
    EXPECT(kind_of("-BUSYBODY\r\n") == RESP_ERROR_OTHER);
    EXPECT(kind_of("-ER\r\n") == RESP_ERROR_OTHER);
    EXPECT(kind_of("-err of mine\r\n") == RESP_ERROR_OTHER);
    EXPECT(kind_of("-\r\n") == RESP_ERROR_OTHER);
}

TEST("each kind has a row of its own among the metrics, with its word") {
    static const char *const labels[] = {
#define METRIC(id, name, labels, kind, help) labels,
#include "base/stats.def"
#undef METRIC
    };
    size_t count = 0;
    for (size_t row = 0; row < sizeof labels / sizeof *labels; row++) {
        char reply[32], code[32];
        if (sscanf(labels[row], "code=\"%31[^\"]", code) != 1) continue;
        snprintf(reply, sizeof reply, "-%s x\r\n", code);
        EXPECT(kind_of(reply) == count++);
    }
    EXPECT(count == RESP_ERROR_COUNT);
}
