/* fiber.h - stacks to switch between, as the threads of a block on one thread of the system.
 *
 * On x86-64 a switch is a dozen instructions (fiber.cc); elsewhere ucontext, which asks the kernel for the
 * signal mask each time and is some fourteen times slower.  AddressSanitizer is told where the stack is, and
 * ThreadSanitizer that another thread runs: a switch by itself orders nothing, so what only the schedule
 * kept apart is a race.
 *
 * A fiber belongs to the thread of the system that made it. */
#ifndef LLMD_TESTS_CUDA_SHIM_FIBER_H
#define LLMD_TESTS_CUDA_SHIM_FIBER_H

#include <stddef.h>

struct fiber;

/* What runs on a fiber; it never returns. */
typedef void fiber_entry(void *arg);

/* A fiber that begins in entry(arg) at its first switch; NULL when memory lacks.  stack_bytes is rounded up to
 * pages.  guarded: the page below is not accessible, which costs two of the mappings that a process may have. */
struct fiber *fiber_new(size_t stack_bytes, bool guarded, fiber_entry *entry, void *arg);
void fiber_free(struct fiber *f);

/* The calling thread's own stack. */
struct fiber *fiber_of_caller();

/* Leave `from`, which is running, and go on in `to` where it was left. */
void fiber_switch(struct fiber *from, struct fiber *to);

#endif
