/* quantization.c - see quantization.h. */
#include "gpu-worker/load/quantization.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/file.h"
#include "gpu-worker/load/json_reader.h"

enum { BYTES_MAX = 4 << 20, GROUP_MAX = 1 << 20, BLOCK_MAX = 1 << 16 };

static const struct {
    const char *word;
    enum quantization_method method;
} methods[] = {
    { "awq", QUANTIZATION_AWQ },
    { "gptq", QUANTIZATION_GPTQ },
    { "compressed-tensors", QUANTIZATION_COMPRESSED_TENSORS },
    { "fp8", QUANTIZATION_FP8 },
    { "fbgemm_fp8", QUANTIZATION_FP8 },
};

const char *quantization_name(enum quantization_method m)
{
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++)
        if (methods[i].method == m)
            return methods[i].word;
    return "none";
}

void quantization_describe(const struct quantization *q, char text[96])
{
    int n = snprintf(text, 96, "%s", quantization_name(q->method));

    if (q->bits > 0)
        n += snprintf(text + n, 96 - (size_t)n, ", %u bits", q->bits);
    if (q->bits > 0 && q->group_size > 0)
        n += snprintf(text + n, 96 - (size_t)n, ", groups of %u", q->group_size);
    if (q->bits > 0 && q->group_size == 0)
        n += snprintf(text + n, 96 - (size_t)n, ", whole rows");
    if (q->block_rows > 0)
        n +=
            snprintf(text + n, 96 - (size_t)n, ", blocks of %u x %u", q->block_rows, q->block_cols);
    snprintf(text + n, 96 - (size_t)n, "%s%s", q->gemv ? ", gemv" : "",
             q->desc_act ? ", desc_act" : "");
}

/* ---- fields ---- */

/* The word of that field is one of the list, NULL at its end, whatever its case; absent: the first.  Its index. */
static bool read_word(const struct json_reader *r, const char *field, const char *const *words,
                      const char *wanted, uint32_t *index)
{
    const json_t *v = json_reader_field(r, field);
    const char *found = json_string_value(v);

    for (*index = 0; found && words[*index]; ++*index)
        if (strcasecmp(found, words[*index]) == 0)
            return true;
    *index = 0;
    return !v || json_reader_fail(r, field, wanted);
}

static const char *one_of(const struct json_reader *r, const char *name, const char *older)
{
    return json_reader_field(r, older) && !json_reader_field(r, name) ? older : name;
}

/* -1 is all of a row. */
static bool read_group_size(const struct json_reader *r, const char *field, uint32_t *out)
{
    const json_t *v = json_reader_field(r, field);

    *out = 0;
    if (json_is_integer(v) && json_integer_value(v) == -1)
        return true;
    return json_reader_count(r, field, 1, GROUP_MAX, out);
}

/* ---- the methods ---- */

static bool parse_awq(const struct json_reader *r, struct quantization *q)
{
    static const char *const versions[] = { "gemm", "gemv", NULL };
    const char *bits = one_of(r, "bits", "w_bit");
    uint32_t version;
    bool zero_point;

    if (!json_reader_count(r, bits, 4, 4, &q->bits) ||
        !read_group_size(r, one_of(r, "group_size", "q_group_size"), &q->group_size) ||
        !json_reader_bool_or(r, "zero_point", true, &zero_point) ||
        !read_word(r, "version", versions, "\"gemm\" or \"gemv\"", &version))
        return false;
    q->gemv = version == 1;
    return zero_point || json_reader_fail(r, "zero_point", "true");
}

static bool parse_gptq(const struct json_reader *r, struct quantization *q)
{
    static const char *const formats[] = { "gptq", "gptq_v2", NULL };
    const char *format = one_of(r, "checkpoint_format", "format");
    uint32_t version;
    bool marlin;

    if (!json_reader_count(r, "bits", 4, 8, &q->bits) ||
        !read_group_size(r, "group_size", &q->group_size) ||
        !json_reader_bool_or(r, "desc_act", false, &q->desc_act) ||
        !json_reader_bool_or(r, "is_marlin_format", false, &marlin) ||
        !read_word(r, format, formats, "\"gptq\" or \"gptq_v2\"", &version))
        return false;
    if (marlin)
        return json_reader_fail(r, "is_marlin_format", "false");
    q->zeros_less_one = version == 0;
    return q->bits == 4 || q->bits == 8 || json_reader_fail(r, "bits", "4 or 8");
}

static bool parse_compressed_tensors(const struct json_reader *r, struct quantization *q)
{
    static const char *const formats[] = { "pack-quantized",
                                           "int-quantized",
                                           "float-quantized",
                                           "naive-quantized",
                                           "mixed-precision",
                                           "dense",
                                           NULL };
    uint32_t format;

    (void)q;
    return read_word(r, "format", formats,
                     "\"pack-quantized\", \"int-quantized\", \"float-quantized\" or "
                     "\"naive-quantized\"",
                     &format);
}

