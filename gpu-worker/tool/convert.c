/* convert.c - see convert.h.  A tensor is written row by row, so a model of any size takes the memory of a row. */
#include "gpu-worker/tool/convert.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/gguf_model.h"
#include "common/mem.h"
#include "gpu-worker/load/gguf_set.h"
#include "gpu-worker/load/gguf_tensors.h"
#include "gpu-worker/models/llama.h"
#include "gpu-worker/tool/encode.h"
#include "gpu-worker/tool/keys.h"
#include "text/tokenizer_gguf.h"

/* One tensor of the file to be: `parts` of them lie one behind the other (experts). */
struct out_tensor {
    char name[GGUF_HF_NAME_BYTES];
    enum tensor_type type;
    uint32_t n_dims;
    uint64_t dims[GGUF_DIMS_MAX]; /* of a row first */
    const struct tensor **parts;  /* [n_parts] */
    uint32_t n_parts;
    const float *vector; /* made by us; then there are no parts */
    uint32_t paired_rows;
    bool plus_one;
};

struct converter {
    const char *from, *to;
    enum tensor_type type;
    char *gguf; /* path of the source when it is one */
    struct model_config *config;
    struct tensors *files;
    const struct gguf_family *family;
    struct gguf_out head;
    struct convert_rope rope;
    struct out_tensor *tensors;
    uint32_t n_tensors;
    FILE *out;
    uint64_t written, shown;
    double error, power;
    struct convert_report *report;
    convert_progress_fn *progress;
    void *arg;
};

enum tensor_type convert_type(const char *name)
{
    for (int t = TENSOR_NONE + 1; t < N_TENSOR_TYPES; t++)
        if (strcasecmp(name, tensor_type_name((enum tensor_type)t)) == 0)
            return encode_can((enum tensor_type)t) ? (enum tensor_type)t : TENSOR_NONE;
    return TENSOR_NONE;
}

/* ---- which tensors ---- */

static bool has(const char *name, const char *part)
{
    return strstr(name, part) != NULL;
}

static bool is_coarse(enum tensor_type t)
{
    return tensor_type_block(t) > 1 && t != TENSOR_Q8_0;
}

static enum tensor_type type_of(const struct converter *v, const struct out_tensor *t)
{
    enum tensor_type type = v->type;

    if (t->n_dims < 2 || has(t->name, "ffn_gate_inp"))
        return TENSOR_F32;
    if (is_coarse(type) &&
        (strncmp(t->name, "token_embd.", 11) == 0 || strncmp(t->name, "output.", 7) == 0))
        type = TENSOR_Q8_0;
    return t->dims[0] % tensor_type_block(type) == 0 ? type : TENSOR_F16;
}

/* The tensor of that name in the file to be, or a new one. */
static struct out_tensor *tensor_named(struct converter *v, const char *name)
{
    for (uint32_t i = v->n_tensors; i > 0; i--) /* experts of one tensor are near each other */
        if (strcmp(v->tensors[i - 1].name, name) == 0)
            return &v->tensors[i - 1];
    v->tensors = mem_realloc(v->tensors, (v->n_tensors + 1) * sizeof *v->tensors);
    v->tensors[v->n_tensors] = (struct out_tensor){ 0 };
    snprintf(v->tensors[v->n_tensors].name, GGUF_HF_NAME_BYTES, "%s", name);
    return &v->tensors[v->n_tensors++];
}

static void set_shape(const struct converter *v, struct out_tensor *t, const struct tensor *from)
{
    bool is_llama = v->family->paired_rows;

    t->n_dims = from->n_dims;
    for (uint32_t i = 0; i < from->n_dims && i < GGUF_DIMS_MAX; i++)
        t->dims[i] = from->dims[from->n_dims - 1 - i];
    if (has(t->name, "ffn_gate_inp_shexp")) /* [1, dim] is a vector there */
        t->n_dims = 1;
    if (is_llama && (has(t->name, ".attn_q.") || has(t->name, ".attn_k.")))
        t->paired_rows = v->config->head_dim;
    t->plus_one = v->config->norm_plus_one && has(t->name, "norm.");
}

static bool is_unused(const struct converter *v, const char *hf)
{
    return has(hf, "rotary_emb.inv_freq") ||
           (v->config->tied_head && strcmp(hf, "lm_head.weight") == 0);
}

