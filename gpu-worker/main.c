/* main.c - llm-worker: one rank of a group, started by llmd with its control socket as descriptor 3.
 *
 *   llm-worker --inspect   read the model's metadata, write one MODEL_PLAN frame to stdout
 *   llm-worker gpu-keeper  hold GPU memory for the workers of one rank (cuda/keeper.h); they start it
 *   llm-worker gpu-check   ask NVML whether GPUs can be used (gpu_check.h); llmd starts it
 *   llm-worker model ...   look at a model, or write it in another number format (tool/tool.h), for llmctl
 *   llm-worker             serve: BOOT brings settings and descriptors of the shared segments
 *
 * Rank 0 runs the engine on the main thread.  The other ranks follow its steps on a thread of their own,
 * while the main thread stays with llmd (heartbeat, drain, reload).
 *
 * Exit codes: 0 drained, or inspected; 1 an error, its words sent as FATAL and logged; 64 (EX_USAGE) wrong
 * command line; those of proto/worker_exit.h: a GPU.  A bug aborts.  llmd restarts the whole group in every case but the first,
 * when the GPU can be used. */
#include <argp.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fault_point.h"
#include "common/log.h"
#include "gpu-worker/chunk_road.h"
#include "gpu-worker/engine.h"
#include "gpu-worker/fault.h"
#include "gpu-worker/gpu_check.h"
#include "gpu-worker/gpu_keeper.h"
#include "gpu-worker/supervision.h"
#include "gpu-worker/tool/tool.h"

const char *argp_program_version = "llm-worker " LLMD_VERSION;

struct worker {
    struct config config;
    Llmd__Boot *boot; /* borrowed from .message */
    struct control_msg message;
    struct board board;
    struct ledger ledger; /* rank 0 */
    struct kvpool pool;
    struct host_tier host_tier; /* .hdr NULL: there is none */
    struct chunk_road road;
    struct runtime *runtime;
    struct link *link; /* rank 0 */
    struct engine *engine;
    int failed_code; /* of a runtime that could not be opened */
    struct supervision supervision;
    int follower_done; /* eventfd of the other ranks */
    bool follower_ok;
    struct err follower_error;
};

/* ---- boot ---- */

static bool receive_boot(struct worker *w, struct err *e)
{
    switch (control_recv(CONTROL_FD, &w->message, e)) {
    case CONTROL_OK:
        break;
    case CONTROL_EMPTY:
    case CONTROL_CLOSED:
        return err_set(e, ERR_PROTO, 0, "llmd closed the control socket before BOOT");
    case CONTROL_FAILED:
        return err_wrap(e, "receive BOOT on descriptor %d", CONTROL_FD);
    }
    if (w->message.type != MSG_BOOT)
        return err_set(e, ERR_PROTO, 0, "the first message is %s, expected BOOT",
                       msg_name(w->message.type));
    w->boot = w->message.body;
    for (size_t i = 0; i < w->boot->n_settings; i++)
        if (!config_set(&w->config, w->boot->settings[i]->name, w->boot->settings[i]->value, "llmd",
                        e))
            return false;
    return true;
}

static void start_log(const struct worker *w, bool inspect)
{
    char name[48] = "llm-worker";

    if (!inspect)
        snprintf(name, sizeof name, "llm-worker/%u.%u", w->boot->group, w->boot->rank);
    log_init(name, config_log_level(&w->config), config_log_format(&w->config));
}

/* Take a descriptor of BOOT; every kind asked for must be there. */
static bool take_fd(struct worker *w, Llmd__FdKind kind, uint32_t index, const char *what, int *fd,
                    struct err *e)
{
    *fd = control_take_fd(&w->message, kind, index);
    return *fd >= 0 ||
           err_set(e, ERR_PROTO, 0, "BOOT brought no descriptor of the %s (index %u)", what, index);
}

static bool check_boot(const Llmd__Boot *b, struct err *e)
{
    if (b->tp_size == 0 || b->rank >= b->tp_size || b->group >= b->n_groups || b->epoch == 0)
        return err_set(e, ERR_PROTO, 0, "BOOT says rank %u of %u in group %u of %u, epoch %u",
                       b->rank, b->tp_size, b->group, b->n_groups, b->epoch);
    return true;
}

