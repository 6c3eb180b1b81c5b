/* fuzz_gguf_model.c - any bytes as a model in a GGUF file: tensors lie inside the file, apart from each other, and
 * have the size of their shape; the configuration is read or refused. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "gpu-worker/load/gguf_tensors.h"
#include "gpu-worker/load/model_config_gguf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check_tensors(const struct tensors *ts, const uint8_t *data, size_t n)
{
    uint64_t total = 0;

    for (uint32_t i = 0; i < ts->n_tensors; i++) {
        const struct tensor *t = &ts->tensors[i];
        const uint8_t *at = t->data;
        uint64_t elements = 1;
        assert(at >= data && t->bytes <= n && at + t->bytes <= data + n);
        for (uint32_t k = 0; k < t->n_dims; k++)
            elements *= t->dims[k];
        if (t->type != TENSOR_NONE)
            assert(tensor_type_bytes(t->type, elements) == t->bytes);
        if (t->paired_rows > 0)
            assert(t->dims[0] % t->paired_rows == 0 && t->paired_rows % 2 == 0);
        assert(tensors_find(ts, t->name) == t);
        total += t->bytes;
    }
    assert(total <= n); /* nothing is counted twice */
}

static void check_error(const struct err *e)
{
    assert(e->code == ERR_MODEL && memchr(e->msg, '\0', sizeof e->msg));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static struct model_config c;
    struct err e;
    struct gguf *g = gguf_parse("fuzz", data, n, &e);
    struct gguf_set set = { .n = 1 };
    struct tensors *ts;

    if (!g)
        return 0;
    set.files = malloc(sizeof *set.files);
    set.files[0] = g;
    if (model_config_from_gguf(&c, &set, &e))
        assert(c.hidden_size > 0 && c.n_layers > 0 && !c.norm_plus_one);
    else
        check_error(&e);
    ts = gguf_tensors_new(&set, &e);
    if (ts)
        check_tensors(ts, data, n);
    else
        check_error(&e);
    tensors_close(ts);
    gguf_set_close(&set);
    return 0;
}
