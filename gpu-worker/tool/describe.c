/* describe.c - `model inspect`: family, shape, number formats, memory, tokenizer and chat template of a model, from
 * its metadata alone. */
#include <stdlib.h>
#include <string.h>

#include "common/gguf.h"
#include "common/json.h"
#include "common/mem.h"
#include "gpu-worker/models/llama.h"
#include "gpu-worker/tool/tool.h"
#include "proto/kvpool.h"
#include "text/chat_template.h"
#include "text/tokenizer/tokenizer_impl.h"

enum { PAGE_TOKENS = 16 };

struct model {
    const char *path;
    bool is_gguf;
    struct model_config c;
    struct tensors *files;
};

static void put_uint(struct json_writer *w, const char *key, uint64_t v)
{
    jw_key(w, key);
    jw_uint(w, v);
}

static void put_str(struct json_writer *w, const char *key, const char *s)
{
    jw_key(w, key);
    jw_str(w, s);
}

static void put_bool(struct json_writer *w, const char *key, bool v)
{
    jw_key(w, key);
    jw_bool(w, v);
}

/* ---- files and tensors ---- */

static void put_files(struct json_writer *w, const struct tensors *ts)
{
    uint64_t all = 0;

    jw_key(w, "files");
    jw_array(w);
    for (uint32_t i = 0; i < ts->n_files; i++) {
        jw_object(w);
        put_str(w, "name", ts->files[i].name);
        put_uint(w, "bytes", ts->files[i].bytes);
        jw_object_end(w);
        all += ts->files[i].bytes;
    }
    jw_array_end(w);
    put_uint(w, "file_bytes", all);
}

static uint64_t elements_of(const struct tensor *t)
{
    uint64_t n = 1;

    for (uint32_t i = 0; i < t->n_dims; i++)
        n *= t->dims[i];
    return n;
}

static void put_types(struct json_writer *w, const struct tensors *ts)
{
    jw_key(w, "types");
    jw_array(w);
    for (uint32_t i = 0; i < ts->n_tensors; i++) {
        const char *type = ts->tensors[i].type_text;
        uint64_t n = 0, elements = 0, bytes = 0;
        bool told = false;
        for (uint32_t k = 0; k < i && !told; k++)
            told = strcmp(ts->tensors[k].type_text, type) == 0;
        for (uint32_t k = i; k < ts->n_tensors && !told; k++) {
            if (strcmp(ts->tensors[k].type_text, type) != 0)
                continue;
            n++;
            elements += elements_of(&ts->tensors[k]);
            bytes += ts->tensors[k].bytes;
        }
        if (told)
            continue;
        jw_object(w);
        put_str(w, "type", type);
        put_uint(w, "tensors", n);
        put_uint(w, "elements", elements);
        put_uint(w, "bytes", bytes);
        jw_object_end(w);
    }
    jw_array_end(w);
}

static void put_tensors(struct json_writer *w, const struct tensors *ts)
{
    jw_key(w, "tensors");
    jw_array(w);
    for (uint32_t i = 0; i < ts->n_tensors; i++) {
        const struct tensor *t = &ts->tensors[i];
        jw_object(w);
        put_str(w, "name", t->name);
        put_str(w, "type", t->type_text);
        jw_key(w, "shape");
        jw_array(w);
        for (uint32_t k = 0; k < t->n_dims; k++)
            jw_uint(w, t->dims[k]);
        jw_array_end(w);
        put_uint(w, "bytes", t->bytes);
        put_str(w, "file", ts->files[t->file].name);
        jw_object_end(w);
    }
    jw_array_end(w);
}

/* ---- shape ---- */

static const char *rope_name(enum rope_scaling s)
{
    static const char *const names[] = { "none", "linear", "llama3", "yarn", "longrope" };

    return names[s];
}

static void put_shape(struct json_writer *w, const struct model_config *c)
{
    put_str(w, "architecture", c->architecture);
    put_uint(w, "max_position_embeddings", c->positions_max);
    put_uint(w, "vocab_size", c->vocab_size);
    put_uint(w, "hidden_size", c->hidden_size);
    put_uint(w, "layers", c->n_layers);
    put_uint(w, "intermediate_size", c->intermediate_size);
    put_uint(w, "heads", c->n_heads);
    put_uint(w, "kv_heads", c->n_kv_heads);
    put_uint(w, "head_dim", c->head_dim);
    put_uint(w, "sliding_window", c->sliding_window);
    put_str(w, "rope_scaling", rope_name(c->rope_scaling));
    put_bool(w, "tied_head", c->tied_head);
    put_uint(w, "experts", c->n_experts);
    put_uint(w, "experts_used", c->n_experts_used);
    jw_key(w, "eos_token_ids");
    jw_array(w);
    for (uint32_t i = 0; i < c->n_eos; i++)
        jw_int(w, c->eos[i]);
    jw_array_end(w);
}

/* ---- memory ---- */