/* Only llmd knows whether there is one. */
static bool attach_host_tier(struct worker *w, struct err *e)
{
    int fd = control_take_fd(&w->message, LLMD__FD_KIND__FD_HOST_TIER, 0);

    return fd < 0 || host_tier_attach(&w->host_tier, fd, e);
}

static struct host_tier *host_tier_of(struct worker *w)
{
    return w->host_tier.hdr ? &w->host_tier : NULL;
}

static bool attach_segments(struct worker *w, struct err *e)
{
    const Llmd__Boot *b = w->boot;
    int fd;

    if (!take_fd(w, LLMD__FD_KIND__FD_BOARD, 0, "board", &fd, e) || !board_attach(&w->board, fd, e))
        return false;
    if (b->slot >= w->board.hdr->n_slots)
        return err_set(e, ERR_PROTO, 0, "BOOT gives board slot %u of %u", b->slot,
                       w->board.hdr->n_slots);
    log_set_tap(board_log_line, board_slot(&w->board, b->slot));
    if (!take_fd(w, LLMD__FD_KIND__FD_KVPOOL, 0, "KV pool", &fd, e) ||
        !kvpool_attach(&w->pool, fd, e) || !attach_host_tier(w, e))
        return false;
    return b->rank != 0 || (take_fd(w, LLMD__FD_KIND__FD_LEDGER, b->group, "ledger", &fd, e) &&
                            ledger_attach(&w->ledger, fd, true, e));
}

/* In every epoch, loaded or mapped: the one who loaded may have died before it could say so. */
static bool say_weights_ready(struct worker *w, struct err *e)
{
    Llmd__WeightsReady ready = LLMD__WEIGHTS_READY__INIT;

    ready.rank = w->boot->rank;
    return control_send(CONTROL_FD, MSG_WEIGHTS_READY, &ready, NULL, 0, e);
}

static bool open_runtime(struct worker *w, struct err *e)
{
    const Llmd__Boot *b = w->boot;
    struct runtime_boot boot = { .config = &w->config,
                                 .group = b->group,
                                 .rank = b->rank,
                                 .tp_size = b->tp_size,
                                 .epoch = b->epoch,
                                 .pool = &w->pool,
                                 .host_tier = host_tier_of(w),
                                 .road = &w->road,
                                 .gpus = b->gpus,
                                 .failed_code = &w->failed_code,
                                 .stats = &board_slot(&w->board, b->slot)->stats };
    bool loaded = false;

    if (!take_fd(w, LLMD__FD_KIND__FD_WEIGHTS, b->rank, "weights", &boot.weights_fd, e))
        return false;
    if (!take_fd(w, LLMD__FD_KIND__FD_GROUP, b->group, "group memory", &boot.group_fd, e)) {
        close(boot.weights_fd);
        return false;
    }
    w->runtime = runtime_open(&boot, &loaded, e);
    return w->runtime && say_weights_ready(w, e);
}

static bool say_ready(struct worker *w, struct err *e)
{
    Llmd__Ready ready = LLMD__READY__INIT;

    ready.epoch = w->boot->epoch;
    ready.pid = (uint32_t)getpid();
    return control_send(CONTROL_FD, MSG_READY, &ready, NULL, 0, e);
}

/* A new llmd has asked what we are. */
static void answer_adoption(struct worker *w)
{
    struct err e;

    if (!w->supervision.is_adopted)
        return;
    w->supervision.is_adopted = false;
    chunk_road_tell_again(&w->road); /* first: WEIGHTS_READY is of weights that it holds */
    if (!say_weights_ready(w, &e) || !say_ready(w, &e))
        log_warning("%s; the new llmd does not know that this rank is ready", e.msg);
}

/* ---- rank 0 ---- */

/* Before the weights are there: gateways look for us from the moment our predecessor died, and connect while
 * we load or map.  What they send waits; HELLO leaves with the engine's first turn. */
