/* quantization.h - how the weights of a model directory are quantised: what its configuration says.
 *
 * config.json has "quantization_config"; older directories have quantize_config.json (GPTQ) or quant_config.json (AWQ)
 * beside it.
 *
 *   quant_method         read                                                          else an error
 *   awq                  bits 4, group_size, version gemm or gemv                      zero_point false
 *   gptq                 bits 4 or 8, group_size, checkpoint_format gptq or gptq_v2,   marlin and other packings
 *                        with desc_act or without, sym or not
 *   compressed-tensors   pack-quantized, int-quantized, float-quantized,               the other formats
 *                        naive-quantized: the tensors themselves say the rest
 *   fp8, fbgemm_fp8      weight_block_size or none                                     fmt other than e4m3 */
#ifndef LLMD_GPU_WORKER_LOAD_QUANTIZATION_H
#define LLMD_GPU_WORKER_LOAD_QUANTIZATION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

struct json_reader;

enum quantization_method {
    QUANTIZATION_NONE,
    QUANTIZATION_AWQ,
    QUANTIZATION_GPTQ,
    QUANTIZATION_COMPRESSED_TENSORS,
    QUANTIZATION_FP8,
};

/* What a method does not have is zero. */
struct quantization {
    enum quantization_method method;
    uint32_t bits;       /* AWQ, GPTQ */
    uint32_t group_size; /* AWQ, GPTQ: columns that share a scale; 0: all of a row */
    bool gemv;           /* AWQ: words lie along the rows of the matrix, not of its transpose */
    bool zeros_less_one; /* GPTQ: the file's zero points are 1 too small */
    bool desc_act;       /* GPTQ: columns were taken in another order; g_idx has their groups */
    uint32_t block_rows, block_cols; /* FP8: of one scale; 0: one for all, or one for each row */
};

const char *quantization_name(enum quantization_method m); /* "gptq"; "none" */

/* "gptq, 4 bits, groups of 128"; for people. */
void quantization_describe(const struct quantization *q, char text[96]);

/* Of the object config.json; no "quantization_config": QUANTIZATION_NONE.  ERR_MODEL. */
bool quantization_parse(struct quantization *q, const struct json_reader *config);

/* Of a file beside it, one of the two older ones, whose name is for errors.  ERR_MODEL. */
bool quantization_parse_file(struct quantization *q, const char *file, const char *bytes, size_t n,
                             struct err *e);

/* Of the directory; without config.json: QUANTIZATION_NONE.  ERR_MODEL or ERR_SYS. */
bool quantization_read(struct quantization *q, const char *dir, struct err *e);

/* Only the older files, and their bytes, which the caller frees; NULL when there is none. */
bool quantization_read_beside(struct quantization *q, const char *dir, char **bytes, size_t *n,
                              struct err *e);

#endif
