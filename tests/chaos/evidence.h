/* evidence.h - what a run keeps of a defect: both answers, the kills around it, the server's log.
 *
 * A folder is made with the first defect and named on the terminal; a run without one leaves nothing. */
#ifndef LLMD_TESTS_CHAOS_EVIDENCE_H
#define LLMD_TESTS_CHAOS_EVIDENCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"

struct evidence {
    uint64_t seed, started_ns;
    char dir[96];     /* "" until the first defect */
    struct buf story; /* what was done to the server, and what was found, line by line */
    uint32_t n_defects;
    bool is_verbose;
};

void evidence_init(struct evidence *v, uint64_t seed, bool is_verbose);
void evidence_fini(struct evidence *v);
/* One line of the story, with the time before it. */
void evidence_note(struct evidence *v, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* A defect: a line of the story and the terminal; files for what was wanted and got, where given. */
void evidence_defect(struct evidence *v, const struct buf *wanted, const struct buf *got,
                     const char *fmt, ...) __attribute__((format(printf, 4, 5)));
/* The end of one server: keep its log and the story so far, when there was a defect. */
void evidence_keep(struct evidence *v, const char *log_path, const char *name);

#endif
