/* keeper.h - llm-init: keeps one llmd alive, and what it must find again when it comes back. */
#ifndef LLMD_SUPERVISOR_INIT_KEEPER_H
#define LLMD_SUPERVISOR_INIT_KEEPER_H

#include <limits.h>
#include <signal.h>

#include "supervisor/init/after_death.h"
#include "supervisor/init/fd_store.h"
#include "supervisor/init/notify_socket.h"

enum keeper_state {
    KEEPER_PAUSED,   /* no llmd runs; one is started when the pause is over */
    KEEPER_STARTING, /* it runs */
    KEEPER_SERVING,  /* it has said READY */
    KEEPER_KILLING,  /* everything was sent SIGKILL; wait until it is gone */
    KEEPER_ENDED,
    N_KEEPER_STATES
};

enum keeper_event {
    KEEPER_EV_PAUSE_OVER,
    KEEPER_EV_READY,
    KEEPER_EV_DIED,  /* and shall be started again */
    KEEPER_EV_FINAL, /* and that was that */
    KEEPER_EV_KILL,  /* nobody can finish what is left in time */
    KEEPER_EV_GONE,  /* no child is left */
    N_KEEPER_EVENTS
};

enum keeper_timer {
    KEEPER_TIMER_PAUSE,
    KEEPER_TIMER_WATCHDOG, /* llmd shows no sign of life */
    KEEPER_TIMER_ABORT,    /* nor did it end by SIGABRT */
    KEEPER_TIMER_STOP,     /* the stop takes too long */
    KEEPER_TIMER_KILL,     /* what was killed does not go away */
    N_KEEPER_TIMERS
};

struct keeper_options {
    char **argv;         /* of llmd; NULL at the end */
    uint64_t watchdog_s; /* 0 = off */
    uint64_t stop_timeout_s;
    uint64_t pause_max_ms; /* between two starts in a crash loop */
    uint64_t fds_max;
};

struct keeper {
    const struct keeper_options *options; /* borrowed */
    enum keeper_state state;
    char path[PATH_MAX]; /* of llmd */
    int epoll, signals;
    struct notify_socket notify;
    struct fd_store store;
    pid_t pid;               /* of llmd; 0 = none runs */
    uint64_t ready_ns;       /* since when it serves; 0 = not */
    bool was_asked_to_stop;  /* this llmd was sent SIGTERM or SIGINT */
    bool says_stopping;      /* this llmd has said so */
    bool some_said_stopping; /* any llmd has: the next one finds it on the board */
    bool is_stop_wanted;     /* a signal asked for it */
    struct death_row row;
    uint64_t due_ns[N_KEEPER_TIMERS]; /* 0 = not armed */
    uint64_t stranger_said_ns;        /* when a stranger's message was logged last */
    int exit_code;
};

/* Run llmd until it ends for good.  Returns the exit code for llm-init: llmd's own; 128 + the signal that
 * ended it while stopping; 137 when the rest had to be killed; 1 when nothing could be started. */
int keeper_run(struct keeper *k, const struct keeper_options *options);

#endif
