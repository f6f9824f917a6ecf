/* sim — the simulated network engine; see include/CFastPathSim.h for its far side. */
#ifndef FERRITE_NET_SIM_H
#define FERRITE_NET_SIM_H

#include "CFastPathSim.h"
#include "net/loop.h"

struct loop *loop_sim_create(struct fp_sim *sim, struct budget *budget);
struct clock sim_clock(struct fp_sim *sim);

#endif
