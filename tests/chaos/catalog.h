/* catalog.h - what the clients of the chaos suite ask: every dialect and form, each answer a function of
 * its request alone.
 *
 * A sampled request names its seed, so that its answer may be compared with the one it got when nothing
 * was disturbed.  Prompts, seeds and lengths come from the run's seed; the forms are the table in
 * catalog.c. */
#ifndef LLMD_TESTS_CHAOS_CATALOG_H
#define LLMD_TESTS_CHAOS_CATALOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"

/* Which forms a server under test is asked. */
enum catalog_set {
    CATALOG_ALL,   /* of llmd */
    CATALOG_PEER,  /* completions with the fields every OpenAI-like server knows, greedy */
    CATALOG_LARGE, /* a large model: answers that do not end early, so that prefill is rare */
    CATALOG_GPU,   /* kernels on a CPU: short answers, which tell their tokens */
};

struct ask {
    const char *name; /* of its form, "tgi_stream_sampled" */
    const char *path;
    const char *method;
    const char *headers; /* whole lines with CRLF, or "" */
    bool is_stream;
    struct buf body;
    struct buf calm; /* the answer of an undisturbed server, made comparable (answer.h) */
};

struct catalog {
    struct ask *asks;
    uint32_t n;
    bool is_answered; /* every .calm is there: servers of any shape must answer so */
};

/* Each form `copies` times, filled differently.  `model`: the name that peers want to hear, or NULL. */
void catalog_init(struct catalog *c, enum catalog_set set, uint32_t copies, const char *model,
                  uint64_t seed);
void catalog_fini(struct catalog *c);

/* The whole request as bytes; chunked: the body in chunks of chance sizes. */
struct random;
void ask_write(const struct ask *ask, bool is_last, struct random *chunked, struct buf *out);

#endif
