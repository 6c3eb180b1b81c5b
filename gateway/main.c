/* main.c - llm-gateway: HTTP in, tokens out.
 *
 * llmd starts it with the control socket as descriptor 3 and tells it everything in BOOT.  The main thread
 * speaks with llmd, beats the heart and watches the drain; event-loop threads serve.
 *
 *   SERVING ---- DRAIN, SIGTERM, orphaned too long ----> DRAINING ---- no request left, or the
 *      deadline: answers are cut with a proper end ----> CLOSING ---- connections gone, or 2 s ----> exit 0
 *
 * A DRAIN while llmd itself goes on is a restart: a successor comes.  The listening sockets are left to it
 * at once, so that nobody is refused: who connects now waits in the backlog, who is connected gets one
 * more answer, and only then the gateway ends.
 *
 * When llmd dies the gateway goes on serving; nobody adopting it within orphan_timeout_s, it drains. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/runtime_dir.h"
#include "gateway/boot.h"
#include "gateway/takeover/keeper.h"
#include "gateway/thread.h"

enum { THREADS_AUTO_MAX = 4, DRAIN_LOOK_MS = 20, CLOSING_MS = 2000 };

enum phase { SERVING, DRAINING, CLOSING };

struct gateway {
    struct service service;
    struct boot boot;
    struct keeper keeper;
    struct http_counters counters;
    uint64_t bytes_in, bytes_out; /* of the counters, already on the board */
    struct gateway_thread *threads;
    uint32_t n_started;
    struct loop *loop;
    struct loop_watch *control, *signals;
    int signal_fd;
    struct loop_timer *heartbeat, *drain, *orphan;
    enum phase phase;
    uint64_t deadline_ns;  /* of the drain */
    uint64_t closed_by_ns; /* of closing */
    bool is_orphan;
};

/* ---- draining ---- */

static void close_doors(struct gateway *g)
{
    for (uint32_t i = 0; i < g->n_started; i++)
        thread_drain(&g->threads[i]);
}

/* Until then requests are taken, though /health/ready says no already. */
static void note_refusal(struct gateway *g, uint64_t from_ns)
{
    atomic_store(&g->service.refuses_from_ns, from_ns);
}

static void begin_drain(struct gateway *g, uint64_t deadline_ns, bool has_successor,
                        const char *cause)
{
    uint64_t timeout_ns = g->service.config.drain_timeout_s * NS_PER_S;

    if (g->phase == SERVING || (g->phase == DRAINING && deadline_ns < g->deadline_ns)) {
        g->deadline_ns = deadline_ns;
        note_refusal(g, deadline_ns > timeout_ns ? deadline_ns - timeout_ns : 0);
    }
    if (g->phase != SERVING)
        return;
    g->phase = DRAINING;
    if (has_successor)
        close_doors(g);
    else
        atomic_store(&g->service.is_draining, 1);
    log_info("gateway from=serving to=draining cause=%s requests=%llu", cause,
             (unsigned long long)admission_taken(&g->service.admission));
    loop_timer_set(g->drain, 0);
}

static void begin_closing(struct gateway *g, bool is_late)
{
    g->phase = CLOSING;
    g->closed_by_ns = clock_mono_ns() + CLOSING_MS * NS_PER_MS;
    log_info("gateway from=draining to=closing requests=%llu",
             (unsigned long long)admission_taken(&g->service.admission));
    if (!is_late)
        close_doors(g);
    for (uint32_t i = 0; is_late && i < g->n_started; i++)
        thread_abort_all(&g->threads[i]);
}

static bool all_closed(const struct gateway *g)
{
    for (uint32_t i = 0; i < g->n_started; i++)
        if (!atomic_load(&g->threads[i].is_drained))
            return false;
    return true;
}

/* Of a restart, a connection accepted in the last moment may still bring a request. */
static bool has_closed(const struct gateway *g, bool may_wait)
{
    if (all_closed(g))
        return true;
    return !may_wait && clock_mono_ns() >= g->closed_by_ns;
}

static void on_drain_look(void *arg)
{
    struct gateway *g = arg;
    bool is_late = clock_mono_ns() >= g->deadline_ns;
    bool is_busy = admission_taken(&g->service.admission) > 0 ||
                   (service_is_draining(&g->service) && !service_refuses(&g->service));

    if (g->phase == DRAINING && (is_late || !is_busy))
        begin_closing(g, is_late);
    else if (g->phase == CLOSING && has_closed(g, is_busy && !is_late))
        loop_stop(g->loop);
    loop_timer_set(g->drain, DRAIN_LOOK_MS * NS_PER_MS);
}

static uint64_t drain_deadline(const struct gateway *g)
{
    return clock_mono_ns() + g->service.config.drain_timeout_s * NS_PER_S;
}

