/* llmd_rig.h - a real llmd with fake children in a folder of its own, seen the way systemd, an operator
 * and /proc see it. */
#ifndef LLMD_TESTS_LLMD_RIG_H
#define LLMD_TESTS_LLMD_RIG_H

#include <pthread.h>
#include <stdbool.h>
#include <sys/types.h>

#include "proto/control.h"

enum { RIG_STORED_MAX = 4096 };

/* The fd store of a service manager: it reads all the time, drops what has hung up, and gives everything to
 * each llmd that is started. */
struct rig_store {
    struct rig_stored {
        char name[40];
        int fd;
        bool is_polled;
    } list[RIG_STORED_MAX];
    int n;
    pthread_t thread;
    pthread_mutex_t mutex; /* of list and rig.told */
    int stop;              /* eventfd */
};

struct rig {
    char base[48]; /* bin/ model/ run/ stderr notify */
    char model[64], run[64];
    pid_t pid;               /* of llmd; 0 = none */
    int notify;              /* what llmd tells its service manager */
    struct buf told;         /* of it, one line each */
    struct rig_store *store; /* NULL = none, what is sent to be kept is closed */
    char *argv[40];          /* of the newest start; borrowed */
    int passed_fd;           /* handed over by socket activation; -1 = none */
};

/* A fresh folder; behaviour: lines "<process>: <word>" of fake_child.c, or "". */
void rig_init(struct rig *r, const char *behaviour);
void rig_behave(struct rig *r, const char *behaviour);
/* Kills what is left and removes the folder.  Fails the test when llmd left a process behind, or when a
 * fake child found something wrong. */
void rig_fini(struct rig *r);

/* Start llmd with these further arguments (NULL at the end). */
void rig_start(struct rig *r, ...) __attribute__((sentinel));
/* Be a service manager with an fd store from here on. */
void rig_open_store(struct rig *r);
/* Descriptors of this name in the store; of all whose names begin so when it ends with '-'. */
int rig_count_stored(struct rig *r, const char *name);
void rig_wait_stored(struct rig *r, const char *name, int n);
/* kill -9 llmd, and start it again with the same arguments. */
void rig_kill_and_restart(struct rig *r);
void rig_restart(struct rig *r);

/* Until STATUS says so in so many words; fails the test after some seconds. */
void rig_wait_told(struct rig *r, const char *line);
void rig_wait_told_times(struct rig *r, const char *line, int n);
void rig_wait_event(struct rig *r, const char *event);
/* Until it happened n times: a child writes its event a moment after what llmd sees of it. */
void rig_wait_events(struct rig *r, const char *event, int n);
void rig_wait_log(struct rig *r, const char *text);
void rig_wait_logs(struct rig *r, const char *text, int n);

/* How often a text was told, or stands in events or in llmd's log. */
int rig_count_told(struct rig *r, const char *text);
int rig_count_events(const struct rig *r, const char *text);
int rig_count_log(const struct rig *r, const char *text);
char *rig_read(const struct rig *r, const char *name); /* caller frees */

/* Wait for llmd's end; its exit code, or -signal. */
int rig_wait_exit(struct rig *r);
/* SIGTERM, and expect exit code 0. */
void rig_stop(struct rig *r);
/* No process is left below us: now, or after a while. */
void rig_expect_no_process(void);
void rig_wait_no_process(void);
/* Until llmd has that many, and has reaped all others. */
void rig_wait_children(const struct rig *r, int n);

/* Ask over control.sock.  The reply's body: frame_free_body(). */
int rig_connect(const struct rig *r);
Llmd__CtlReply *rig_ask(const struct rig *r, Llmd__CtlCommand command, uint32_t group);
pid_t rig_pid_of(const struct rig *r, const char *process);
/* Until the process is ready with at least this many restarts; its pid. */
pid_t rig_wait_restarts(const struct rig *r, const char *process, uint32_t restarts);
int rig_count_fds(const struct rig *r);
int rig_settled_fds(const struct rig *r); /* when it has closed what we have left */
/* Until llmd has no more than that: what it wants to tell its manager may wait in copies, which a count that was taken
 * before may have seen. */
void rig_expect_fds(struct rig *r, int n);

void nap_ms(int ms);

#endif
