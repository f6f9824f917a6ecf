/* tls — the TLS of links, by OpenSSL; see tls.h. */
#include "net/tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "base/check.h"

struct fp_tls {
    SSL_CTX *context;
    char server_name[256];
    bool is_address; /* which is matched as such, and not told as a name */
};

struct tls_session {
    SSL *ssl;
    const uint8_t *fed;
    size_t fed_length;
    struct chain *sealed;
    struct block_pool *blocks;
    bool starved; /* a record found no room */
    bool is_open;
};

/* ---- the two ends of a session ---- */

static int end_read(BIO *bio, char *to, int room) {
    struct tls_session *session = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    if (session->fed_length == 0) {
        BIO_set_retry_read(bio);
        return -1;
    }
    size_t some = session->fed_length < (size_t)room ? session->fed_length : (size_t)room;
    memcpy(to, session->fed, some);
    session->fed += some;
    session->fed_length -= some;
    return (int)some;
}

static int end_write(BIO *bio, const char *bytes, int length) {
    struct tls_session *session = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    if (chain_append(session->sealed, session->blocks, bytes, (size_t)length)) return length;
    session->starved = true;
    return -1;
}

static long end_control(BIO *bio, int command, long number, void *pointer) {
    (void)bio, (void)number, (void)pointer;
    return command == BIO_CTRL_FLUSH;
}

static BIO_METHOD *end_method(void) {
    static BIO_METHOD *method;
    if (method) return method;
    method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "link");
    CHECK(method);
    BIO_meth_set_read(method, end_read);
    BIO_meth_set_write(method, end_write);
    BIO_meth_set_ctrl(method, end_control);
    return method;
}

static bool expect_server(SSL *ssl, const fp_tls *tls) {
    if (tls->is_address) return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), tls->server_name) == 1;
    SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    return SSL_set1_host(ssl, tls->server_name) == 1 && SSL_set_tlsext_host_name(ssl, tls->server_name) == 1;
}

struct tls_session *tls_begin(const fp_tls *tls, struct chain *sealed, struct block_pool *blocks) {
    struct tls_session *session = calloc(1, sizeof *session);
    SSL *ssl = SSL_new(tls->context);
    BIO *end = BIO_new(end_method());
    if (!session || !ssl || !end || !expect_server(ssl, tls)) {
        BIO_free(end);
        SSL_free(ssl);
        free(session);
        ERR_clear_error();
        return NULL;
    }
    *session = (struct tls_session){.ssl = ssl, .sealed = sealed, .blocks = blocks};
    BIO_set_data(end, session);
    BIO_set_init(end, 1);
    SSL_set_bio(ssl, end, end);
    SSL_set_connect_state(ssl);
    return session;
}

void tls_end(struct tls_session *session) {
    SSL_free(session->ssl);
    free(session);
}

void tls_feed(struct tls_session *session, const uint8_t *bytes, size_t length) {
    CHECK(session->fed_length == 0);
    session->fed = bytes;
    session->fed_length = length;
}

static enum tls_said failed(struct tls_session *session, int *error, const char **why) {
    unsigned long code = ERR_get_error();
    long verified = SSL_get_verify_result(session->ssl);
    if (session->starved) {
        *error = ENOMEM;
        *why = NULL;
    } else if (verified != X509_V_OK) {
        *error = FP_ERROR_CERTIFICATE;
        *why = X509_verify_cert_error_string(verified);
    } else {
        *error = FP_ERROR_TLS;
        *why = code ? ERR_reason_error_string(code) : NULL;
        if (!*why) *why = "the connection broke off";
    }
    ERR_clear_error();
    return TLS_FAILED;
}