static bool put_weights(struct json_writer *w, const struct model *m, struct err *e)
{
    static const struct {
        const char *key;
        enum quantize quantize;
    } settings[] = { { "none", QUANTIZE_NONE },
                     { "int8", QUANTIZE_INT8 },
                     { "int4", QUANTIZE_INT4 } };
    uint64_t parameters = 0;
    bool ok = true;

    jw_key(w, "weights_bytes");
    jw_object(w);
    for (size_t i = 0; ok && i < 3; i++) {
        struct weights_plan plan = { .quantize = settings[i].quantize };
        ok = llama_plan(&plan, &m->c, (struct llama_shard){ .tp_size = 1 }, m->files, e);
        parameters = plan.parameters;
        if (ok)
            put_uint(w, settings[i].key, weights_plan_segment_bytes(&plan));
        weights_plan_fini(&plan);
    }
    jw_object_end(w);
    put_uint(w, "parameters", parameters);
    return ok;
}

static void put_kv(struct json_writer *w, const struct model_config *c)
{
    static const struct {
        const char *key;
        enum dtype dtype;
    } settings[] = { { "float16", DTYPE_F16 }, { "float32", DTYPE_F32 }, { "int8", DTYPE_I8 } };

    jw_key(w, "kv_bytes_per_token");
    jw_object(w);
    for (size_t i = 0; i < 3; i++) {
        struct kvpool_shape shape = { .page_tokens = PAGE_TOKENS,
                                      .n_layers = c->n_layers,
                                      .n_kv_heads = c->n_kv_heads,
                                      .head_dim = c->head_dim,
                                      .dtype = settings[i].dtype };
        put_uint(w, settings[i].key, kvpool_page_bytes(&shape) / PAGE_TOKENS);
    }
    jw_object_end(w);
}

/* ---- text ---- */

static const char *kind_of(const struct tokenizer *t)
{
    if (t->model == TOKENIZER_UNIGRAM)
        return "Unigram";
    if (t->bpe.byte_level)
        return "byte-level BPE";
    return t->bpe.merges ? "BPE" : "SentencePiece BPE";
}

/* A model without one is a model all the same: what is wrong is told in its place. */
static void put_tokenizer(struct json_writer *w, const char *path)
{
    struct err e;
    struct tokenizer *t = tokenizer_open(path, &e);

    jw_key(w, "tokenizer");
    jw_object(w);
    if (t) {
        put_str(w, "kind", kind_of(t));
        put_uint(w, "tokens", (uint64_t)tokenizer_vocab_size(t));
        put_str(w, "bos", tokenizer_bos_str(t));
        put_str(w, "eos", tokenizer_eos_str(t));
        put_bool(w, "adds_bos", tokenizer_adds_bos(t));
    } else
        put_str(w, "error", e.msg);
    jw_object_end(w);
    tokenizer_close(t);
}

static void put_template(struct json_writer *w, const char *path)
{
    struct chat_templates ts;
    struct err e;

    jw_key(w, "chat_template");
    jw_object(w);
    if (chat_templates_load(&ts, path, &e)) {
        put_bool(w, "present", ts.plain != NULL);
        put_bool(w, "takes_tools",
                 ts.tool_use || (ts.plain && chat_template_uses(ts.plain, "tools")));
        put_bool(w, "takes_system", ts.plain && chat_template_mentions(ts.plain, "system"));
        chat_templates_fini(&ts);
    } else
        put_str(w, "error", e.msg);
    jw_object_end(w);
}

/* ---- the whole ---- */

static bool open_model(struct model *m, struct err *e)
{
    char *gguf;

    if (!gguf_locate(m->path, &gguf, e))
        return false;
    m->is_gguf = gguf != NULL;
    free(gguf);
    if (!model_config_read(&m->c, m->path, e))
        return false;
    m->files = tensors_open(m->path, e);
    return m->files != NULL;
}

static bool put_model(const struct model *m, bool with_tensors, struct buf *out, struct err *e)
{
    struct json_writer w = { .out = out };
    char quantization[96];

    jw_object(&w);
    put_bool(&w, "ok", true);
    put_str(&w, "model", m->path);
    put_str(&w, "format", m->is_gguf ? "gguf" : "safetensors");
    quantization_describe(&m->c.quantization, quantization);
    put_str(&w, "quantization", quantization);
    put_files(&w, m->files);
    put_shape(&w, &m->c);
    if (!put_weights(&w, m, e))
        return false;
    put_kv(&w, &m->c);
    put_types(&w, m->files);
    put_tokenizer(&w, m->path);
    put_template(&w, m->path);
    if (with_tensors)
        put_tensors(&w, m->files);
    jw_object_end(&w);
    return true;
}

bool describe_model(const char *path, bool with_tensors, struct buf *out, struct err *e)
{
    struct model *m = mem_zalloc(1, sizeof *m);
    size_t before = out->n;
    bool ok;

    m->path = path;
    ok = open_model(m, e) && put_model(m, with_tensors, out, e);
    if (!ok && out->n > before)
        out->n = before;
    tensors_close(m->files);
    free(m);
    return ok;
}
