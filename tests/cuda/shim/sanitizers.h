/* sanitizers.h - what the shim tells the sanitizers; nothing where none is built in.
 *
 * The shim's own files are not instrumented for ThreadSanitizer (every fiber touches their data, by design);
 * SHIM_TSAN says that the kernels are. */
#ifndef LLMD_TESTS_CUDA_SHIM_SANITIZERS_H
#define LLMD_TESTS_CUDA_SHIM_SANITIZERS_H

#include <stddef.h>

#ifdef __SANITIZE_THREAD__
#error "the shim's own files are compiled with -DSHIM_TSAN and without -fsanitize=thread"
#endif

#ifdef __SANITIZE_ADDRESS__
#define SHIM_ASAN 1
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#ifdef SHIM_TSAN
#include <sanitizer/tsan_interface.h>
extern "C" {
void __tsan_read_range(const void *p, unsigned long n);
void __tsan_write_range(void *p, unsigned long n);
void AnnotateIgnoreReadsBegin(const char *file, int line);
void AnnotateIgnoreReadsEnd(const char *file, int line);
void AnnotateIgnoreWritesBegin(const char *file, int line);
void AnnotateIgnoreWritesEnd(const char *file, int line);
}
/* As long as one lives, what the thread does is no business of the race detector: the shim's own memory,
 * whose allocation and copying go through functions that are watched. */
struct unwatched {
    unwatched()
    {
        AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
        AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
    }
    ~unwatched()
    {
        AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
        AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
    }
};
/* What was before any release of p comes before what is after a later acquire. */
static inline void order_release(void *p)
{
    __tsan_release(p);
}
static inline void order_acquire(void *p)
{
    __tsan_acquire(p);
}
/* What the shim does in the running thread's name. */
static inline void watch_copy(void *to, const void *from, size_t n)
{
    if (from)
        __tsan_read_range(from, n);
    __tsan_write_range(to, n);
}
#else
struct unwatched {
    unwatched()
    {
    }
    ~unwatched()
    {
    }
};
static inline void order_release(void *)
{
}
static inline void order_acquire(void *)
{
}
static inline void watch_copy(void *, const void *, size_t)
{
}
#endif

#endif