enum tls_said tls_read(struct tls_session *session, uint8_t *plain, size_t room, size_t *length, int *error,
                       const char **why) {
    ERR_clear_error();
    int result = session->is_open ? SSL_read_ex(session->ssl, plain, room, length) : SSL_do_handshake(session->ssl);
    if (likely(result == 1)) {
        if (session->is_open) return TLS_PLAIN;
        session->is_open = true;
        return TLS_OPENED;
    }
    switch (SSL_get_error(session->ssl, result)) {
    case SSL_ERROR_WANT_READ:
        SSL_free_buffers(session->ssl); /* an idle one keeps none; refused where half a record lies in them */
        return TLS_MORE;
    case SSL_ERROR_ZERO_RETURN:
        session->fed_length = 0; /* nothing that follows is part of the conversation */
        return TLS_CLOSED;
    default: return failed(session, error, why);
    }
}

static enum tls_wrote wrote(struct tls_session *session, int result) {
    if (likely(result >= 0 && !session->starved)) return TLS_WROTE;
    bool must_wait = !session->starved && SSL_in_init(session->ssl);
    ERR_clear_error();
    return must_wait ? TLS_LATER : TLS_SPENT;
}

enum tls_wrote tls_write(struct tls_session *session, const void *bytes, size_t length) {
    size_t written;
    ERR_clear_error();
    return wrote(session, SSL_write_ex(session->ssl, bytes, length, &written) == 1 ? 1 : -1);
}

/* 0 says that the peer has not done so yet. */
enum tls_wrote tls_finish(struct tls_session *session) {
    ERR_clear_error();
    return wrote(session, SSL_shutdown(session->ssl));
}

size_t tls_idle_bytes(const struct tls_session *session) {
    const STACK_OF(X509) *chain = SSL_get_peer_cert_chain(session->ssl);
    size_t length = 0;
    for (int i = 0; chain && i < sk_X509_num(chain); i++) {
        int one = i2d_X509(sk_X509_value(chain, i), NULL);
        if (one > 0) length += (size_t)one;
    }
    return TLS_IDLE_BYTES + 4 * length;
}

/* ---- what all sessions share ---- */

/* OpenSSL's own would ask at the terminal. */
static int no_passphrase(char *to, int room, int is_written, void *was_asked) {
    (void)to, (void)room, (void)is_written;
    if (was_asked) *(bool *)was_asked = true;
    return -1;
}

static const char *reason(const char *otherwise) {
    unsigned long code = ERR_peek_last_error();
    const char *words = code ? ERR_reason_error_string(code) : NULL;
    ERR_clear_error();
    return words ? words : otherwise;
}

/* PEM ends so, too. */
static bool is_end_of_pem(void) {
    unsigned long code = ERR_peek_last_error();
    bool is_end = ERR_GET_LIB(code) == ERR_LIB_PEM && ERR_GET_REASON(code) == PEM_R_NO_START_LINE;
    if (is_end) ERR_clear_error();
    return is_end;
}

static bool trust(SSL_CTX *context, const fp_tls_config *config, fp_error *error) {
    if (!config->ca_length) return SSL_CTX_set_default_verify_paths(context) == 1;
    BIO *pem = BIO_new_mem_buf(config->ca, (int)config->ca_length);
    CHECK(pem);
    size_t count = 0;
    X509 *certificate;
    bool taken = true;
    while (taken && (certificate = PEM_read_bio_X509_AUX(pem, NULL, no_passphrase, NULL))) {
        taken = X509_STORE_add_cert(SSL_CTX_get_cert_store(context), certificate) == 1;
        X509_free(certificate);
        count++;
    }
    BIO_free(pem);
    if (taken && is_end_of_pem() && count > 0) return true;
    *error = count ? reason("a certificate in it cannot be read") : "there is no certificate in it";
    ERR_clear_error();
    return false;
}

