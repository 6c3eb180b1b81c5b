/* fields.c - read TGI's bodies in its deserializer's words. */
#include "gateway/tgi/fields.h"

#include <stdio.h>
#include <string.h>

#include "common/json_wide.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))

#define FIELD_OWNER struct tgi_body
static const struct field body_fields[] = { TGI_BODY(FIELD_ROW) };
#undef FIELD_OWNER
#define FIELD_OWNER struct tgi_parameters
static const struct field parameter_fields[] = { TGI_PARAMETERS(FIELD_ROW) };
static const struct field old_parameter_fields[] = { TGI_PARAMETERS_0_9_3(FIELD_ROW) };
#undef FIELD_OWNER
FIELD_TABLE(tgi_body_fields, "", body_fields);
FIELD_TABLE(tgi_parameter_fields, "parameters", parameter_fields);
FIELD_TABLE(tgi_old_parameter_fields, "parameters", old_parameter_fields);

/* What a Rust type is called where a value is not one. */
static const char *rust_type(const char *name, const char *otherwise)
{
    static const char *const types[][2] = {
        { "best_of", "usize" },
        { "temperature", "f32" },
        { "repetition_penalty", "f32" },
        { "frequency_penalty", "f32" },
        { "top_k", "i32" },
        { "top_p", "f32" },
        { "typical_p", "f32" },
        { "max_new_tokens", "u32" },
        { "stop", "a sequence" },
        { "truncate", "usize" },
        { "seed", "u64" },
        { "top_n_tokens", "u32" },
        { "parameters", "struct GenerateParameters" },
    };

    for (size_t i = 0; i < COUNT(types); i++)
        if (strcmp(types[i][0], name) == 0)
            return types[i][1];
    return otherwise;
}

bool tgi_fields_fault(struct fault *f, const char *prefix, const struct field_problem *p)
{
    if (p->what == FIELD_MISSING && strcmp(p->found, "null") == 0)
        return fault_set(f, FAULT_SCHEMA, p->name, "%smissing field `%s`", prefix, p->name);
    return fault_set(f, FAULT_SCHEMA, p->name, "%s%s: invalid %s: %s, expected %s", prefix, p->name,
                     p->what == FIELD_OUT_OF_RANGE ? "value" : "type", p->found,
                     rust_type(p->name, p->expected));
}

bool tgi_fields_expect_object(const json_t *root, const char *type, struct fault *f)
{
    char found[96];

    if (json_is_object(root))
        return true;
    field_describe(root, found, sizeof found);
    return fault_set(f, FAULT_SCHEMA, "", "invalid type: %s, expected struct %s", found, type);
}

static bool check_stops_are_strings(const json_t *stop, struct fault *f)
{
    static const struct field element = { .name = "stop", .type = FIELD_STRING };

    for (size_t i = 0; i < json_array_size(stop); i++) {
        struct field_problem p;
        struct field_value v;
        if (!field_convert(json_array_get(stop, i), &element, FIELDS_STRICT, &v, &p))
            return fault_set(f, FAULT_SCHEMA, "stop",
                             "parameters.stop[%zu]: invalid type: %s, expected a string", i,
                             p.found);
    }
    return true;
}

static bool read_seed(const char *bytes, size_t n, struct tgi_parameters *p, struct fault *f)
{
    static const char *const path[] = { "parameters", "seed", NULL };
    const json_t *seed = p->seed.json;
    bool is_negative = json_is_integer(seed) && json_integer_value(seed) < 0;
    char found[96];

    if (json_is_integer(seed) && !is_negative) {
        p->seed_value = (uint64_t)json_integer_value(seed);
        return true;
    }
    if (json_is_real(seed) && json_wide_uint(bytes, n, path, &p->seed_value))
        return true;
    field_describe(seed, found, sizeof found);
    return fault_set(f, FAULT_SCHEMA, "seed", "parameters.seed: invalid %s: %s, expected u64",
                     is_negative ? "value" : "type", found);
}

static bool read_parameters(const json_t *object, const char *bytes, size_t n, bool is_old,
                            struct tgi_parameters *p, struct fault *f)
{
    const struct field *table = is_old ? old_parameter_fields : parameter_fields;
    size_t n_fields = is_old ? COUNT(old_parameter_fields) : COUNT(parameter_fields);
    struct field_problem problem;

    if (!fields_read(object, table, n_fields, FIELDS_STRICT, p, sizeof *p, &problem))
        return tgi_fields_fault(f, "parameters.", &problem);
    return (!p->stop.is_set || check_stops_are_strings(p->stop.json, f)) &&
           (!p->seed.is_set || read_seed(bytes, n, p, f));
}

bool tgi_fields_read(const json_t *root, const char *bytes, size_t n, bool is_old,
                     struct tgi_body *body, struct tgi_parameters *p, struct fault *f)
{
    struct field_problem problem;

    memset(p, 0, sizeof *p);
    if (!tgi_fields_expect_object(root, "GenerateRequest", f))
        return false;
    if (!fields_read(root, body_fields, COUNT(body_fields), FIELDS_STRICT, body, sizeof *body,
                     &problem))
        return tgi_fields_fault(f, "", &problem);
    return !body->parameters.is_set ||
           read_parameters(body->parameters.json, bytes, n, is_old, p, f);
}
