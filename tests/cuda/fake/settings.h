/* settings.h - LLMD_FAKE_CUDA, read once.  Keys and meanings: README.md. */
#ifndef LLMD_TESTS_CUDA_FAKE_SETTINGS_H
#define LLMD_TESTS_CUDA_FAKE_SETTINGS_H

#include <stdbool.h>
#include <stdint.h>

enum { FAKE_GPUS_MAX = 16 };

enum fake_mode { FAKE_EAGER, FAKE_LAZY, FAKE_RANDOM };

struct fake_settings {
    int n_gpus;
    uint64_t memory_bytes; /* of each GPU */
    int sm;
    int n_multiprocessors;
    enum fake_mode mode;
    uint32_t delay_us;
    uint64_t seed;
    char state[256];  /* folder; "" = none */
    char faults[256]; /* file; "" = none */
    bool leaks_are_fatal;
    int driver_version;
    int init_result;
    bool is_persistent;
};

/* The process's settings.  A key or value that is not understood ends the process: a test that sets the wrong
 * thing must not pass. */
const struct fake_settings *fake_settings(void);

/* "fake libcuda: ..." on stderr, one line. */
void fake_say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
