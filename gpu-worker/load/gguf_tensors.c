/* gguf_tensors.c - see gguf_tensors.h.  Called at start-up only. */
#include "gpu-worker/load/gguf_tensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/gguf_model.h"
#include "common/mem.h"
#include "gpu-worker/load/gguf_family.h"

enum { EXPERTS_MAX = 1 << 10 };

/* ---- types ---- */

static const struct {
    const char *name;
    enum tensor_type type;
} types[] = { /* by the format's number */
              [0] = { "F32", TENSOR_F32 },        [1] = { "F16", TENSOR_F16 },
              [2] = { "Q4_0", TENSOR_Q4_0 },      [3] = { "Q4_1", TENSOR_Q4_1 },
              [6] = { "Q5_0", TENSOR_Q5_0 },      [7] = { "Q5_1", TENSOR_Q5_1 },
              [8] = { "Q8_0", TENSOR_Q8_0 },      [9] = { "Q8_1", TENSOR_NONE },
              [10] = { "Q2_K", TENSOR_Q2_K },     [11] = { "Q3_K", TENSOR_Q3_K },
              [12] = { "Q4_K", TENSOR_Q4_K },     [13] = { "Q5_K", TENSOR_Q5_K },
              [14] = { "Q6_K", TENSOR_Q6_K },     [15] = { "Q8_K", TENSOR_NONE },
              [16] = { "IQ2_XXS", TENSOR_NONE },  [17] = { "IQ2_XS", TENSOR_NONE },
              [18] = { "IQ3_XXS", TENSOR_NONE },  [19] = { "IQ1_S", TENSOR_NONE },
              [20] = { "IQ4_NL", TENSOR_IQ4_NL }, [21] = { "IQ3_S", TENSOR_NONE },
              [22] = { "IQ2_S", TENSOR_NONE },    [23] = { "IQ4_XS", TENSOR_NONE },
              [24] = { "I8", TENSOR_NONE },       [25] = { "I16", TENSOR_NONE },
              [26] = { "I32", TENSOR_NONE },      [27] = { "I64", TENSOR_NONE },
              [28] = { "F64", TENSOR_NONE },      [29] = { "IQ1_M", TENSOR_NONE },
              [30] = { "BF16", TENSOR_BF16 },     [34] = { "TQ1_0", TENSOR_NONE },
              [35] = { "TQ2_0", TENSOR_NONE },    [39] = { "MXFP4", TENSOR_NONE }
};

uint32_t gguf_tensors_number(enum tensor_type t)
{
    for (uint32_t i = 0; t != TENSOR_NONE && i < sizeof types / sizeof *types; i++)
        if (types[i].type == t && types[i].name)
            return i;
    return UINT32_MAX;
}

static void set_type(struct tensor *t, uint32_t number)
{
    bool known = number < sizeof types / sizeof *types && types[number].name;

    t->type = known ? types[number].type : TENSOR_NONE;
    if (known)
        snprintf(t->type_text, sizeof t->type_text, "%s", types[number].name);
    else
        snprintf(t->type_text, sizeof t->type_text, "type %u", number % 100000);
}

/* ---- one tensor ---- */

/* Outermost dimension first, as everywhere else. */
static void set_dims(struct tensor *t, const struct gguf_tensor *from)
{
    t->n_dims = from->n_dims;
    for (uint32_t i = 0; i < from->n_dims; i++)
        t->dims[i] = from->dims[from->n_dims - 1 - i];
}

/* A vector of blocks is no vector that anything computes with. */
static bool set_bytes(struct tensor *t, const struct gguf_tensor *from, const struct gguf *g,
                      struct err *e)
{
    uint64_t elements = 1, room = g->data_bytes - from->offset;

    for (uint32_t i = 0; i < from->n_dims; i++)
        elements *= from->dims[i]; /* gguf.c has seen that it fits */
    t->data = g->data + from->offset;
    if (t->type != TENSOR_NONE && tensor_type_block(t->type) > 1 && t->n_dims < 2)
        t->type = TENSOR_NONE;
    if (t->type == TENSOR_NONE)
        return true;
    if (from->dims[0] % tensor_type_block(t->type) != 0)
        return err_set(e, ERR_MODEL, 0, "rows of %llu elements; %s has blocks of %u",
                       (unsigned long long)from->dims[0], t->type_text, tensor_type_block(t->type));
    t->bytes = tensor_type_bytes(t->type, elements);
    return t->bytes <= room ||
           err_set(e, ERR_MODEL, 0, "%llu bytes of %s, the file ends after %llu",
                   (unsigned long long)t->bytes, t->type_text, (unsigned long long)room);
}

/* ---- the list ---- */

struct builder {
    struct tensors *out;
    uint32_t cap;
    const struct gguf_family *family;
    uint32_t head_dim;
    struct err *e;
};

static void append(struct builder *b, const struct tensor *t, const char *name)
{
    struct tensors *out = b->out;

    if (out->n_tensors == b->cap) {
        b->cap = b->cap ? b->cap * 2 : 256;
        out->tensors = mem_realloc(out->tensors, b->cap * sizeof *out->tensors);
    }
    out->tensors[out->n_tensors] = *t;
    out->tensors[out->n_tensors++].name = mem_strdup(name);
}

