/* fake_child.c - stands in for llm-gateway and llm-worker: it keeps llmd's contract, or breaks it on
 * purpose.
 *
 * It is installed under both names; BOOT tells it which process it is.  The model directory of the test
 * holds a file `behaviour` with lines "<process>: <word>", read at each start, and a file `events` to
 * which it appends what it saw, one line per event:
 *
 *   <process> <pid> <event> [details]
 *
 * The gateway serves a line protocol of its own: to each line it answers "<pid> <line>", and it keeps its
 * connections as the real one does: handed to llmd when accepted, taken over from its predecessor.
 *
 * Words: exit, abort, never-ready, not-served (no SERVING while the word is this), no-weights, weights-only (ready when the word is another), slow-drain (until its
 * deadline is now), ignore-drain, ignore-all, orphan-maker, silent, long-step (at once, whenever the word is written); and for the process "inspect": bad, crash,
 * garbage, empty, hang, gpu (the model is on GPUs: workers have chunks of memory, which are memfds here), for
 * workers of such a model: dies-loading, gpu-lost, gpu-unusable, gpu-bad-part; and for the process "gpu-check": bad, hang. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/config.h"
#include "common/mem.h"
#include "common/runtime_dir.h"
#include "gpu-worker/chunk_road.h"
#include "proto/board.h"
#include "proto/connections.h"
#include "proto/control.h"
#include "proto/group_layout.h"
#include "proto/kvpool.h"
#include "proto/ledger.h"
#include "proto/weights_layout.h"
#include "proto/worker_exit.h"

enum { CLIENTS_MAX = 256, N_CHUNKS = 70 /* two messages */, WORD_BYTES = 32 };

static struct {
    struct config config;
    struct control_msg boot_msg;
    const Llmd__Boot *boot;
    char name[32], word[WORD_BYTES];
    uint64_t orphan_deadline_ns; /* 0 = llmd lives */
    struct board board;          /* .hdr is NULL when it could not be attached */
    struct connections connections;
    struct chunk_road road; /* GPU memory */
    struct segment weights;
    bool has_gpu;
    int listener;
    bool is_ready, is_served, is_service_draining;
    struct client {
        int fd; /* 0 = none */
        uint32_t slot, generation;
    } clients[CLIENTS_MAX];
} me;

static volatile sig_atomic_t got_sigterm;

static void on_sigterm(int sig)
{
    (void)sig;
    got_sigterm = 1;
}

static void note(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

static void note(const char *fmt, ...)
{
    char path[CONFIG_TEXT_BYTES + 16], text[2048];
    va_list ap;
    int fd, n;

    snprintf(path, sizeof path, "%s/events", me.config.model);
    n = snprintf(text, sizeof text, "%s %d ", me.name, (int)getpid());
    va_start(ap, fmt);
    n += vsnprintf(text + n, sizeof text - (size_t)n - 1, fmt, ap);
    va_end(ap);
    if ((size_t)n > sizeof text - 2)
        n = sizeof text - 2;
    text[n++] = '\n';
    fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, text, (size_t)n) != n)
        abort();
    close(fd);
}

/* What the test wants of us at this moment; "" = nothing. */
static void read_word(char word[WORD_BYTES])
{
    char path[CONFIG_TEXT_BYTES + 16], line[128];
    FILE *f;

    word[0] = '\0';
    snprintf(path, sizeof path, "%s/behaviour", me.config.model);
    f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f)) {
        size_t n = strlen(me.name);
        if (strncmp(line, me.name, n) == 0 && line[n] == ':')
            snprintf(word, WORD_BYTES, "%.*s", (int)strcspn(line + n + 2, "\n"), line + n + 2);
    }
    if (f)
        fclose(f);
}

static bool is(const char *word)
{
    return strcmp(me.word, word) == 0;
}

