/* rope_table.h - cos and sin of position * frequency, exact to a float at any position.
 *
 * A table of every position of a 128k model would be 64 MiB and tens of milliseconds at each start.  A
 * position is 256 * high + low, so two short tables and one addition of angles, in double, do. */
#ifndef LLMD_GPU_WORKER_OPS_ROPE_TABLE_H
#define LLMD_GPU_WORKER_OPS_ROPE_TABLE_H

#include <stdint.h>

struct rope_table {
    uint32_t half, positions_max;
    double *low;  /* [256][half][2 = cos, sin] of low * freq */
    double *high; /* [ceil(positions_max / 256)][half][2] of 256 * high * freq, times amplitude */
};

/* freq: [half] radians per position.  amplitude: cos and sin are multiplied by it. */
void rope_table_init(struct rope_table *r, const double *freq, uint32_t half,
                     uint32_t positions_max, double amplitude);
void rope_table_fini(struct rope_table *r);

/* cos, sin: [half] written. */
void rope_table_at(const struct rope_table *r, uint32_t position, float *cos, float *sin);

#endif
