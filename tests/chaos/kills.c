/* kills.c - see kills.h. */
#include "tests/chaos/kills.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "common/clock.h"
#include "common/file.h"
#include "tests/chaos/device_kills.h"
#include "tests/chaos/processes.h"

enum {
    VICTIMS_MAX = RANKS_MAX + 2,
    PROGRAM_BYTES_MAX = 256 << 20,
    CRASHES_FREE = 0,         /* a fault is fair to sequences with so many crashes at most */
    KILLS_FREE = 2,           /* and a kill, or two in a row, to those with so many kills */
    FAIR_WAIT_MS = 20000,     /* sequences make a token long before */
    SUCCESSOR_WAIT_MS = 1000, /* until there is one to kill again */
    POINT_WAIT_MS = 2000,     /* until a fault point is passed */
    ORDER_WAIT_MS = 60000,
    LOOK_MS = 20,
    WHOLE_WAIT_MS = 120000, /* until all are in service again: a hang is 50 times a slow step */
    PAUSE_BEGINS_MS = 10,   /* bytes on their way at the kill have arrived by then */
    CALM_WINDOW_MS = 300,   /* in which llmd's death must not be felt */
    STREAMS_MIN = 1,        /* fewer clients than this measure nothing */
};

static const struct kill_kind kinds[N_KILL_KINDS] = {
#define KILL(name, victims, way, sample, weight) { #name, victims, way, sample, weight },
#include "tests/chaos/kills.def"
#undef KILL
};

const struct kill_kind *kill_kind(enum kill_id id)
{
    return &kinds[id];
}

/* ---- fault points ---- */

enum point_when { AT_WORK, AT_TEAMWORK, AT_START, AT_CHILD, ELSEWHERE };

static const struct point {
    enum victim victim;
    const char *program, *name;
    enum point_when when;
    bool hangs;
} points[] = {
#define POINT(victim, program, name, when, hangs) { victim, program, name, when, hangs },
#include "tests/chaos/fault_points.def"
#undef POINT
};
enum { N_POINTS = sizeof points / sizeof *points };
static_assert((int)N_POINTS <= (int)POINTS_MAX, "room in struct killer");

static bool program_holds(const struct server *s, const char *program, const char *word)
{
    char path[256], *bytes;
    bool is_found;
    struct err e;
    size_t n;

    snprintf(path, sizeof path, "%s/%s", s->config.bin, program);
    if (!file_read(path, PROGRAM_BYTES_MAX, &bytes, &n, &e))
        return false;
    is_found = memmem(bytes, n, word, strlen(word) + 1) != NULL;
    free(bytes);
    return is_found;
}

static bool is_passed(const struct server *s, const struct point *p)
{
    return p->when != ELSEWHERE && (p->when != AT_TEAMWORK || s->config.tp_size > 1);
}

static const struct point *draw_point(struct killer *k, unsigned victims)
{
    const struct point *fit[N_POINTS];
    uint32_t n = 0;

    for (uint32_t i = 0; i < N_POINTS; i++)
        if (points[i].victim & victims && k->knows_point[i] && is_passed(k->server, &points[i]))
            fit[n++] = &points[i];
    return n > 0 ? fit[random_below(&k->random, n)] : NULL;
}

/* ---- orders ---- */

static const struct {
    enum kill_id id;
    const char *words[4];
} orders[] = {
    { KILL_restart_gateway, { "restart", "gateway" } },
    { KILL_restart_group, { "restart", "group", "0" } },
    { KILL_restart_llmd, { "restart", "llmd" } },
    { KILL_upgrade, { "upgrade" } },
};

static const char *const *order_words(enum kill_id id)
{
    for (size_t i = 0; i < sizeof orders / sizeof *orders; i++)
        if (orders[i].id == id)
            return orders[i].words;
    return NULL;
}

/* ---- what can be done to this server ---- */