/* role: NULL = a child in service */
static void receive_boot(const char *role)
{
    struct err e = { 0 };

    if (control_recv(CONTROL_FD, &me.boot_msg, &e) != CONTROL_OK || me.boot_msg.type != MSG_BOOT)
        abort();
    me.boot = me.boot_msg.body;
    config_init(&me.config);
    for (size_t i = 0; i < me.boot->n_settings; i++)
        if (!config_set(&me.config, me.boot->settings[i]->name, me.boot->settings[i]->value, "llmd",
                        &e))
            abort();
    if (role)
        snprintf(me.name, sizeof me.name, "%s", role);
    else if (me.boot->slot == BOARD_SLOT_GATEWAY)
        snprintf(me.name, sizeof me.name, "gateway");
    else
        snprintf(me.name, sizeof me.name, "worker %u.%u", me.boot->group, me.boot->rank);
}

/* The first descriptor past CONTROL_FD that was inherited, or 0; asked before BOOT brings more. */
static int find_extra_descriptor(void)
{
    DIR *dir = opendir("/proc/self/fd");
    struct dirent *entry;
    int extra = 0;

    while (dir && (entry = readdir(dir))) {
        int fd = atoi(entry->d_name);
        if (entry->d_name[0] != '.' && fd > CONTROL_FD && fd != dirfd(dir))
            extra = fd;
    }
    if (dir)
        closedir(dir);
    return extra;
}

/* No signal blocked or ignored, nothing of systemd's, a process group of its own. */
static void check_inheritance(void)
{
    struct sigaction action;
    sigset_t mask;

    sigprocmask(SIG_BLOCK, NULL, &mask);
    for (int sig = 1; sig < 32; sig++) {
        if (sigismember(&mask, sig))
            note("bad mask: signal %d is blocked", sig);
        if (sigaction(sig, NULL, &action) == 0 && action.sa_handler == SIG_IGN)
            note("bad action: signal %d is ignored", sig);
    }
    if (getenv("NOTIFY_SOCKET") || getenv("WATCHDOG_USEC") || getenv("LISTEN_FDS"))
        note("bad environment");
    if (getpgrp() != getpid())
        note("bad process group");
}

/* Attach what BOOT brought, by the functions the real ones use. */
static void check_segments(void)
{
    struct control_msg *m = &me.boot_msg;
    struct segment group;
    struct err e = { 0 };
    struct ledger ledger;
    struct kvpool pool;

    if (!board_attach(&me.board, control_take_fd(m, LLMD__FD_KIND__FD_BOARD, 0), &e))
        note("bad board: %s", e.msg);
    else if (strcmp(board_slot(&me.board, me.boot->slot)->name, me.name) != 0)
        note("bad slot: %s", board_slot(&me.board, me.boot->slot)->name);
    if (me.boot->slot == BOARD_SLOT_GATEWAY) {
        me.listener = control_take_fd(m, LLMD__FD_KIND__FD_LISTEN, 0);
        if (me.listener < 0 || !(fcntl(me.listener, F_GETFL) & O_NONBLOCK))
            note("bad listening socket");
        if (!connections_attach(&me.connections,
                                control_take_fd(m, LLMD__FD_KIND__FD_CONNECTIONS, 0), &e))
            note("bad connections segment: %s", e.msg);
        return;
    }
    if (!ledger_attach(&ledger, control_take_fd(m, LLMD__FD_KIND__FD_LEDGER, me.boot->group), true,
                       &e) ||
        !kvpool_attach(&pool, control_take_fd(m, LLMD__FD_KIND__FD_KVPOOL, 0), &e) ||
        !segment_attach(&me.weights, control_take_fd(m, LLMD__FD_KIND__FD_WEIGHTS, me.boot->rank),
                        SEGMENT_WEIGHTS, WEIGHTS_VERSION, true, &e) ||
        !segment_attach(&group, control_take_fd(m, LLMD__FD_KIND__FD_GROUP, me.boot->group),
                        SEGMENT_GROUP, GROUP_VERSION, true, &e))
        note("bad segment: %s", e.msg);
    else
        me.has_gpu = pool.hdr->place == KV_PLACE_DEVICE;
}

/* ---- GPU memory: a chunk is a memfd whose size says which one it is ---- */

static off_t chunk_mark(enum chunk_kind kind, uint32_t chunk)
{
    return 1 + chunk + 1000 * (off_t)kind + 10000 * (off_t)(me.boot->group * 10 + me.boot->rank);
}

