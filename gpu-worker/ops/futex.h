/* futex.h - sleep until a word changes, within a process or between processes that share the page. */
#ifndef LLMD_GPU_WORKER_OPS_FUTEX_H
#define LLMD_GPU_WORKER_OPS_FUTEX_H

#include <assert.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define FUTEX_FOREVER UINT64_MAX

static_assert(sizeof(_Atomic uint32_t) == 4, "a futex is one 32-bit word");

/* Sleep while *word is `seen`, for at most timeout_ns.  May return early; the caller looks again. */
static inline void futex_wait(_Atomic uint32_t *word, uint32_t seen, uint64_t timeout_ns)
{
    struct timespec t = { (time_t)(timeout_ns / 1000000000), (long)(timeout_ns % 1000000000) };

    syscall(SYS_futex, word, FUTEX_WAIT, seen, timeout_ns == FUTEX_FOREVER ? NULL : &t, NULL, 0);
}

static inline void futex_wake(_Atomic uint32_t *word, uint32_t n)
{
    syscall(SYS_futex, word, FUTEX_WAKE, n, NULL, NULL, 0);
}

static inline void cpu_relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

#endif
