/* device_kills.c - see device_kills.h.
 *
 * A rule is armed in the fault script of the running server, and taken away once it has fired or could have: processes
 * forget what stands there no more. */
#include "tests/chaos/device_kills.h"

#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "gpu-worker/cuda/kernels/elementwise.h"
#include "tests/chaos/gpus.h"
#include "tests/chaos/processes.h"

enum {
    FIRE_WAIT_MS = 60000, /* until a rule has fired: launches never end, but may be slow */
    LOOK_MS = 50,
    LAST_WAIT_MS = 50,     /* for who had read it when it was taken away */
    START_WAIT_MS = 60000, /* the same, of a successor's start */
    DEATH_WAIT_MS = 60000, /* a kernel that hangs is found by the age of its step */
    ORDER_WAIT_MS = 60000, /* a switch is refused while the model before has requests */
    FORMER_WAIT_MS = 150000,
    OTHERS_WAIT_MS = 60000, /* until another group has answered */
    POISON_WAIT_MS = 60000,
    PAUSE_BEGINS_MS = 10,
    OUTAGE_MS_MAX = 600,
    LATE_MS_MAX = 150,
    EXCHANGE_PLACES = 4, /* of device_faults.def's $b */
    TOKEN_MAX = GPUS_VOCAB - 1,
    TOKEN_MIN = 300, /* below are bytes */
    STATUS_ERROR_MIN = 500,
};

enum fault_way {
    FAULT_DIES,    /* armed in a running worker, which ends of it */
    FAULT_LIVES,   /* which may go on, or end */
    FAULT_STARTS,  /* armed for the start of a successor; SIGKILL makes it come */
    FAULT_LOSES,   /* DIES, and the GPU is given back later */
    FAULT_SPOILS,  /* DIES, and a sealed page is damaged */
    FAULT_LOADS,   /* a worker is killed while it loads the weights of another model */
    FAULT_RELOADS, /* another model: another layout of memory, the old one's is freed */
    FAULT_LEAKS,   /* the same, and somebody keeps a piece of the old one's */
    FAULT_REPORTS, /* NVIDIA's driver tells of an Xid, for which a worker leaves */
    FAULT_POISONS, /* one request ends the worker each time that it runs */
};

static const struct device_fault {
    enum kill_id id;
    uint32_t row;
    enum fault_way way;
    bool for_team;
    uint32_t max;
    const char *rule;
} faults[] = {
#define FAULT(kill, row, way, for_team, max, rule) { KILL_##kill, row, way, for_team, max, rule },
#include "tests/chaos/device_faults.def"
#undef FAULT
};
enum { N_FAULTS = sizeof faults / sizeof *faults };

/* Kills of processes that the matrix has too. */
static const struct {
    enum kill_id id;
    uint32_t row;
} others[] = {
    { KILL_worker_kill, 1 },      { KILL_worker_signal, 1 },        { KILL_worker_point, 1 },
    { KILL_worker_again, 1 },     { KILL_all_workers_kill, 1 },     { KILL_llmd_kill, 14 },
    { KILL_llmd_signal, 14 },     { KILL_llmd_again, 14 },          { KILL_worker_llmd_kill, 14 },
    { KILL_everything_kill, 14 }, { KILL_gateway_kill, 15 },        { KILL_gateway_signal, 15 },
    { KILL_gateway_again, 15 },   { KILL_gateway_worker_kill, 15 }, { KILL_upgrade, 16 },
};

static const struct device_fault *fault_of(enum kill_id id)
{
    for (size_t i = 0; i < N_FAULTS; i++)
        if (faults[i].id == id)
            return &faults[i];
    return NULL;
}

uint32_t device_row(enum kill_id id)
{
    const struct device_fault *f = fault_of(id);

    for (size_t i = 0; !f && i < sizeof others / sizeof *others; i++)
        if (others[i].id == id)
            return others[i].row;
    return f ? f->row : 0;
}

bool device_can(const struct server *s, enum kill_id id)
{
    const struct device_fault *f = fault_of(id);

    return device_row(id) > 0 && (!f || !f->for_team || s->config.tp_size > 1);
}

/* ---- rules ---- */

static struct gpus *gpus_of(const struct killer *k)
{
    return k->server->config.gpus;
}

static uint32_t gpu_of_slot(uint32_t slot)
{
    return slot - BOARD_SLOT_RANKS;
}

static uint32_t group_of_slot(const struct killer *k, uint32_t slot)
{
    return gpu_of_slot(slot) / k->server->config.tp_size;
}

