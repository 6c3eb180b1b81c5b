/* fuzz_packed_tensors.c - a configuration in one line, then any bytes as a safetensors file: every matrix put together
 * from parts can be read to its last element. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "gpu-worker/load/packed_tensors.h"
#include "gpu-worker/load/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { ELEMENTS_MAX = 1 << 16 };

static void read_all(const struct tensor *t)
{
    uint32_t cols = (uint32_t)t->dims[1];
    float *y = mem_alloc(cols * sizeof *y);
    int8_t *codes = mem_alloc(cols);
    uint16_t *numbers = mem_alloc(((size_t)cols + 31) / 32 * 2 * sizeof *numbers);

    for (uint64_t r = 0; r < t->dims[0]; r++) {
        struct tensor_part row = { r, 1, 0, cols };
        tensor_to_float(t, row, y);
        if (tensor_type_numbers(t->type) > 0)
            tensor_to_codes(t, row, codes, numbers);
    }
    free(y);
    free(codes);
    free(numbers);
}

static void check(const struct tensors *ts)
{
    for (uint32_t i = 0; i < ts->n_tensors; i++) {
        const struct tensor *t = &ts->tensors[i];
        assert(tensors_find(ts, t->name) == t);
        if (!t->packed)
            continue;
        assert(t->type != TENSOR_NONE && t->n_dims == 2 && t->dims[0] > 0 && t->dims[1] > 0);
        if (t->dims[0] * t->dims[1] <= ELEMENTS_MAX)
            read_all(t);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    const uint8_t *end = n > 0 ? memchr(data, '\n', n) : NULL;
    size_t config = end ? (size_t)(end - data) : 0;
    struct quantization q;
    struct tensors *ts;
    struct err e;
    char text[96];

    if (!end ||
        !quantization_parse_file(&q, "quantize_config.json", (const char *)data, config, &e))
        return 0;
    quantization_describe(&q, text);
    assert(strlen(text) > 0);
    ts = safetensors_parse("fuzz", end + 1, n - config - 1, &e);
    if (ts && packed_tensors_join(ts, &q, &e))
        check(ts);
    else
        assert(e.code == ERR_MODEL && memchr(e.msg, '\0', sizeof e.msg));
    tensors_close(ts);
    return 0;
}
