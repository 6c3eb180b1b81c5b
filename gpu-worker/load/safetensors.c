/* safetensors.c - parse headers, check them, map files.  Called at start-up only. */
#include "gpu-worker/load/safetensors.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/file.h"
#include "common/json.h"
#include "common/mem.h"

enum { FILES_MAX = 4096, INDEX_BYTES_MAX = 64 << 20 };

struct type {
    const char *text;
    uint32_t bits;
    enum tensor_type type;
};

static const struct type types[] = {
    { "F32", 32, TENSOR_F32 },
    { "F16", 16, TENSOR_F16 },
    { "BF16", 16, TENSOR_BF16 },
    { "F64", 64, 0 },
    { "I64", 64, 0 },
    { "U64", 64, 0 },
    { "I32", 32, 0 },
    { "U32", 32, 0 },
    { "I16", 16, 0 },
    { "U16", 16, 0 },
    { "I8", 8, 0 },
    { "U8", 8, 0 },
    { "BOOL", 8, 0 },
    { "F8_E4M3", 8, 0 },
    { "F8_E5M2", 8, 0 },
    { "F8_E8M0", 8, 0 },
};

static const struct type *find_type(const char *text)
{
    for (size_t i = 0; text && i < sizeof types / sizeof *types; i++)
        if (strcmp(text, types[i].text) == 0)
            return &types[i];
    return NULL;
}

/* ---- one tensor of a header ---- */

static bool read_shape(const json_t *shape, struct tensor *t, struct err *e)
{
    if (!json_is_array(shape) || json_array_size(shape) > TENSORS_DIMS_MAX)
        return err_set(e, ERR_MODEL, 0, "\"shape\" must be a list of at most %d sizes",
                       TENSORS_DIMS_MAX);
    t->n_dims = (uint32_t)json_array_size(shape);
    for (uint32_t i = 0; i < t->n_dims; i++) {
        const json_t *v = json_array_get(shape, i);
        if (!json_is_integer(v) || json_integer_value(v) < 0)
            return err_set(e, ERR_MODEL, 0, "\"shape\"[%u] must be a size", i);
        t->dims[i] = (uint64_t)json_integer_value(v);
    }
    return true;
}

/* Bytes of the shape, or UINT64_MAX when they do not fit. */
static uint64_t shape_bytes(const struct tensor *t, uint32_t bits)
{
    uint64_t n = bits / 8;

    for (uint32_t i = 0; i < t->n_dims; i++)
        if (__builtin_mul_overflow(n, t->dims[i], &n))
            return UINT64_MAX;
    return n;
}

/* data_offsets: [begin, end) in the data, which has data_bytes. */
static bool read_tensor(const json_t *v, const char *data, uint64_t data_bytes, struct tensor *t,
                        struct err *e)
{
    const json_t *offsets = json_object_get(v, "data_offsets");
    const char *text = json_string_value(json_object_get(v, "dtype"));
    const struct type *type = find_type(text);
    json_int_t begin, end;

    if (!type)
        return err_set(e, ERR_MODEL, 0, "\"dtype\" %.20s is not known", text ? text : "(none)");
    t->type = type->type;
    snprintf(t->type_text, sizeof t->type_text, "%s", type->text);
    if (!read_shape(json_object_get(v, "shape"), t, e))
        return false;
    if (json_array_size(offsets) != 2 || !json_is_integer(json_array_get(offsets, 0)) ||
        !json_is_integer(json_array_get(offsets, 1)))
        return err_set(e, ERR_MODEL, 0, "\"data_offsets\" must be [begin, end]");
    begin = json_integer_value(json_array_get(offsets, 0));
    end = json_integer_value(json_array_get(offsets, 1));
    if (begin < 0 || end < begin || (uint64_t)end > data_bytes)
        return err_set(e, ERR_MODEL, 0,
                       "\"data_offsets\" [%lld, %lld] are outside the %llu bytes of data",
                       (long long)begin, (long long)end, (unsigned long long)data_bytes);
    t->bytes = (uint64_t)(end - begin);
    if (shape_bytes(t, type->bits) != t->bytes)
        return err_set(e, ERR_MODEL, 0, "shape and %s need %llu bytes, \"data_offsets\" hold %llu",
                       type->text, (unsigned long long)shape_bytes(t, type->bits),
                       (unsigned long long)t->bytes);
    t->data = data + begin;
    return true;
}