static bool add_part(struct converter *v, const struct tensor *from, struct err *e)
{
    char name[GGUF_HF_NAME_BYTES];
    struct out_tensor *t;
    int32_t expert = -1;

    if (is_unused(v, from->name))
        return true;
    if (!gguf_family_name(v->family, from->name, name, &expert)) {
        if (!v->gguf || from->n_dims > 1)
            return err_set(e, ERR_MODEL, 0, "tensor '%.80s' has no name in GGUF files of %s",
                           from->name, v->family->name);
        snprintf(name, sizeof name, "%.100s", from->name); /* factors of rope */
    }
    if (from->type == TENSOR_NONE || from->n_dims == 0 || from->n_dims > 2)
        return err_set(e, ERR_MODEL, 0, "tensor '%.80s' is of type %s and %u dimensions",
                       from->name, from->type_text, from->n_dims);
    t = tensor_named(v, name);
    if (t->n_parts == 0)
        set_shape(v, t, from);
    if (expert < 0 ? t->n_parts > 0 : (uint32_t)expert >= v->config->n_experts)
        return err_set(e, ERR_MODEL, 0, "tensor '%.80s' is one too many", from->name);
    t->parts = mem_realloc(t->parts, (t->n_parts + 1) * sizeof(struct tensor *));
    t->parts[t->n_parts++] = from;
    return true;
}

/* ".experts.10." comes before ".experts.2." by name. */
static int by_expert(const void *a, const void *b)
{
    const struct tensor *x = *(const struct tensor *const *)a,
                        *y = *(const struct tensor *const *)b;
    size_t n = strlen(x->name), m = strlen(y->name);

    return n != m ? (n > m) - (n < m) : strcmp(x->name, y->name);
}

static bool finish_tensor(struct converter *v, struct out_tensor *t, struct err *e)
{
    if (has(t->name, "_exps.")) {
        qsort(t->parts, t->n_parts, sizeof(struct tensor *), by_expert);
        t->dims[2] = t->n_parts;
        t->n_dims = 3;
        if (t->n_parts != v->config->n_experts)
            return err_set(e, ERR_MODEL, 0, "'%s': %u of %u experts", t->name, t->n_parts,
                           v->config->n_experts);
    }
    for (uint32_t i = 1; i < t->n_parts; i++)
        if (t->parts[i]->dims[0] != t->parts[0]->dims[0] ||
            t->parts[i]->dims[1] != t->parts[0]->dims[1])
            return err_set(e, ERR_MODEL, 0, "'%s': its experts differ in shape", t->name);
    t->type = type_of(v, t);
    return true;
}

static void add_vector(struct converter *v, const char *name, const float *vector)
{
    struct out_tensor *t;

    if (!vector)
        return;
    t = tensor_named(v, name);
    t->vector = vector;
    t->n_dims = 1;
    t->dims[0] = v->rope.n;
    t->type = TENSOR_F32;
}

static bool gather(struct converter *v, struct err *e)
{
    for (uint32_t i = 0; i < v->files->n_tensors; i++)
        if (!add_part(v, &v->files->tensors[i], e))
            return false;
    for (uint32_t i = 0; i < v->n_tensors; i++)
        if (!finish_tensor(v, &v->tensors[i], e))
            return false;
    add_vector(v, "rope_freqs.weight", v->rope.freqs);
    add_vector(v, "rope_factors_short.weight", v->rope.factors_short);
    add_vector(v, "rope_factors_long.weight", v->rope.factors_long);
    return true;
}

/* ---- keys ---- */

/* Of another GGUF file: all but what names its numbers and its parts. */
static bool copy_keys(struct converter *v, struct err *e)
{
    struct gguf_set set;

    if (!gguf_set_open(&set, v->gguf, e))
        return false;
    for (uint32_t i = 0; i < set.files[0]->n_pairs; i++) {
        const struct gguf_pair *p = &set.files[0]->pairs[i];
        if (strcmp(p->key, "general.file_type") != 0 && strcmp(p->key, "general.alignment") != 0 &&
            strcmp(p->key, "general.quantization_version") != 0 &&
            strncmp(p->key, "split.", 6) != 0)
            gguf_out_copy(&v->head, p);
    }
    v->report->has_tokenizer = gguf_has(set.files[0], "tokenizer.ggml.model");
    gguf_set_close(&set);
    return true;
}

static bool has_tokenizer(const char *dir)
{
    static const char *const names[] = { "tokenizer.json", "tokenizer.model" };
    char path[4096];

    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        if (access(path, F_OK) == 0)
            return true;
    }
    return false;
}

