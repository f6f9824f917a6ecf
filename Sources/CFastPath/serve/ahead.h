/* ahead — how much may be fetched before anybody asks for it: nobody's place is taken, and nobody waits behind it.
 *
 * At one time a window of fetches is under way. It grows by one with each answer that comes nearly as fast as the
 * fastest, and shrinks by one with each that comes later: then answers queue somewhere, and clients' answers would
 * queue behind them. (The idea of TCP Vegas: Brakmo, Peterson: TCP Vegas: End to End Congestion Avoidance on a Global
 * Internet, 1995.) */
#ifndef FERRITE_SERVE_AHEAD_H
#define FERRITE_SERVE_AHEAD_H

#include "base/budget.h"
#include "base/clock.h"

struct ahead {
    uint64_t bytes_max; /* nothing is fetched ahead while the store holds as much */
    uint32_t under_way, window;
    uint64_t fastest_ns; /* an answer; drifts upwards, since the way may have become longer */
};

void ahead_init(struct ahead *ahead);
/* Whether one more may be under way. */
bool ahead_fits(const struct ahead *ahead);
/* Whether there is room that is free, and a reserve behind it. */
bool ahead_may_ask(const struct ahead *ahead, const struct budget *budget);
/* Whether a value that has come needs nobody's place. Many are under way at a time, and they may be large: what was
 * free when they were asked for may be taken. */
bool ahead_may_keep(const struct ahead *ahead, const struct budget *budget, size_t bytes);
/* One has been answered, after so long. */
void ahead_heard(struct ahead *ahead, uint64_t took_ns);

#endif
