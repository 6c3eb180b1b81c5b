/* gpu_server.h - the whole system on GPUs of the fake driver (tests/cuda/fake): a real llmd, its gateway and its workers,
 * and questions whose answers are compared token by token.
 *
 *     static void an_answer_outlives_its_worker(void **state)
 *     {
 *         struct gpu_server *g = *state;
 *         char *expected;
 *
 *         gpu_server_start(g, "--tp-size=2", NULL);
 *         expected = gpu_server_ask(g, &question);
 *         gpu_server_set_faults(g, "kernel * 120: kill");
 *         gpu_server_expect(g, &question, expected);
 *         gpu_server_stop(g);
 *         free(expected);
 *     }
 *
 * Each test has GPUs and a server of its own, between gpu_server_setup() and gpu_server_teardown().  What it finds wrong
 * fails the running test.  The fake libraries are found by LD_LIBRARY_PATH, which ctest sets; all children have it. */
#ifndef LLMD_TESTS_GPU_SERVER_H
#define LLMD_TESTS_GPU_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/cuda/fake/folder.h"
#include "tests/proc/http_client.h"
#include "tests/proc/system.h"
#include "tests/unit/checkpoint.h"

enum { QUESTION_MAX = 512 };

/* Always answered greedily, and with so many tokens. */
struct question {
    int32_t prompt[QUESTION_MAX];
    uint32_t n_prompt, n_answer;
    bool is_streamed;
};

struct gpu_server {
    const char *
        gpus; /* settings of the fake driver; two GPUs unless the test says otherwise before the start */
    const char *model; /* directory, likewise; else a small one of its own */
    int patience_ms;   /* for whatever is waited for; two minutes, likewise */
    struct system system;
    bool runs;
    char folder
        [STATE_FOLDER_BYTES]; /* where the GPUs keep their memory, for all processes of the test */
    struct checkpoint made;   /* .n > 0: the model of its own */
};

/* What the kernels are made for, and small: they run on fibers here. */
extern const struct checkpoint_spec gpu_server_small;

/* Of cmocka: *state is the server, not started. */
int gpu_server_setup(void **state);
/* Ends what a test that failed has left. */
int gpu_server_teardown(void **state);

/* A random model with a tokenizer, at g->model. */
void gpu_server_make_model(struct gpu_server *g, const struct checkpoint_spec *spec);
/* From now on (tests/cuda/fake/README.md). */
void gpu_server_set_faults(const struct gpu_server *g, const char *rules);

/* Start llmd with these further arguments (NULL at the end), and wait until it is ready. */
void gpu_server_start(struct gpu_server *g, ...) __attribute__((sentinel));
/* The same below llm-init, which starts llmd again when it dies. */
void gpu_server_start_below_init(struct gpu_server *g, ...) __attribute__((sentinel));
/* SIGTERM: it ends with 0, and no process is left on a GPU and no piece of GPU memory. */
void gpu_server_stop(struct gpu_server *g);
/* kill -9 "llmd", "worker 0.0", .. */
void gpu_server_kill(const struct gpu_server *g, const char *process);
/* When the patience with something that begins now is at its end. */
uint64_t gpu_server_deadline_ns(const struct gpu_server *g);

/* Ask n questions at once; x[n] are the requests under way. */
void gpu_server_begin(const struct gpu_server *g, struct exchange *x, const struct question *q,
                      size_t n);
/* Wait for their answers: answers[n] are "tokens: text", caller frees. */
void gpu_server_finish(const struct gpu_server *g, struct exchange *x, const struct question *q,
                       char **answers, size_t n);
/* Both. */
void gpu_server_ask_all(const struct gpu_server *g, const struct question *q, char **answers,
                        size_t n);
char *gpu_server_ask(const struct gpu_server *g, const struct question *q);
/* The answer is this one. */
void gpu_server_expect(const struct gpu_server *g, const struct question *q, const char *expected);

/* Of the metrics page, summed over all series of this name; system_metric() tells them apart. */
double gpu_server_metric(const struct gpu_server *g, const char *name);
void gpu_server_wait_metric(const struct gpu_server *g, const char *name, double at_least);

#endif
