/* boot.h - pack what a child is told: BOOT at its start, RELOAD later. */
#ifndef LLMD_SUPERVISOR_BOOT_H
#define LLMD_SUPERVISOR_BOOT_H

#include "common/fdpass.h"
#include "proto/llmd.pb-c.h"
#include "supervisor/process.h"

struct llmd;

struct boot_settings {
    Llmd__Setting setting[N_CONFIG];
    Llmd__Setting *pointer[N_CONFIG];
    char value[N_CONFIG][CONFIG_TEXT_BYTES];
    size_t n;
};

struct boot {
    Llmd__Boot message; /* points into the rest */
    char instance[20];
    struct boot_settings settings;
    Llmd__FdNote note[FDPASS_FDS_MAX];
    Llmd__FdNote *pointer[FDPASS_FDS_MAX];
    int fds[FDPASS_FDS_MAX]; /* borrowed from llmd */
    int n_fds;
};

/* For one start of p; p == NULL: settings only, for `llm-worker --inspect`.  Caller frees. */
struct boot *boot_new(struct llmd *l, const struct process *p);
void boot_free(struct boot *b);

/* Add one setting, as it is in c. */
void boot_add_setting(struct boot_settings *s, const struct config *c, enum config_id id);

#endif