/* Bit $a of the pages' memory: of a sealed page that a sequence lists, where there is one. */
static void put_page_bit(struct killer *k, uint32_t group, struct buf *out)
{
    uint64_t page_bytes;
    uint32_t page = server_draw_page(k->server, group, &k->random, &page_bytes);

    page_bytes = page_bytes / k->server->config.tp_size; /* a rank has its heads of it */
    evidence_note(k->evidence, "page %u of %lu bytes", page, (unsigned long)page_bytes);
    buf_printf(
        out, "a%zu+%lu %u", offsetof(struct rope_kv_write_args, place.pages),
        (unsigned long)(page * page_bytes + random_next(&k->random) % (page_bytes + !page_bytes)),
        random_below(&k->random, 8));
}

static void put_field(struct killer *k, const struct device_fault *f, char field, uint32_t slot,
                      struct buf *out)
{
    switch (field) {
    case 'n':
        buf_printf(out, "%u", random_from(&k->random, 1, f->max));
        break;
    case 'b':
        buf_printf(out, "%u", random_from(&k->random, 1, EXCHANGE_PLACES));
        break;
    case 'm':
        buf_printf(out, "%u", random_from(&k->random, 1, LATE_MS_MAX));
        break;
    case 't':
        buf_printf(out, "a%zu has %u", offsetof(struct embed_args, tokens), k->poison_token);
        break;
    case 'a':
        put_page_bit(k, group_of_slot(k, slot), out);
        break;
    }
}

static void arm(struct killer *k, const struct device_fault *f, uint32_t slot)
{
    struct buf rule = { 0 };

    if (f->way != FAULT_POISONS) /* it strikes wherever it runs */
        buf_printf(&rule, "gpu %u ", gpu_of_slot(slot));
    for (const char *at = f->rule; *at; at++) {
        if (*at == '$')
            put_field(k, f, *++at, slot, &rule);
        else
            buf_add_char(&rule, *at);
    }
    evidence_note(k->evidence, "rule: %s", rule.data);
    gpus_set_rule(gpus_of(k), rule.data);
    buf_fini(&rule);
}

static void disarm(struct killer *k)
{
    gpus_set_rule(gpus_of(k), "");
}

/* ---- waiting ---- */

static uint64_t end_in(uint64_t ms)
{
    return clock_mono_ns() + ms * NS_PER_MS;
}

static void count_strike(struct killer *k)
{
    load_watch(k->load, clock_mono_ns(), PAUSE_BEGINS_MS);
    k->load->n_kills++;
    k->load->counts.kills++;
}

static void fail(struct killer *k, const char *what)
{
    k->load->counts.failed++;
    evidence_defect(k->evidence, NULL, NULL, "%s", what);
}

/* False, and nothing was done: the rule has met no launch. */
static bool wait_fired(struct killer *k, uint32_t before, uint64_t ms)
{
    uint64_t end_ns = end_in(ms);

    while (gpus_n_fired(gpus_of(k)) == before && clock_mono_ns() < end_ns)
        load_turn(k->load, 2);
    if (gpus_n_fired(gpus_of(k)) == before) {
        evidence_note(k->evidence, "the rule has not fired");
        return false;
    }
    evidence_note(k->evidence, "struck");
    count_strike(k);
    return true;
}

static bool wait_death(struct killer *k, pid_t pid)
{
    uint64_t end_ns = end_in(DEATH_WAIT_MS);

    while (pid_runs(pid) && clock_mono_ns() < end_ns)
        load_turn(k->load, 2);
    if (!pid_runs(pid))
        return true;
    fail(k, "a worker lives on with a dead GPU");
    kill(pid, SIGKILL);
    return false;
}

/* ---- ways ---- */

static bool strike_worker(struct killer *k, const struct device_fault *f, uint32_t slot)
{
    uint32_t before = gpus_n_fired(gpus_of(k));
    bool has_fired;

    arm(k, f, slot);
    has_fired = wait_fired(k, before, FIRE_WAIT_MS);
    disarm(k);
    return has_fired || wait_fired(k, before, LAST_WAIT_MS);
}

static void strike_start(struct killer *k, const struct device_fault *f, uint32_t slot, pid_t pid)
{
    uint32_t before = gpus_n_fired(gpus_of(k));

    arm(k, f, slot);
    kill(pid, SIGKILL);
    wait_fired(k, before, START_WAIT_MS);
    disarm(k);
}