bool killer_can(const struct killer *k, enum kill_id id)
{
    const struct server *s = k->server;
    const struct kill_kind *kind = &kinds[id];
    bool is_peer = s->config.peer_command != NULL;

    if (is_peer || kind->victims & VICTIM_PEER)
        return is_peer && kind->victims & VICTIM_PEER;
    if (s->config.gpus ? !device_can(s, id) : kind->way == WAY_DEVICE)
        return false;
    if (kind->victims & VICTIM_LLMD && !s->has_init)
        return false;
    if (kind->way == WAY_POINT) {
        struct killer probe = *k;
        return draw_point(&probe, kind->victims) != NULL;
    }
    return kind->way != WAY_ORDER || id == KILL_restart_gateway || id == KILL_restart_group ||
           (s->has_init && k->knows_upgrade);
}

void killer_init(struct killer *k, struct server *s, struct load *l, uint64_t seed)
{
    *k = (struct killer){ .server = s,
                          .load = l,
                          .evidence = l->evidence,
                          .random = random_stream(seed, 2),
                          .patience_ms = WHOLE_WAIT_MS };
    k->knows_upgrade = program_holds(s, "llmctl", "upgrade");
    for (uint32_t i = 0; i < N_POINTS; i++)
        k->knows_point[i] = program_holds(s, points[i].program, points[i].name);
}

/* ---- victims ---- */

enum { SLOT_KEEPER = INT32_MAX }; /* it has none */

struct victims {
    uint32_t slots[VICTIMS_MAX];
    pid_t pids[VICTIMS_MAX];
    uint32_t n;
};

static pid_t pid_of_slot(const struct server *s, uint32_t slot)
{
    if (s->config.peer_command)
        return server_peer(s);
    if (slot == SLOT_KEEPER)
        return pid_child_named(server_slot_pid(s, BOARD_SLOT_GATEWAY), "llm-keeper");
    return slot == BOARD_SLOT_LLMD ? server_llmd(s) : server_slot_pid(s, slot);
}

static void add_victim(const struct server *s, struct victims *v, uint32_t slot)
{
    pid_t pid = pid_of_slot(s, slot);

    if (pid <= 0)
        return;
    v->slots[v->n] = slot;
    v->pids[v->n++] = pid;
}

static void choose_victims(struct killer *k, unsigned victims, struct victims *v)
{
    const struct server *s = k->server;
    uint32_t n_ranks = s->config.groups * s->config.tp_size;

    *v = (struct victims){ .n = 0 };
    if (victims & (VICTIM_LLMD | VICTIM_PEER))
        add_victim(s, v, BOARD_SLOT_LLMD);
    if (victims & VICTIM_KEEPER)
        add_victim(s, v, SLOT_KEEPER);
    if (victims & VICTIM_GATEWAY)
        add_victim(s, v, BOARD_SLOT_GATEWAY);
    if (victims & VICTIM_WORKER)
        add_victim(s, v, BOARD_SLOT_RANKS + random_below(&k->random, n_ranks));
    for (uint32_t i = 0; victims & VICTIM_ALL_WORKERS && i < n_ranks; i++)
        add_victim(s, v, BOARD_SLOT_RANKS + i);
}

static const char *name_of_slot(const struct server *s, uint32_t slot)
{
    if (s->config.peer_command)
        return "peer";
    if (slot == SLOT_KEEPER)
        return "keeper";
    return slot == BOARD_SLOT_LLMD ? "llmd" : board_slot(&s->board, slot)->name;
}

static void signal_victims(struct killer *k, const struct victims *v, int signal)
{
    for (uint32_t i = 0; i < v->n; i++) {
        kill(v->pids[i], signal);
        evidence_note(k->evidence, "signal %d to %s, pid %d", signal,
                      name_of_slot(k->server, v->slots[i]), (int)v->pids[i]);
    }
    k->load->n_kills++;
    k->load->counts.kills++;
}

/* ---- fairness ---- */

static bool is_fair(const struct server *s, bool is_fault)
{
    for (uint32_t g = 0; g < s->config.groups; g++) {
        struct server_blame blame = server_blame(s, g);
        if (blame.kills > KILLS_FREE || (is_fault && blame.crashes > CRASHES_FREE))
            return false;
    }
    return true;
}

