/* json_field.c - see json_field.h. */
#include "text/tokenizer/json_field.h"

static const json_t *member(const json_t *object, const char *key)
{
    const json_t *v = json_object_get(object, key);

    return json_is_null(v) ? NULL : v;
}

bool json_field_bool(const json_t *object, const char *key, bool otherwise, bool *v, struct err *e)
{
    const json_t *found = member(object, key);

    if (found && !json_is_boolean(found))
        return err_set(e, ERR_MODEL, 0, "'%s' is not true or false", key);
    *v = found ? json_is_true(found) : otherwise;
    return true;
}

bool json_field_str(const json_t *object, const char *key, const char **v, size_t *n, struct err *e)
{
    const json_t *found = member(object, key);

    if (found && !json_is_string(found))
        return err_set(e, ERR_MODEL, 0, "'%s' is not a string", key);
    *v = found ? json_string_value(found) : NULL;
    *n = found ? json_string_length(found) : 0;
    return true;
}

bool json_field_need_str(const json_t *object, const char *key, const char **v, size_t *n,
                         struct err *e)
{
    if (!json_field_str(object, key, v, n, e))
        return false;
    return *v || err_set(e, ERR_MODEL, 0, "'%s' is missing", key);
}

const char *json_field_type(const json_t *object, struct err *e)
{
    const json_t *type = json_object_get(object, "type");

    if (!json_is_string(type)) {
        err_set(e, ERR_MODEL, 0, "a component has no 'type'");
        return NULL;
    }
    return json_string_value(type);
}
