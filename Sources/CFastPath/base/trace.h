/* trace — what happens to one key's copy, and why: for a person who asks where an answer came from. Off, it costs a
 * comparison wherever something happens to a key. */
#ifndef FERRITE_BASE_TRACE_H
#define FERRITE_BASE_TRACE_H

#include "CFastPath.h"
#include "base/check.h"

#define TRACE_ROOM 64u
#define TRACE_OFF UINT64_MAX

struct trace {
    uint64_t wanted; /* the low half of the key's hash, or TRACE_OFF */
    uint32_t count;
    fp_trace_record records[TRACE_ROOM];
};

/* Hits are counted together; what does not fit is not kept, and the last record says how many that were. */
static inline void trace_add(struct trace *trace, fp_trace_kind kind, uint64_t number) {
    fp_trace_record *last = trace->count ? &trace->records[trace->count - 1] : NULL;
    if (last && last->kind == kind && kind == FP_TRACE_HIT) last->number++;
    else if (trace->count < TRACE_ROOM - 1) trace->records[trace->count++] = (fp_trace_record){kind, number};
    else if (trace->count < TRACE_ROOM) trace->records[trace->count++] = (fp_trace_record){FP_TRACE_LOST, 1};
    else last->number++;
}

static inline void trace_note(struct trace *trace, uint64_t hash, fp_trace_kind kind, uint64_t number) {
    if (unlikely((uint32_t)hash == trace->wanted)) trace_add(trace, kind, number);
}

/* What happens to all keys. */
static inline void trace_note_all(struct trace *trace, fp_trace_kind kind) {
    if (unlikely(trace->wanted != TRACE_OFF)) trace_add(trace, kind, 0);
}

#endif
