/* fields.c - the reader of field tables. */
#include "gateway/fields.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

void field_describe(const json_t *value, char *out, size_t n)
{
    switch (value ? json_typeof(value) : JSON_NULL) {
    case JSON_OBJECT:
        snprintf(out, n, "map");
        break;
    case JSON_ARRAY:
        snprintf(out, n, "sequence");
        break;
    case JSON_STRING:
        snprintf(out, n, "string \"%.60s\"", json_string_value(value));
        break;
    case JSON_INTEGER:
        snprintf(out, n, "integer `%" JSON_INTEGER_FORMAT "`", json_integer_value(value));
        break;
    case JSON_REAL:
        snprintf(out, n, "floating point `%g`", json_real_value(value));
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        snprintf(out, n, "boolean `%s`", json_is_true(value) ? "true" : "false");
        break;
    case JSON_NULL:
        snprintf(out, n, "null");
        break;
    }
}

static void describe_expected(const struct field *f, char *out, size_t n)
{
    static const char *const words[] = {
        [FIELD_BOOL] = "a boolean",  [FIELD_INT] = "an integer", [FIELD_NUMBER] = "a number",
        [FIELD_STRING] = "a string", [FIELD_ARRAY] = "an array", [FIELD_OBJECT] = "an object",
        [FIELD_ANY] = "a value",
    };

    if (f->type == FIELD_INT && f->max == INT64_MAX)
        snprintf(out, n, "an integer of at least %" PRId64, f->min);
    else if (f->type == FIELD_INT)
        snprintf(out, n, "an integer from %" PRId64 " to %" PRId64, f->min, f->max);
    else
        snprintf(out, n, "%s", words[f->type]);
}

static bool trouble(const struct field *f, enum field_trouble what, const json_t *value,
                    struct field_problem *p)
{
    p->what = what;
    snprintf(p->name, sizeof p->name, "%s", f->name);
    describe_expected(f, p->expected, sizeof p->expected);
    field_describe(value, p->found, sizeof p->found);
    return false;
}

/* The whole string as one finite number. */
static bool text_to_number(const char *s, double *out)
{
    char *end = NULL;
    double d;

    if (*s == '\0' || strpbrk(s, "xXnNiI \t\r\n")) /* no hex, no words, no spaces */
        return false;
    errno = 0;
    d = strtod(s, &end);
    if (*end || errno || !isfinite(d))
        return false;
    *out = d;
    return true;
}

static bool to_number(const json_t *value, enum field_mode mode, double *out)
{
    if (json_is_number(value)) {
        *out = json_number_value(value);
        return isfinite(*out);
    }
    if (mode == FIELDS_STRICT)
        return false;
    if (json_is_boolean(value)) {
        *out = json_is_true(value);
        return true;
    }
    return json_is_string(value) && text_to_number(json_string_value(value), out);
}

static bool to_int(const json_t *value, enum field_mode mode, int64_t *out)
{
    double d;

    if (json_is_integer(value)) {
        *out = json_integer_value(value);
        return true;
    }
    if (mode == FIELDS_STRICT || !to_number(value, mode, &d))
        return false;
    if (d != floor(d) || d < -9007199254740992.0 || d > 9007199254740992.0)
        return false;
    *out = (int64_t)d;
    return true;
}

static bool to_bool(const json_t *value, enum field_mode mode, bool *out)
{
    static const char *const yes[] = { "true", "1", "yes", "on", "y", "t" };
    static const char *const no[] = { "false", "0", "no", "off", "n", "f" };
    const char *s = json_string_value(value);

    if (json_is_boolean(value)) {
        *out = json_is_true(value);
        return true;
    }
    if (mode == FIELDS_STRICT)
        return false;
    if (json_is_number(value)) {
        double d = json_number_value(value);
        *out = d == 1;
        return d == 0 || d == 1;
    }
    for (size_t i = 0; s && i < sizeof yes / sizeof *yes; i++) {
        *out = strcasecmp(s, yes[i]) == 0;
        if (*out || strcasecmp(s, no[i]) == 0)
            return true;
    }
    return false;
}

static bool convert(const json_t *value, enum field_type type, enum field_mode mode,
                    struct field_value *out)
{
    switch (type) {
    case FIELD_BOOL:
        return to_bool(value, mode, &out->b);
    case FIELD_INT:
        if (!to_int(value, mode, &out->i))
            return false;
        out->d = (double)out->i;
        return true;
    case FIELD_NUMBER:
        return to_number(value, mode, &out->d);
    case FIELD_STRING:
        out->s = json_string_value(value);
        out->n = json_string_length(value);
        return out->s != NULL;
    case FIELD_ARRAY:
        return json_is_array(value);
    case FIELD_OBJECT:
        return json_is_object(value);
    case FIELD_ANY:
        break;
    }
    return true;
}

bool field_convert(const json_t *value, const struct field *f, enum field_mode mode,
                   struct field_value *out, struct field_problem *p)
{
    struct field_value v = { .is_set = true, .json = value };

    if (!convert(value, f->type, mode, &v))
        return trouble(f, FIELD_WRONG_TYPE, value, p);
    if (f->type == FIELD_INT && (v.i < f->min || v.i > f->max))
        return trouble(f, FIELD_OUT_OF_RANGE, value, p);
    *out = v;
    return true;
}

bool fields_read(const json_t *object, const struct field *table, size_t n, enum field_mode mode,
                 void *out, size_t out_bytes, struct field_problem *p)
{
    memset(out, 0, out_bytes);
    for (size_t i = 0; i < n; i++) {
        const struct field *f = &table[i];
        const json_t *value = json_object_get(object, f->name);

        if (!value || (json_is_null(value) && (f->flags & FIELD_NULL))) {
            if (f->flags & FIELD_REQUIRED)
                return trouble(f, FIELD_MISSING, value, p);
            continue;
        }
        if (!field_convert(value, f, mode, (struct field_value *)((char *)out + f->offset), p))
            return false;
    }
    return true;
}
