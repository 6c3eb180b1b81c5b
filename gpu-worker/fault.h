/* fault.h - the last act of a worker that dies by its own fault: name the sequences it was computing.
 *
 * A step that ends in SIGSEGV, SIGBUS, SIGFPE, SIGILL or abort() may do so because of one of its
 * sequences, and would do so again; a SIGKILL from outside says nothing about them.  So the handler of
 * those signals turns .running of the ledger's entries from LEDGER_RUNS into LEDGER_FAULTED and lets the
 * signal take its course.  Recovery (recovery.c) judges by it.  The weights may be to blame as well, so the
 * next worker is told to verify them first (runtime_doubt()).
 *
 * A signal that another process sent is no fault of ours. */
#ifndef LLMD_GPU_WORKER_FAULT_H
#define LLMD_GPU_WORKER_FAULT_H

#include "proto/ledger.h"

/* Once, before the first step.  l: NULL on ranks without a ledger.  Both must stay mapped for the rest of
 * the process. */
void fault_watch(const struct ledger *l, _Atomic uint32_t *doubt);

/* The same note without a signal: the worker gives up by itself (a broken device). */
void fault_note(const struct ledger *l);

#endif