/* The other groups go on while a GPU is away. */
static void expect_service(struct killer *k)
{
    uint64_t answered = k->load->counts.requests, end_ns = end_in(OTHERS_WAIT_MS);

    while (k->load->counts.requests == answered && clock_mono_ns() < end_ns)
        load_turn(k->load, 5);
    if (k->load->counts.requests == answered)
        fail(k, "one GPU is lost, and no other group answers");
}

static void lose_gpu(struct killer *k, const struct device_fault *f, uint32_t slot, pid_t pid)
{
    uint32_t gpu = gpu_of_slot(slot);

    if (!strike_worker(k, f, slot))
        return;
    wait_death(k, pid);
    if (k->server->config.groups > 1)
        expect_service(k);
    load_run_ms(k->load, random_below(&k->random, OUTAGE_MS_MAX));
    gpus_reset(gpus_of(k), gpu);
    evidence_note(k->evidence, "GPU %u is back", gpu);
}

static void spoil_page(struct killer *k, const struct device_fault *f, uint32_t slot, pid_t pid)
{
    if (!strike_worker(k, f, slot))
        return;
    k->n_spoilt++;
    wait_death(k, pid);
}

static void report_xid(struct killer *k, const struct device_fault *f, uint32_t slot, pid_t pid)
{
    evidence_note(k->evidence, "Xid %s of GPU %u", f->rule, gpu_of_slot(slot));
    count_strike(k);
    gpus_report_xid(gpus_of(k), gpu_of_slot(slot), f->rule);
    wait_death(k, pid);
}

/* ---- another model ---- */

static int wait_order(struct killer *k, pid_t pid, uint64_t end_ns)
{
    int status = -1;
    pid_t done;

    while ((done = waitpid(pid, &status, WNOHANG)) == 0 && clock_mono_ns() < end_ns)
        load_turn(k->load, 5);
    if (done == pid)
        return status;
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    return -1;
}

/* What served before has finished what it had, and is gone: what strikes now strikes the new ones. */
static bool wait_former(struct killer *k, uint64_t end_ns)
{
    while (server_n_processes(k->server) > server_n_wanted(k->server)) {
        if (clock_mono_ns() >= end_ns)
            return false;
        load_run_ms(k->load, LOOK_MS); /* a look at /proc takes long where much runs */
    }
    return true;
}

/* Refused while another change is under way, so again and again. */
static bool change_model(struct killer *k)
{
    struct gpus *g = gpus_of(k);
    const char *const words[] = { "reload", "--model", g->models[1 - g->model], NULL };
    uint64_t end_ns = end_in(ORDER_WAIT_MS);

    k->n_found += (uint32_t)server_stat(k->server, STAT_kv_pages_corrupt); /* counts begin anew */
    while (wait_order(k, server_llmctl(k->server, words), end_ns) != 0) {
        if (clock_mono_ns() >= end_ns) {
            fail(k, "the model cannot be changed");
            return false;
        }
        load_run_ms(k->load, 100);
    }
    g->model = 1 - g->model;
    server_detach(k->server); /* its memory is another one */
    evidence_note(k->evidence, "model changed to %s", g->models[g->model]);
    if (wait_former(k, end_in(FORMER_WAIT_MS)))
        return true;
    fail(k, "processes of the model before do not end");
    return false;
}

static void reload(struct killer *k)
{
    count_strike(k);
    change_model(k);
}

/* The loader is the first start of its rank. */
static void kill_loader(struct killer *k)
{
    server_set_fault_points(k->server, "worker.load=kill:1@1");
    count_strike(k);
    if (change_model(k) && killer_wait_whole(k) && server_max_epoch(k->server) < 2)
        fail(k, "no worker was killed while it loaded");
    server_set_fault_points(k->server, "");
}

static void leak_memory(struct killer *k)
{
    int fd = gpus_hold_one_of(gpus_of(k), server_llmd(k->server));

    if (fd < 0) {
        fail(k, "llmd has no descriptor of GPU memory");
        return;
    }
    count_strike(k);
    change_model(k);
    killer_wait_whole(k);
    close(fd);
}

/* ---- poison ---- */

/* The one client that asks what must not be asked. */
struct poisoner {
    struct ask ask;
    struct catalog catalog;
    struct client client;
    struct client_events events;
    int status; /* of the answer; 0: none */
    bool says_why;
};

static void take_verdict(struct client *c, void *ctx)
{
    struct poisoner *p = ctx;
    static const char why[] = "this request was running at two crashes";

    p->status = c->answer.status;
    p->says_why = memmem(c->in.data + c->start, c->in.n - c->start, why, sizeof why - 1) != NULL;
}

