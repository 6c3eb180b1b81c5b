/* status.c - read the board and describe it.  Nothing here changes anything. */
#include "supervisor/status.h"

#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/huge.h"
#include "supervisor/llmd.h"

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
    p->pid = pid > 0 ? (uint32_t)pid : 0; /* of an adopted one it may not be known yet */
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
    for (uint32_t i = 0; i < t->n_members; i++) {
        const struct process *p = &t->members[i];
        Llmd__ProcessStatus *one = describe(l, p->slot->name, p->slot_index, p->child.pid,
                                            process_state_name(p->state), p->last_exit, a);
        one->group = t->group;
        one->rank = p->rank;
        s->processes[s->n_processes++] = one;
    }
}

/* Rank 0 of the group counts for all its ranks. */
static const struct stats *stats_of(const struct llmd *l, uint32_t group)
{
    const struct board *b = &l->segments.board;

    return &board_slot(b, board_rank_slot(b, group, 0))->stats;
}

uint64_t status_generated_tokens(const struct llmd *l, uint32_t group)
{
    return stat_get(stats_of(l, group), STAT_generated_tokens);
}

static Llmd__GroupStatus *describe_group(const struct llmd *l, const struct team *t,
                                         struct arena *a)
{
    const struct stats *stats = stats_of(l, t->group);
    Llmd__GroupStatus *g = arena_alloc(a, sizeof *g);
    uint64_t now_ns = clock_mono_ns();

    llmd__group_status__init(g);
    g->group = t->group;
    g->state = arena_strdup(a, team_state_name(t->state));
    g->epoch = t->epoch;
    g->sequences_running = (uint32_t)stat_get(stats, STAT_sequences_running);
    g->sequences_waiting = (uint32_t)stat_get(stats, STAT_sequences_waiting);
    g->kv_pages_used = (uint32_t)stat_get(stats, STAT_kv_pages_leased);
    g->tokens_per_s =
        rate_per_s(&l->rates[t->group], now_ns, stat_get(stats, STAT_generated_tokens));
    g->cause = arena_strdup(a, team_is_up(t) ? "" : t->cause);
    g->retry_in_ns = t->retry_ns > now_ns ? t->retry_ns - now_ns : 0;
    return g;
}

/* ---- huge pages ---- */

static void add_use(Llmd__SegmentMemory *m, const struct segment *s, pid_t pid, const char *name)
{
    struct huge_use use;
    struct stat st;

    m->pages = (char *)(uintptr_t)segment_pages_name(s->hdr);
    m->bytes += s->bytes;
    if (fstat(s->fd, &st) == 0)
        m->allocated_bytes += (uint64_t)st.st_blocks * 512;
    if (pid <= 0 || !huge_use_read(&use, "", pid, name))
        return;
    m->resident_bytes += use.resident;
    m->huge_bytes += use.huge;
}

static Llmd__SegmentMemory *add_memory(Llmd__Status *s, const char *segment, struct arena *a)
{
    Llmd__SegmentMemory *m = arena_alloc(a, sizeof *m);

    llmd__segment_memory__init(m);
    m->segment = arena_strdup(a, segment);
    s->memory[s->n_memory++] = m;
    return m;
}

/* As group 0 has them, whose ranks map a shard each. */
static void add_segments(const struct llmd *l, Llmd__Status *s, struct arena *a)
{
    const struct team *t = &l->groups[0];
    Llmd__SegmentMemory *weights;
    char name[32];

    s->memory = arena_alloc(a, 2 * sizeof *s->memory);
    weights = add_memory(s, "weights", a);
    for (uint32_t r = 0; r < t->n_members; r++) {
        snprintf(name, sizeof name, "llmd-weights-%u", r);
        add_use(weights, &l->segments.weights[r], t->members[r].child.pid, name);
    }
    add_use(add_memory(s, "kvpool", a), &l->segments.kvpool.segment, t->members[0].child.pid,
            "llmd-kvpool");
}