static bool wait_fair(struct killer *k, const struct kill_kind *kind)
{
    uint64_t end_ns = clock_mono_ns() + (uint64_t)FAIR_WAIT_MS * NS_PER_MS;
    bool is_fault = kind->way == WAY_POINT || kind->way == WAY_DEVICE;

    if (!(kind->victims & (VICTIM_WORKER | VICTIM_ALL_WORKERS)))
        return true;
    while (!is_fair(k->server, is_fault) && clock_mono_ns() < end_ns)
        load_turn(k->load, 2);
    return is_fair(k->server, is_fault);
}

/* ---- the ways ---- */

static void watch(struct killer *k, const struct kill_kind *kind)
{
    load_watch(k->load, clock_mono_ns(),
               kind->sample == SAMPLE_LLMD ? CALM_WINDOW_MS : PAUSE_BEGINS_MS);
}

static int draw_signal(struct killer *k)
{
    static const int signals[] = { SIGSEGV, SIGBUS, SIGABRT };

    return signals[random_below(&k->random, 3)];
}

/* Wait until another process has the slot; 0: none came. */
static pid_t wait_successor(struct killer *k, uint32_t slot, pid_t old)
{
    uint64_t end_ns = clock_mono_ns() + (uint64_t)SUCCESSOR_WAIT_MS * NS_PER_MS;
    pid_t pid;

    while ((pid = pid_of_slot(k->server, slot)) == 0 || pid == old) {
        if (clock_mono_ns() >= end_ns)
            return 0;
        load_turn(k->load, 1);
    }
    return pid;
}

static void kill_again(struct killer *k, const struct victims *first)
{
    struct victims second = *first;

    signal_victims(k, first, SIGKILL);
    second.pids[0] = wait_successor(k, first->slots[0], first->pids[0]);
    if (second.pids[0] == 0)
        return;
    load_run_ms(k->load, random_below(&k->random, 30));
    signal_victims(k, &second, SIGKILL);
}

static const char *draw_action(struct killer *k, const struct point *p)
{
    static const char *const actions[] = { "kill", "segv", "abort", "exit", "stop", "loop" };

    return actions[p->hangs && random_below(&k->random, 6) == 0 ? 4 + random_below(&k->random, 2)
                                                                : random_below(&k->random, 4)];
}

static bool wait_struck(struct killer *k, const struct victims *v)
{
    uint64_t end_ns = clock_mono_ns() + (uint64_t)POINT_WAIT_MS * NS_PER_MS;

    while (clock_mono_ns() < end_ns) {
        if (!pid_runs(v->pids[0]))
            return true;
        load_turn(k->load, 2);
    }
    return false;
}

/* llmd has read the fault points by then, and if not: a plain death of the gateway. */
static void kill_child(struct killer *k)
{
    struct victims child;

    load_run_ms(k->load, 30);
    choose_victims(k, VICTIM_GATEWAY, &child);
    if (child.n > 0)
        signal_victims(k, &child, SIGKILL);
}

static void kill_at_point(struct killer *k, const struct kill_kind *kind, const struct victims *v)
{
    static const uint32_t passes_max[] = {
        [AT_WORK] = 12, [AT_TEAMWORK] = 12, [AT_START] = 2, [AT_CHILD] = 1
    };
    const struct point *p = draw_point(k, kind->victims);
    uint32_t epoch = server_slot_epoch(k->server, v->slots[0]) + (p->when == AT_START);
    char spec[128];

    snprintf(spec, sizeof spec, "%s=%s:%u@%u", p->name, draw_action(k, p),
             random_from(&k->random, 1, passes_max[p->when]), epoch);
    evidence_note(k->evidence, "fault_points: %s for %s, pid %d", spec,
                  name_of_slot(k->server, v->slots[0]), (int)v->pids[0]);
    server_set_fault_points(k->server, spec);
    if (p->when == AT_CHILD)
        kill_child(k);
    if (p->when == AT_START) {
        load_run_ms(k->load, 20); /* llmd has read it by then, and if not: a plain kill */
        watch(k, kind);
        signal_victims(k, v, SIGKILL);
        load_run_ms(k->load, 100);
    } else if (wait_struck(k, v)) {
        evidence_note(k->evidence, "struck");
        watch(k, kind); /* seen within 2 ms */
        k->load->n_kills++;
        k->load->counts.kills++;
    }
    server_set_fault_points(k->server, "");
}

