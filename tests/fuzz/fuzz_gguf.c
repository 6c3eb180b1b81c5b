/* fuzz_gguf.c - any bytes as a GGUF file: what is taken lies inside the file, and every question about it is
 * answered or refused. */
#include <assert.h>
#include <string.h>

#include "common/gguf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check_array(const struct gguf_array *a, const uint8_t *data, size_t n)
{
    struct gguf_array rest = *a;
    int64_t whole;
    double v;

    if (a->n == 0)
        return;
    gguf_array_integer(a, a->n - 1, &whole);
    gguf_array_number(a, a->n - 1, &v);
    while (a->of == GGUF_STRING && rest.n > 0) {
        struct gguf_string s = gguf_array_next(&rest);
        const uint8_t *at = (const uint8_t *)s.s;
        assert(at >= data && s.n <= n && at + s.n <= data + n);
    }
}

static void ask(const struct gguf *g, const char *key, const uint8_t *data, size_t n)
{
    struct gguf_string s;
    struct gguf_array a;
    struct err e;
    int64_t whole;
    double v;
    bool b;

    assert(gguf_has(g, key));
    gguf_integer(g, key, &whole, &e);
    gguf_number(g, key, &v, &e);
    gguf_bool(g, key, &b, &e);
    if (gguf_string(g, key, &s, &e))
        assert((const uint8_t *)s.s + s.n <= data + n);
    if (gguf_array(g, key, &a, &e))
        check_array(&a, data, n);
}

static void check(const struct gguf *g, const uint8_t *data, size_t n)
{
    assert(g->data >= data && g->data + g->data_bytes == data + n);
    for (uint32_t i = 0; i < g->n_pairs; i++)
        ask(g, g->pairs[i].key, data, n);
    for (uint32_t i = 0; i < g->n_tensors; i++) {
        const struct gguf_tensor *t = &g->tensors[i];
        assert(strlen(t->name) >= 1 && strlen(t->name) <= GGUF_NAME_MAX);
        assert(t->n_dims <= GGUF_DIMS_MAX && t->offset <= g->data_bytes);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct err e;
    struct gguf *g = gguf_parse("fuzz", data, n, &e);

    if (g)
        check(g, data, n);
    else
        assert(e.code == ERR_MODEL && memchr(e.msg, '\0', sizeof e.msg));
    gguf_close(g);
    return 0;
}
