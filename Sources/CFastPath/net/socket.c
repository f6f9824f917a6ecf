/* socket — opening listening and connecting sockets. */
#define _GNU_SOURCE
#include "net/socket.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/sock_diag.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* With small buffers a loopback segment, of up to 64 KiB, may not fit whole; then the rest waits for an acknowledgement
 * that the other side delays by 40 ms. Of segments this small there are always two to acknowledge at once. Measured
 * with buffers of 8 to 128 KiB on either side: none of some 2500 replies of 1 KB to 1 MB waited; without it, with
 * 32 KiB to send, 950 did. It changes nothing on real networks, whose segments are smaller. */
#define SEGMENT_BYTES 8192

#define KEEPALIVE_IDLE_S 30
#define KEEPALIVE_INTERVAL_S 5
#define KEEPALIVE_COUNT 3

bool socket_address_tcp(struct socket_address *address, const char *text, uint16_t port) {
    *address = (struct socket_address){0};
    struct sockaddr_in *v4 = (struct sockaddr_in *)&address->storage;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&address->storage;
    if (inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(port);
        address->length = sizeof *v4;
        return true;
    }
    char host[INET6_ADDRSTRLEN];
    const char *zone = strchr(text, '%');
    size_t length = zone ? (size_t)(zone - text) : strlen(text);
    if (length >= sizeof host) return false;
    memcpy(host, text, length);
    host[length] = 0;
    if (inet_pton(AF_INET6, host, &v6->sin6_addr) != 1) return false;
    if (zone && !(v6->sin6_scope_id = if_nametoindex(zone + 1))) return false;
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(port);
    address->length = sizeof *v6;
    return true;
}

bool socket_address_unix(struct socket_address *address, const char *path) {
    *address = (struct socket_address){0};
    struct sockaddr_un *name = (struct sockaddr_un *)&address->storage;
    size_t length = strlen(path);
    if (length == 0 || length >= sizeof name->sun_path) return false;
    name->sun_family = AF_UNIX;
    memcpy(name->sun_path, path, length + 1);
    address->length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length + 1);
    return true;
}

static bool set(int fd, int level, int option, int value) {
    return setsockopt(fd, level, option, &value, sizeof value) == 0;
}

static bool set_buffers(int fd, const struct socket_buffers *buffers) {
    return set(fd, SOL_SOCKET, SO_RCVBUF, buffers->receive_bytes) &&
           set(fd, SOL_SOCKET, SO_SNDBUF, buffers->send_bytes);
}

static bool set_listener(int fd, int family, const struct socket_buffers *buffers) {
    if (!set_buffers(fd, buffers)) return false;
    if (family == AF_UNIX) return true;
    if (family == AF_INET6 && !set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1)) return false;
    return set(fd, SOL_SOCKET, SO_REUSEADDR, 1) && set(fd, IPPROTO_TCP, TCP_NODELAY, 1) &&
           set(fd, IPPROTO_TCP, TCP_MAXSEG, SEGMENT_BYTES);
}

/* Whether the socket file at the address has nobody behind it any more. */
static bool is_stale(const struct socket_address *address) {
    const struct sockaddr_un *name = (const struct sockaddr_un *)&address->storage;
    struct stat status;
    if (lstat(name->sun_path, &status) < 0 || !S_ISSOCK(status.st_mode)) return false;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return false;
    bool stale = connect(fd, (const struct sockaddr *)&address->storage, address->length) < 0 && errno == ECONNREFUSED;
    close(fd);
    return stale;
}

static bool bind_to(int fd, const struct socket_address *address) {
    const struct sockaddr *name = (const struct sockaddr *)&address->storage;
    if (bind(fd, name, address->length) == 0) return true;
    if (errno != EADDRINUSE || name->sa_family != AF_UNIX) return false;
    if (!is_stale(address) || unlink(((const struct sockaddr_un *)name)->sun_path) < 0) {
        errno = EADDRINUSE;
        return false;
    }
    return bind(fd, name, address->length) == 0;
}

static int close_with_errno(int fd) {
    int error = errno;
    close(fd);
    return -error;
}

int socket_listen(const struct socket_address *address, const struct socket_buffers *buffers, int backlog) {
    int family = address->storage.ss_family;
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return -errno;
    if (!set_listener(fd, family, buffers) || !bind_to(fd, address) || listen(fd, backlog) < 0) {
        return close_with_errno(fd);
    }
    return fd;
}

void socket_set_buffers(int fd, const struct socket_buffers *buffers) {
    set_buffers(fd, buffers); /* cannot fail on a socket of our own */
}

static bool set_link(int fd, int family, const struct socket_buffers *buffers) {
    if (!set_buffers(fd, buffers)) return false;
    if (family == AF_UNIX) return true;
    return set(fd, IPPROTO_TCP, TCP_NODELAY, 1) && set(fd, IPPROTO_TCP, TCP_MAXSEG, SEGMENT_BYTES) &&
           set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, buffers->unacknowledged_ms) && set(fd, SOL_SOCKET, SO_KEEPALIVE, 1) &&
           set(fd, IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE_S) &&
           set(fd, IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S) &&
           set(fd, IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_COUNT);
}

int socket_for_link(const struct socket_address *address, const struct socket_buffers *buffers) {
    int family = address->storage.ss_family;
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return -errno;
    return set_link(fd, family, buffers) ? fd : close_with_errno(fd);
}

void socket_abort(int fd) {
    struct linger linger = {.l_onoff = 1, .l_linger = 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
}

int socket_port(int fd) {
    struct sockaddr_storage name;
    socklen_t length = sizeof name;
    if (getsockname(fd, (struct sockaddr *)&name, &length) < 0) return -errno;
    if (name.ss_family == AF_INET) return ntohs(((struct sockaddr_in *)&name)->sin_port);
    if (name.ss_family == AF_INET6) return ntohs(((struct sockaddr_in6 *)&name)->sin6_port);
    return -EAFNOSUPPORT;
}

struct socket_memory socket_memory(int fd) {
    uint32_t info[SK_MEMINFO_VARS] = {0};
    socklen_t length = sizeof info;
    if (getsockopt(fd, SOL_SOCKET, SO_MEMINFO, info, &length) < 0) return (struct socket_memory){0};
    /* What waits to leave is under QUEUED for TCP, under ALLOC for a Unix socket; both count it in flight. */
    uint32_t queued = info[SK_MEMINFO_WMEM_QUEUED], allocated = info[SK_MEMINFO_WMEM_ALLOC];
    return (struct socket_memory){.received = info[SK_MEMINFO_RMEM_ALLOC],
                                  .unsent = (queued > allocated ? queued : allocated) + info[SK_MEMINFO_FWD_ALLOC]};
}
