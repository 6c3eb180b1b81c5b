/* sampling_rows.h - draws of a step as the sampling kernel takes them (kernels/sampling.h), and its answers read.
 *
 *   sampling_rows_begin()
 *   for each row of the step:  sampling_rows_add()     false: this row's logits go to the host, sampler_draw() draws
 *   copy .rows and .edits to the device, launch, copy choices and tops back
 *   for each row added:        sampling_rows_read()    what sampler_draw() would have answered
 *
 * Bias, penalties and masks of a row become edits of single tokens: counting a sequence's tokens is work for the host,
 * which has them.  One thread. */
#ifndef LLMD_GPU_WORKER_CUDA_SAMPLING_ROWS_H
#define LLMD_GPU_WORKER_CUDA_SAMPLING_ROWS_H

#include "gpu-worker/cuda/kernels/sampling.h"
#include "gpu-worker/sampler.h"

struct sampling_rows {
    uint32_t vocab_size;
    struct sampling_row *rows; /* [rows_max], caller's; may be memory the device reads */
    uint32_t n_rows, rows_max;
    struct sampling_edit *edits; /* [rows_max * edits_a_row], the same */
    uint32_t n_edits, edits_a_row;
    uint32_t
        *places; /* [vocab_size] scratch: 1 + a token's place among the row's edits; 0 = has none */
};

void sampling_rows_init(struct sampling_rows *s, uint32_t vocab_size, struct sampling_row *rows,
                        uint32_t rows_max, struct sampling_edit *edits, uint32_t edits_a_row);
void sampling_rows_fini(struct sampling_rows *s);

/* Forget all rows. */
void sampling_rows_begin(struct sampling_rows *s);

/* The kernel can draw this: no watermark, no typical_p, no named alternatives, at most SAMPLING_TOP_MAX others,
 * a vocabulary of at most SAMPLING_VOCAB_MAX. */
bool sampling_rows_takes(const struct sampler_input *in, uint32_t vocab_size);

/* Append the draw `in`, whose logits are row `logits_row` on the device (in->logits is not read).  False, and nothing is
 * appended: the kernel does not take it, it has more than edits_a_row edits, whoever else is there, or one token has two
 * biases. */
bool sampling_rows_add(struct sampling_rows *s, const struct sampler_input *in,
                       uint32_t logits_row);

/* What sampler_draw(in) would have returned and written.  tops: [SAMPLING_TOP_MAX], of the row. */
enum sampler_result sampling_rows_read(const struct sampler_input *in,
                                       const struct sampling_choice *choice,
                                       const struct sampling_top *tops, struct sampler_output *out);

#endif
