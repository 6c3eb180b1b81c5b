/* fiber.cc - see fiber.h. */
#include "tests/cuda/shim/fiber.h"

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#ifndef __x86_64__
#include <ucontext.h>
#endif

#include "tests/cuda/shim/sanitizers.h"

struct fiber {
#ifdef __x86_64__
    void *sp;
#else
    ucontext_t context;
#endif
    char *stack; /* lowest address */
    size_t stack_bytes;
    fiber_entry *entry; /* NULL: the stack is the caller's own */
    void *arg;
#ifdef SHIM_ASAN
    void *fake_stack;
#endif
#ifdef SHIM_TSAN
    void *tsan;
#endif
};

/* The fiber that a switch goes to, for one that begins. */
static __thread struct fiber *arriving;

static void begin()
{
    struct fiber *f = arriving;

#ifdef SHIM_ASAN
    __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
    f->entry(f->arg);
    abort(); /* an entry never returns */
}

#ifdef __x86_64__
/* Push what the System V ABI has a function preserve, exchange stacks, pop the same of the other.
 * (*save = rsp; rsp = load) */
asm(".text\n"
    ".p2align 4\n"
    ".type shim_exchange_stacks, @function\n"
    "shim_exchange_stacks:\n"
    "    pushq %rbp\n"
    "    pushq %rbx\n"
    "    pushq %r12\n"
    "    pushq %r13\n"
    "    pushq %r14\n"
    "    pushq %r15\n"
    "    movq %rsp, (%rdi)\n"
    "    movq %rsi, %rsp\n"
    "    popq %r15\n"
    "    popq %r14\n"
    "    popq %r13\n"
    "    popq %r12\n"
    "    popq %rbx\n"
    "    popq %rbp\n"
    "    ret\n"
    ".size shim_exchange_stacks, . - shim_exchange_stacks\n");
extern "C" void shim_exchange_stacks(void **save, void *load);

enum { SAVED_REGISTERS = 6 };

static void exchange(struct fiber *from, struct fiber *to)
{
    shim_exchange_stacks(&from->sp, to->sp);
}

/* As if begin() had been called and its first instruction were next: rsp is 8 above a multiple of 16. */
static void prepare(struct fiber *f)
{
    uintptr_t top = (uintptr_t)(f->stack + f->stack_bytes) & ~(uintptr_t)15;
    void **sp = (void **)top;

    *--sp = nullptr;       /* begin() never returns */
    *--sp = (void *)begin; /* where the exchange returns to */
    for (int i = 0; i < SAVED_REGISTERS; i++)
        *--sp = nullptr;
    f->sp = sp;
}
#else
static void exchange(struct fiber *from, struct fiber *to)
{
    swapcontext(&from->context, &to->context);
}

static void prepare(struct fiber *f)
{
    getcontext(&f->context);
    f->context.uc_stack.ss_sp = f->stack;
    f->context.uc_stack.ss_size = f->stack_bytes;
    f->context.uc_link = nullptr;
    makecontext(&f->context, begin, 0);
}
#endif

static size_t page_bytes()
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

struct fiber *fiber_new(size_t stack_bytes, bool guarded, fiber_entry *entry, void *arg)
{
    unwatched shim;
    size_t page = page_bytes(), bytes = (stack_bytes + page - 1) / page * page;
    struct fiber *f = (struct fiber *)calloc(1, sizeof *f);
    char *map = (char *)mmap(nullptr, page + bytes, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (!f || map == MAP_FAILED || (guarded && mprotect(map, page, PROT_NONE))) {
        if (map != MAP_FAILED)
            munmap(map, page + bytes);
        free(f);
        return nullptr;
    }
    f->stack = map + page;
    f->stack_bytes = bytes;
    f->entry = entry;
    f->arg = arg;
#ifdef SHIM_TSAN
    f->tsan = __tsan_create_fiber(0);
#endif
    prepare(f);
    return f;
}

void fiber_free(struct fiber *f)
{
    if (!f)
        return;
#ifdef SHIM_TSAN
    if (f->entry)
        __tsan_destroy_fiber(f->tsan);
#endif
#ifdef SHIM_ASAN
    if (f->entry) /* the address may be given out again */
        __asan_unpoison_memory_region(f->stack, f->stack_bytes);
#endif
    if (f->entry)
        munmap(f->stack - page_bytes(), page_bytes() + f->stack_bytes);
    free(f);
}

struct fiber *fiber_of_caller()
{
    struct fiber *f = (struct fiber *)calloc(1, sizeof *f);
    pthread_attr_t attr;
    void *stack = nullptr;

    if (!f || pthread_getattr_np(pthread_self(), &attr))
        abort();
    pthread_attr_getstack(&attr, &stack, &f->stack_bytes);
    pthread_attr_destroy(&attr);
    f->stack = (char *)stack;
#ifdef SHIM_TSAN
    f->tsan = __tsan_get_current_fiber();
#endif
    return f;
}

void fiber_switch(struct fiber *from, struct fiber *to)
{
    arriving = to;
#ifdef SHIM_TSAN
    __tsan_switch_to_fiber(to->tsan, __tsan_switch_to_fiber_no_sync);
#endif
#ifdef SHIM_ASAN
    __sanitizer_start_switch_fiber(&from->fake_stack, to->stack, to->stack_bytes);
#endif
    exchange(from, to);
#ifdef SHIM_ASAN
    __sanitizer_finish_switch_fiber(from->fake_stack, nullptr, nullptr);
#endif
}