static bool parse_fp8(const struct json_reader *r, struct quantization *q)
{
    static const char *const kinds[] = { "e4m3", "float8_e4m3fn", NULL };
    const json_t *block = json_reader_field(r, "weight_block_size");
    json_int_t rows = json_integer_value(json_array_get(block, 0));
    json_int_t cols = json_integer_value(json_array_get(block, 1));
    uint32_t kind;

    if (!read_word(r, "fmt", kinds, "\"e4m3\"", &kind))
        return false;
    if (!block)
        return true;
    if (json_array_size(block) != 2 || rows < 1 || rows > BLOCK_MAX || cols < 1 || cols > BLOCK_MAX)
        return json_reader_fail(r, "weight_block_size", "two sizes of 1..65536");
    q->block_rows = (uint32_t)rows;
    q->block_cols = (uint32_t)cols;
    return true;
}

static bool parse_method(const struct json_reader *r, struct quantization *q)
{
    switch (q->method) {
    case QUANTIZATION_AWQ:
        return parse_awq(r, q);
    case QUANTIZATION_GPTQ:
        return parse_gptq(r, q);
    case QUANTIZATION_COMPRESSED_TENSORS:
        return parse_compressed_tensors(r, q);
    case QUANTIZATION_FP8:
        return parse_fp8(r, q);
    case QUANTIZATION_NONE:
        break;
    }
    return true;
}

/* ---- where it stands ---- */

static bool find_method(const struct json_reader *r, struct quantization *q)
{
    const char *word = json_string_value(json_reader_field(r, "quant_method"));

    for (size_t i = 0; word && i < sizeof methods / sizeof *methods; i++)
        if (strcasecmp(word, methods[i].word) == 0) {
            q->method = methods[i].method;
            return true;
        }
    return err_set(r->e, ERR_MODEL, 0,
                   "%s: \"quant_method\" %.40s is not read; this build reads awq, gptq, "
                   "compressed-tensors and fp8",
                   r->file, word ? word : "(none)");
}

bool quantization_parse(struct quantization *q, const struct json_reader *config)
{
    const json_t *v = json_reader_field(config, "quantization_config");
    struct json_reader r = { "config.json: quantization_config", v, config->e };
    struct quantization out = { 0 };

    if (v && !json_is_object(v))
        return json_reader_fail(config, "quantization_config", "an object");
    if (v && (!find_method(&r, &out) || !parse_method(&r, &out)))
        return false;
    *q = out;
    return true;
}

static bool is_object(const json_t *v, const char *file, struct err *e)
{
    if (v)
        return json_is_object(v) || err_set(e, ERR_MODEL, 0, "%s: must be a JSON object", file);
    if (e)
        e->code = ERR_MODEL;
    return err_wrap(e, "%s", file);
}

/* Neither file names its method, but for its own name. */
bool quantization_parse_file(struct quantization *q, const char *file, const char *bytes, size_t n,
                             struct err *e)
{
    json_t *v = json_parse(bytes, n, e);
    struct json_reader r = { file, v, e };
    struct quantization out = { .method = strcmp(file, "quant_config.json") == 0
                                              ? QUANTIZATION_AWQ
                                              : QUANTIZATION_GPTQ };
    bool ok = is_object(v, file, e) &&
              (!json_reader_field(&r, "quant_method") || find_method(&r, &out)) &&
              parse_method(&r, &out);

    json_decref(v);
    if (ok)
        *q = out;
    return ok;
}

bool quantization_read_beside(struct quantization *q, const char *dir, char **bytes, size_t *n,
                              struct err *e)
{
    static const char *const files[] = { "quantize_config.json", "quant_config.json" };
    char path[1200];

    *bytes = NULL;
    *n = 0;
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, files[i]);
        if (!file_exists(path))
            continue;
        if (!file_read(path, BYTES_MAX, bytes, n, e))
            return false;
        if (quantization_parse_file(q, files[i], *bytes, *n, e))
            return true;
        free(*bytes);
        *bytes = NULL;
        return false;
    }
    return true;
}

bool quantization_read(struct quantization *q, const char *dir, struct err *e)
{
    char path[1200], *bytes = NULL;
    json_t *config;
    size_t n;
    bool ok;

    *q = (struct quantization){ 0 };
    snprintf(path, sizeof path, "%s/config.json", dir);
    if (!file_exists(path))
        return true;
    config = json_parse_file(path, BYTES_MAX, e);
    ok = is_object(config, "config.json", e) &&
         quantization_parse(q, &(struct json_reader){ "config.json", config, e }) &&
         (q->method != QUANTIZATION_NONE || quantization_read_beside(q, dir, &bytes, &n, e));
    json_decref(config);
    free(bytes);
    return ok || err_wrap(e, "model directory '%s'", dir);
}