static void add_plan(const struct llmd *l, Llmd__Status *s, struct arena *a)
{
    const Llmd__ModelPlan *p = l->plan;
    const struct stats *gateway = &board_slot(&l->segments.board, BOARD_SLOT_GATEWAY)->stats;

    s->kv_pages = p->kv_pages;
    s->kv_page_tokens = p->kv_page_tokens;
    s->kv_bytes = p->kv_pages * p->kv_page_bytes;
    s->weights_bytes = p->weights_bytes;
    s->on_device = p->on_device;
    s->gpu_note = p->gpu_note;
    s->kv_host_pages = p->kv_host_pages;
    s->kv_host_bytes = p->kv_host_pages * p->kv_rank_page_bytes * l->config.tp_size;
    s->max_model_len = p->max_model_len;
    s->requests = stat_get(gateway, STAT_requests_generate);
    s->requests_active = stat_get(gateway, STAT_requests_active);
    s->connections = stat_get(gateway, STAT_connections_open);
    s->processes = arena_alloc(a, (2 + l->n_groups * l->config.tp_size) * sizeof *s->processes);
    s->groups = arena_alloc(a, l->n_groups * sizeof *s->groups);
    s->processes[s->n_processes++] =
        describe(l, "llmd", BOARD_SLOT_LLMD, getpid(), llmd_state(l), "", a);
    add_segments(l, s, a);
    add_team(l, &l->gateway, s, a);
    for (uint32_t g = 0; g < l->n_groups; g++) {
        const struct stats *stats = stats_of(l, g);
        add_team(l, &l->groups[g], s, a);
        s->groups[s->n_groups++] = describe_group(l, &l->groups[g], a);
        s->kv_host_pages_used += (uint32_t)stat_get(stats, STAT_kv_host_pages);
        s->prompt_tokens += stat_get(stats, STAT_prompt_tokens);
        s->generated_tokens += stat_get(stats, STAT_generated_tokens);
    }
}

Llmd__Status *status_make(const struct llmd *l, struct arena *a)
{
    Llmd__Status *s = arena_alloc(a, sizeof *s);
    char served[CONFIG_TEXT_BYTES], note[CONFIG_TEXT_BYTES];

    llmd__status__init(s);
    config_served_name(&l->config, served, sizeof served);
    s->version = arena_strdup(a, LLMD_VERSION);
    s->state = arena_strdup(a, llmd_state(l));
    s->uptime_ns = age_ns(l->segments.board.hdr ? l->segments.board.hdr->started_ns : l->started_ns,
                          clock_mono_ns()); /* of the service, whichever llmd it has */
    s->model = arena_strdup(a, l->config.model);
    s->served_model_name = arena_strdup(a, served);
    s->listen = arena_alloc(a, (l->listeners.n + 1) * sizeof *s->listen);
    for (uint32_t i = 0; i < l->listeners.n; i++)
        s->listen[s->n_listen++] = arena_strdup(a, l->listeners.name[i]);
    model_switch_describe(l, note, sizeof note);
    s->note = arena_strdup(a, note);
    s->fd_store = fdstore_is_there(&l->store);
    if (l->plan)
        add_plan(l, s, a);
    return s;
}

void status_line(const struct llmd *l, char *out, size_t n)
{
    char served[CONFIG_TEXT_BYTES];
    const char *cause = "";
    int at;

    config_served_name(&l->config, served, sizeof served);
    for (uint32_t g = 0; g < l->n_groups && !cause[0]; g++)
        cause = l->groups[g].cause;
    if (!cause[0])
        cause = l->gateway.cause;
    at = snprintf(out, n, "%s: %u of %u groups, '%.200s' on %s", llmd_state(l), llmd_groups_up(l),
                  l->n_groups, served, l->listeners.n ? l->listeners.name[0] : "no address");
    if (cause[0])
        snprintf(out + at, n - (size_t)at, "; %s", cause);
}
