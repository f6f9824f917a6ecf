/* tls_test — sessions against a server of OpenSSL's own in memory: what is sent arrives, in whatever pieces. */
#include "net/tls.h"

#include <openssl/bio.h>
#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "test.h"

struct world {
    struct budget budget;
    struct block_pool blocks;
    struct chain sealed;
    fp_tls *tls;
    struct tls_session *session;
    SSL_CTX *context;
    SSL *server;
    BIO *to_server, *from_server;
};

static void name(X509 *certificate, const char *host) {
    X509_NAME *subject = X509_get_subject_name(certificate);
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)host, -1, -1, 0);
    X509_set_issuer_name(certificate, subject);
    char names[300];
    snprintf(names, sizeof names, "DNS:%s", host);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, names);
    X509_add_ext(certificate, extension, -1);
    X509_EXTENSION_free(extension);
}

/* A certificate that signed itself; `pem` holds it. */
static X509 *make_certificate(EVP_PKEY *key, const char *host, char *pem, size_t room) {
    X509 *certificate = X509_new();
    X509_set_version(certificate, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
    X509_gmtime_adj(X509_getm_notBefore(certificate), -60);
    X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
    X509_set_pubkey(certificate, key);
    name(certificate, host);
    X509_sign(certificate, key, EVP_sha256());
    BIO *out = BIO_new(BIO_s_mem());
    PEM_write_bio_X509(out, certificate);
    int length = BIO_read(out, pem, (int)room - 1);
    pem[length > 0 ? length : 0] = 0;
    BIO_free(out);
    return certificate;
}

static int large_ticket(SSL *ssl, void *context) {
    static uint8_t bytes[1500];
    (void)context;
    SSL_SESSION_set1_ticket_appdata(SSL_get_session(ssl), bytes, sizeof bytes);
    return 1;
}

static struct world *make_world(const char *host, const char *expected) {
    static struct world world;
    static char pem[4096];
    world = (struct world){0};
    budget_init(&world.budget, 16 << 20);
    block_pool_init(&world.blocks, &world.budget, 4);
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *certificate = make_certificate(key, host, pem, sizeof pem);
    world.context = SSL_CTX_new(TLS_server_method());
    SSL_CTX_use_certificate(world.context, certificate);
    SSL_CTX_use_PrivateKey(world.context, key);
    /* So that a message of the handshake takes several records. */
    SSL_CTX_set_max_send_fragment(world.context, 512);
    SSL_CTX_set_session_ticket_cb(world.context, large_ticket, NULL, NULL);
    SSL_CTX_set_num_tickets(world.context, 1);
    X509_free(certificate);
    EVP_PKEY_free(key);
    world.server = SSL_new(world.context);
    world.to_server = BIO_new(BIO_s_mem());
    world.from_server = BIO_new(BIO_s_mem());
    SSL_set_bio(world.server, world.to_server, world.from_server);
    SSL_set_accept_state(world.server);
    fp_tls_config config = {.server_name = expected, .ca = pem, .ca_length = strlen(pem)};
    fp_tls_part part;
    fp_error error;
    world.tls = fp_tls_create(&config, &part, &error);
    EXPECT(world.tls);
    world.session = tls_begin(world.tls, &world.sealed, &world.blocks);
    EXPECT(world.session);
    return &world;
}

static void end_world(struct world *world) {
    tls_end(world->session);
    fp_tls_free(world->tls);
    SSL_free(world->server);
    SSL_CTX_free(world->context);
    chain_clear(&world->sealed, &world->blocks);
    block_pool_deinit(&world->blocks);
    EXPECT(world->budget.used == 0);
}

/* What the session has sealed reaches the server. */
static void deliver(struct world *world) {
    static uint8_t bytes[1 << 17];
    size_t length = chain_copy(&world->sealed, bytes, sizeof bytes);
    if (length) BIO_write(world->to_server, bytes, (int)length);
    chain_sent(&world->sealed, &world->blocks, length);
}

/* Feeds the session `most` of the bytes that wait for it; what it says last. `plain`: what came to light. */
static enum tls_said receive(struct world *world, size_t most, char *plain, size_t *plain_length, const char **why) {
    static uint8_t bytes[1 << 17];
    int length = BIO_read(world->from_server, bytes, (int)most);
    tls_feed(world->session, bytes, length > 0 ? (size_t)length : 0);
    for (;;) {
        int error;
        size_t some = 0;
        enum tls_said said =
            tls_read(world->session, (uint8_t *)plain + *plain_length, TLS_RECORD_BYTES, &some, &error, why);
        *plain_length += some;
        if (said != TLS_PLAIN && said != TLS_OPENED) return said;
    }
}

static char plain[1 << 18];

/* Until both are done; the server's tickets still wait. True when it went well. */
static bool shake_hands(struct world *world, const char **why) {
    size_t length = 0;
    for (int round = 0; round < 20 && !SSL_is_init_finished(world->server); round++) {
        if (receive(world, 100000, plain, &length, why) == TLS_FAILED) return false;
        deliver(world);
        SSL_do_handshake(world->server);
    }
    return SSL_is_init_finished(world->server);
}

TEST("what is sealed is what the server reads, and the other way round, in pieces of any length") {
    struct world *world = make_world("redis.example.org", "redis.example.org.");
    const char *why;
    EXPECT(shake_hands(world, &why));
    size_t length = 0;
    static char sent[40000], got[sizeof sent];
    for (size_t i = 0; i < sizeof sent; i++) sent[i] = (char)(i * 31 + i / 256);
    for (int round = 0; round < 2; round++) {
        for (size_t at = 0; at < sizeof sent; at += 10000)
            EXPECT(tls_write(world->session, sent + at, 10000) == TLS_WROTE);
        deliver(world);
        size_t read = 0;
        int some;
        while (read < sizeof got && (some = SSL_read(world->server, got + read, (int)(sizeof got - read))) > 0)
            read += (size_t)some;
        EXPECT(read == sizeof sent && memcmp(sent, got, sizeof sent) == 0);
        SSL_write(world->server, sent, sizeof sent);
        length = 0;
        while (BIO_pending(world->from_server) > 0)
            EXPECT(receive(world, 1 + length % 700, plain, &length, &why) == TLS_MORE);
        EXPECT(length == sizeof sent && memcmp(sent, plain, sizeof sent) == 0);
    }
    EXPECT(tls_idle_bytes(world->session) > TLS_IDLE_BYTES);
    EXPECT(tls_finish(world->session) == TLS_WROTE);
    deliver(world);
    char byte;
    EXPECT(SSL_read(world->server, &byte, 1) == 0 && SSL_get_shutdown(world->server) == SSL_RECEIVED_SHUTDOWN);
    SSL_shutdown(world->server);
    EXPECT(receive(world, 100000, plain, &length, &why) == TLS_CLOSED);
    end_world(world);
}

TEST("while half a message of the server's has come nothing is sealed, and nothing is lost") {
    struct world *world = make_world("h", "h");
    const char *why;
    EXPECT(shake_hands(world, &why));
    size_t length = 0;
    EXPECT(BIO_pending(world->from_server) > 1200); /* the ticket, in several records */
    EXPECT(receive(world, 600, plain, &length, &why) == TLS_MORE);
    EXPECT(tls_write(world->session, "PING", 4) == TLS_LATER);
    EXPECT(tls_finish(world->session) == TLS_LATER);
    EXPECT(world->sealed.bytes == 0);
    EXPECT(receive(world, 100000, plain, &length, &why) == TLS_MORE);
    EXPECT(tls_write(world->session, "PING", 4) == TLS_WROTE);
    deliver(world);
    char got[4] = "";
    EXPECT(SSL_read(world->server, got, 4) == 4 && memcmp(got, "PING", 4) == 0);
    end_world(world);
}

TEST("a server for another name is not accepted, in OpenSSL's words, and is told so") {
    struct world *world = make_world("redis.example.org", "example.org");
    const char *why = "";
    EXPECT(!shake_hands(world, &why));
    EXPECT(strcmp(why, "hostname mismatch") == 0);
    EXPECT(world->sealed.bytes > 0); /* the alert */
    end_world(world);
}

TEST("names that would not be checked are refused") {
    const char *const names[] = {"", ".", ".example.org", "%eth0"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        fp_tls_config config = {.server_name = names[i]};
        fp_tls_part part;
        fp_error error = NULL;
        EXPECT(!fp_tls_create(&config, &part, &error));
        EXPECT(part == FP_TLS_NAME && error);
    }
}
