/* checks.h - what `llmctl doctor` looks at: is this host set up so that llmd runs well, and what is to be set.
 *
 * Pure but for facts_read(): facts in, findings out.  Without a server that answers, the host alone is judged, by
 * what llmd would find if it were started here. */
#ifndef LLMD_LLMCTL_CHECKS_H
#define LLMD_LLMCTL_CHECKS_H

#include "common/huge.h"
#include "common/json.h"
#include "llmctl/host_facts.h"
#include "proto/frame.h"

struct facts {
    struct huge_host huge;
    unsigned kernel_major, kernel_minor; /* 0.0: not known */
    uint32_t cores;                      /* physical ones that we may use, less by a quota */
    uint64_t memory_available;           /* bytes; 0: not known */
    uint64_t files_max;                  /* open descriptors of a process; 0: not known */
    bool has_avx2;                       /* with FMA and F16C: all that the avx2 tier needs */
    bool has_avx512;                     /* F, BW, VL, DQ */
    bool has_vnni, has_bf16;
    bool has_systemd;

    struct host_facts host;
    const json_t *model; /* borrowed: what llm-worker says of the model; NULL: none is named */

    /* borrowed; NULL when no server answered */
    const Llmd__Status *status;
    const Llmd__CtlReply *config;
};

/* Of the host below `root` ("" = the real one), and of process pid as it is limited; 0: ourselves.  port: that a
 * server would listen at; 0: do not look. */
void facts_read(struct facts *f, const char *root, pid_t pid, unsigned port);

struct check {
    const char *name; /* a word, stable */
    bool ok;
    bool fails; /* not ok, and the server cannot run so */
    char finding[256];
    char advice[400]; /* what to do; "" when ok */
};

enum { CHECKS_MAX = 24 };

/* In the order to be shown; how many. */
int checks_run(const struct facts *f, struct check checks[CHECKS_MAX]);

/* ---- for the files of checks ---- */

void check_find(struct check *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* It is not as it should be, and this mends it. */
void check_advise(struct check *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

typedef void check_fn(const struct facts *f, struct check *c);
/* checks_host.c */
check_fn check_model, check_model_memory, check_shm, check_memlock, check_gpu, check_port,
    check_numa, check_container, check_governor, check_clock, check_unit;

#endif
