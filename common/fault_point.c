/* fault_point.c - parse the list, count the passes, act. */
#include "common/fault_point.h"

#include <ctype.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"

enum { POINTS_MAX = 16, NAME_BYTES = 48 };

enum action { ACT_KILL, ACT_ABORT, ACT_SEGV, ACT_EXIT, ACT_STOP, ACT_LOOP, ACT_FAIL, N_ACTIONS };

static const char *const action_names[N_ACTIONS] = { "kill", "abort", "segv", "exit",
                                                     "stop", "loop",  "fail" };

struct point {
    char name[NAME_BYTES];
    enum action action;
    int code;                    /* ACT_FAIL */
    _Atomic int64_t passes_left; /* acts when it becomes 0 */
};

_Atomic bool fault_points_armed;
static struct point points[POINTS_MAX];
static _Atomic uint32_t n_points;

/* code: what stood behind the word, 0 = nothing. */
static bool find_action(const char *word, unsigned code, struct point *p)
{
    for (int i = 0; i < N_ACTIONS; i++)
        if (strcmp(word, action_names[i]) == 0) {
            p->action = (enum action)i;
            p->code = (int)code;
            return (i == ACT_FAIL) == (code > 0);
        }
    return false;
}

/* "NAME=ACTION[CODE][:N][@EPOCH]" into *p. */
static bool parse_point(const char *part, struct point *p, uint32_t *epoch, struct err *e)
{
    char action[16] = "";
    unsigned passes = 1, code = 0;
    int at = 0, end = 0;

    *epoch = 0;
    if (sscanf(part, "%47[a-z_.]=%15[a-z]%n", p->name, action, &at) == 2) {
        if (isdigit((unsigned char)part[at]) && sscanf(part + at, "%5u%n", &code, &end) == 1)
            at += end;
        if (part[at] == ':' && sscanf(part + at, ":%u%n", &passes, &end) == 1)
            at += end;
        if (part[at] == '@' && sscanf(part + at, "@%u%n", epoch, &end) == 1)
            at += end;
        if (part[at] == '\0' && passes > 0 && find_action(action, code, p)) {
            atomic_store(&p->passes_left, passes);
            return true;
        }
    }
    return err_set(
        e, ERR_CONFIG, 0,
        "setting 'fault_points': '%s', expected NAME=ACTION[:N][@EPOCH] with an action of "
        "kill, abort, segv, exit, stop, loop, failCODE",
        part);
}

bool fault_points_set(const char *spec, uint32_t epoch, struct err *e)
{
    char text[1024], *rest = text, *part;
    uint32_t n = 0, wanted;

    atomic_store(&fault_points_armed, false);
    atomic_store(&n_points, 0);
    snprintf(text, sizeof text, "%s", spec);
    while ((part = strsep(&rest, ", "))) {
        if (!*part)
            continue;
        if (n == POINTS_MAX)
            return err_set(e, ERR_CONFIG, 0, "setting 'fault_points': more than %d", POINTS_MAX);
        if (!parse_point(part, &points[n], &wanted, e))
            return false;
        n += wanted == 0 || wanted == epoch;
    }
    atomic_store(&n_points, n);
    atomic_store(&fault_points_armed, n > 0);
    return true;
}

static void act(enum action action)
{
    volatile int *nowhere = NULL;

    switch (action) {
    case ACT_KILL:
        kill(getpid(), SIGKILL);
        break;
    case ACT_ABORT:
        abort();
    case ACT_SEGV:
        *nowhere = 0;
        break;
    case ACT_EXIT:
        _exit(1);
    case ACT_STOP:
        kill(getpid(), SIGSTOP);
        break;
    case ACT_LOOP:
        for (volatile uint64_t turns = 0;; turns++) {
        }
    case ACT_FAIL:
    case N_ACTIONS:
        break;
    }
}

int fault_point_answer(const char *name, int result)
{
    uint32_t n = atomic_load(&n_points);

    for (uint32_t i = 0; i < n; i++) {
        if (strcmp(points[i].name, name) != 0 || atomic_fetch_sub(&points[i].passes_left, 1) != 1)
            continue;
        log_warning("fault_point=%s action=%s", name, action_names[points[i].action]);
        act(points[i].action);
        result = points[i].action == ACT_FAIL ? points[i].code : result;
    }
    return result;
}

void fault_point_pass(const char *name)
{
    fault_point_answer(name, 0);
}
