/* socket_test — listening and connecting sockets have the options that memory and latency depend on. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "net/socket.h"
#include "test.h"

static const struct socket_buffers buffers = {.receive_bytes = 20000, .send_bytes = 30000, .unacknowledged_ms = 7000};

static int option(int fd, int level, int name) {
    int value = -1;
    socklen_t length = sizeof value;
    return getsockopt(fd, level, name, &value, &length) < 0 ? -1 : value;
}

static bool accept_pair(int listener, const struct socket_address *address, int *client, int *server) {
    struct pollfd ready = {.fd = listener, .events = POLLIN};
    *client = socket(address->storage.ss_family, SOCK_STREAM, 0);
    if (connect(*client, (const struct sockaddr *)&address->storage, address->length) < 0) return false;
    if (poll(&ready, 1, 2000) != 1) return false;
    *server = accept(listener, NULL, NULL);
    return *server >= 0;
}

TEST("addresses are read from their numeric form only") {
    struct socket_address address;
    EXPECT(socket_address_tcp(&address, "127.0.0.1", 6379) && address.storage.ss_family == AF_INET);
    EXPECT(address.length == sizeof(struct sockaddr_in));
    EXPECT(socket_address_tcp(&address, "::1", 6379) && address.storage.ss_family == AF_INET6);
    EXPECT(socket_address_tcp(&address, "::1%lo", 6379));
    EXPECT(((struct sockaddr_in6 *)&address.storage)->sin6_scope_id > 0);
    EXPECT(!socket_address_tcp(&address, "::1%nowhere", 6379));
    EXPECT(!socket_address_tcp(&address, "localhost", 6379));
    EXPECT(!socket_address_tcp(&address, "", 6379));
    EXPECT(!socket_address_tcp(&address, "127.0.0.1.", 6379));
    char path[109];
    memset(path, 'a', sizeof path);
    path[108] = 0;
    EXPECT(!socket_address_unix(&address, path) && !socket_address_unix(&address, ""));
    path[107] = 0;
    EXPECT(socket_address_unix(&address, path));
}

TEST("accepted TCP sockets inherit their buffers, no delay, and small segments") {
    const char *texts[] = {"127.0.0.1", "::1"};
    for (int i = 0; i < 2; i++) {
        struct socket_address address;
        int client, server;
        EXPECT(socket_address_tcp(&address, texts[i], 0));
        int listener = socket_listen(&address, &buffers, 16);
        if (listener == -EADDRNOTAVAIL || listener == -EAFNOSUPPORT) continue; /* no IPv6 here */
        EXPECT(socket_port(listener) > 0);
        EXPECT(socket_address_tcp(&address, texts[i], (uint16_t)socket_port(listener)));
        EXPECT(socket_listen(&address, &buffers, 16) == -EADDRINUSE);
        if (i == 1) EXPECT(option(listener, IPPROTO_IPV6, IPV6_V6ONLY) == 1);
        EXPECT(fcntl(listener, F_GETFL) & O_NONBLOCK && fcntl(listener, F_GETFD) & FD_CLOEXEC);
        EXPECT(accept_pair(listener, &address, &client, &server));
        EXPECT(option(server, IPPROTO_TCP, TCP_NODELAY) == 1);
        EXPECT(option(server, SOL_SOCKET, SO_RCVBUF) == 40000 && option(server, SOL_SOCKET, SO_SNDBUF) == 60000);
        EXPECT(option(server, IPPROTO_TCP, TCP_MAXSEG) <= 8192 && option(client, IPPROTO_TCP, TCP_MAXSEG) <= 8192);
        close(client);
        close(server);
        close(listener);
    }
}

TEST("a link's socket has its buffers and keepalive before it connects") {
    struct socket_address address;
    EXPECT(socket_address_tcp(&address, "127.0.0.1", 1));
    int fd = socket_for_link(&address, &buffers);
    EXPECT(option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT) == 7000);
    EXPECT(option(fd, SOL_SOCKET, SO_RCVBUF) == 40000 && option(fd, SOL_SOCKET, SO_SNDBUF) == 60000);
    EXPECT(option(fd, SOL_SOCKET, SO_KEEPALIVE) == 1 && option(fd, IPPROTO_TCP, TCP_NODELAY) == 1);
    EXPECT(option(fd, IPPROTO_TCP, TCP_MAXSEG) == 8192);
    EXPECT(fcntl(fd, F_GETFL) & O_NONBLOCK && fcntl(fd, F_GETFD) & FD_CLOEXEC);
    EXPECT(socket_port(fd) == 0);
    close(fd);
}

TEST("an unread connection holds no more kernel memory than its buffers say") {
    char directory[] = "/tmp/ferrite-test-XXXXXX", path[64];
    EXPECT(mkdtemp(directory));
    snprintf(path, sizeof path, "%s/socket", directory);
    static char bytes[65536];
    for (int i = 0; i < 2; i++) {
        struct socket_address address;
        int client, server;
        if (i == 0) EXPECT(socket_address_tcp(&address, "127.0.0.1", 0));
        else EXPECT(socket_address_unix(&address, path));
        int listener = socket_listen(&address, &(struct socket_buffers){16384, 16384}, 16);
        if (i == 0) EXPECT(socket_address_tcp(&address, "127.0.0.1", (uint16_t)socket_port(listener)));
        EXPECT(accept_pair(listener, &address, &client, &server));
        if (i == 1) socket_set_buffers(server, &(struct socket_buffers){16384, 16384});
        for (int n = 0; n < 50; n++) {
            while (send(server, bytes, sizeof bytes, MSG_DONTWAIT) > 0) continue;
            while (send(client, bytes, sizeof bytes, MSG_DONTWAIT) > 0) continue;
            usleep(1000);
        }
        struct socket_memory held = socket_memory(server);
        uint32_t sum = held.unsent + held.received;
        EXPECT(sum > 16384 && sum < 128 * 1024 &&
               (i == 1 || held.received > 4096)); /* a Unix peer holds what it sent */
        close(client);
        close(server);
        close(listener);
    }
    unlink(path);
    rmdir(directory);
}

TEST("a Unix socket's file is replaced when nobody listens on it, and left alone otherwise") {
    char directory[] = "/tmp/ferrite-test-XXXXXX", path[64];
    EXPECT(mkdtemp(directory));
    snprintf(path, sizeof path, "%s/socket", directory);
    struct socket_address address;
    int client, server;
    EXPECT(socket_address_unix(&address, path));
    int listener = socket_listen(&address, &buffers, 16);
    EXPECT(listener >= 0);
    EXPECT(accept_pair(listener, &address, &client, &server));
    socket_set_buffers(server, &buffers);
    EXPECT(option(server, SOL_SOCKET, SO_SNDBUF) == 60000);
    close(client);
    close(server);
    EXPECT(socket_listen(&address, &buffers, 16) == -EADDRINUSE); /* somebody listens */
    close(listener);
    listener = socket_listen(&address, &buffers, 16); /* the file is still there */
    EXPECT(listener >= 0 && accept_pair(listener, &address, &client, &server));
    close(client);
    close(server);
    close(listener);
    unlink(path);

    int file = open(path, O_CREAT | O_WRONLY, 0600);
    EXPECT(write(file, "precious", 8) == 8);
    close(file);
    struct stat status;
    EXPECT(socket_listen(&address, &buffers, 16) == -EADDRINUSE);
    EXPECT(stat(path, &status) == 0 && status.st_size == 8);
    unlink(path);
    rmdir(directory);
    EXPECT(socket_listen(&address, &buffers, 16) == -ENOENT);
}
