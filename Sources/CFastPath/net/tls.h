/* tls — the TLS of links, by OpenSSL without a socket. The only file that includes OpenSSL.
 *
 *   link.out ─► tls_write ─► link.sealed ─► loop_send           plain bytes, at most a record's worth a call
 *   loop DATA ─► tls_feed ─► tls_read ─► plain bytes            as often as it gives some
 *
 * Records are read from where they were received and written into the link's chain: there is no buffer between.
 * A link's session is for the loop thread only; fp_tls is made on any thread and then given to it. */
#ifndef FERRITE_NET_TLS_H
#define FERRITE_NET_TLS_H

#include "CFastPath.h"
#include "base/bytes.h"

#define TLS_RECORD_BYTES 16384u    /* the most plain bytes of one record */
#define TLS_CHAIN_BYTES_MAX 16384u /* of a server's certificates: a longer chain is refused */
/* What a session holds, about, as measured: while its handshake is under way, with a chain of that length, and idle,
 * beside its server's chain, of which OpenSSL makes four times its length. */
#define TLS_HANDSHAKE_BYTES 98304u
#define TLS_IDLE_BYTES 20480u

struct tls_session;

/* NULL when there is no memory. Records go to `sealed`, in blocks of `blocks`; both outlive it. What was given with
 * fp_tls is shared, and lives as long as its last session. */
struct tls_session *tls_begin(const fp_tls *tls, struct chain *sealed, struct block_pool *blocks);
void tls_end(struct tls_session *session);

enum tls_said {
    TLS_MORE,   /* all that was fed is used up */
    TLS_OPENED, /* the handshake is done: tls_write may be called; read on */
    TLS_PLAIN,  /* *length plain bytes */
    TLS_CLOSED, /* the peer will send nothing more */
    TLS_FAILED  /* *error and *why */
};

/* Begins the handshake, and goes on with it and with the records behind it: reads what tls_feed gave, which stays put
 * until TLS_MORE. May append to `sealed`. *why is static: OpenSSL's own words. *error: FP_ERROR_CERTIFICATE,
 * FP_ERROR_TLS, or ENOMEM when local_memory has no room for a record. */
void tls_feed(struct tls_session *session, const uint8_t *bytes, size_t length);
enum tls_said tls_read(struct tls_session *session, uint8_t *plain, size_t room, size_t *length, int *error,
                       const char **why);

enum tls_wrote {
    TLS_WROTE,
    TLS_LATER, /* half a message of the peer's must come first: again when more was fed */
    TLS_SPENT  /* local_memory has no room for a record: what was sealed so far is of no use */
};

/* Once it is open: seals at most TLS_RECORD_BYTES into one record. */
enum tls_wrote tls_write(struct tls_session *session, const void *bytes, size_t length);

/* Tells the peer that nothing more will be sent. */
enum tls_wrote tls_finish(struct tls_session *session);

/* Once it is open: what it holds when it is idle. */
size_t tls_idle_bytes(const struct tls_session *session);

#endif
