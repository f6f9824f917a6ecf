/* CFastPathSim — the far side of the third network engine, net/sim.c: for tests.
 *
 * An engine that was created with fp_config.sim touches no socket, no clock and no /proc. Its connections are wires
 * whose other ends a test holds in the same thread: what arrives, in which pieces and when, what the engine may send,
 * which connection ends and how, and what time it is, all is the test's choice, so a seed replays exactly.
 *
 *     fp_sim *sim = fp_sim_create(); fp_sim_time(sim, now);
 *     fp_wire client = fp_sim_connect(sim);               a client of the application connects
 *     fp_sim_deliver(sim, client, "PING\r\n", 6);
 *     fp_turn(engine, 0);                                 does what there is to do now, never sleeps
 *     while ((wire = fp_sim_changed(sim))) …              what the engine has sent, dialed, ended
 *
 * One thread. A wire is a number from 1, never used again; a call with one that has gone is a silent no-op. */
#ifndef CFASTPATHSIM_H
#define CFASTPATHSIM_H

#include "CFastPath.h"

typedef struct fp_sim fp_sim;
typedef uint32_t fp_wire; /* 0: none */

fp_sim *fp_sim_create(void);
/* After the engine's fp_destroy. */
void fp_sim_destroy(fp_sim *sim);

/* Monotonic nanoseconds, never 0 and never back. */
void fp_sim_time(fp_sim *sim, uint64_t now_ns);

/* A client connects: the engine hears of it in its next turn. */
fp_wire fp_sim_connect(fp_sim *sim);

/* The next wire of which something is new since it was last given: it was dialed, has sent, has finished or has gone.
 * 0: none. */
fp_wire fp_sim_changed(fp_sim *sim);

typedef FP_ENUM(fp_wire_state, uint8_t){
    FP_WIRE_GONE,    /* closed by the engine, or never was */
    FP_WIRE_DIALED,  /* the engine connects: fp_sim_pick_up answers */
    FP_WIRE_OPEN,    /* both send */
    FP_WIRE_FINISHED /* the engine has sent all it will, and still reads */
} fp_wire_state;

fp_wire_state fp_sim_state(const fp_sim *sim, fp_wire wire);

/* It has been reset by the engine: what has not arrived never will. To be asked before the last byte is taken. */
bool fp_sim_is_aborted(const fp_sim *sim, fp_wire wire);

/* Ends the dialing: error 0, or an errno. */
void fp_sim_pick_up(fp_sim *sim, fp_wire wire, int error);

/* One piece of what the engine receives, behind those before it. Copied. */
void fp_sim_deliver(fp_sim *sim, fp_wire wire, const void *bytes, size_t length);
/* Nothing more will come: error 0 for an orderly end, behind what was delivered; an errno ends it at once. */
void fp_sim_end(fp_sim *sim, fp_wire wire, int error);

/* Takes what the engine has sent, at most `room` bytes; returns how many. Also of a wire that has gone, until it is
 * empty. */
size_t fp_sim_take(fp_sim *sim, fp_wire wire, void *bytes, size_t room);
/* How many bytes the wire holds that were not taken yet: a send that finds it full is short. At first 64 KiB. */
void fp_sim_room(fp_sim *sim, fp_wire wire, size_t bytes);

/* The turn before had nothing to do. */
bool fp_sim_is_idle(const fp_sim *sim);

/* Looks at the engine from the inside: its budget's sums, and that nothing is left of clients when there are none.
 * NULL, or what is wrong. */
const char *fp_sim_unsound(const fp_engine *engine);

/* When the oldest fetch of the key began, whoever waits for it: a refresh or one behind a write is nobody's, and one
 * that was given up takes readers on. 0: there is none. */
uint64_t fp_sim_fetch_since(fp_engine *engine, const void *key, size_t length);

#endif