static void on_signal(void *arg)
{
    struct gateway *g = arg;
    struct signalfd_siginfo info;

    while (read(g->signal_fd, &info, sizeof info) == (ssize_t)sizeof info)
        begin_drain(g, g->phase == SERVING ? drain_deadline(g) : clock_mono_ns(), false, "SIGTERM");
}

static void on_orphan(void *arg)
{
    begin_drain(arg, drain_deadline(arg), false, "orphaned");
}

/* ---- what llmd says ---- */

static void take_service(struct gateway *g, const Llmd__Service *m)
{
    for (size_t i = 0; i < m->n_groups; i++) {
        const Llmd__Service__Group *group = m->groups[i];
        service_note_group(&g->service, group->group, group->up, group->cause);
        for (uint32_t t = 0; t < g->n_started; t++)
            thread_set_group(&g->threads[t], group->group, group->up);
    }
    if (m->draining && g->phase == SERVING) { /* a DRAIN with its deadline follows */
        note_refusal(g, clock_mono_ns() + g->service.config.drain_lead_s * NS_PER_S);
        atomic_store(&g->service.is_draining, 1);
        log_info("gateway draining=1 cause=service");
    } else if (!m->draining && g->phase == SERVING) {
        atomic_store(&g->service.is_draining, 0);
    }
}

static bool say_ready(struct gateway *g, struct err *e)
{
    Llmd__Ready ready = LLMD__READY__INIT;

    ready.epoch = g->boot.epoch;
    ready.pid = (uint32_t)getpid();
    log_info("gateway ready epoch=%u threads=%u groups=%u model=%s", g->boot.epoch,
             g->service.n_threads, g->service.n_groups, g->service.model_name);
    return control_send(CONTROL_FD, MSG_READY, &ready, NULL, 0, e);
}

/* A new llmd has our control socket from the one before.  What that had read and lost is said again. */
static void be_adopted(struct gateway *g, const Llmd__Adopt *adopt)
{
    struct err e;

    log_info("gateway adopted llmd=%u", adopt->pid);
    if (!say_ready(g, &e))
        log_warning("control message=lost error=\"%s\"", e.msg);
    service_tell_serving(&g->service, true);
    for (uint32_t t = 0; t < g->n_started; t++)
        thread_hand_over(&g->threads[t]);
}

static void take_message(struct gateway *g, const struct control_msg *m)
{
    const Llmd__Drain *drain = m->body;

    switch (m->type) {
    case MSG_SERVICE:
        take_service(g, m->body);
        break;
    case MSG_DRAIN:
        begin_drain(g, drain->deadline_ns ? drain->deadline_ns : drain_deadline(g),
                    !service_is_draining(&g->service), "llmd");
        break;
    case MSG_RELOAD:
        boot_reload(&g->service, m->body);
        for (uint32_t t = 0; t < g->n_started; t++)
            thread_reload(&g->threads[t]);
        break;
    case MSG_ADOPT:
        be_adopted(g, m->body);
        break;
    default:
        log_warning("control unexpected=%s, ignoring", msg_name(m->type));
        break;
    }
}

static void lose_llmd(struct gateway *g)
{
    log_warning("control closed: llmd is gone, serving on for %llu s",
                (unsigned long long)g->service.config.orphan_timeout_s);
    g->is_orphan = true;
    loop_watch_free(g->control); /* the descriptor stays: its number must not become a client's */
    g->control = NULL;
    loop_timer_set(g->orphan, g->service.config.orphan_timeout_s * NS_PER_S);
}

static void on_control(void *arg)
{
    struct gateway *g = arg;

    for (;;) {
        struct control_msg m;
        struct err e;
        switch (control_recv(CONTROL_FD, &m, &e)) {
        case CONTROL_OK:
            take_message(g, &m);
            control_msg_fini(&m);
            break;
        case CONTROL_EMPTY:
            return;
        case CONTROL_CLOSED:
            lose_llmd(g);
            return;
        case CONTROL_FAILED:
            log_warning("control message=dropped error=\"%s\"", e.msg);
            break;
        }
    }
}

/* ---- the heart ---- */

static void sync_bytes(struct gateway *g)
{
    uint64_t in = atomic_load(&g->counters.bytes_in);
    uint64_t out = atomic_load(&g->counters.bytes_out);

    stat_add(g->service.stats, STAT_http_bytes_in, in - g->bytes_in);
    stat_add(g->service.stats, STAT_http_bytes_out, out - g->bytes_out);
    g->bytes_in = in;
    g->bytes_out = out;
}

static void on_heartbeat(void *arg)
{
    struct gateway *g = arg;

    service_beat(&g->service, g->service.n_threads);
    service_tell_serving(&g->service, false);
    sync_bytes(g);
    loop_timer_set(g->heartbeat, SERVICE_BEAT_MS * NS_PER_MS);
}

