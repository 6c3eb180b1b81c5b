/* json_reader.c - see json_reader.h. */
#include "gpu-worker/load/json_reader.h"

#include <stdio.h>

#include "common/buf.h"

bool json_reader_fail(const struct json_reader *r, const char *field, const char *wanted)
{
    const json_t *v = json_object_get(r->object, field);
    struct buf found = { 0 };
    bool shown = v != NULL && !json_is_object(v) && !json_is_array(v);

    if (shown)
        jw_json(&(struct json_writer){ .out = &found }, v);
    err_set(r->e, ERR_MODEL, 0, "%s: \"%s\" must be %s, found %.60s", r->file, field, wanted,
            shown ? found.data
            : v   ? (json_is_array(v) ? "an array" : "an object")
                  : "nothing");
    buf_fini(&found);
    return false;
}

const json_t *json_reader_field(const struct json_reader *r, const char *field)
{
    const json_t *v = json_object_get(r->object, field);

    return v && !json_is_null(v) ? v : NULL;
}

bool json_reader_count(const struct json_reader *r, const char *field, uint32_t min, uint32_t max,
                       uint32_t *out)
{
    const json_t *v = json_reader_field(r, field);
    json_int_t n = json_integer_value(v);
    char wanted[48];

    if (v && json_is_integer(v) && n >= (json_int_t)min && n <= (json_int_t)max) {
        *out = (uint32_t)n;
        return true;
    }
    snprintf(wanted, sizeof wanted, "a whole number in %u..%u", min, max);
    return json_reader_fail(r, field, wanted);
}

bool json_reader_count_or(const struct json_reader *r, const char *field, uint32_t max,
                          uint32_t absent, uint32_t *out)
{
    if (json_reader_field(r, field))
        return json_reader_count(r, field, 1, max, out);
    *out = absent;
    return true;
}

bool json_reader_number(const struct json_reader *r, const char *field, double min, double max,
                        double *out)
{
    const json_t *v = json_reader_field(r, field);
    double n = json_number_value(v);
    char wanted[80];

    if (v && json_is_number(v) && n >= min && n <= max) {
        *out = n;
        return true;
    }
    snprintf(wanted, sizeof wanted, "a number in %g..%g", min, max);
    return json_reader_fail(r, field, wanted);
}

bool json_reader_number_or(const struct json_reader *r, const char *field, double min, double max,
                           double absent, double *out)
{
    if (json_reader_field(r, field))
        return json_reader_number(r, field, min, max, out);
    *out = absent;
    return true;
}

bool json_reader_bool_or(const struct json_reader *r, const char *field, bool absent, bool *out)
{
    const json_t *v = json_reader_field(r, field);

    if (v && !json_is_boolean(v))
        return json_reader_fail(r, field, "true or false");
    *out = v ? json_is_true(v) : absent;
    return true;
}