/* ---- one file ---- */

static int by_address(const void *a, const void *b)
{
    const struct tensor *x = a, *y = b;

    return x->data < y->data   ? -1
           : x->data > y->data ? 1
                               : (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

static bool check_overlaps(struct tensor *t, uint32_t n, struct err *e)
{
    if (n == 0)
        return true;
    qsort(t, n, sizeof *t, by_address);
    for (uint32_t i = 1; i < n; i++)
        if ((const char *)t[i - 1].data + t[i - 1].bytes > (const char *)t[i].data)
            return err_set(e, ERR_MODEL, 0, "tensors '%.80s' and '%.80s' overlap", t[i - 1].name,
                           t[i].name);
    return true;
}

static bool header_json(const unsigned char *bytes, size_t n, json_t **header, uint64_t *data_at,
                        struct err *e)
{
    uint64_t length = 0;

    if (n < 8)
        return err_set(e, ERR_MODEL, 0, "%zu bytes are too few for a header", n);
    for (int i = 7; i >= 0; i--)
        length = length << 8 | bytes[i];
    if (length > n - 8 || length > SAFETENSORS_HEADER_BYTES_MAX)
        return err_set(e, ERR_MODEL, 0, "header of %llu bytes in a file of %zu",
                       (unsigned long long)length, n);
    *header = json_parse((const char *)bytes + 8, length, e);
    if (!*header) {
        if (e)
            e->code = ERR_MODEL;
        return err_wrap(e, "header is not JSON");
    }
    *data_at = 8 + length;
    return true;
}

/* Append the tensors of one file's bytes. */
static bool add_file(struct tensors *ts, uint32_t file, const char *bytes, size_t n, struct err *e)
{
    uint32_t first = ts->n_tensors, count;
    json_t *header = NULL, *v;
    const char *name;
    uint64_t data_at;
    bool ok = false;

    if (!header_json((const unsigned char *)bytes, n, &header, &data_at, e))
        return false;
    if (!json_is_object(header)) {
        err_set(e, ERR_MODEL, 0, "header is not a JSON object");
        goto out;
    }
    count = first + (uint32_t)json_object_size(header);
    ts->tensors = mem_realloc(ts->tensors, count * sizeof *ts->tensors);
    json_object_foreach (header, name, v) {
        struct tensor t = { .file = file };
        if (strcmp(name, "__metadata__") == 0)
            continue;
        if (strlen(name) > SAFETENSORS_NAME_MAX || name[0] == '\0') {
            err_set(e, ERR_MODEL, 0, "a tensor's name of %zu bytes; 1..%d are allowed",
                    strlen(name), SAFETENSORS_NAME_MAX);
            goto out;
        }
        if (!read_tensor(v, bytes + data_at, n - data_at, &t, e)) {
            err_wrap(e, "tensor '%.80s'", name);
            goto out;
        }
        t.name = mem_strdup(name);
        ts->tensors[ts->n_tensors++] = t;
    }
    ok = check_overlaps(ts->tensors + first, ts->n_tensors - first, e);
out:
    json_decref(header);
    return ok;
}

static bool map_file(struct tensors *ts, const char *dir, uint32_t file, struct err *e)
{
    struct tensors_file *f = &ts->files[file];

    return tensors_map_file(ts, dir, file, e) &&
           (add_file(ts, file, f->map, f->bytes, e) || err_wrap(e, "'%s/%s'", dir, f->name));
}

/* ---- the index of a sharded model ---- */

/* A plain name: the index must not lead out of the directory. */
static bool file_name_is_plain(const char *name)
{
    size_t n = name ? strlen(name) : 0;

    return n > 0 && n <= 255 && !strchr(name, '/') && name[0] != '.';
}

static bool note_file(struct tensors *ts, const char *name, struct err *e)
{
    if (!file_name_is_plain(name))
        return err_set(e, ERR_MODEL, 0,
                       "\"weight_map\" names file '%.80s'; wanted a plain file name",
                       name ? name : "(no string)");
    for (uint32_t i = 0; i < ts->n_files; i++)
        if (strcmp(ts->files[i].name, name) == 0)
            return true;
    if (ts->n_files == FILES_MAX)
        return err_set(e, ERR_MODEL, 0, "more than %d files", FILES_MAX);
    ts->files = mem_realloc(ts->files, (ts->n_files + 1) * sizeof *ts->files);
    ts->files[ts->n_files++] = (struct tensors_file){ .name = mem_strdup(name) };
    return true;
}

static bool check_index(const struct tensors *ts, const json_t *map, struct err *e)
{
    const char *name;
    const json_t *v;

    json_object_foreach ((json_t *)map, name, v) {
        const struct tensor *t = tensors_find(ts, name);
        if (!t || strcmp(ts->files[t->file].name, json_string_value(v)) != 0)
            return err_set(e, ERR_MODEL, 0,
                           "tensor '%.80s' is not in '%.80s', where the index says", name,
                           json_string_value(v));
    }
    return true;
}

static bool open_sharded(struct tensors *ts, const char *dir, const char *index_path, struct err *e)
{
    json_t *index = json_parse_file(index_path, INDEX_BYTES_MAX, e), *map, *v;
    const char *name;
    bool ok = false;

    if (!index)
        return false;
    map = json_object_get(index, "weight_map");
    if (!json_is_object(map) || json_object_size(map) == 0) {
        err_set(e, ERR_MODEL, 0, "'%s': no \"weight_map\"", index_path);
        goto out;
    }
    json_object_foreach (map, name, v)
        if (!note_file(ts, json_string_value(v), e)) {
            err_wrap(e, "'%s'", index_path);
            goto out;
        }
    for (uint32_t i = 0; i < ts->n_files; i++)
        if (!map_file(ts, dir, i, e))
            goto out;
    ok = tensors_sort(ts, e) && (check_index(ts, map, e) || err_wrap(e, "'%s'", index_path));
out:
    json_decref(index);
    return ok;
}

struct tensors *safetensors_open(const char *dir, struct err *e)
{
    struct tensors *ts = mem_zalloc(1, sizeof *ts);
    char single[1200], index[1200];
    bool ok;

    snprintf(single, sizeof single, "%s/model.safetensors", dir);
    snprintf(index, sizeof index, "%s/model.safetensors.index.json", dir);
    if (file_exists(single))
        ok =
            note_file(ts, "model.safetensors", e) && map_file(ts, dir, 0, e) && tensors_sort(ts, e);
    else if (file_exists(index))
        ok = open_sharded(ts, dir, index, e);
    else
        ok = err_set(e, ERR_MODEL, 0,
                     "model directory '%s' has neither model.safetensors nor "
                     "model.safetensors.index.json",
                     dir);
    if (ok)
        return ts;
    tensors_close(ts);
    return NULL;
}

struct tensors *safetensors_parse(const char *name, const void *bytes, size_t n, struct err *e)
{
    struct tensors *ts = mem_zalloc(1, sizeof *ts);

    ts->files = mem_zalloc(1, sizeof *ts->files);
    ts->files[0] = (struct tensors_file){ .name = mem_strdup(name), .bytes = n };
    ts->n_files = 1;
    if ((add_file(ts, 0, bytes, n, e) && tensors_sort(ts, e)) || err_wrap(e, "'%s'", name))
        return ts;
    tensors_close(ts);
    return NULL;
}