/* ---- start and end ---- */

static bool catch_signals(struct gateway *g, struct err *e)
{
    struct sigaction ignore = { .sa_handler = SIG_IGN };
    sigset_t set;

    sigaction(SIGPIPE, &ignore, NULL);
    sigaction(SIGINT, &ignore, NULL); /* the terminal's Ctrl-C is for llmd, which drains us */
    sigaction(SIGHUP, &ignore, NULL);
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    g->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return g->signal_fd >= 0 || err_set(e, ERR_SYS, errno, "make a signalfd");
}

static uint32_t count_threads(const struct config *c)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);

    if (c->gateway_threads)
        return (uint32_t)c->gateway_threads;
    if (cores < 1)
        return 1;
    return cores < THREADS_AUTO_MAX ? (uint32_t)cores : THREADS_AUTO_MAX;
}

static bool start_threads(struct gateway *g, struct err *e)
{
    struct service *s = &g->service;

    s->n_threads = count_threads(&s->config);
    for (uint32_t i = 0; i <= s->n_threads; i++) /* time to start */
        atomic_store(&s->beats_ns[i], clock_mono_ns());
    takeover_match(&g->boot.takeover, s);
    g->threads = mem_zalloc(s->n_threads, sizeof *g->threads);
    for (uint32_t i = 0; i < s->n_threads; i++) {
        g->n_started = i + 1;
        if (!thread_init(&g->threads[i], s, i, g->boot.listen_fds, g->boot.n_listen,
                         &g->boot.takeover, &g->counters, e) ||
            !thread_start(&g->threads[i], e))
            return false;
    }
    return true;
}

static bool start_main_loop(struct gateway *g, struct err *e)
{
    g->loop = loop_new(e);
    if (!g->loop)
        return false;
    if (ioctl(CONTROL_FD, FIONBIO, &(int){ 1 }) < 0)
        return err_set(e, ERR_SYS, errno, "make the control socket non-blocking");
    g->control = loop_watch_new(g->loop, CONTROL_FD, on_control, g);
    g->signals = loop_watch_new(g->loop, g->signal_fd, on_signal, g);
    g->heartbeat = loop_timer_new(g->loop, on_heartbeat, g);
    g->drain = loop_timer_new(g->loop, on_drain_look, g);
    g->orphan = loop_timer_new(g->loop, on_orphan, g);
    loop_timer_set(g->heartbeat, 0);
    return true;
}

static void take_early(struct gateway *g)
{
    for (size_t i = 0; i < g->boot.n_early; i++) {
        take_message(g, &g->boot.early[i]);
        control_msg_fini(&g->boot.early[i]);
    }
    g->boot.n_early = 0;
}

static bool start(struct gateway *g, struct err *e)
{
    return catch_signals(g, e) && boot_receive(CONTROL_FD, &g->service, &g->boot, e) &&
           keeper_start(&g->keeper, &g->service, e) && service_open_model(&g->service, e) &&
           start_main_loop(g, e) && start_threads(g, e) && say_ready(g, e);
}

static void finish(struct gateway *g)
{
    for (uint32_t i = 0; i < g->n_started; i++)
        thread_fini(&g->threads[i]);
    free(g->threads);
    loop_watch_free(g->control);
    loop_watch_free(g->signals);
    loop_timer_free(g->heartbeat);
    loop_timer_free(g->drain);
    loop_timer_free(g->orphan);
    loop_free(g->loop);
    if (g->service.stats)
        sync_bytes(g);
    if (g->is_orphan) /* llmd died and nobody took its place: its socket would stay for ever */
        runtime_dir_sweep(g->service.config.runtime_dir);
    keeper_stop(&g->keeper);
    service_close_model(&g->service);
    boot_fini(&g->boot, &g->service);
    if (g->signal_fd >= 0)
        close(g->signal_fd);
}

static int fail(struct gateway *g, const struct err *e)
{
    Llmd__Fatal fatal = LLMD__FATAL__INIT;

    log_error("gateway: %s", e->msg);
    fatal.message = (char *)(uintptr_t)e->msg;
    control_send(CONTROL_FD, MSG_FATAL, &fatal, NULL, 0, NULL);
    finish(g);
    return 1;
}

int main(void)
{
    struct gateway *g = mem_zalloc(1, sizeof *g);
    int status = 0;
    struct err e;

    log_init("llm-gateway", LOG_INFO, LOG_AUTO);
    g->signal_fd = -1;
    pthread_mutex_init(&g->service.causes_lock, NULL);
    if (start(g, &e)) {
        take_early(g);
        loop_run(g->loop);
        finish(g);
        log_info("gateway stopped");
    } else {
        status = fail(g, &e);
    }
    pthread_mutex_destroy(&g->service.causes_lock);
    free(g);
    return status;
}
