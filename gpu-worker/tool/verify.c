/* verify.c - `model verify`: a model is whole, and its numbers are numbers.
 *
 *   config      every field that is computed with is understood
 *   files       all are there and as long as their headers say
 *   tensors     each that the family needs is there, in the right shape and a type that is read
 *   values      how many NaN and infinities, of all elements
 *   tokenizer   opens, and knows no token beyond the embedding
 *   template    compiles
 *   checksums   SHA-256 of files that SHA256SUMS or NAME.sha256 beside them names, as sha256sum writes it */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "common/file.h"
#include "common/gguf.h"
#include "common/json.h"
#include "common/mem.h"
#include "common/secret.h"
#include "gpu-worker/models/llama.h"
#include "gpu-worker/tool/tool.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

enum { SUMS_BYTES_MAX = 1 << 20, PATH_BYTES = 4200 };

struct verifier {
    const char *path;
    struct json_writer w;
    bool ok;
    struct model_config c;
    struct tensors *files;
    tool_progress_fn *progress;
    void *arg;
    uint64_t done, all; /* bytes */
};

/* One finding. */
static void put(struct verifier *v, const char *name, bool ok, const char *finding)
{
    jw_object(&v->w);
    jw_key(&v->w, "name");
    jw_str(&v->w, name);
    jw_key(&v->w, "ok");
    jw_bool(&v->w, ok);
    jw_key(&v->w, "finding");
    jw_str(&v->w, finding);
    jw_object_end(&v->w);
    v->ok &= ok;
}

static bool check(struct verifier *v, const char *name, bool ok, const char *fine,
                  const struct err *e)
{
    put(v, name, ok, ok ? fine : e->msg);
    return ok;
}

/* ---- metadata ---- */

static bool check_config(struct verifier *v)
{
    struct err e;

    bool ok = model_config_read(&v->c, v->path, &e);
    char text[192] = "", quantization[96];

    quantization_describe(&v->c.quantization, quantization);
    if (ok)
        snprintf(text, sizeof text, "%s%s%s", v->c.architecture,
                 v->c.quantization.method == QUANTIZATION_NONE ? "" : ", ",
                 v->c.quantization.method == QUANTIZATION_NONE ? "" : quantization);
    return check(v, "config", ok, text, &e);
}

static bool check_files(struct verifier *v)
{
    char text[96] = "";
    struct err e;

    v->files = tensors_open(v->path, &e);
    for (uint32_t i = 0; v->files && i < v->files->n_files; i++)
        v->all += 2 * v->files->files[i].bytes; /* values, and perhaps checksums */
    if (v->files)
        snprintf(text, sizeof text, "%u, complete by their headers", v->files->n_files);
    return check(v, "files", v->files != NULL, text, &e);
}

static void check_tensors(struct verifier *v)
{
    struct weights_plan plan = { 0 };
    char text[96] = "";
    struct err e;
    bool ok = llama_plan(&plan, &v->c, (struct llama_shard){ .tp_size = 1 }, v->files, &e);

    snprintf(text, sizeof text, "%u, all that the family needs", v->files->n_tensors);
    check(v, "tensors", ok, text, &e);
    weights_plan_fini(&plan);
}

/* ---- values ---- */

struct counts {
    uint64_t elements, nans, infinities;
    const char *first; /* a tensor with some */
};

enum { ELEMENTS = 4096 }; /* at a time: a multiple of every block */

static void count(struct counts *n, const float *x, uint64_t elements, const char *name)
{
    uint64_t before = n->nans + n->infinities;

    for (uint64_t i = 0; i < elements; i++) {
        n->nans += isnan(x[i]) != 0;
        n->infinities += isinf(x[i]) != 0;
    }
    n->elements += elements;
    if (!n->first && n->nans + n->infinities > before)
        n->first = name;
}

static void advance(struct verifier *v, uint64_t bytes)
{
    uint64_t before = v->done * 100 / (v->all + 1);

    v->done += bytes;
    if (v->progress && v->done * 100 / (v->all + 1) != before)
        v->progress(v->arg, (double)v->done / (double)(v->all + 1));
}

/* A matrix in parts, row by row. */
static void count_packed(struct verifier *v, struct counts *n, const struct tensor *t)
{
    uint32_t cols = (uint32_t)t->dims[1];
    float *row = mem_alloc(cols * sizeof *row);

    for (uint64_t r = 0; r < t->dims[0]; r++) {
        tensor_to_float(t, (struct tensor_part){ r, 1, 0, cols }, row);
        count(n, row, cols, t->name);
        advance(v, t->bytes / t->dims[0]);
    }
    free(row);
}

static void count_tensor(struct verifier *v, struct counts *n, const struct tensor *t)
{
    uint64_t left = 1, step;
    const char *at = t->data;
    float x[ELEMENTS];

    if (t->packed)
        count_packed(v, n, t);
    if (t->packed || t->type == TENSOR_NONE)
        return;
    for (uint32_t i = 0; i < t->n_dims; i++)
        left *= t->dims[i];
    for (; left > 0; left -= step, at += tensor_type_bytes(t->type, step)) {
        step = left < ELEMENTS ? left : ELEMENTS;
        tensor_type_to_float(t->type, x, at, step);
        count(n, x, step, t->name);
        advance(v, tensor_type_bytes(t->type, step));
    }
}