/* A tensor [experts, rows, cols] as one matrix for each expert. */
static bool append_experts(struct builder *b, const struct tensor *t, const char *pattern)
{
    struct tensor one = *t;
    char name[GGUF_HF_NAME_BYTES];
    uint64_t n = t->dims[0];

    if (t->n_dims != 3 || n > EXPERTS_MAX)
        return err_set(b->e, ERR_MODEL, 0,
                       "%u dimensions, the first of %llu; wanted up to %d experts", t->n_dims,
                       (unsigned long long)n, EXPERTS_MAX);
    one.n_dims = 2;
    one.dims[0] = t->dims[1];
    one.dims[1] = t->dims[2];
    one.bytes = t->bytes / n;
    for (uint64_t i = 0; i < n; i++) {
        snprintf(name, sizeof name, pattern, (unsigned)i);
        one.data = (const char *)t->data + i * one.bytes;
        append(b, &one, name);
    }
    return true;
}

static bool has(const char *name, const char *part)
{
    return strstr(name, part) != NULL;
}

static bool append_renamed(struct builder *b, struct tensor *t, const char *gguf_name)
{
    char name[GGUF_HF_NAME_BYTES];

    if (!gguf_family_rename(b->family, gguf_name, name)) {
        append(b, t, gguf_name);
        return true;
    }
    if (has(name, "%u"))
        return append_experts(b, t, name);
    if (has(name, ".shared_expert_gate.") && t->n_dims == 1) { /* a vector here, [1, dim] there */
        t->n_dims = 2;
        t->dims[1] = t->dims[0];
        t->dims[0] = 1;
    }
    if (b->family->paired_rows && (has(name, ".q_proj.") || has(name, ".k_proj."))) {
        if (t->n_dims == 0 || t->dims[0] % b->head_dim != 0)
            return err_set(b->e, ERR_MODEL, 0, "%llu rows; wanted heads of %u",
                           (unsigned long long)t->dims[0], b->head_dim);
        t->paired_rows = b->head_dim;
    }
    append(b, t, name);
    return true;
}

static bool add_tensor(struct builder *b, const struct gguf *g, uint32_t file,
                       const struct gguf_tensor *from)
{
    struct tensor t = { .file = file };

    set_type(&t, from->type);
    set_dims(&t, from);
    return (set_bytes(&t, from, g, b->e) && append_renamed(b, &t, from->name)) ||
           err_wrap(b->e, "'%s': tensor '%.80s'", g->name, from->name);
}

static int by_address(const void *a, const void *b)
{
    const struct tensor *x = a, *y = b;

    return x->data < y->data   ? -1
           : x->data > y->data ? 1
                               : (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

static bool check_overlaps(struct tensors *ts, struct err *e)
{
    struct tensor *t = ts->tensors;

    if (ts->n_tensors > 0)
        qsort(t, ts->n_tensors, sizeof *t, by_address);
    for (uint32_t i = 1; i < ts->n_tensors; i++)
        if ((const char *)t[i - 1].data + t[i - 1].bytes > (const char *)t[i].data)
            return err_set(e, ERR_MODEL, 0, "tensors '%.80s' and '%.80s' overlap", t[i - 1].name,
                           t[i].name);
    return true;
}

/* ---- the whole ---- */

/* Of one head: the key says it, or all heads together are as wide as the model. */
static bool read_head_dim(const struct gguf *g, uint32_t *head_dim, struct err *e)
{
    char key[GGUF_KEY_BYTES];
    uint32_t dim, heads;

    if (!gguf_model_key(g, "attention.key_length", key, e))
        return false;
    if (gguf_has(g, key)) {
        if (!gguf_model_count(g, "attention.key_length", head_dim, e))
            return false;
    } else {
        if (!gguf_model_count(g, "embedding_length", &dim, e) ||
            !gguf_model_count(g, "attention.head_count", &heads, e))
            return false;
        *head_dim = dim / heads;
    }
    return (*head_dim > 0 && *head_dim % 2 == 0) ||
           err_set(e, ERR_MODEL, 0, "heads of %u dimensions; wanted an even number", *head_dim);
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

static void take_files(struct tensors *out, struct gguf_set *set)
{
    out->files = mem_zalloc(set->n, sizeof *out->files);
    out->n_files = set->n;
    for (uint32_t i = 0; i < set->n; i++) {
        struct gguf *g = set->files[i];
        out->files[i] = (struct tensors_file){ .name = mem_strdup(base_name(g->name)),
                                               .bytes = g->bytes,
                                               .mtime_ns = g->mtime_ns,
                                               .map = g->map };
        g->map = NULL;
    }
}

static bool build(struct builder *b, const struct gguf_set *set)
{
    b->family = gguf_family_of(set->files[0], b->e);
    if (!b->family || !read_head_dim(set->files[0], &b->head_dim, b->e))
        return err_wrap(b->e, "'%s'", set->files[0]->name);
    for (uint32_t i = 0; i < set->n; i++)
        for (uint32_t k = 0; k < set->files[i]->n_tensors; k++)
            if (!add_tensor(b, set->files[i], i, &set->files[i]->tensors[k]))
                return false;
    return (check_overlaps(b->out, b->e) && tensors_sort(b->out, b->e)) ||
           err_wrap(b->e, "'%s'", set->files[0]->name);
}

struct tensors *gguf_tensors_new(struct gguf_set *set, struct err *e)
{
    struct builder b = { .out = mem_zalloc(1, sizeof *b.out), .e = e };

    take_files(b.out, set);
    if (build(&b, set))
        return b.out;
    tensors_close(b.out);
    return NULL;
}

struct tensors *gguf_tensors_open(const char *path, struct err *e)
{
    struct gguf_set set;
    struct tensors *ts;

    if (!gguf_set_open(&set, path, e))
        return NULL;
    ts = gguf_tensors_new(&set, e);
    gguf_set_close(&set);
    return ts;
}
