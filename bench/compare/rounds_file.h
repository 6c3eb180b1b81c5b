/* rounds_file.h - the rounds of a comparison on file, each as it ends: a run that is cut loses its last round at
 * most, and the next one goes on after those that are there.
 *
 * After a header, a line is a case of one round: shape,type,"work",ours,theirs,limit,limit_of.  Rounds of another
 * machine, or of other code, do not belong into the same file; nothing here can tell. */
#ifndef LLMD_BENCH_COMPARE_ROUNDS_FILE_H
#define LLMD_BENCH_COMPARE_ROUNDS_FILE_H

#include "bench/compare/figures.h"

/* Fill the n figures of one group, which have no rounds yet, with those that the file has for all of them; none when
 * there is no file. */
bool rounds_file_read(const char *path, struct figure *figures, uint32_t n, struct err *e);

/* Append that round of the n figures of one group. */
bool rounds_file_append(const char *path, const struct figure *figures, uint32_t n, uint32_t round,
                        struct err *e);

#endif
