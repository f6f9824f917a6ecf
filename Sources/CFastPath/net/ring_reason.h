/* ring_reason — why io_uring cannot be had, for the person who reads the log. */
#ifndef FERRITE_NET_RING_REASON_H
#define FERRITE_NET_RING_REASON_H

enum ring_step { RING_SETUP, RING_BUFFERS, RING_SEND, RING_RECEIVE };

/* The failing call, the errno's text and the likely cause. Static text: lives as long as anyone wants to show it. */
const char *ring_reason(enum ring_step step, int error);

#endif
