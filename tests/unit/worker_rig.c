/* worker_rig.c - see worker_rig.h. */
#include "worker_rig.h"

#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/clock.h"
#include "proto/group_layout.h"
#include "proto/weights_layout.h"

enum { FAR_AWAY = 100, TOP_MAX = 5, N_ENTRIES = 80 };

#define PATIENCE_NS (60 * NS_PER_S)

void worker_spawn(struct worker_process *p, bool inspect)
{
    char *argv[] = { "llm-worker", inspect ? "--inspect" : NULL, NULL };
    int pair[2], out[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    assert_int_equal(pipe(out), 0);
    p->pid = fork();
    assert_true(p->pid >= 0);
    if (p->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(pair[1], FAR_AWAY);
        dup2(out[1], STDOUT_FILENO);
        dup2(FAR_AWAY, CONTROL_FD);
        for (int fd = CONTROL_FD + 1; fd <= FAR_AWAY; fd++)
            close(fd);
        execv(TEST_BIN_DIR "/llm-worker", argv);
        _exit(127);
    }
    close(pair[1]);
    close(out[1]);
    p->control = pair[0];
    p->output = out[0];
}

static void process_close(struct worker_process *p)
{
    if (p->control >= 0)
        close(p->control);
    if (p->output >= 0)
        close(p->output);
    *p = (struct worker_process){ .control = -1, .output = -1 };
}

int worker_reap(struct worker_process *p)
{
    uint64_t end = clock_mono_ns() + PATIENCE_NS;
    int status = 0;

    while (waitpid(p->pid, &status, WNOHANG) == 0) {
        poll(NULL, 0, 1);
        assert_true(clock_mono_ns() < end);
    }
    process_close(p);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

/* The settings as BOOT has them; returns how many. */
static size_t fill_settings(const char *const *settings, Llmd__Setting *memory,
                            Llmd__Setting **list)
{
    size_t n = 0;

    for (; settings[2 * n]; n++) {
        llmd__setting__init(&memory[n]);
        memory[n].name = (char *)(uintptr_t)settings[2 * n];
        memory[n].value = (char *)(uintptr_t)settings[2 * n + 1];
        list[n] = &memory[n];
    }
    assert_true(n <= WORKER_SETTINGS_MAX / 2);
    return n;
}

static void take_plan(int fd, Llmd__ModelPlan **plan)
{
    struct buf bytes = { 0 };
    struct frame f;
    struct err e;
    ssize_t n;

    buf_reserve(&bytes, 4096);
    while ((n = read(fd, bytes.data + bytes.n, 4096 - bytes.n)) > 0)
        bytes.n += (size_t)n;
    if (bytes.n > 0) {
        assert_true(frame_parse(&f, (const uint8_t *)bytes.data, bytes.n, &e));
        assert_int_equal(f.type, MSG_MODEL_PLAN);
        *plan = (Llmd__ModelPlan *)frame_unpack(&f, &e);
    }
    buf_fini(&bytes);
}

Llmd__ModelPlan *worker_inspect(const char *const *settings, char *fatal)
{
    struct worker_process p;
    Llmd__Boot boot = LLMD__BOOT__INIT;
    Llmd__Setting memory[WORKER_SETTINGS_MAX], *list[WORKER_SETTINGS_MAX];
    Llmd__ModelPlan *plan = NULL;
    struct control_msg m;
    struct err e;
    int code;

    worker_spawn(&p, true);
    boot.n_settings = fill_settings(settings, memory, list);
    boot.settings = list;
    assert_true(control_send(p.control, MSG_BOOT, &boot, NULL, 0, &e));
    take_plan(p.output, &plan);
    if (!plan) {
        worker_expect(&p, MSG_FATAL, &m);
        snprintf(fatal, 240, "%s", ((const Llmd__Fatal *)m.body)->message);
        control_msg_fini(&m);
    }
    code = worker_reap(&p);
    assert_int_equal(code, plan ? 0 : 1);
    return plan;
}

void worker_rig_init(struct worker_rig *r, uint32_t tp_size, const char *const *settings)
{
    static uint32_t n_rigs;
    char fatal[240] = "";
    Llmd__ModelPlan *plan = worker_inspect(settings, fatal);
    struct err e;

    if (!plan)
        fail_msg("%s", fatal);
    memset(r, 0, sizeof *r);
    snprintf(r->instance, sizeof r->instance, "worker-%d-%u", (int)getpid(), n_rigs++);
    r->tp_size = tp_size;
    for (int i = 0; settings[i]; i++)
        r->settings[i] = settings[i];
    assert_true(board_create(&r->board, 1, tp_size, 1, &e));
    assert_true(ledger_create(&r->ledger,
                              &(struct ledger_shape){ .n_entries = N_ENTRIES,
                                                      .tokens_max = plan->max_model_len,
                                                      .page_tokens = plan->kv_page_tokens,
                                                      .top_max = TOP_MAX,
                                                      .embedding_max = plan->hidden_size },
                              0, 1, &e));
    assert_true(kvpool_create(&r->pool,
                              &(struct kvpool_shape){ .n_pages = plan->kv_pages,
                                                      .page_tokens = plan->kv_page_tokens,
                                                      .n_layers = plan->n_layers,
                                                      .n_kv_heads = plan->n_kv_heads,
                                                      .head_dim = plan->head_dim,
                                                      .dtype = (enum dtype)plan->kv_dtype },
                              1, &e));
    for (uint32_t i = 0; i < tp_size; i++) {
        assert_true(segment_create(&r->weights[i], SEGMENT_WEIGHTS, WEIGHTS_VERSION, "test-weights",
                                   plan->weights_shard_bytes, 1, &e));
        r->ranks[i] = (struct worker_process){ .control = -1, .output = -1 };
    }
    assert_true(segment_create(&r->group, SEGMENT_GROUP, GROUP_VERSION, "test-group",
                               plan->group_bytes, 1, &e));
    frame_free_body(plan);
}

void worker_send_boot(struct worker_rig *r, uint32_t rank, bool with_fds)
{
    Llmd__Boot boot = LLMD__BOOT__INIT;
    Llmd__Setting memory[WORKER_SETTINGS_MAX], *list[WORKER_SETTINGS_MAX];
    const int fds[] = { r->board.segment.fd, r->ledger.segment.fd, r->pool.segment.fd,
                        r->weights[rank].fd, r->group.fd };
    const Llmd__FdKind kinds[] = { LLMD__FD_KIND__FD_BOARD, LLMD__FD_KIND__FD_LEDGER,
                                   LLMD__FD_KIND__FD_KVPOOL, LLMD__FD_KIND__FD_WEIGHTS,
                                   LLMD__FD_KIND__FD_GROUP };
    Llmd__FdNote notes[5], *note_list[5];
    struct err e;

    for (int i = 0; i < 5; i++) {
        llmd__fd_note__init(&notes[i]);
        notes[i].kind = kinds[i];
        notes[i].index = kinds[i] == LLMD__FD_KIND__FD_WEIGHTS ? rank : 0;
        note_list[i] = &notes[i];
    }
    boot.slot = board_rank_slot(&r->board, 0, rank);
    boot.rank = rank;
    boot.tp_size = r->tp_size;
    boot.n_groups = 1;
    boot.epoch = r->epoch;
    boot.instance = r->instance;
    boot.n_settings = fill_settings(r->settings, memory, list);
    boot.settings = list;
    boot.n_fds = with_fds ? 5 : 0;
    boot.fds = note_list;
    assert_true(control_send(r->ranks[rank].control, MSG_BOOT, &boot, fds, with_fds ? 5 : 0, &e));
}

void worker_expect(struct worker_process *p, enum msg_type type, struct control_msg *m)
{
    struct pollfd fd = { .fd = p->control, .events = POLLIN };
    struct err e = { 0 };

    for (;;) {
        assert_int_equal(poll(&fd, 1, (int)(PATIENCE_NS / NS_PER_MS)), 1);
        if (control_recv(p->control, m, &e) != CONTROL_OK)
            fail_msg("no %s: %s", msg_name(type), e.msg);
        if (m->type == type)
            return;
        if (m->type == MSG_FATAL)
            fail_msg("%s", ((const Llmd__Fatal *)m->body)->message);
        control_msg_fini(m);
    }
}

void worker_wait_ready(struct worker_rig *r, uint32_t rank)
{
    struct worker_process *p = &r->ranks[rank];
    const Llmd__Ready *ready;
    struct control_msg m;

    worker_expect(p, MSG_WEIGHTS_READY, &m);
    assert_int_equal(((const Llmd__WeightsReady *)m.body)->rank, rank);
    control_msg_fini(&m);
    worker_expect(p, MSG_READY, &m);
    ready = m.body;
    assert_int_equal(ready->epoch, r->epoch);
    assert_int_equal(ready->pid, p->pid);
    control_msg_fini(&m);
}

static bool has_loaded(const struct worker_rig *r, uint32_t rank)
{
    return ((const struct weights_hdr *)r->weights[rank].hdr)->loader_epoch == r->epoch;
}

void worker_rig_start(struct worker_rig *r)
{
    r->epoch++;
    r->n_loaded = 0;
    for (uint32_t i = 0; i < r->tp_size; i++) {
        worker_spawn(&r->ranks[i], false);
        worker_send_boot(r, i, true);
    }
    for (uint32_t i = 0; i < r->tp_size; i++) {
        worker_wait_ready(r, i);
        r->n_loaded += has_loaded(r, i);
    }
}

void worker_rig_kill(struct worker_rig *r)
{
    for (uint32_t i = 0; i < r->tp_size; i++) {
        if (r->ranks[i].pid == 0)
            continue;
        kill(r->ranks[i].pid, SIGKILL);
        assert_int_equal(worker_reap(&r->ranks[i]), 1000 + SIGKILL);
    }
}

void worker_rig_bury(struct worker_rig *r)
{
    for (uint32_t i = 0; i < r->tp_size; i++) {
        if (r->ranks[i].pid == 0)
            continue;
        kill(r->ranks[i].pid, SIGKILL);
        worker_reap(&r->ranks[i]);
    }
}

void worker_rig_fini(struct worker_rig *r)
{
    worker_rig_kill(r);
    board_close(&r->board);
    ledger_close(&r->ledger);
    kvpool_close(&r->pool);
    segment_close(&r->group);
    for (uint32_t i = 0; i < r->tp_size; i++)
        segment_close(&r->weights[i]);
}

static void receive(struct client *c)
{
    struct pollfd fd = { .fd = link_fd(c->link), .events = POLLIN };

    poll(&fd, 1, 1);
    client_receive(c);
}

int worker_until_dead(struct worker_process *p, struct client *c)
{
    uint64_t end = clock_mono_ns() + PATIENCE_NS;
    siginfo_t info = { 0 };

    while (waitid(P_PID, (id_t)p->pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
           info.si_pid == 0) {
        receive(c);
        assert_true(clock_mono_ns() < end);
    }
    return worker_reap(p);
}

void worker_until_all_over(struct client *c)
{
    uint64_t end = clock_mono_ns() + PATIENCE_NS;

    while (!client_all_over(c)) {
        receive(c);
        assert_true(clock_mono_ns() < end);
    }
}

void worker_until_n_tokens(struct client *c, const struct client_stream *s, uint32_t n)
{
    uint64_t end = clock_mono_ns() + PATIENCE_NS;

    while (s->n < n && !client_stream_is_over(s)) {
        receive(c);
        assert_true(clock_mono_ns() < end);
    }
}

struct stats *worker_rig_stats(const struct worker_rig *r)
{
    return &board_slot(&r->board, board_rank_slot(&r->board, 0, 0))->stats;
}

void worker_rig_assert_clean(const struct worker_rig *r)
{
    const struct stats *s = worker_rig_stats(r);

    for (uint32_t i = 0; i < r->ledger.hdr->n_entries; i++)
        assert_int_equal(atomic_load(&ledger_entry(&r->ledger, i)->state), LEDGER_FREE);
    for (uint32_t i = 0; i < r->pool.hdr->n_pages; i++)
        assert_int_equal(atomic_load(&r->pool.descs[i].pins), 0);
    assert_int_equal(kvpool_count_free(&r->pool) + stat_get(s, STAT_kv_pages_cached),
                     r->pool.hdr->n_pages);
    assert_int_equal(stat_get(s, STAT_kv_pages_leased), 0);
    assert_int_equal(stat_get(s, STAT_kv_pages_pinned), 0);
    assert_int_equal(stat_get(s, STAT_sequences_accepted),
                     stat_get(s, STAT_sequences_finished) + stat_get(s, STAT_sequences_cancelled) +
                         stat_get(s, STAT_sequences_failed));
}
