/* system.h - the whole system under test: a real llmd with real children on a private runtime folder and a
 * port of the system's choice, asked through its control socket and over HTTP. */
#ifndef LLMD_TESTS_SYSTEM_H
#define LLMD_TESTS_SYSTEM_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "proto/frame.h"

struct system {
    pid_t pid; /* llmd, or its llm-init */
    bool has_init;
    char dir[64]; /* runtime folder, made by system_start() */
    int port;
};

/* Start llmd with these further arguments (NULL-terminated) and wait until it is ready.  Fails the
 * running test with llmd's log when it does not come up.  Unless the arguments say otherwise no step is taken for hung
 * (hang_step_ms is 100 s), since one takes long on a machine with other work. */
void system_start(struct system *s, const char *const *args);
/* The same below llm-init, which starts llmd again when it dies. */
void system_start_below_init(struct system *s, const char *const *args);
/* Ask for the status; NULL when nobody answers.  Free with frame_free_body(). */
Llmd__CtlReply *system_ask(const struct system *s, Llmd__CtlCommand command);
/* Wait until a predicate over the status holds; false after timeout_ms. */
bool system_wait(const struct system *s, bool (*is)(const Llmd__Status *, void *), void *arg,
                 int timeout_ms);
bool system_wait_ready(const struct system *s, int timeout_ms);
/* Pid of "gateway" or "worker 0.0"; 0 when it does not run. */
pid_t system_pid_of(const struct system *s, const char *process);
/* SIGTERM and wait; returns the exit code, -signal when killed. */
int system_stop(struct system *s);
/* Remove its log; what system_stop() does at its end. */
void system_forget(struct system *s);
int system_wait_exit(struct system *s, int timeout_ms); /* -1000: still running */
/* Sum of the values of all series called `name` whose labels contain `label` ("" = all); -1 when there is
 * none. */
double system_metric(const struct system *s, const char *name, const char *label);

#endif