static bool add_chain(SSL_CTX *context, const fp_tls_config *config, fp_error *error) {
    BIO *pem = BIO_new_mem_buf(config->certificate, (int)config->certificate_length);
    CHECK(pem);
    X509 *certificate = PEM_read_bio_X509_AUX(pem, NULL, no_passphrase, NULL);
    bool taken = certificate && SSL_CTX_use_certificate(context, certificate) == 1;
    if (!certificate && is_end_of_pem()) *error = "there is no certificate in it";
    else if (!taken) *error = reason("its certificate cannot be read");
    X509_free(certificate);
    while (taken && (certificate = PEM_read_bio_X509(pem, NULL, no_passphrase, NULL))) {
        if (SSL_CTX_add0_chain_cert(context, certificate) == 1) continue;
        X509_free(certificate);
        taken = false;
    }
    if (taken && !is_end_of_pem()) taken = false;
    if (!taken && !*error) *error = reason("a certificate of its chain cannot be read");
    BIO_free(pem);
    return taken;
}

static bool add_key(SSL_CTX *context, const fp_tls_config *config, fp_error *error) {
    BIO *pem = BIO_new_mem_buf(config->key, (int)config->key_length);
    CHECK(pem);
    bool is_locked = false;
    EVP_PKEY *key = PEM_read_bio_PrivateKey(pem, NULL, no_passphrase, &is_locked);
    BIO_free(pem);
    bool taken = false;
    if (!key) {
        *error = is_locked ? "its private key has a passphrase" : "there is no private key in it that can be read";
    } else if (SSL_CTX_use_PrivateKey(context, key) != 1 || SSL_CTX_check_private_key(context) != 1) {
        *error = "its private key is another one than the certificate's";
    } else {
        taken = true;
    }
    EVP_PKEY_free(key);
    ERR_clear_error();
    return taken;
}

/* OpenSSL checks no name where it is empty, and takes any subdomain where it begins with a dot. */
static bool name_server(fp_tls *tls, const char *server_name) {
    size_t length = strcspn(server_name, "%"); /* no certificate has a zone, nor a dot at the end */
    if (length > 1 && server_name[length - 1] == '.') length--;
    if (length == 0 || server_name[0] == '.' || length >= sizeof tls->server_name) return false;
    memcpy(tls->server_name, server_name, length);
    struct in6_addr address;
    tls->is_address =
        inet_pton(AF_INET, tls->server_name, &address) == 1 || inet_pton(AF_INET6, tls->server_name, &address) == 1;
    return true;
}

fp_tls *fp_tls_create(const fp_tls_config *config, fp_tls_part *part, fp_error *error) {
    /* Nobody takes it down at the end: the loop may still be at work while the process ends. */
    OPENSSL_init_ssl(OPENSSL_INIT_NO_ATEXIT, NULL);
    *error = NULL;
    *part = FP_TLS_LIBRARY;
    fp_tls *tls = calloc(1, sizeof *tls);
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    if (!tls || !context) {
        *error = reason("no memory");
        goto failed;
    }
    *part = FP_TLS_NAME;
    if (!name_server(tls, config->server_name)) {
        *error = "it is no host's name";
        goto failed;
    }
    tls->context = context;
    SSL_CTX_set_min_proto_version(context, config->is_1_3 ? TLS1_3_VERSION : TLS1_2_VERSION);
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION);
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_max_cert_list(context, TLS_CHAIN_BYTES_MAX);
    /* An authority that is trusted need not be the last of its chain. */
    X509_STORE_set_flags(SSL_CTX_get_cert_store(context), X509_V_FLAG_PARTIAL_CHAIN);
    *part = FP_TLS_CA;
    if (!trust(context, config, error)) goto failed;
    *part = FP_TLS_CERTIFICATE;
    if (config->certificate_length && !add_chain(context, config, error)) goto failed;
    *part = FP_TLS_KEY;
    if (config->key_length && !add_key(context, config, error)) goto failed;
    return tls;

failed:
    if (!*error) *error = reason("it cannot be used");
    SSL_CTX_free(context);
    free(tls);
    return NULL;
}

void fp_tls_free(fp_tls *tls) {
    if (!tls) return;
    SSL_CTX_free(tls->context);
    free(tls);
}