static bool give_order(struct killer *k, enum kill_id id)
{
    uint64_t end_ns = clock_mono_ns() + (uint64_t)ORDER_WAIT_MS * NS_PER_MS;
    pid_t pid = server_llmctl(k->server, order_words(id)), done = 0;
    int status = -1;

    evidence_note(k->evidence, "llmctl: %s", kinds[id].name);
    k->load->n_kills++;
    k->load->counts.kills++;
    while ((done = waitpid(pid, &status, WNOHANG)) == 0 && clock_mono_ns() < end_ns)
        load_turn(k->load, 5);
    if (done == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return true;
    if (done == 0) {
        kill(pid, SIGKILL);
        waitpid(pid, &status, 0);
    }
    k->load->counts.failed++;
    evidence_defect(k->evidence, NULL, NULL, "the order %s failed, status %d", kinds[id].name,
                    status);
    return false;
}

static void strike(struct killer *k, enum kill_id id, const struct victims *v)
{
    switch (kinds[id].way) {
    case WAY_KILL:
        signal_victims(k, v, SIGKILL);
        break;
    case WAY_SIGNAL:
        signal_victims(k, v, draw_signal(k));
        break;
    case WAY_AGAIN:
        kill_again(k, v);
        break;
    case WAY_STOP:
        signal_victims(k, v, SIGSTOP);
        break;
    case WAY_POINT:
        kill_at_point(k, &kinds[id], v);
        break;
    case WAY_ORDER:
        give_order(k, id);
        break;
    case WAY_DEVICE:
        device_strike(k, id, v->slots[0], v->pids[0]);
        break;
    }
}

/* ---- the whole of it ---- */

bool killer_wait_whole(struct killer *k)
{
    uint64_t end_ns = clock_mono_ns() + k->patience_ms * NS_PER_MS;

    while (clock_mono_ns() < end_ns && pid_runs(k->server->root)) {
        if (server_is_whole(k->server))
            return true;
        load_run_ms(k->load, LOOK_MS); /* who sends in pieces has some seconds for all of them */
    }
    return server_is_whole(k->server);
}

/* Those that should have been found hanging and were not are ended, so that the run can go on. */
static void end_stopped(const struct victims *v)
{
    for (uint32_t i = 0; i < v->n; i++)
        if (strchr("Tt", pid_state(v->pids[i])))
            kill(v->pids[i], SIGKILL);
}

static bool come_back(struct killer *k, enum kill_id id, const struct victims *v)
{
    if (killer_wait_whole(k))
        return true;
    k->load->counts.failed++;
    evidence_defect(k->evidence, NULL, NULL, "after %s the server %s", kinds[id].name,
                    pid_runs(k->server->root) ? "is not whole again" : "has ended");
    end_stopped(v);
    return killer_wait_whole(k);
}

static double pause_of(const struct load_watch *w, enum kill_sample sample)
{
    uint64_t ns = sample == SAMPLE_LLMD ? w->longest_ns : w->recovery_ns;

    return w->n_clients < STREAMS_MIN || ns == 0 ? -1 : (double)ns / NS_PER_MS;
}

bool killer_kill(struct killer *k, enum kill_id id, double *pause_ms)
{
    const struct kill_kind *kind = &kinds[id];
    struct victims v;

    *pause_ms = -1;
    if (!wait_fair(k, kind)) {
        evidence_note(k->evidence, "%s left out: it would not be fair", kind->name);
        return true;
    }
    choose_victims(k, kind->victims, &v);
    if (v.n == 0)
        return killer_wait_whole(k);
    evidence_note(k->evidence, "%s, %u streams", kind->name, load_n_streaming(k->load));
    watch(k, kind);
    strike(k, id, &v);
    load_watch_end(k->load, 5000);
    *pause_ms = pause_of(&k->load->watch, kind->sample);
    if (!come_back(k, id, &v))
        return false;
    evidence_note(k->evidence, "whole again, pause %.1f ms of %u clients", *pause_ms,
                  k->load->watch.n_clients);
    return true;
}