static bool chunks_are_ours(const struct chunk_set *s)
{
    struct stat st;

    for (uint32_t i = 0; i < s->n; i++)
        if (fstat(s->fds[i], &st) < 0 || st.st_size != chunk_mark(s->kind, i))
            return false;
    return chunk_set_is_whole(s) && s->n == N_CHUNKS;
}

static void make_chunks(enum chunk_kind kind)
{
    struct chunk_set s = { .kind = kind,
                           .group = me.boot->group,
                           .rank = me.boot->rank,
                           .id = clock_mono_ns() << 8 | kind,
                           .bytes = N_CHUNKS,
                           .chunk_bytes = 1,
                           .n = N_CHUNKS };

    chunk_set_init(&s);
    for (uint32_t i = 0; i < s.n; i++) {
        s.fds[i] = memfd_create("chunk", MFD_CLOEXEC);
        if (s.fds[i] < 0 || ftruncate(s.fds[i], chunk_mark(kind, i)) < 0)
            abort();
    }
    s.n_there = s.n;
    chunk_road_announce(&me.road, &s);
    chunk_road_keep(&me.road, &s);
}

/* As the real one: what is there is mapped, else made; the weights are complete when the header says so. */
static void take_chunks(void)
{
    struct weights_hdr *h = (struct weights_hdr *)me.weights.hdr;
    struct err e = { 0 };

    if (!chunk_road_open(&me.road, CONTROL_FD, me.boot->n_chunks, &e))
        note("bad chunks: %s", e.msg);
    for (int kind = CHUNKS_WEIGHTS; kind <= CHUNKS_KV; kind++) {
        const struct chunk_set *s = chunk_road_find(&me.road, (enum chunk_kind)kind);
        if (s && !chunks_are_ours(s))
            note("bad chunks of %s", chunk_kind_name(s->kind));
        note("gpu %s %s", chunk_kind_name((enum chunk_kind)kind), s ? "kept" : "made");
        if (s)
            continue;
        if (kind == CHUNKS_WEIGHTS)
            atomic_store(&h->state, WEIGHTS_LOADING);
        make_chunks((enum chunk_kind)kind);
    }
    if (is("dies-loading"))
        abort();
    atomic_store(&h->state, WEIGHTS_COMMITTED);
}

static void say_fatal(const char *words)
{
    Llmd__Fatal fatal = LLMD__FATAL__INIT;

    fatal.message = (char *)(uintptr_t)words;
    control_send(CONTROL_FD, MSG_FATAL, &fatal, NULL, 0, NULL);
}

static void say_weights_ready(void)
{
    Llmd__WeightsReady ready = LLMD__WEIGHTS_READY__INIT;

    ready.rank = me.boot->rank;
    control_send(CONTROL_FD, MSG_WEIGHTS_READY, &ready, NULL, 0, NULL);
}

static void say_ready(void)
{
    Llmd__Ready ready = LLMD__READY__INIT;

    ready.epoch = me.boot->epoch;
    ready.pid = (uint32_t)getpid();
    if (!me.is_ready)
        note("ready"); /* before llmd can act on it */
    me.is_ready = true;
    control_send(CONTROL_FD, MSG_READY, &ready, NULL, 0, NULL);
}

/* The gateway's. */
static void say_serving(void)
{
    Llmd__Serving serving = LLMD__SERVING__INIT;
    char word[WORD_BYTES];

    read_word(word);
    serving.epoch = me.boot->epoch;
    if (me.is_served && strcmp(word, "not-served") != 0)
        control_send(CONTROL_FD, MSG_SERVING, &serving, NULL, 0, NULL);
}

/* ---- the gateway's clients ---- */

static struct client *add_client(int fd, uint32_t slot, uint32_t generation)
{
    for (int i = 0; i < CLIENTS_MAX; i++) {
        if (me.clients[i].fd)
            continue;
        me.clients[i] = (struct client){ .fd = fd, .slot = slot, .generation = generation };
        return &me.clients[i];
    }
    abort();
}

