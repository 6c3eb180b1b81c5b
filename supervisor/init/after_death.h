/* after_death.h - what llm-init does when llmd has ended: again, after a pause, or not at all. */
#ifndef LLMD_SUPERVISOR_INIT_AFTER_DEATH_H
#define LLMD_SUPERVISOR_INIT_AFTER_DEATH_H

#include <stdbool.h>
#include <stdint.h>

/* What is remembered over all llmds of one llm-init. */
struct death_row {
    uint64_t pause_max_ms;
    bool was_ever_ready;
    bool is_stopping;         /* asked to stop, or llmd said that it does */
    uint32_t stopping_deaths; /* since then */
    uint32_t short_lives;     /* deaths before it had served for a while, in this row */
    uint64_t pause_ms;        /* newest; 0 = none in this row */
};

struct death {
    bool by_signal;
    int status;         /* the signal, or the exit code */
    uint64_t served_ns; /* from READY to its end; 0 = it never was ready */
    bool has_children;  /* processes of the service are left */
};

enum death_answer {
    DEATH_RESTART, /* after .pause_ms; .exit_code if it comes to nothing */
    DEATH_FINAL,   /* end with .exit_code */
    DEATH_KILL,    /* nobody can finish what is left: kill it, and end with .exit_code */
};

struct death_verdict {
    enum death_answer answer;
    uint64_t pause_ms;
    int exit_code;
};

enum { EXIT_CODE_KILLED = 137 }; /* what a container reports when it was killed */

/* Judge one death and count it. */
struct death_verdict after_death(struct death_row *row, const struct death *d);

#endif
