/* chaos.h - a whole run: servers of several shapes, each under load and killed round after round.
 *
 * A round is a few kills; after it the clients come to rest, and an idle server must hold nothing.  The
 * run repeats from its seed: which requests, manners, victims and waits.  When a kernel runs which
 * process cannot be repeated, so the answers are compared, never the times. */
#ifndef LLMD_TESTS_CHAOS_CHAOS_H
#define LLMD_TESTS_CHAOS_CHAOS_H

#include "tests/chaos/kills.h"

struct chaos_options {
    uint64_t seed;
    uint32_t rounds; /* of all shapes together */
    uint32_t kills_per_round;
    uint32_t copies; /* of each form of request */
    uint32_t n_clients;
    uint64_t calm_ms; /* of load without kills, to compare pauses with */
    enum catalog_set set;
    const char *bin, *model;
    /* Folder of the fake NVIDIA libraries: servers are on GPUs, with a tiny model of this tokenizer.  NULL: on the CPU. */
    const char *gpu_libraries, *gpu_tokenizer;
    const char *shape; /* only this one; NULL: all */
    const char *only;  /* kinds of kills, separated by commas; NULL: all that the server can take */
    uint32_t hang_step_ms, hang_timeout_s;
    const char *peer_command, *peer_model;
    uint16_t peer_port;
    bool is_verbose;
};

struct chaos_result {
    struct counts counts;
    char names[N_KILL_KINDS][48]; /* of .kinds */
    struct report_row kinds[N_KILL_KINDS];
    struct samples calm_pauses;  /* between two bytes of a stream, nothing disturbed */
    struct samples calm_windows; /* the longest of all streams in a third of a second */
    /* Pages in GPU memory: damaged; and found so when sequences went on. */
    uint32_t n_spoilt, n_found;
    uint32_t n_defects;
    char evidence_dir[96]; /* "" = there was no defect */
};

/* The demo model, all shapes. */
struct chaos_options chaos_defaults(void);
/* The same with a tiny model on fake GPUs: kernels run on the CPU, so there is less load, and steps are slow. */
void chaos_use_gpus(struct chaos_options *o, const char *libraries, const char *tokenizer);
/* False: a server could not be started. */
bool chaos_run(const struct chaos_options *o, struct chaos_result *r, struct err *e);
/* From a handler of signals: the run ends with the kill that is under way, and the result is of what was done. */
void chaos_stop(void);
void chaos_result_fini(struct chaos_result *r);

/* One line per kind of kill, and one for the undisturbed load. */
void chaos_csv(struct chaos_result *r, FILE *out);
void chaos_line(struct chaos_result *r, FILE *out);

#endif
