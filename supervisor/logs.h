/* logs.h - the answer to `llmctl logs`: the last lines of each process, from the board. */
#ifndef LLMD_SUPERVISOR_LOGS_H
#define LLMD_SUPERVISOR_LOGS_H

#include "common/arena.h"
#include "proto/frame.h"

struct llmd;

/* process: its name, or "" for all.  Fills reply, an error when there is no such process. */
void logs_answer(const struct llmd *l, const char *process, Llmd__CtlReply *reply, struct arena *a);

#endif