static void take_loss(struct client *c, const char *why, void *ctx)
{
    (void)c, (void)why, (void)ctx;
}

static void take_refusal(struct client *c, void *ctx)
{
    (void)c, (void)ctx;
}

static void take_bytes(struct client *c, uint64_t now_ns, void *ctx)
{
    (void)c, (void)now_ns, (void)ctx;
}

static void poisoner_init(struct poisoner *p, const struct killer *k)
{
    *p = (struct poisoner){ .ask = { .name = "poison",
                                     .path = "/v1/completions",
                                     .method = "POST",
                                     .headers = "Content-Type: application/json\r\n" } };
    buf_printf(&p->ask.body, "{\"prompt\":[%u,40,50],\"max_tokens\":4,\"temperature\":0}",
               k->poison_token);
    p->catalog = (struct catalog){ .asks = &p->ask, .n = 1 };
    p->events = (struct client_events){ take_verdict, take_loss, take_refusal, take_bytes, p };
    client_init(&p->client, 0, 0);
    p->client.events = &p->events;
    p->client.catalog = &p->catalog;
    p->client.port = k->server->port;
    p->client.patience_ns = (uint64_t)POISON_WAIT_MS * NS_PER_MS;
}

static void poisoner_turn(struct poisoner *p, const struct killer *k)
{
    uint64_t now_ns = clock_mono_ns(), wake_ns = now_ns;
    struct pollfd fd = { .fd = p->client.fd };

    fd.events = client_wants(&p->client, now_ns, k->load->n_kills, &wake_ns);
    if (poll(&fd, 1, 0) >= 0)
        client_turn(&p->client, fd.revents, now_ns, k->load->n_kills);
}

/* It alone ends, with an error that says so; whoever ran beside it goes on. */
static void poison(struct killer *k, const struct device_fault *f, uint32_t slot)
{
    struct poisoner p;

    poisoner_init(&p, k);
    arm(k, f, slot);
    count_strike(k);
    client_ask(&p.client, 0, clock_mono_ns());
    while (client_is_busy(&p.client)) {
        load_turn(k->load, 2);
        poisoner_turn(&p, k);
    }
    disarm(k);
    k->load->counts.requests++;
    if (p.status < STATUS_ERROR_MIN || !p.says_why) {
        k->load->counts.wrong++;
        evidence_defect(k->evidence, NULL, &p.client.in, "the poison was answered with %d",
                        p.status);
    }
    client_fini(&p.client);
    buf_fini(&p.ask.body);
}

static bool has_number(const struct buf *text, const char *number)
{
    const char *at = text->data, *end = text->data + text->n;
    size_t n = strlen(number);

    while (at && (at = memmem(at, (size_t)(end - at), number, n))) {
        bool begins = at == text->data || strchr("0123456789", at[-1]) == NULL;
        at += n;
        if (begins && (at == end || strchr("0123456789", *at) == NULL))
            return true;
    }
    return false;
}

uint32_t device_poison_token(const struct catalog *c)
{
    for (uint32_t token = TOKEN_MAX; token > TOKEN_MIN; token--) {
        char number[16];
        bool is_used = false;
        snprintf(number, sizeof number, "%u", token);
        for (uint32_t i = 0; i < c->n && !is_used; i++)
            is_used = has_number(&c->asks[i].calm, number);
        if (!is_used)
            return token;
    }
    return TOKEN_MIN;
}

/* ---- all of them ---- */

void device_strike(struct killer *k, enum kill_id id, uint32_t slot, pid_t pid)
{
    const struct device_fault *f = fault_of(id);

    switch (f->way) {
    case FAULT_DIES:
        if (strike_worker(k, f, slot))
            wait_death(k, pid);
        break;
    case FAULT_LIVES:
        strike_worker(k, f, slot);
        break;
    case FAULT_STARTS:
        strike_start(k, f, slot, pid);
        break;
    case FAULT_LOSES:
        lose_gpu(k, f, slot, pid);
        break;
    case FAULT_SPOILS:
        spoil_page(k, f, slot, pid);
        break;
    case FAULT_LOADS:
        kill_loader(k);
        break;
    case FAULT_RELOADS:
        reload(k);
        break;
    case FAULT_LEAKS:
        leak_memory(k);
        break;
    case FAULT_REPORTS:
        report_xid(k, f, slot, pid);
        break;
    case FAULT_POISONS:
        poison(k, f, slot);
        break;
    }
}
