/* device_kills.h - faults of GPUs (device_faults.def), done to a server on fake ones (gpus.h) under load. */
#ifndef LLMD_TESTS_CHAOS_DEVICE_KILLS_H
#define LLMD_TESTS_CHAOS_DEVICE_KILLS_H

#include "tests/chaos/kills.h"

/* The row of the failure matrix that a kind of kill is of, those without a GPU's fault too; 0: none. */
uint32_t device_row(enum kill_id id);
/* Whether the shape of the server can take it. */
bool device_can(const struct server *s, enum kill_id id);
/* Do it to the rank in that slot of the board, process `pid`.  The server may not be whole afterwards. */
void device_strike(struct killer *k, enum kill_id id, uint32_t slot, pid_t pid);

/* A token that no answer of the undisturbed server has: a prompt with it is poison. */
uint32_t device_poison_token(const struct catalog *c);

#endif
