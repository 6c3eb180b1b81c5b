/* status.c - read the board and describe it.  Nothing here changes anything but the sample that tokens
 * per second are measured from. */
#include "supervisor/status.h"

#include <stdio.h>
#include <unistd.h>

#include "common/clock.h"
#include "supervisor/llmd.h"

enum { GROUPS_MAX = 64 };

/* Generated tokens at the last question, per group: the rate is measured between two questions. */
static struct {
    uint64_t at_ns, tokens;
} last_sample[GROUPS_MAX];

#define SAMPLE_STALE_NS (10 * NS_PER_S)

/* Memory of its own: program files and segments shared with others are not counted. */
static uint64_t resident_bytes(pid_t pid)
{
    unsigned long size = 0, resident = 0, shared = 0;
    char path[48];
    FILE *f;

    snprintf(path, sizeof path, "/proc/%d/statm", (int)pid);
    f = fopen(path, "r");
    if (f) {
        if (fscanf(f, "%lu %lu %lu", &size, &resident, &shared) != 3)
            resident = shared = 0;
        fclose(f);
    }
    return (uint64_t)(resident - shared) * (uint64_t)sysconf(_SC_PAGESIZE);
}

static uint64_t age_ns(uint64_t since_ns, uint64_t now_ns)
{
    return since_ns && since_ns <= now_ns ? now_ns - since_ns : 0;
}

static Llmd__ProcessStatus *describe(const struct llmd *l, const char *name, uint32_t slot,
                                     pid_t pid, const char *state, const char *last_exit,
                                     struct arena *a)
{
    const struct board_slot *b = board_slot(&l->segments.board, slot);
    Llmd__ProcessStatus *p = arena_alloc(a, sizeof *p);
    uint64_t now_ns = clock_mono_ns();

    llmd__process_status__init(p);
    p->name = arena_strdup(a, name);
    p->state = arena_strdup(a, state);
    p->last_exit = arena_strdup(a, last_exit);
    p->pid = (uint32_t)pid;
    p->restarts = atomic_load(&b->restarts);
    if (pid > 0) {
        p->uptime_ns = age_ns(atomic_load(&b->started_ns), now_ns);
        p->heartbeat_age_ns = age_ns(atomic_load(&b->heartbeat_ns), now_ns);
        p->step_age_ns = age_ns(atomic_load(&b->step_started_ns), now_ns);
        p->rss_bytes = resident_bytes(pid);
    }
    return p;
}

static void add_team(const struct llmd *l, const struct team *t, Llmd__Status *s, struct arena *a)
{
    for (uint32_t r = 0; r < t->n; r++) {
        const struct process *p = &t->processes[r];
        Llmd__ProcessStatus *one = describe(l, p->name, p->slot, p->child.pid,
                                            process_state_name(p->state), p->last_exit, a);
        one->group = t->group;
        one->rank = p->rank;
        s->processes[s->n_processes++] = one;
    }
}

static double rate(uint32_t group, uint64_t tokens)
{
    uint64_t now_ns = clock_mono_ns(), since_ns = last_sample[group].at_ns;
    uint64_t before = last_sample[group].tokens;

    last_sample[group].at_ns = now_ns;
    last_sample[group].tokens = tokens;
    if (!since_ns || now_ns - since_ns > SAMPLE_STALE_NS || now_ns == since_ns || tokens < before)
        return 0;
    return (double)(tokens - before) * 1e9 / (double)(now_ns - since_ns);
}

static Llmd__GroupStatus *describe_group(const struct llmd *l, const struct team *t,
                                         struct arena *a)
{
    const struct board *b = &l->segments.board;
    const struct stats *stats = &board_slot(b, board_rank_slot(b, t->group, 0))->stats;
    Llmd__GroupStatus *g = arena_alloc(a, sizeof *g);

    llmd__group_status__init(g);
    g->group = t->group;
    g->state = arena_strdup(a, team_is_ready(t) ? "ready" : team_is_down(t) ? "down" : "starting");
    g->epoch = t->epoch;
    g->sequences_running = (uint32_t)stat_get(stats, STAT_sequences_running);
    g->sequences_waiting = (uint32_t)stat_get(stats, STAT_sequences_waiting);
    g->kv_pages_used = (uint32_t)stat_get(stats, STAT_kv_pages_leased);
    g->tokens_per_s = rate(t->group, stat_get(stats, STAT_generated_tokens));
    return g;
}

static void add_plan(const struct llmd *l, Llmd__Status *s, struct arena *a)
{
    const Llmd__ModelPlan *p = l->plan;
    const struct stats *gateway = &board_slot(&l->segments.board, BOARD_SLOT_GATEWAY)->stats;

    s->kv_pages = p->kv_pages;
    s->kv_page_tokens = p->kv_page_tokens;
    s->kv_bytes = p->kv_pages * p->kv_page_bytes;
    s->weights_bytes = p->weights_bytes;
    s->max_model_len = p->max_model_len;
    s->requests = stat_get(gateway, STAT_requests_generate);
    s->requests_active = stat_get(gateway, STAT_requests_active);
    s->connections = stat_get(gateway, STAT_connections_open);
    s->processes = arena_alloc(a, (2 + l->n_groups * l->config.tp_size) * sizeof *s->processes);
    s->groups = arena_alloc(a, l->n_groups * sizeof *s->groups);
    s->processes[s->n_processes++] =
        describe(l, "llmd", BOARD_SLOT_LLMD, getpid(), llmd_state(l), "", a);
    add_team(l, &l->gateway, s, a);
    for (uint32_t g = 0; g < l->n_groups; g++) {
        const struct stats *stats =
            &board_slot(&l->segments.board, board_rank_slot(&l->segments.board, g, 0))->stats;
        add_team(l, &l->groups[g], s, a);
        s->groups[s->n_groups++] = describe_group(l, &l->groups[g], a);
        s->prompt_tokens += stat_get(stats, STAT_prompt_tokens);
        s->generated_tokens += stat_get(stats, STAT_generated_tokens);
    }
}

Llmd__Status *status_make(const struct llmd *l, struct arena *a)
{
    Llmd__Status *s = arena_alloc(a, sizeof *s);
    char served[CONFIG_TEXT_BYTES];

    llmd__status__init(s);
    config_served_name(&l->config, served, sizeof served);
    s->version = arena_strdup(a, LLMD_VERSION);
    s->state = arena_strdup(a, llmd_state(l));
    s->uptime_ns = age_ns(l->started_ns, clock_mono_ns());
    s->model = arena_strdup(a, l->config.model);
    s->served_model_name = arena_strdup(a, served);
    s->listen = arena_alloc(a, (l->listeners.n + 1) * sizeof *s->listen);
    for (uint32_t i = 0; i < l->listeners.n; i++)
        s->listen[s->n_listen++] = arena_strdup(a, l->listeners.name[i]);
    if (l->plan)
        add_plan(l, s, a);
    return s;
}

void status_line(const struct llmd *l, char *out, size_t n)
{
    char served[CONFIG_TEXT_BYTES], cause[300] = "";
    uint32_t n_ready = 0;

    config_served_name(&l->config, served, sizeof served);
    for (uint32_t g = 0; g < l->n_groups; g++) {
        if (team_is_ready(&l->groups[g]))
            n_ready++;
        else
            team_cause(&l->groups[g], cause, sizeof cause);
    }
    snprintf(out, n, "%s: %u of %u groups, %s on %s%s%s", llmd_state(l), n_ready, l->n_groups,
             served, l->listeners.n ? l->listeners.name[0] : "-", cause[0] ? "; " : "", cause);
}
