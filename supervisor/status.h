/* status.h - the answer to llmctl status, put together from the board, the machines and the plan. */
#ifndef LLMD_SUPERVISOR_STATUS_H
#define LLMD_SUPERVISOR_STATUS_H

#include "common/arena.h"
#include "proto/frame.h"

struct llmd;

/* Everything in the result lives in the arena. */
Llmd__Status *status_make(const struct llmd *l, struct arena *a);

/* Counter of the group's rank 0. */
uint64_t status_generated_tokens(const struct llmd *l, uint32_t group);

/* One line for people: "ready: 1 of 1 groups, stories-demo on 127.0.0.1:8080". */
void status_line(const struct llmd *l, char *out, size_t n);

#endif
