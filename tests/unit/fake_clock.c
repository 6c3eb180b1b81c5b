/* fake_clock.c - see fake_clock.h. */
#include "fake_clock.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <time.h>

#include "common/clock.h"

/* Compute threads read it as well. */
static _Atomic bool is_held;
static _Atomic uint64_t held_ns;
static _Atomic int64_t ahead_ns; /* of the real one */

int __real_clock_gettime(clockid_t id, struct timespec *t);
int __wrap_clock_gettime(clockid_t id, struct timespec *t);

static uint64_t real_ns(void)
{
    struct timespec t;

    __real_clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

int __wrap_clock_gettime(clockid_t id, struct timespec *t)
{
    uint64_t now_ns;

    if (id != CLOCK_MONOTONIC)
        return __real_clock_gettime(id, t);
    now_ns = atomic_load(&is_held) ? atomic_load(&held_ns)
                                   : real_ns() + (uint64_t)atomic_load(&ahead_ns);
    t->tv_sec = (time_t)(now_ns / NS_PER_S);
    t->tv_nsec = (long)(now_ns % NS_PER_S);
    return 0;
}

void fake_clock_hold(void)
{
    assert(!atomic_load(&is_held));
    atomic_store(&held_ns, clock_mono_ns());
    atomic_store(&is_held, true);
}

void fake_clock_pass(uint64_t ns)
{
    assert(atomic_load(&is_held));
    atomic_fetch_add(&held_ns, ns);
}

void fake_clock_release(void)
{
    assert(atomic_load(&is_held));
    atomic_store(&ahead_ns, (int64_t)(atomic_load(&held_ns) - real_ns()));
    atomic_store(&is_held, false);
}