static bool make_keys(struct converter *v, struct err *e)
{
    struct tokenizer *t;
    bool ok;

    if (!convert_put_keys(&v->head, v->family, v->config, &v->rope, e) ||
        !convert_put_chat_template(&v->head, v->from, e))
        return false;
    if (!has_tokenizer(v->from)) { /* weights alone */
        if (v->config->n_eos > 0)
            gguf_out_u32(&v->head, "tokenizer.ggml.eos_token_id", (uint32_t)v->config->eos[0]);
        return true;
    }
    v->report->has_tokenizer = true;
    t = tokenizer_open(v->from, e);
    ok = t && tokenizer_put_gguf(t, v->family->name, &v->head, e);
    tokenizer_close(t);
    return ok || err_wrap(e, "tokenizer of '%s'", v->from);
}

/* What other programs show as the file's kind; numbers of the format. */
static void put_file_type(struct converter *v)
{
    static const uint32_t numbers[N_TENSOR_TYPES] = {
        [TENSOR_F32] = 0,  [TENSOR_F16] = 1,  [TENSOR_Q4_0] = 2, [TENSOR_Q4_1] = 3,
        [TENSOR_Q8_0] = 7, [TENSOR_Q5_0] = 8, [TENSOR_Q5_1] = 9, [TENSOR_BF16] = 32,
    };

    gguf_out_u32(&v->head, "general.file_type", numbers[v->type]);
    gguf_out_u32(&v->head, "general.quantization_version", 2);
}

/* ---- data ---- */

static uint64_t rows_of(const struct out_tensor *t)
{
    return t->n_dims > 1 ? t->dims[1] * (t->n_dims > 2 ? t->dims[2] : 1) : 1;
}

static uint64_t bytes_of(const struct out_tensor *t)
{
    return rows_of(t) * tensor_type_bytes(t->type, t->dims[0]);
}

/* Row 2 i of a head is our row i, 2 i + 1 our i + half: tensor_row()'s order turned round. */
static uint64_t unpaired(uint64_t row, uint32_t head)
{
    uint64_t i = head ? row % head : 0;

    return head ? row - i + (i % 2 == 0 ? i / 2 : head / 2 + i / 2) : row;
}

/* A whole vector is one row here, but tensor_row() knows it element by element. */
static void read_vector(const struct out_tensor *t, float *x)
{
    const struct tensor *from = t->parts[0];
    bool is_row = from->n_dims > 1; /* [1, dim] */

    for (uint64_t i = 0; i < t->dims[0] && !is_row; i++)
        tensor_type_to_float(from->type, &x[i], tensor_row(from, unpaired(i, t->paired_rows)), 1);
    if (is_row)
        tensor_to_float(from, (struct tensor_part){ 0, 1, 0, (uint32_t)t->dims[0] }, x);
    for (uint64_t i = 0; i < t->dims[0] && t->plus_one; i++)
        x[i] += 1;
}

static void read_row(const struct out_tensor *t, uint64_t row, float *x)
{
    uint64_t rows = t->n_dims > 1 ? t->dims[1] : 1;
    const struct tensor *from;

    if (t->vector)
        memcpy(x, t->vector, t->dims[0] * sizeof *x);
    else if (t->n_dims == 1)
        read_vector(t, x);
    else {
        from = t->parts[row / rows];
        tensor_to_float(from,
                        (struct tensor_part){ unpaired(row % rows, t->paired_rows), 1, 0,
                                              (uint32_t)t->dims[0] },
                        x);
    }
}

static bool all_finite(const float *x, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        if (!isfinite(x[i]))
            return false;
    return true;
}

static void note_error(struct converter *v, const struct out_tensor *t, const float *x, float *y,
                       const void *row)
{
    if (t->n_dims < 2)
        return;
    tensor_type_to_float(t->type, y, row, t->dims[0]);
    for (uint64_t i = 0; i < t->dims[0]; i++) {
        v->error += ((double)x[i] - (double)y[i]) * ((double)x[i] - (double)y[i]);
        v->power += (double)x[i] * (double)x[i];
    }
}

static bool put_bytes(struct converter *v, const void *bytes, size_t n, struct err *e)
{
    if (n > 0 && fwrite(bytes, 1, n, v->out) != n)
        return err_set(e, ERR_SYS, errno, "write '%s.part'", v->to);
    v->written += n;
    if (v->progress && (v->written - v->shown) * 200 > v->head.data_bytes) {
        v->shown = v->written;
        v->progress(v->arg, (double)v->written / (double)(v->head.data_bytes + 1));
    }
    return true;
}