static void check_values(struct verifier *v)
{
    struct counts n = { 0 };
    char text[320];

    for (uint32_t i = 0; i < v->files->n_tensors; i++)
        count_tensor(v, &n, &v->files->tensors[i]);
    snprintf(text, sizeof text, "%llu elements, %llu NaN, %llu infinite%s%s",
             (unsigned long long)n.elements, (unsigned long long)n.nans,
             (unsigned long long)n.infinities, n.first ? "; the first in " : "",
             n.first ? n.first : "");
    put(v, "values", n.nans + n.infinities == 0, text);
}

/* ---- text ---- */

static void check_tokenizer(struct verifier *v)
{
    struct err e;
    struct tokenizer *t = tokenizer_open(v->path, &e);
    char text[96] = "";

    if (t && (uint32_t)tokenizer_vocab_size(t) > v->c.vocab_size) {
        err_set(&e, ERR_MODEL, 0, "%d tokens, the embedding has %u rows", tokenizer_vocab_size(t),
                v->c.vocab_size);
        tokenizer_close(t);
        t = NULL;
    }
    if (t)
        snprintf(text, sizeof text, "%d tokens", tokenizer_vocab_size(t));
    check(v, "tokenizer", t != NULL, text, &e);
    tokenizer_close(t);
}

static void check_template(struct verifier *v)
{
    struct chat_templates ts;
    struct err e;
    bool ok = chat_templates_load(&ts, v->path, &e);

    check(v, "template", ok, ok && ts.plain ? "compiles" : "the model has none", &e);
    if (ok)
        chat_templates_fini(&ts);
}

/* ---- checksums ---- */

/* The folder of the files. */
static void folder_of(const struct verifier *v, char dir[PATH_BYTES])
{
    char *gguf = NULL, *slash;

    if (gguf_locate(v->path, &gguf, NULL) && gguf) {
        snprintf(dir, PATH_BYTES, "%s", gguf);
        slash = strrchr(dir, '/');
        if (slash)
            *slash = '\0';
        else
            snprintf(dir, PATH_BYTES, ".");
    } else
        snprintf(dir, PATH_BYTES, "%s", v->path);
    free(gguf);
}

/* The sum that a list gives for `name`: "<64 digits>  name" or "<64 digits> *name", one a line. */
static bool find_sum(const char *list, const char *name, uint8_t sum[SECRET_HASH_BYTES])
{
    size_t n = strlen(name);

    for (const char *line = list; line && *line;) {
        const char *end = strchr(line, '\n'), *at = line + SECRET_HEX_BYTES - 1;
        size_t length = end ? (size_t)(end - line) : strlen(line);
        bool ours = length > SECRET_HEX_BYTES && at[0] == ' ' && (at[1] == ' ' || at[1] == '*') &&
                    length - SECRET_HEX_BYTES - 1 == n && memcmp(at + 2, name, n) == 0;
        if ((ours || (length == SECRET_HEX_BYTES - 1 && !end)) &&
            secret_hash_from_hex(line, SECRET_HEX_BYTES - 1, sum))
            return true;
        line = end ? end + 1 : NULL;
    }
    return false;
}

static bool read_sum(const char *dir, const char *name, uint8_t sum[SECRET_HASH_BYTES])
{
    char path[PATH_BYTES + 300], *list;
    bool found = false;
    size_t n;

    for (int i = 0; i < 2 && !found; i++) {
        if (i == 0)
            snprintf(path, sizeof path, "%s/%s.sha256", dir, name);
        else
            snprintf(path, sizeof path, "%s/SHA256SUMS", dir);
        if (!file_exists(path) || !file_read(path, SUMS_BYTES_MAX, &list, &n, NULL))
            continue;
        found = find_sum(list, name, sum);
        free(list);
    }
    return found;
}

static void check_sums(struct verifier *v)
{
    uint8_t wanted[SECRET_HASH_BYTES], found[SECRET_HASH_BYTES];
    char dir[PATH_BYTES], text[320];
    uint32_t n = 0;

    folder_of(v, dir);
    for (uint32_t i = 0; i < v->files->n_files; i++) {
        const struct tensors_file *f = &v->files->files[i];
        bool known = read_sum(dir, f->name, wanted);
        if (known) {
            secret_hash(f->map, f->bytes, found);
            n++;
        }
        advance(v, f->bytes);
        if (known && !secret_hash_is(wanted, found)) {
            snprintf(text, sizeof text, "'%.200s' is not what its SHA-256 says", f->name);
            put(v, "checksums", false, text);
            return;
        }
    }
    snprintf(text, sizeof text, n ? "%u of %u files, right" : "none beside the files", n,
             v->files->n_files);
    put(v, "checksums", true, text);
}

/* ---- the whole ---- */

static void run_checks(struct verifier *v)
{
    bool has_config = check_config(v), has_files = check_files(v);

    if (has_files) {
        if (has_config)
            check_tensors(v);
        check_values(v);
        check_sums(v);
    }
    if (has_config)
        check_tokenizer(v);
    check_template(v);
}

void verify_model(const char *path, struct buf *out, bool *ok, tool_progress_fn *progress,
                  void *arg)
{
    struct verifier *v = mem_zalloc(1, sizeof *v);
    struct buf checks = { 0 };
    struct json_writer w = { .out = out };

    v->path = path;
    v->w.out = &checks;
    v->ok = true;
    v->progress = progress;
    v->arg = arg;
    run_checks(v);
    *ok = v->ok;
    jw_object(&w);
    jw_key(&w, "ok");
    jw_bool(&w, v->ok);
    jw_key(&w, "model");
    jw_str(&w, path);
    jw_key(&w, "checks");
    buf_add_char(out, '[');
    buf_add(out, checks.data, checks.n);
    buf_add_char(out, ']');
    jw_object_end(&w);
    buf_fini(&checks);
    tensors_close(v->files);
    free(v);
}
