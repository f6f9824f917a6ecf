/* socket — opening sockets with the options that keep their memory small and their replies prompt.
 *
 * The kernel's buffers are set, never left to grow by themselves: they count towards local_memory. All sockets are
 * close-on-exec. Errors are returned as negative errno. Any thread. */
#ifndef FERRITE_NET_SOCKET_H
#define FERRITE_NET_SOCKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

/* Socket, file, protocol and io_uring records of one connection, about. */
#define SOCKET_RECORD_BYTES 4096u
/* As asked for by SO_RCVBUF and SO_SNDBUF: the kernel doubles both, and charges its own overhead to them. A client that
 * does not read, measured with SO_MEMINFO, makes its socket hold at most
 *
 *     asked to send    4 KiB     8 KiB     16 KiB    32 KiB    64 KiB
 *     TCP              60 KiB    60 KiB    60 KiB    116 KiB   172 KiB
 *     Unix             10 KiB    18 KiB    35 KiB     68 KiB   136 KiB
 *
 * because TCP looks at the limit only before it begins a packet, and fills a waiting one up to 57 KiB. */
struct socket_buffers {
    int receive_bytes;
    int send_bytes;
    int unacknowledged_ms; /* of a link over TCP: it fails when its peer takes nothing for so long; 0: kernel's own */
};

struct socket_address {
    socklen_t length;
    struct sockaddr_storage storage;
};

/* From a numeric IPv4 or IPv6 address ("127.0.0.1", "::1", "fe80::1%eth0") and a port; false if it is not one. */
bool socket_address_tcp(struct socket_address *address, const char *text, uint16_t port);
/* From a path; false if it is empty or too long for a socket's name (107 bytes). */
bool socket_address_unix(struct socket_address *address, const char *path);

/* A listening socket, non-blocking: TCP (IPv6 only if the address is), or a Unix socket. What clients' sockets need
 * is set here, because accepted sockets inherit it; but for a Unix socket call socket_set_buffers. A file that a dead
 * process has left at the path is replaced; one that somebody listens on, or that is no socket, is -EADDRINUSE. */
int socket_listen(const struct socket_address *address, const struct socket_buffers *buffers, int backlog);

/* Sets an accepted socket's buffers: a Unix socket does not inherit its listener's, and the first clients get more. */
void socket_set_buffers(int fd, const struct socket_buffers *buffers);

/* A socket for a link, non-blocking and not yet connected. */
int socket_for_link(const struct socket_address *address, const struct socket_buffers *buffers);

/* Closing it will reset the connection, and what is unsent or unacknowledged is never sent again. */
void socket_abort(int fd);

/* The port a TCP socket is bound to, or a negative errno. */
int socket_port(int fd);

/* Bytes of kernel memory that a socket holds now. */
struct socket_memory {
    uint32_t received; /* and not taken yet */
    uint32_t unsent;   /* or not acknowledged, and what is kept at hand */
};
struct socket_memory socket_memory(int fd);

#endif