static bool write_tensor(struct converter *v, const struct out_tensor *t, struct err *e)
{
    static const char zeroes[GGUF_OUT_ALIGNMENT];
    uint64_t n = t->dims[0], row_bytes = tensor_type_bytes(t->type, n);
    float *x = mem_alloc(n * sizeof *x), *y = mem_alloc(n * sizeof *y);
    void *row = mem_alloc(row_bytes);
    bool ok = true;

    for (uint64_t i = 0; ok && i < rows_of(t); i++) {
        read_row(t, i, x);
        if (!all_finite(x, n)) {
            ok = err_set(e, ERR_MODEL, 0,
                         "tensor '%s' has a NaN or an infinity in row %llu (llmctl model verify)",
                         t->name, (unsigned long long)i);
            break;
        }
        encode_row(t->type, row, x, n);
        note_error(v, t, x, y, row);
        ok = put_bytes(v, row, row_bytes, e);
    }
    free(x);
    free(y);
    free(row);
    return ok && put_bytes(v, zeroes, gguf_out_padding(bytes_of(t)), e);
}

static bool write_file(struct converter *v, const char *part, struct err *e)
{
    struct buf head = { 0 };
    bool ok;

    v->out = fopen(part, "we");
    if (!v->out)
        return err_set(e, ERR_SYS, errno, "open '%s'", part);
    gguf_out_head(&v->head, &head);
    ok = put_bytes(v, head.data, head.n, e);
    for (uint32_t i = 0; ok && i < v->n_tensors; i++)
        ok = write_tensor(v, &v->tensors[i], e);
    ok = ok && (fflush(v->out) == 0 && fsync(fileno(v->out)) == 0
                    ? true
                    : err_set(e, ERR_SYS, errno, "write '%s'", part));
    fclose(v->out);
    v->report->to_bytes = v->written;
    buf_fini(&head);
    return ok;
}

/* ---- the proof ---- */

static bool same_rope(const struct model_config *a, const struct model_config *b)
{
    uint32_t n = a->rope_dim / 2;
    double *x = mem_alloc(n * sizeof *x), *y = mem_alloc(n * sizeof *y);
    bool same = a->rope_dim == b->rope_dim && fabs(a->rope_amplitude - b->rope_amplitude) < 1e-5;

    if (same) {
        model_config_rope_freq(a, a->positions_max, x);
        model_config_rope_freq(b, b->positions_max, y);
    }
    for (uint32_t i = 0; same && i < n; i++)
        same = fabs(x[i] - y[i]) <= 2e-6 * fabs(x[i]);
    free(x);
    free(y);
    return same;
}

static bool near(float a, float b)
{
    return fabsf(a - b) <= 1e-6f * fabsf(a);
}

static bool has_ends_of(const struct model_config *a, const struct model_config *b)
{
    for (uint32_t i = 0; i < a->n_eos; i++) {
        bool found = false;
        for (uint32_t k = 0; k < b->n_eos; k++)
            found |= a->eos[i] == b->eos[k];
        if (!found)
            return false;
    }
    return true;
}

static bool same_config(const struct model_config *a, const struct model_config *b, struct err *e)
{
    const struct {
        const char *what;
        bool same;
    } checks[] = {
        { "sizes", a->vocab_size == b->vocab_size && a->hidden_size == b->hidden_size &&
                       a->n_layers == b->n_layers && a->intermediate_size == b->intermediate_size &&
                       a->positions_max == b->positions_max },
        { "heads", a->n_heads == b->n_heads && a->n_kv_heads == b->n_kv_heads &&
                       a->head_dim == b->head_dim && near(a->query_scale, b->query_scale) },
        { "norms", near(a->rms_norm_eps, b->rms_norm_eps) && a->post_norms == b->post_norms &&
                       a->qk_norm == b->qk_norm },
        { "rope", same_rope(a, b) },
        { "window", a->sliding_window == b->sliding_window &&
                        memcmp(a->layers, b->layers, a->n_layers * sizeof *a->layers) == 0 },
        { "caps and scales", near(a->attn_softcap, b->attn_softcap) &&
                                 near(a->final_softcap, b->final_softcap) &&
                                 near(a->embed_scale, b->embed_scale) },
        { "biases",
          a->qkv_bias == b->qkv_bias && a->o_bias == b->o_bias && a->mlp_bias == b->mlp_bias },
        { "MLP", a->activation == b->activation && a->fused_gate_up == b->fused_gate_up &&
                     a->fused_qkv == b->fused_qkv && a->tied_head == b->tied_head },
        { "experts", a->n_experts == b->n_experts && a->n_experts_used == b->n_experts_used &&
                         a->expert_inner == b->expert_inner &&
                         a->shared_expert_inner == b->shared_expert_inner &&
                         a->norm_topk_prob == b->norm_topk_prob },
        { "ids that end a text", has_ends_of(a, b) },
    };

    for (size_t i = 0; i < sizeof checks / sizeof *checks; i++)
        if (!checks[i].same)
            return err_set(e, ERR_MODEL, 0, "GGUF keys cannot say this model's configuration (%s)",
                           checks[i].what);
    return true;
}

