/* owner — what a loop_conn belongs to, in loop_conn.owner. */
#ifndef FERRITE_NET_OWNER_H
#define FERRITE_NET_OWNER_H

enum owner { OWNER_CLIENT = 1, OWNER_LINK = 2 };

#endif
