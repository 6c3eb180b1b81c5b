/* work.c - runs one piece of a stream's work. */
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "tests/cuda/fake/fake.h"
#include "tests/cuda/fake/state.h"

enum { SIGNAL_STACK_BYTES = 64 << 10, GHOST_BYTE = 0xdb };

/* What the calling thread runs; NULL on every thread but a stream's. */
static _Thread_local struct cu_stream *running;
static _Thread_local const char *running_name;
static _Thread_local void *signal_stack;

static struct sigaction previous_segv, previous_bus;

/* ---- Pieces of work ---- */

struct work *work_new(enum work_kind kind, size_t args_bytes)
{
    struct work *w = NULL;

    if (posix_memalign((void **)&w, 16, sizeof *w + args_bytes) != 0)
        abort();
    memset(w, 0, sizeof *w);
    w->kind = kind;
    return w;
}

void work_free(struct work *w)
{
    if (w->kind == WORK_COPY)
        free(w->copy.staged);
    if (w->kind == WORK_GRAPH)
        work_list_drop(w->graph);
    free(w);
}

struct work_list *work_list_new(void)
{
    struct work_list *list = calloc(1, sizeof *list);

    if (!list)
        abort();
    list->uses = 1;
    list->end = &list->first;
    return list;
}

void work_list_add(struct work_list *list, struct work *w)
{
    w->next = NULL;
    *list->end = w;
    list->end = &w->next;
    list->n++;
    list->n_kernels += w->kind == WORK_KERNEL;
}

