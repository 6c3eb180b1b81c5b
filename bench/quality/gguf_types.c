/* gguf_types.c - bench-gguf-types: one model in every type that GGUF has, quantised by llama.cpp itself.
 *
 *   bench-gguf-types LIBRARY_DIR MODEL_DIR OUT_DIR
 *
 * Writes OUT_DIR/f32.gguf from the HuggingFace directory MODEL_DIR, and from it for each type T its
 * quantised form T.gguf and T.f32.gguf, the same numbers in float32: what an engine without any rounding of
 * its own would compute with.  bench-quality holds engines against that one. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/gguf_model.h"
#include "tests/unit/gguf_tokenizer.h"
#include "text/tokenizer.h"

/* llama.cpp 0.5.0 (include/llama.h of node-llama-cpp 3.22.1); larger than theirs, see compare/llamacpp_api.h. */
struct quantize_params {
    int32_t n_threads;
    int ftype, output_type, embedding_type;
    bool allow_requantize, quantize_output, only_copy, pure, keep_split, dry_run;
    char rest[256];
};

struct type {
    const char *name;
    int ftype; /* enum llama_ftype */
};

static const struct type types[] = {
    { "f16", 1 },     { "bf16", 32 },   { "q8_0", 7 },    { "q4_0", 2 },  { "q4_1", 3 },
    { "q5_0", 8 },    { "q5_1", 9 },    { "iq4_nl", 25 }, { "q2_k", 10 }, { "q3_k_m", 12 },
    { "q4_k_m", 15 }, { "q5_k_m", 17 }, { "q6_k", 18 },
};

static struct {
    struct quantize_params (*defaults)(void);
    uint32_t (*quantize)(const char *in, const char *out, const struct quantize_params *);
    void (*load_backends)(const char *dir);
} calls;

static void die(const char *what)
{
    fprintf(stderr, "bench-gguf-types: %s\n", what);
    exit(1);
}

static void *open_object(const char *dir, const char *name)
{
    char path[1200];
    void *object;

    snprintf(path, sizeof path, "%s/%s", dir, name);
    object = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
    if (!object)
        die(dlerror());
    return object;
}

static void find(void *object, const char *name, void *call)
{
    void *at = dlsym(object, name);

    if (!at)
        die(dlerror());
    memcpy(call, &at, sizeof at);
}

static void open_library(const char *dir)
{
    void *ggml, *llama;

    open_object(dir, "libggml-base.so");
    ggml = open_object(dir, "libggml.v0.5.0.so");
    llama = open_object(dir, "libllama.v0.5.0.so");
    find(ggml, "ggml_backend_load_all_from_path", &calls.load_backends);
    find(llama, "llama_model_quantize_default_params", &calls.defaults);
    find(llama, "llama_model_quantize", &calls.quantize);
    calls.load_backends(dir);
}

static void write_file(const char *path, const struct buf *b)
{
    FILE *f = fopen(path, "we");

    if (!f || fwrite(b->data, 1, b->n, f) != b->n || fclose(f) != 0)
        die(path);
}

static void write_float(const char *model, const char *path)
{
    struct gguf_writer w = { 0 };
    struct buf file;
    struct err e;
    struct tokenizer *t = tokenizer_open(model, &e);

    if (!t)
        die(e.msg);
    gguf_model_put(&w, model);
    gguf_put_sentencepiece(&w, t, true);
    file = gguf_finish(&w);
    write_file(path, &file);
    buf_fini(&file);
    tokenizer_close(t);
}

static void convert(const char *from, const char *to, int ftype)
{
    struct quantize_params p = calls.defaults();

    p.n_threads = 1;
    p.ftype = ftype;
    p.allow_requantize = true;
    if (calls.quantize(from, to, &p) != 0)
        die(to);
}

int main(int argc, char **argv)
{
    char source[1200], whole[1200], quantised[1200], exact[1200];

    if (argc != 4)
        die("wanted LIBRARY_DIR MODEL_DIR OUT_DIR");
    open_library(argv[1]);
    snprintf(source, sizeof source, "%s/source.gguf", argv[3]);
    snprintf(whole, sizeof whole, "%s/f32.gguf", argv[3]);
    write_float(argv[2], source);
    convert(source, whole, 0);
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        snprintf(quantised, sizeof quantised, "%s/%s.gguf", argv[3], types[i].name);
        snprintf(exact, sizeof exact, "%s/%s.f32.gguf", argv[3], types[i].name);
        convert(whole, quantised, types[i].ftype);
        convert(quantised, exact, 0);
    }
    return 0;
}
