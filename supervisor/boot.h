/* boot.h - the first message to a child: all settings, and the descriptors of what it works on. */
#ifndef LLMD_SUPERVISOR_BOOT_H
#define LLMD_SUPERVISOR_BOOT_H

#include "common/config.h"
#include "proto/frame.h"

struct llmd;
struct process;
struct team;

bool boot_send(struct llmd *l, struct team *t, struct process *p, struct err *e);

/* BOOT with settings alone, for llm-worker --inspect. */
bool boot_send_settings(int control, const struct config *c, struct err *e);

/* RELOAD with the settings that may change while running. */
void boot_fill_live(const struct config *c, Llmd__Reload *reload);
void boot_free_live(Llmd__Reload *reload);

#endif
