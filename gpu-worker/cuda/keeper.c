/* keeper.c - see keeper.h.
 *
 * A worker that dies while it waits for an answer leaves it in the socket: its successor finds sets there that it did
 * not ask for, and drops them. */
#include "gpu-worker/cuda/keeper.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "gpu-worker/cuda/chunks.h"
#include "gpu-worker/gpu_keeper.h"

#define ANSWER_NS (60 * NS_PER_S) /* besides what it may wait for memory */

/* ---- the worker's side: reaching it ---- */

static bool is_alive(const struct chunk_road *road)
{
    const struct chunk_set *s = chunk_road_find(road, CHUNKS_KEEPER);
    struct pollfd p;

    if (!s || !chunk_set_is_whole(s))
        return false;
    p = (struct pollfd){ .fd = s->fds[0] };
    return poll(&p, 1, 0) == 0; /* else it has hung up */
}

static bool spawn(int ordinal, uint64_t wait_ns, int sock, struct err *e)
{
    char number[16], wait_ms[24];
    char *argv[] = { (char *)(uintptr_t) "llm-worker", (char *)(uintptr_t) "gpu-keeper", number,
                     wait_ms, NULL };
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none;
    pid_t pid;
    int error;

    snprintf(number, sizeof number, "%d", ordinal);
    snprintf(wait_ms, sizeof wait_ms, "%llu", (unsigned long long)(wait_ns / NS_PER_MS));
    sigemptyset(&none);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, sock, CONTROL_FD);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
    error = posix_spawn(&pid, "/proc/self/exe", &actions, &attributes, argv, environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    return error == 0 || err_set(e, ERR_SYS, error, "start a keeper of GPU memory");
}

/* Its socket as a set, for llmd. */
static bool describe(const struct chunk_set *for_set, int sock, struct chunk_set *out,
                     struct err *e)
{
    *out = (struct chunk_set){ .kind = CHUNKS_KEEPER,
                               .group = for_set->group,
                               .rank = for_set->rank,
                               .bytes = 1,
                               .chunk_bytes = 1,
                               .n = 1 };
    memcpy(out->device, for_set->device, sizeof out->device);
    if (getrandom(&out->id, sizeof out->id, 0) != (ssize_t)sizeof out->id)
        return err_set(e, ERR_SYS, errno, "draw the name of a keeper");
    out->id |= 1;
    chunk_set_init(out);
    out->fds[0] = sock;
    out->n_there = 1;
    return true;
}

static bool start(struct chunk_road *road, int ordinal, const struct chunk_set *for_set,
                  uint64_t wait_ns, struct err *e)
{
    struct chunk_set set;
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return err_set(e, ERR_SYS, errno, "make a socket for a keeper of GPU memory");
    if (!spawn(ordinal, wait_ns, pair[1], e) || !describe(for_set, pair[0], &set, e)) {
        close(pair[0]);
        close(pair[1]);
        return false;
    }
    close(pair[1]);
    chunk_road_announce(road, &set);
    chunk_road_keep(road, &set);
    return true;
}

/* ---- the worker's side: asking it ---- */

enum answer { ANSWER_MORE, ANSWER_WHOLE, ANSWER_FAILED };

/* Chunks of the set, or of one that a dead worker asked for. */
static enum answer take_chunks(struct chunk_set *set, struct control_msg *m, struct err *e)
{
    if (!chunk_set_check(m->body, m->n_fds, e))
        return ANSWER_FAILED;
    if (chunk_set_is_same(set, m->body))
        chunk_set_take(set, m);
    return chunk_set_is_whole(set) ? ANSWER_WHOLE : ANSWER_MORE;
}

static enum answer take_answer(int sock, struct chunk_set *set, struct err *e)
{
    enum answer answer = ANSWER_FAILED;
    struct control_msg m;

    if (control_recv(sock, &m, e) != CONTROL_OK) {
        err_set(e, ERR_DEVICE, 0, "the keeper of GPU memory has ended");
        return ANSWER_FAILED;
    }
    if (m.type == MSG_CHUNKS)
        answer = take_chunks(set, &m, e);
    else if (m.type == MSG_FATAL)
        err_set(e, ERR_DEVICE, CU_OUT_OF_MEMORY, "%s", ((const Llmd__Fatal *)m.body)->message);
    else
        err_set(e, ERR_PROTO, 0, "the keeper of GPU memory said %s", msg_name(m.type));
    control_msg_fini(&m);
    return answer;
}

