/* fault.h - the fault script: rules, their counts, and what they do.  Grammar: README.md. */
#ifndef LLMD_TESTS_CUDA_FAKE_FAULT_H
#define LLMD_TESTS_CUDA_FAKE_FAULT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum fault_point { FAULT_CALL, FAULT_KERNEL };

enum fault_action {
    FAULT_NONE,
    FAULT_RETURN,
    FAULT_STICKY,
    FAULT_LOST,
    FAULT_KILL,
    FAULT_HANG,
    FAULT_SLOW,
    FAULT_FLIP,
    FAULT_GHOST,
    FAULT_SPOIL,
    FAULT_LATE,
};

enum fault_base { FAULT_RANGE, FAULT_ARGUMENT };

struct fault_address {
    enum fault_base base;
    unsigned index; /* of the reservation, or byte of the arguments */
    uint64_t offset;
};

/* What is to be done now. */
struct fault {
    enum fault_action action;
    int code; /* CUresult */
    uint32_t ms;
    struct fault_address address;
    uint32_t bit;
    uint64_t bytes;
    uint64_t meeting; /* of a launch's threads, at which it is done; 0: before the launch begins */
    char rule[160];   /* as it was written */
};

/* What a launch is given, for rules that ask what stands there. */
struct fault_launch {
    const void *args;
    size_t args_bytes;
    uint32_t n; /* blocks along x: as many words of an array may be read */
};

/* Count a call of a function, or a launch of a kernel (l, else NULL), on the GPU (-1: no context): does a rule fire?
 * At most one does; action FAULT_NONE else.  Any thread. */
void fault_pass(struct fault *out, enum fault_point point, const char *name, int gpu,
                const struct fault_launch *l);

/* Add the rules of a text, separated by lines or ';'.  false: one is not understood (and said so). */
bool fault_add(const char *rules);

/* How many have fired. */
uint64_t fault_count(void);

#endif