static void hand_over(const struct client *c)
{
    Llmd__Connections__Kept kept = LLMD__CONNECTIONS__KEPT__INIT, *pointer = &kept;
    Llmd__Connections message = LLMD__CONNECTIONS__INIT;
    struct err e = { 0 };

    kept.slot = c->slot;
    kept.generation = c->generation;
    message.kept = &pointer;
    message.n_kept = 1;
    while (!control_send(CONTROL_FD, MSG_CONNECTIONS, &message, &c->fd, 1, &e)) {
        if (e.sys != EAGAIN)
            return;
        usleep(1000);
    }
}

static void accept_client(void)
{
    int fd = accept4(me.listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    struct connection_record *r;
    socklen_t n = sizeof r->cookie;
    uint32_t slot;

    if (fd < 0)
        return;
    slot = connections_claim(&me.connections, (uint32_t)fd, 0, clock_mono_ns());
    r = connections_record(&me.connections, slot);
    getsockopt(fd, SOL_SOCKET, SO_COOKIE, &r->cookie, &n);
    hand_over(add_client(fd, slot, r->generation));
}

static void serve_client(struct client *c)
{
    char line[256], answer[300];
    ssize_t n = recv(c->fd, line, sizeof line - 1, 0);

    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0) {
        shutdown(c->fd, SHUT_RDWR);
        close(c->fd);
        connections_release(&me.connections, c->slot);
        *c = (struct client){ 0 };
        return;
    }
    line[n] = '\0';
    n = snprintf(answer, sizeof answer, "%d %s", (int)getpid(), line);
    if (send(c->fd, answer, (size_t)n, MSG_NOSIGNAL) != n)
        note("bad send");
}

/* Those of the predecessor, before anything else is read; then free the records of which none came. */
static void take_over_clients(void)
{
    struct control_msg m;
    struct err e = { 0 };
    uint32_t n = 0;

    while (n < me.boot->n_connections) {
        const Llmd__Connections *c;
        enum control_result result = control_recv(CONTROL_FD, &m, &e);
        if (result != CONTROL_OK || m.type != MSG_CONNECTIONS) {
            note("bad message: result %d %s %s before the connections", (int)result,
                 result == CONTROL_OK ? msg_name(m.type) : "", e.msg);
            abort();
        }
        c = m.body;
        for (int i = 0; i < m.n_fds; i++, n++) {
            const struct connection_record *r =
                connections_record(&me.connections, c->kept[i]->slot);
            if (r->generation != c->kept[i]->generation || connection_state(r) == CONNECTION_FREE)
                note("bad connection slot=%u", c->kept[i]->slot);
            add_client(m.fds[i], c->kept[i]->slot, c->kept[i]->generation);
            m.fds[i] = -1;
        }
        control_msg_fini(&m);
    }
    for (uint32_t slot = 0; slot < me.connections.hdr->n_slots; slot++) {
        bool is_mine = false;
        for (int i = 0; i < CLIENTS_MAX; i++)
            is_mine = is_mine || (me.clients[i].fd && me.clients[i].slot == slot);
        if (!is_mine &&
            connection_state(connections_record(&me.connections, slot)) != CONNECTION_FREE)
            connections_release(&me.connections, slot);
    }
    note("took over connections=%u", n);
}

static void serve_clients(const struct pollfd *fds)
{
    if (fds[0].revents)
        accept_client();
    for (int i = 0; i < CLIENTS_MAX; i++)
        if (fds[1 + i].revents && me.clients[i].fd)
            serve_client(&me.clients[i]);
}

static int inspect(void)
{
    Llmd__ModelPlan plan = LLMD__MODEL_PLAN__INIT;
    struct buf out = { 0 };

    if (is("bad")) {
        say_fatal("config.json: no such file");
        return 1;
    }
    if (is("crash"))
        abort();
    if (is("hang"))
        pause();
    if (is("garbage"))
        return puts("hello") < 0;
    if (is("empty"))
        return 0;
    plan.name = plan.architecture = plan.weights_dtype = (char *)(uintptr_t) "fake";
    plan.max_model_len = 64;
    plan.vocab_size = 100;
    plan.n_layers = plan.n_kv_heads = 1;
    plan.head_dim = 16;
    plan.kv_dtype = DTYPE_F16;
    plan.kv_page_tokens = 16;
    plan.kv_page_bytes = 1024;
    plan.kv_pages = 8;
    plan.group_bytes = 65536;
    plan.weights_bytes = plan.weights_shard_bytes = 8192;
    plan.on_device = is("gpu");
    if (plan.on_device)
        plan.gpus = (char *)(uintptr_t) "GPU-0 GPU-1 GPU-2 GPU-3";
    frame_pack(&out, MSG_MODEL_PLAN, &plan);
    if (write(STDOUT_FILENO, out.data, out.n) != (ssize_t)out.n)
        return 1;
    buf_fini(&out);
    return 0;
}