static bool wait_for(int sock, uint64_t deadline_ns, struct err *e)
{
    struct pollfd p = { .fd = sock, .events = POLLIN };
    uint64_t now;

    while ((now = clock_mono_ns()) < deadline_ns)
        if (poll(&p, 1, (int)((deadline_ns - now) / NS_PER_MS) + 1) > 0)
            return true;
    return err_set(e, ERR_TIMEOUT, 0, "the keeper of GPU memory does not answer");
}

bool keeper_create(struct chunk_road *road, int ordinal, struct chunk_set *planned,
                   uint64_t wait_ns, struct err *e)
{
    uint64_t deadline_ns = clock_mono_ns() + wait_ns + ANSWER_NS;
    enum answer answer = ANSWER_MORE;
    int sock;

    if (!is_alive(road) && !start(road, ordinal, planned, wait_ns, e))
        return false;
    sock = chunk_road_find(road, CHUNKS_KEEPER)->fds[0];
    chunk_set_init(planned);
    if (chunk_set_announce(planned, sock, e))
        while (answer == ANSWER_MORE)
            answer = wait_for(sock, deadline_ns, e) ? take_answer(sock, planned, e) : ANSWER_FAILED;
    if (answer == ANSWER_WHOLE)
        return true;
    chunk_set_fini(planned);
    return false;
}

/* ---- the process ---- */

struct held {
    cu_mem *handles; /* [n] */
    uint32_t n;
};

static void let_go(struct held *h)
{
    for (uint32_t i = 0; i < h->n; i++)
        cuda.cuMemRelease(h->handles[i]);
    free(h->handles);
    *h = (struct held){ 0 };
}

static void refuse(int sock, const struct err *why)
{
    Llmd__Fatal fatal = LLMD__FATAL__INIT;

    fatal.message = (char *)(uintptr_t)why->msg;
    control_send(sock, MSG_FATAL, &fatal, NULL, 0, NULL);
}

/* What it held of that kind goes first: there may be no room for both. */
static void serve_one(int ordinal, uint64_t wait_ns, int sock, struct held *held,
                      const Llmd__Chunks *c)
{
    struct chunk_set set;
    struct err e;

    let_go(held);
    chunk_set_begin(&set, c);
    free(set.fds); /* made by chunks_create_on() */
    held->handles = mem_zalloc(set.n, sizeof *held->handles);
    if (!chunks_create_on(ordinal, &set, held->handles, wait_ns, &e)) {
        free(held->handles);
        *held = (struct held){ 0 };
        refuse(sock, &e);
        return;
    }
    held->n = set.n;
    if (!chunk_set_send(&set, sock, &e))
        log_warning("%s", e.msg);
    chunk_set_fini(&set);
}

static int serve(int ordinal, uint64_t wait_ns, int sock)
{
    struct held held[CHUNKS_KEEPER] = { { 0 } }; /* of the kinds that are memory */
    struct control_msg m;
    struct err e;

    enum control_result r;

    while ((r = control_recv(sock, &m, &e)) == CONTROL_OK) {
        if (m.type == MSG_CHUNKS && chunk_set_check(m.body, 0, &e) &&
            ((const Llmd__Chunks *)m.body)->kind < CHUNKS_KEEPER)
            serve_one(ordinal, wait_ns, sock, &held[((const Llmd__Chunks *)m.body)->kind], m.body);
        else
            log_warning("%s was not understood, ignoring it", msg_name(m.type));
        control_msg_fini(&m);
    }
    for (int kind = 0; kind < CHUNKS_KEEPER; kind++)
        let_go(&held[kind]);
    return r == CONTROL_CLOSED ? EXIT_SUCCESS : EXIT_FAILURE;
}

int gpu_keeper_main(int argc, char **argv)
{
    struct err e;

    if (argc != 3)
        return 64; /* EX_USAGE */
    log_init("llm-worker/keeper", LOG_INFO, LOG_AUTO);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    signal(SIGINT, SIG_IGN);
    if (!cuda_driver_open(&e)) {
        refuse(CONTROL_FD, &e);
        return EXIT_FAILURE;
    }
    return serve(atoi(argv[1]), strtoull(argv[2], NULL, 10) * NS_PER_MS, CONTROL_FD);
}