static bool bind_link(struct worker *w, struct err *e)
{
    if (w->boot->rank == 0)
        w->link = link_bind(w->boot->instance, w->boot->group, e);
    return w->boot->rank != 0 || w->link;
}

static bool start_engine(struct worker *w, struct err *e)
{
    fault_watch(&w->ledger, runtime_doubt(w->runtime));
    w->engine = engine_new(&(struct engine_boot){ .config = &w->config,
                                                  .group = w->boot->group,
                                                  .n_groups = w->boot->n_groups,
                                                  .epoch = w->boot->epoch,
                                                  .ledger = &w->ledger,
                                                  .pool = &w->pool,
                                                  .host_tier = host_tier_of(w),
                                                  .tier_data = runtime_kv_tier(w->runtime),
                                                  .slot = board_slot(&w->board, w->boot->slot),
                                                  .runtime = w->runtime,
                                                  .link = w->link },
                           e);
    return w->engine != NULL;
}

static bool lead(struct worker *w, struct err *e)
{
    struct supervision *s = &w->supervision;

    if (!start_engine(w, e) ||
        !supervision_open(s, CONTROL_FD, link_fd(w->link), &w->config,
                          board_slot(&w->board, w->boot->slot), w->boot->epoch, e) ||
        !say_ready(w, e))
        return false;
    log_info("ready group=%u epoch=%u model=%s device=\"%s\"", w->boot->group, w->boot->epoch,
             runtime_info(w->runtime)->name, runtime_device(w->runtime));
    while (!engine_is_drained(w->engine)) {
        if (!supervision_wait(s, engine_wake_ns(w->engine), e))
            return false;
        answer_adoption(w);
        if (s->is_draining)
            engine_drain(w->engine, s->drain_deadline_ns);
        if (!engine_turn(w->engine, e))
            return false;
    }
    runtime_stop(w->runtime);
    return true;
}

/* ---- the other ranks ---- */

static void *follow_thread(void *arg)
{
    struct worker *w = arg;

    w->follower_ok = runtime_follow(w->runtime, &w->follower_error);
    eventfd_write(w->follower_done, 1);
    return NULL;
}

/* Rank 0 ends the steps of all when it has drained; a rank that is still left some time after the
 * deadline goes by itself. */
static bool stay_with_llmd(struct worker *w, struct err *e)
{
    struct supervision *s = &w->supervision;
    const uint64_t grace_ns = 5 * NS_PER_S;
    eventfd_t n;

    while (eventfd_read(w->follower_done, &n) < 0) {
        if (!supervision_wait(s, UINT64_MAX, e))
            return false;
        answer_adoption(w);
        if (s->is_draining && clock_mono_ns() > s->drain_deadline_ns + grace_ns)
            runtime_stop(w->runtime);
    }
    return true;
}

static bool follow(struct worker *w, struct err *e)
{
    struct board_slot *slot = board_slot(&w->board, w->boot->slot);
    pthread_t thread;
    bool ok;
    int error;

    fault_watch(NULL, runtime_doubt(w->runtime));
    w->follower_done = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (w->follower_done < 0)
        return err_set(e, ERR_SYS, errno, "make an eventfd");
    stats_zero_gauges(&slot->stats);
    if (!supervision_open(&w->supervision, CONTROL_FD, w->follower_done, &w->config, slot,
                          w->boot->epoch, e))
        return false;
    error = pthread_create(&thread, NULL, follow_thread, w);
    if (error != 0)
        return err_set(e, ERR_SYS, error, "start the following thread");
    ok = say_ready(w, e) && stay_with_llmd(w, e);
    if (!ok)
        runtime_stop(w->runtime);
    pthread_join(thread, NULL);
    if (ok && !w->follower_ok) {
        *e = w->follower_error;
        return false;
    }
    return ok;
}

/* ---- both ---- */