static int check_gpus(int n, char **names)
{
    for (int i = 0; i < n; i++)
        note("asked about %s", names[i]);
    if (is("hang"))
        pause();
    if (!is("bad"))
        return 0;
    say_fatal("the driver asks for a reset");
    return 1;
}

/* Leave a process behind that has no parent but the subreaper. */
static void make_orphan(void)
{
    pid_t pid = fork();

    if (pid == 0) {
        if (fork() == 0) {
            note("orphan");
            usleep(20000);
        }
        _exit(0);
    }
    waitpid(pid, NULL, 0);
}

static void take_message(const struct control_msg *m)
{
    if (m->type == MSG_RELOAD) {
        const Llmd__Reload *r = m->body;
        for (size_t i = 0; i < r->n_settings; i++)
            note("reload %s=%s", r->settings[i]->name, r->settings[i]->value);
    } else if (m->type == MSG_SERVICE) {
        const Llmd__Service *s = m->body;
        char text[1024] = "";
        for (size_t i = 0; i < s->n_groups; i++)
            snprintf(text + strlen(text), sizeof text - strlen(text), " %s",
                     s->groups[i]->up ? "up" : s->groups[i]->cause);
        for (size_t i = 0; i < s->n_groups; i++)
            me.is_served = me.is_served || s->groups[i]->up;
        say_serving();
        me.is_service_draining = s->draining;
        note("service%s%s", s->draining ? " draining" : "", text);
    } else if (m->type == MSG_DRAIN) {
        bool is_now = ((const Llmd__Drain *)m->body)->deadline_ns <= clock_mono_ns();
        note(is_now ? "drain now" : "drain");
        if (!me.is_service_draining)
            me.listener = -1; /* a successor comes, who connects now is its client */
        if (is("slow-drain") ? is_now : !is("ignore-drain") && !is("ignore-all"))
            exit(0);
    } else if (m->type == MSG_ADOPT) {
        note("adopt");
        if (me.has_gpu)
            chunk_road_tell_again(&me.road);
        if (me.boot->slot != BOARD_SLOT_GATEWAY && !is("no-weights"))
            say_weights_ready();
        for (int i = 0; i < CLIENTS_MAX; i++)
            if (me.clients[i].fd)
                hand_over(&me.clients[i]);
        if (me.is_ready)
            say_ready();
        say_serving();
    } else {
        note("bad message %s", msg_name(m->type));
    }
}

static void listen_to_llmd(void)
{
    struct control_msg m;
    struct err e = { 0 };

    for (;;) {
        switch (control_recv(CONTROL_FD, &m, &e)) {
        case CONTROL_OK:
            take_message(&m);
            control_msg_fini(&m);
            continue;
        case CONTROL_EMPTY:
            return;
        case CONTROL_CLOSED:
            note("orphaned");
            me.orphan_deadline_ns = clock_mono_ns() + me.config.orphan_timeout_s * NS_PER_S + 1;
            return;
        case CONTROL_FAILED:
            note("bad control: %s", e.msg);
            return;
        }
    }
}

/* llmd's tick was between the last call and this one. */
static bool llmd_has_just_ticked(void)
{
    static uint64_t seen_ns;
    uint64_t last_ns = seen_ns;

    seen_ns = atomic_load(&board_slot(&me.board, BOARD_SLOT_LLMD)->heartbeat_ns);
    return last_ns && seen_ns != last_ns;
}