void work_list_drop(struct work_list *list)
{
    struct work *w, *next;

    if (__atomic_sub_fetch(&list->uses, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    for (w = list->first; w; w = next) {
        next = w->next;
        work_free(w);
    }
    free(list);
}

/* ---- The end of a stream ---- */

void fake_park(void)
{
    for (;;)
        pause();
}

static void park_stream(struct cu_stream *s)
{
    fake_lock();
    s->is_parked = true;
    pthread_cond_broadcast(&fake_changed);
    fake_unlock();
    fake_park();
}

/* A wild access: of a kernel, the context is dead; of anybody else, as it would have been without us.
 * The mutex may be taken here: what runs as work holds no lock of ours. */
static void on_wild_access(int sig, siginfo_t *info, void *where)
{
    const struct sigaction *previous = sig == SIGSEGV ? &previous_segv : &previous_bus;

    if (running) {
        fake_kill_context(running->context, CU_ILLEGAL_ADDRESS, "%s: address %p", running_name,
                          info->si_addr);
        park_stream(running);
    }
    if (previous->sa_flags & SA_SIGINFO)
        previous->sa_sigaction(sig, info, where);
    else
        sigaction(sig, previous, NULL); /* comes again, and ends the process */
}

static void install_handlers(void)
{
    struct sigaction action = { .sa_sigaction = on_wild_access,
                                .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER };

    sigemptyset(&action.sa_mask);
    sigaction(SIGSEGV, &action, &previous_segv);
    sigaction(SIGBUS, &action, &previous_bus);
}

/* A wild access may have been to the stack itself.  (The sanitizers give each thread a stack for signals.) */
static void give_signal_stack(void)
{
    stack_t stack = { 0 };

    if (sigaltstack(NULL, &stack) != 0 || !(stack.ss_flags & SS_DISABLE))
        return;
    signal_stack = malloc(SIGNAL_STACK_BYTES);
    stack = (stack_t){ .ss_sp = signal_stack, .ss_size = SIGNAL_STACK_BYTES };
    if (signal_stack)
        sigaltstack(&stack, NULL);
}

void work_thread_begin(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, install_handlers);
    give_signal_stack();
}

void work_thread_end(void)
{
    stack_t none = { .ss_flags = SS_DISABLE };

    if (!signal_stack)
        return;
    sigaltstack(&none, NULL);
    free(signal_stack);
    signal_stack = NULL;
}

/* ---- Script actions ---- */

/* The address that the rule names; 0, and said so, when it is no device memory of `bytes` that may be written. */
static uint64_t address_of(const struct fault *f, const struct kernel_call *k, uint64_t bytes)
{
    uint64_t address = fake_address(&f->address, k ? k->args : NULL, k ? k->args_bytes : 0);

    if (fake_is_memory(FAKE_DEVICE, address, bytes, true))
        return address;
    fake_say("fault rule '%s': no writable device memory there", f->rule);
    return 0;
}

static void flip(const struct fault *f, const struct kernel_call *k)
{
    uint64_t address = address_of(f, k, 1);

    if (address)
        *(unsigned char *)(uintptr_t)address ^= (unsigned char)(1u << (f->bit & 7));
}

static void wait_ms(uint32_t ms)
{
    nanosleep(&(struct timespec){ ms / 1000, ms % 1000 * 1000000l }, NULL);
}

/* A process that has ended, or waits to be reaped with its files closed, does nothing more. */
static void wait_for_end(pid_t pid)
{
    while (kill(pid, 0) == 0 || errno == EPERM)
        wait_ms(1);
}

/* In the ghost: hold nothing of the process it came from but its record, by which NVML goes on to list it: that is
 * what a GPU with work of a dead process looks like. */
static void haunt(pid_t parent, uint32_t ms)
{
    int record = state_record_fd();

    if (record > 0)
        close_range(0, (unsigned)record - 1, 0);
    close_range((unsigned)record + 1, UINT_MAX, 0);
    wait_for_end(parent);
    wait_ms(ms);
}

/* Grandchildren, so that the process has no child to reap.  True: in the ghost. */
static bool fork_ghost(void)
{
    pid_t child = fork();

    if (child == 0) {
        if (fork() == 0)
            return true;
        _exit(0);
    }
    if (child > 0)
        waitpid(child, NULL, 0);
    return false;
}

static void leave_ghost(const struct fault *f, const struct kernel_call *k)
{
    uint64_t address = address_of(f, k, f->bytes);
    pid_t self = getpid();

    if (!address || !fork_ghost())
        return;
    haunt(self, f->ms);
    memset((void *)(uintptr_t)address, GHOST_BYTE, f->bytes);
    _exit(0);
}

/* The launch itself goes on behind the death of its process, and later: with garbage for an input, so that what
 * it writes is seen. */
static void run_late(const struct fault *f, const struct kernel_call *k)
{
    uint64_t address = k ? address_of(f, k, f->bytes) : 0;
    pid_t self = getpid();

    if (address && fork_ghost()) {
        haunt(self, f->ms);
        memset((void *)(uintptr_t)address, GHOST_BYTE, f->bytes);
        kernel_run(k, NULL, NULL);
        _exit(0);
    }
    kill(self, SIGKILL);
    fake_park();
}

static int act_to_the_end(const struct fault *f, struct cu_context *c)
{
    if ((f->action == FAULT_STICKY || f->action == FAULT_SPOIL) && c)
        fake_kill_context(c, f->code, "fault rule '%s'", f->rule);
    if (f->action == FAULT_LOST && c)
        fake_lose(c, f->code, f->rule);
    return f->code;
}

int fake_act(const struct fault *f, struct cu_context *c, const struct kernel_call *k)
{
    fake_say("fault rule '%s'", f->rule);
    switch (f->action) {
    case FAULT_NONE:
        return CU_OK;
    case FAULT_SPOIL:
        flip(f, k);
        return act_to_the_end(f, c);
    case FAULT_RETURN:
    case FAULT_STICKY:
    case FAULT_LOST:
        return act_to_the_end(f, c);
    case FAULT_KILL:
        kill(getpid(), SIGKILL);
        fake_park();
    case FAULT_LATE:
        run_late(f, k);
        return CU_OK;
    case FAULT_HANG:
        if (running)
            park_stream(running);
        fake_park();
    case FAULT_SLOW:
        wait_ms(f->ms);
        return CU_OK;
    case FAULT_FLIP:
        flip(f, k);
        return CU_OK;
    case FAULT_GHOST:
        leave_ghost(f, k);
        return CU_OK;
    }
    return CU_OK;
}

/* ---- Running ---- */

static void run_copy(const struct work *w)
{
    running_name = "copy";
    memcpy((void *)(uintptr_t)w->copy.to,
           w->copy.staged ? w->copy.staged : (const void *)(uintptr_t)w->copy.from, w->copy.bytes);
}

static void run_fill(const struct work *w)
{
    running_name = "fill";
    if (w->fill.width == 1)
        memset((void *)(uintptr_t)w->fill.to, (int)w->fill.value, w->fill.n);
    for (size_t i = 0; w->fill.width == 4 && i < w->fill.n; i++)
        ((uint32_t *)(uintptr_t)w->fill.to)[i] = w->fill.value;
}

/* A launch and what strikes it. */
struct struck {
    struct cu_stream *stream;
    const struct kernel_call *call;
    struct fault fault;
};

static void strike(const struct struck *at)
{
    int result = fake_act(&at->fault, at->stream->context, at->call);

    if (result == CU_OK)
        return;
    fake_kill_context(at->stream->context, result, "fault rule '%s'", at->fault.rule);
    park_stream(at->stream);
}

static void strike_at_meeting(void *ctx, uint64_t n)
{
    const struct struck *at = ctx;

    if (n == at->fault.meeting)
        strike(at);
}

static void run_kernel(struct cu_stream *s, const struct kernel_call *k)
{
    const struct fault_launch launch = { k->args, k->args_bytes, k->launch.grid[0] };
    struct struck at = { s, k, { .action = FAULT_NONE } };

    running_name = k->function->name;
    fault_pass(&at.fault, FAULT_KERNEL, k->function->name, s->context->gpu, &launch);
    if (at.fault.action == FAULT_NONE) {
        kernel_run(k, NULL, NULL);
    } else if (at.fault.meeting > 0) {
        kernel_run(k, strike_at_meeting, &at);
    } else {
        strike(&at);
        kernel_run(k, NULL, NULL);
    }
}

static void run_wait(const struct work *w)
{
    fake_lock();
    stream_wait(w->wait.stream, w->wait.serial);
    fake_unlock();
}

static void run_record(const struct work *w)
{
    fake_lock();
    if (w->event->serial == w->serial)
        w->event->done_ns = clock_mono_ns();
    fake_unlock();
}

static void run_word(struct cu_stream *s, const struct work *w)
{
    uint32_t *word = (uint32_t *)(uintptr_t)w->word.address;

    running_name = "word";
    if (w->kind == WORK_WRITE_VALUE) {
        __atomic_store_n(word, w->word.value, __ATOMIC_RELEASE);
        return;
    }
    while ((int32_t)(__atomic_load_n(word, __ATOMIC_ACQUIRE) - w->word.value) < 0 &&
           !__atomic_load_n(&s->context->error, __ATOMIC_ACQUIRE) &&
           !__atomic_load_n(&s->is_closing, __ATOMIC_ACQUIRE))
        nanosleep(&(struct timespec){ .tv_nsec = 20000 }, NULL);
}

static void run_graph(struct cu_stream *s, const struct work_list *list)
{
    for (struct work *w = list->first; w; w = w->next)
        work_run(s, w);
}

void work_run(struct cu_stream *s, struct work *w)
{
    running = s;
    switch (w->kind) {
    case WORK_COPY:
        run_copy(w);
        break;
    case WORK_FILL:
        run_fill(w);
        break;
    case WORK_KERNEL:
        run_kernel(s, &w->kernel);
        break;
    case WORK_CALL:
        running = NULL; /* the host's own code: its faults are the host's */
        w->call.function(w->call.arg);
        break;
    case WORK_RECORD:
        run_record(w);
        break;
    case WORK_WAIT:
        run_wait(w);
        break;
    case WORK_GRAPH:
        run_graph(s, w->graph);
        break;
    case WORK_WRITE_VALUE:
    case WORK_WAIT_VALUE:
        run_word(s, w);
        break;
    }
    running = NULL;
}