static bool same_tokenizer(const struct converter *v, const char *part, struct err *e)
{
    struct tokenizer *a = tokenizer_open(v->from, e), *b = a ? tokenizer_open(part, e) : NULL;
    bool same = a && b && tokenizer_is_same(a, b, e);

    tokenizer_close(a);
    tokenizer_close(b);
    return same;
}

static bool prove(const struct converter *v, const char *part, struct err *e)
{
    struct model_config *c = mem_zalloc(1, sizeof *c);
    struct weights_plan plan = { 0 };
    struct tensors *ts = NULL;
    bool ok = model_config_read(c, part, e) && same_config(v->config, c, e) &&
              (ts = tensors_open(part, e)) != NULL &&
              llama_plan(&plan, c, (struct llama_shard){ .tp_size = 1 }, ts, e) &&
              (!v->report->has_tokenizer || same_tokenizer(v, part, e));

    weights_plan_fini(&plan);
    tensors_close(ts);
    free(c);
    return ok || err_wrap(e, "the file made is not the model");
}

/* ---- the whole ---- */

static bool open_source(struct converter *v, struct err *e)
{
    struct gguf_set set;

    v->config = mem_zalloc(1, sizeof *v->config);
    if (!gguf_locate(v->from, &v->gguf, e) || !model_config_read(v->config, v->from, e))
        return false;
    v->files = tensors_open(v->from, e);
    if (!v->files)
        return false;
    if (v->gguf) {
        if (!gguf_set_open(&set, v->gguf, e))
            return false;
        v->family = gguf_family_of(set.files[0], e);
        gguf_set_close(&set);
        return v->family != NULL;
    }
    v->family = gguf_family_for(v->config->architecture);
    return v->family ||
           err_set(e, ERR_MODEL, 0, "GGUF has no name for '%s'", v->config->architecture);
}

static void list_tensors(struct converter *v)
{
    for (uint32_t i = 0; i < v->n_tensors; i++) {
        const struct out_tensor *t = &v->tensors[i];
        gguf_out_tensor(&v->head, t->name, gguf_tensors_number(t->type), t->n_dims, t->dims,
                        bytes_of(t));
    }
    v->report->n_tensors = v->n_tensors;
    for (uint32_t i = 0; i < v->files->n_files; i++)
        v->report->from_bytes += v->files->files[i].bytes;
}

static bool convert(struct converter *v, const char *part, struct err *e)
{
    if (!open_source(v, e) || !(v->gguf ? copy_keys(v, e) : make_keys(v, e)) || !gather(v, e))
        return false;
    put_file_type(v);
    list_tensors(v);
    if (!write_file(v, part, e) || !prove(v, part, e))
        return false;
    v->report->relative_error = v->power > 0 ? sqrt(v->error / v->power) : 0;
    return rename(part, v->to) == 0 || err_set(e, ERR_SYS, errno, "name '%s'", v->to);
}

static void converter_fini(struct converter *v)
{
    for (uint32_t i = 0; i < v->n_tensors; i++)
        free(v->tensors[i].parts);
    free(v->tensors);
    convert_rope_fini(&v->rope);
    gguf_out_fini(&v->head);
    tensors_close(v->files);
    free(v->config);
    free(v->gguf);
}

void convert_part_name(const char *to, char *part, size_t n)
{
    snprintf(part, n, "%s.part.gguf", to);
}

bool convert_model(const char *from, const char *to, enum tensor_type type, bool force,
                   struct convert_report *report, convert_progress_fn *progress, void *arg,
                   struct err *e)
{
    struct converter v = {
        .from = from, .to = to, .type = type, .report = report, .progress = progress, .arg = arg
    };
    size_t n = strlen(to);
    char part[4200];
    bool ok;

    *report = (struct convert_report){ 0 };
    if (n < 6 || strcasecmp(to + n - 5, ".gguf") != 0 || n > 4096)
        return err_set(e, ERR_CONFIG, 0, "'%.80s' does not end in .gguf", to);
    if (!force && access(to, F_OK) == 0)
        return err_set(e, ERR_CONFIG, 0, "'%.80s' exists (--force replaces it)", to);
    convert_part_name(to, part, sizeof part);
    ok = convert(&v, part, e);
    if (!ok)
        unlink(part);
    converter_fini(&v);
    return ok;
}
