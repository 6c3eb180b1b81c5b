/* post_processor.c - TemplateProcessing, ByteLevel and a Sequence of them; one text, never a pair. */
#include "text/tokenizer/post_processor.h"

#include <string.h>

#include "text/tokenizer/json_field.h"

static bool add_ids(const json_t *ids, int32_t *list, size_t *n, struct err *e)
{
    const json_t *id;
    size_t i;

    if (!json_is_array(ids))
        return err_set(e, ERR_MODEL, 0, "a special token of the template has no 'ids'");
    json_array_foreach (ids, i, id) {
        json_int_t v = json_integer_value(id);
        if (!json_is_integer(id) || v < 0 || v > INT32_MAX)
            return err_set(e, ERR_MODEL, 0, "a special token of the template has a bad id");
        if (*n == POST_PROCESSOR_IDS_MAX)
            return err_set(e, ERR_MODEL, 0, "more than %d special tokens on one side",
                           POST_PROCESSOR_IDS_MAX);
        list[(*n)++] = (int32_t)v;
    }
    return true;
}

static bool load_template(struct post_processor *p, const json_t *json, struct err *e)
{
    const json_t *single = json_object_get(json, "single");
    const json_t *tokens = json_object_get(json, "special_tokens");
    const json_t *item;
    bool seen_text = false;
    size_t i;

    if (!json_is_array(single))
        return err_set(e, ERR_MODEL, 0, "TemplateProcessing has no list 'single'");
    json_array_foreach (single, i, item) {
        const json_t *special = json_object_get(item, "SpecialToken");
        const char *name = json_string_value(json_object_get(special, "id"));

        if (!special) {
            if (!json_object_get(item, "Sequence") || seen_text)
                return err_set(e, ERR_MODEL, 0, "TemplateProcessing: one Sequence expected");
            seen_text = true;
            continue;
        }
        if (!name)
            return err_set(e, ERR_MODEL, 0, "TemplateProcessing: a SpecialToken has no 'id'");
        if (!add_ids(json_object_get(json_object_get(tokens, name), "ids"),
                     seen_text ? p->after : p->before, seen_text ? &p->n_after : &p->n_before, e))
            return err_wrap(e, "TemplateProcessing: '%.40s'", name);
    }
    return seen_text || err_set(e, ERR_MODEL, 0, "TemplateProcessing: no Sequence");
}

static bool load_any(struct post_processor *p, const json_t *json, struct err *e)
{
    const char *type = json_field_type(json, e);
    const json_t *list, *item;
    size_t i;

    if (!type)
        return false;
    if (strcmp(type, "TemplateProcessing") == 0) {
        if (p->n_before > 0 || p->n_after > 0)
            return err_set(e, ERR_MODEL, 0, "two TemplateProcessing");
        return load_template(p, json, e);
    }
    if (strcmp(type, "ByteLevel") == 0)
        return json_field_bool(json, "trim_offsets", true, &p->trims_spans, e);
    if (strcmp(type, "Sequence") != 0)
        return err_set(e, ERR_MODEL, 0, "type '%s' is not supported", type);
    list = json_object_get(json, "processors");
    if (!json_is_array(list))
        return err_set(e, ERR_MODEL, 0, "a Sequence has no list 'processors'");
    json_array_foreach (list, i, item) {
        if (!load_any(p, item, e))
            return false;
    }
    return true;
}

bool post_processor_load(struct post_processor *p, const json_t *json, struct err *e)
{
    *p = (struct post_processor){ 0 };
    if (!json || json_is_null(json))
        return true;
    return load_any(p, json, e) || err_wrap(e, "post_processor");
}
