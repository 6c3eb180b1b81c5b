/* fault.c - async-signal-safe: atomics on shared memory, sigaction() and raise() only. */
#include "gpu-worker/fault.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

static const int signals[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT };
enum { N_SIGNALS = sizeof signals / sizeof *signals };

/* A signal handler has no argument of its own: what this one process has one of. */
static const struct ledger *watched;
static _Atomic uint32_t *watched_doubt;
static struct sigaction previous[N_SIGNALS];

void fault_note(const struct ledger *l)
{
    for (uint32_t i = 0; i < l->hdr->n_entries; i++) {
        struct ledger_entry *entry = ledger_entry(l, i);
        if (atomic_load_explicit(&entry->running, memory_order_relaxed) == LEDGER_RUNS)
            atomic_store_explicit(&entry->running, LEDGER_FAULTED, memory_order_relaxed);
    }
}

/* The previous handling is put back and the signal raised again: it ends the process with its proper
 * status, after a sanitizer's report where there is one. */
static void on_fault(int number, siginfo_t *info, void *context)
{
    (void)context;
    if (info->si_code > 0 || info->si_pid == getpid()) {
        atomic_store_explicit(watched_doubt, 1, memory_order_relaxed);
        if (watched)
            fault_note(watched);
    }
    for (int i = 0; i < N_SIGNALS; i++)
        if (signals[i] == number)
            sigaction(number, &previous[i], NULL);
    raise(number);
}

void fault_watch(const struct ledger *l, _Atomic uint32_t *doubt)
{
    struct sigaction action;

    memset(&action, 0, sizeof action);
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO;
    watched = l;
    watched_doubt = doubt;
    for (int i = 0; i < N_SIGNALS; i++)
        sigaction(signals[i], &action, &previous[i]);
}