static bool serve(struct worker *w, struct err *e)
{
    runtime_environment(&w->config);
    if (!check_boot(w->boot, e) || !fault_points_set(w->config.fault_points, w->boot->epoch, e) ||
        !chunk_road_open(&w->road, CONTROL_FD, w->boot->n_chunks, e) || !attach_segments(w, e) ||
        !bind_link(w, e) || !open_runtime(w, e))
        return false;
    return w->boot->rank == 0 ? lead(w, e) : follow(w, e);
}

static bool write_all(int fd, const char *bytes, size_t n, struct err *e)
{
    while (n > 0) {
        ssize_t put = write(fd, bytes, n);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return err_set(e, ERR_SYS, errno, "write the model plan");
        bytes += put;
        n -= (size_t)put;
    }
    return true;
}

static bool inspect_model(struct worker *w, struct err *e)
{
    Llmd__ModelPlan plan = LLMD__MODEL_PLAN__INIT;
    struct model_info info;
    struct buf out = { 0 };
    bool ok;

    if (!runtime_inspect(&w->config, &info, &plan, e))
        return false;
    frame_pack(&out, MSG_MODEL_PLAN, &plan);
    ok = write_all(STDOUT_FILENO, out.data, out.n, e);
    buf_fini(&out);
    return ok;
}

static void worker_fini(struct worker *w)
{
    engine_free(w->engine);
    link_close(w->link);
    runtime_close(w->runtime);
    chunk_road_close(&w->road);
    host_tier_close(&w->host_tier);
    kvpool_close(&w->pool);
    ledger_close(&w->ledger);
    log_set_tap(NULL, NULL);
    board_close(&w->board);
    supervision_close(&w->supervision);
    if (w->follower_done >= 0)
        close(w->follower_done);
    control_msg_fini(&w->message);
}

/* Last words, to the log and to llmd, which shows them to the operator. */
static void say_fatal(const struct err *error)
{
    Llmd__Fatal fatal = LLMD__FATAL__INIT;

    log_error("%s", error->msg);
    fatal.message = (char *)(uintptr_t)error->msg;
    control_send(CONTROL_FD, MSG_FATAL, &fatal, NULL, 0, NULL);
}

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    (void)arg;
    if (key == 'i') {
        *(bool *)state->input = true;
        return 0;
    }
    return ARGP_ERR_UNKNOWN;
}

int main(int argc, char **argv)
{
    static const struct argp_option options[] = {
        { "inspect", 'i', 0, 0, "Write what the model needs on this host to stdout, and exit", 0 },
        { 0 },
    };
    static const struct argp argp = { .options = options,
                                      .parser = parse_option,
                                      .doc =
                                          "One rank of an llmd group.  Started by llmd, with its "
                                          "control socket as descriptor 3." };
    static struct worker w = { .supervision = { .epoll = -1, .signals = -1, .timer = -1 },
                               .follower_done = -1,
                               .failed_code = EXIT_FAILURE };
    bool inspect = false, ok;
    struct err e;
    int code;

    if (argc > 1 && strcmp(argv[1], "model") == 0)
        return model_tool(argc - 1, argv + 1);
    if (argc > 1 && strcmp(argv[1], "gpu-keeper") == 0)
        return gpu_keeper_main(argc - 1, argv + 1);
    if (argc > 1 && strcmp(argv[1], "gpu-check") == 0)
        return gpu_check_main(argc - 1, argv + 1);
    argp_parse(&argp, argc, argv, 0, NULL, &inspect);
    log_init("llm-worker", LOG_INFO, LOG_AUTO);
    supervision_take_signals();
    config_init(&w.config);
    ok = receive_boot(&w, &e);
    if (ok) {
        start_log(&w, inspect);
        ok = inspect ? inspect_model(&w, &e) : serve(&w, &e);
    }
    if (!ok)
        say_fatal(&e);
    code = ok ? EXIT_SUCCESS : w.runtime ? runtime_exit_code(w.runtime, &e) : w.failed_code;
    if (code != EXIT_SUCCESS && code != EXIT_FAILURE)
        _exit(code); /* a device that hangs would keep whoever gives it back */
    worker_fini(&w);
    if (runtime_has_left_threads())
        _exit(code);
    return code;
}