/* Whenever the word comes.  The limit is over soon after a tick, so that the next one would be far too late for it. */
static void begin_long_step(struct board_slot *slot)
{
    char word[WORD_BYTES];

    if (atomic_load(&slot->step_started_ns) != 0)
        return;
    read_word(word);
    if (strcmp(word, "long-step") != 0 || !llmd_has_just_ticked())
        return;
    atomic_store(&slot->step_limit_ns, 1100 * NS_PER_MS);
    atomic_store(&slot->step_started_ns, clock_mono_ns());
    note("long step");
}

/* What a working process writes on the board; "silent" writes nothing, "long-step" is in a step for ever. */
static void show_life(void)
{
    struct board_slot *slot = me.board.hdr ? board_slot(&me.board, me.boot->slot) : NULL;

    if (!slot || is("silent"))
        return;
    atomic_store(&slot->heartbeat_ns, clock_mono_ns());
    begin_long_step(slot);
}

static void wait_for_news(struct pollfd fds[CLIENTS_MAX + 2])
{
    bool is_gateway = me.boot->slot == BOARD_SLOT_GATEWAY;

    fds[0] = (struct pollfd){ .fd = is_gateway ? me.listener : -1, .events = POLLIN };
    for (int i = 0; i < CLIENTS_MAX; i++)
        fds[1 + i] =
            (struct pollfd){ .fd = me.clients[i].fd ? me.clients[i].fd : -1, .events = POLLIN };
    fds[CLIENTS_MAX + 1] =
        (struct pollfd){ .fd = me.orphan_deadline_ns ? -1 : CONTROL_FD, .events = POLLIN };
    poll(fds, CLIENTS_MAX + 2, 50);
}

static void serve(void)
{
    static struct pollfd fds[CLIENTS_MAX + 2];

    fcntl(CONTROL_FD, F_SETFL, O_NONBLOCK);
    for (;;) {
        show_life();
        wait_for_news(fds);
        if (got_sigterm) {
            note("sigterm");
            got_sigterm = 0;
            if (!is("ignore-all"))
                exit(0);
        }
        if (me.orphan_deadline_ns && clock_mono_ns() > me.orphan_deadline_ns) {
            runtime_dir_sweep(me.config.runtime_dir);
            note("gave up");
            exit(0);
        }
        serve_clients(fds);
        if (fds[CLIENTS_MAX + 1].revents)
            listen_to_llmd();
    }
}

int main(int argc, char **argv)
{
    bool is_inspect = argc > 1 && strcmp(argv[1], "--inspect") == 0;
    bool is_check = argc > 1 && strcmp(argv[1], "gpu-check") == 0;
    int extra = find_extra_descriptor();

    receive_boot(is_inspect ? "inspect" : is_check ? "gpu-check" : NULL);
    read_word(me.word);
    if (is_inspect)
        return inspect();
    if (is_check)
        return check_gpus(argc - 2, argv + 2);
    note("start epoch=%u at_ms=%llu", me.boot->epoch,
         (unsigned long long)(clock_mono_ns() / NS_PER_MS));
    if (extra)
        note("bad descriptor %d was inherited", extra);
    check_inheritance();
    check_segments();
    if (me.has_gpu)
        take_chunks();
    if (me.boot->slot == BOARD_SLOT_GATEWAY)
        take_over_clients();
    signal(SIGPIPE, SIG_IGN);
    signal(SIGTERM, on_sigterm);
    if (is("exit")) {
        say_fatal("the fake has no words left");
        return 7;
    }
    if (is("abort"))
        abort();
    if (is("gpu-lost"))
        return WORKER_EXIT_DEVICE_LOST;
    if (is("gpu-unusable"))
        return WORKER_EXIT_DEVICE_UNUSABLE;
    if (is("gpu-bad-part"))
        return WORKER_EXIT_DEVICE_CONTAINED;
    if (is("orphan-maker"))
        make_orphan();
    if (me.boot->slot != BOARD_SLOT_GATEWAY && !is("no-weights") && !is("never-ready"))
        say_weights_ready();
    for (; is("weights-only"); read_word(me.word))
        usleep(2000);
    if (!is("never-ready") && !is("no-weights"))
        say_ready();
    serve();
}
