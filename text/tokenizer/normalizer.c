/* normalizer.c - the steps: normal forms, lower case, replace, prepend, strip. */
#include "text/tokenizer/normalizer.h"

#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "common/utf8.h"
#include "text/tokenizer/json_field.h"
#include "text/tokenizer/sp_normalizer.h"
#include "text/tokenizer/unicode.h"

enum { STEPS_MAX = 16 };

enum step_kind { STEP_FORM, STEP_LOWERCASE, STEP_REPLACE, STEP_PREPEND, STEP_STRIP };

struct normalizer_step {
    enum step_kind kind;
    enum unicode_form form;
    struct pattern pattern; /* STEP_REPLACE */
    char *content;          /* STEP_REPLACE, STEP_PREPEND: n_content bytes */
    size_t n_content;
    bool left, right; /* STEP_STRIP */
};

/* -- loading ------------------------------------------------------------------------------- */

static bool load_content(struct normalizer_step *step, const json_t *json, const char *key,
                         struct err *e)
{
    const char *s;

    if (!json_field_need_str(json, key, &s, &step->n_content, e))
        return false;
    step->content = mem_strndup(s, step->n_content);
    return true;
}

static bool load_form(struct normalizer_step *step, const char *type)
{
    static const char *const names[] = { [UNICODE_NFC] = "NFC",
                                         [UNICODE_NFD] = "NFD",
                                         [UNICODE_NFKC] = "NFKC",
                                         [UNICODE_NFKD] = "NFKD" };

    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(type, names[i]) == 0) {
            step->kind = STEP_FORM;
            step->form = (enum unicode_form)i;
            return true;
        }
    return false;
}

static bool load_step(struct normalizer_step *step, const char *type, const json_t *json,
                      struct err *e)
{
    *step = (struct normalizer_step){ 0 };
    if (load_form(step, type))
        return true;
    if (strcmp(type, "Lowercase") == 0) {
        step->kind = STEP_LOWERCASE;
        return true;
    }
    if (strcmp(type, "Replace") == 0) {
        step->kind = STEP_REPLACE;
        return pattern_load(&step->pattern, json_object_get(json, "pattern"), e) &&
               load_content(step, json, "content", e);
    }
    if (strcmp(type, "Prepend") == 0) {
        step->kind = STEP_PREPEND;
        return load_content(step, json, "prepend", e);
    }
    if (strcmp(type, "Strip") == 0) {
        step->kind = STEP_STRIP;
        return json_field_bool(json, "strip_left", true, &step->left, e) &&
               json_field_bool(json, "strip_right", true, &step->right, e);
    }
    return err_set(e, ERR_MODEL, 0, "type '%s' is not supported", type);
}

static bool load_any(struct normalizer *nz, const json_t *json, struct err *e)
{
    const char *type = json_field_type(json, e);
    const json_t *list, *item;
    size_t i;

    if (!type)
        return false;
    if (strcmp(type, "Sequence") != 0) {
        if (nz->n_steps == STEPS_MAX)
            return err_set(e, ERR_MODEL, 0, "more than %d steps", STEPS_MAX);
        return load_step(&nz->steps[nz->n_steps++], type, json, e);
    }
    list = json_object_get(json, "normalizers");
    if (!json_is_array(list))
        return err_set(e, ERR_MODEL, 0, "a Sequence has no list 'normalizers'");
    json_array_foreach (list, i, item) {
        if (!load_any(nz, item, e))
            return false;
    }
    return true;
}

bool normalizer_load(struct normalizer *nz, const json_t *json, struct err *e)
{
    *nz = (struct normalizer){ 0 };
    if (!json || json_is_null(json))
        return true;
    nz->steps = mem_zalloc(STEPS_MAX, sizeof *nz->steps);
    return load_any(nz, json, e) || err_wrap(e, "normalizer");
}

void normalizer_fini(struct normalizer *nz)
{
    for (size_t i = 0; i < nz->n_steps; i++) {
        pattern_fini(&nz->steps[i].pattern);
        free(nz->steps[i].content);
    }
    free(nz->steps);
    sp_normalizer_free(nz->sentencepiece);
    *nz = (struct normalizer){ 0 };
}

void normalizer_scratch_fini(struct normalizer_scratch *s)
{
    text_rewrite_fini(&s->text[0]);
    text_rewrite_fini(&s->text[1]);
    regex_scratch_free(s->regex);
    *s = (struct normalizer_scratch){ 0 };
}

/* -- running ------------------------------------------------------------------------------- */

static void lower(const struct text_view *v, struct text_rewrite *out)
{
    for (size_t i = 0, len; i < v->n; i += len) {
        uint32_t to[2];
        size_t n = unicode_lower(utf8_decode(v->s + i, &len), to);

        for (size_t k = 0; k < n; k++) {
            char bytes[4];
            text_rewrite_put(out, bytes, utf8_encode(to[k], bytes), text_view_origin(v, i));
        }
    }
}

static bool replace(const struct normalizer_step *step, const struct text_view *v,
                    struct regex_scratch **regex, struct text_rewrite *out, struct err *e)
{
    size_t done = 0, at = 0, from, to;
    enum regex_result result;

    while (at <= v->n && (result = pattern_search(&step->pattern, regex, v->s, v->n, at, &from,
                                                  &to)) != REGEX_NO_MATCH) {
        if (result == REGEX_TOO_HARD)
            return err_set(e, ERR_INPUT, 0,
                           "the text takes the tokenizer's regular expression too long");
        text_rewrite_copy(out, v, done, from);
        text_rewrite_put(out, step->content, step->n_content, text_view_origin(v, from));
        done = at = to;
        if (from == to) /* an empty match: go on behind the next character */
            at += at < v->n ? utf8_length(v->s[at]) : 1;
    }
    text_rewrite_copy(out, v, done, v->n);
    return true;
}

static struct text_view strip(const struct normalizer_step *step, const struct text_view *v)
{
    size_t from = 0, to = v->n, len;

    while (step->left && from < to && unicode_is_space(utf8_decode(v->s + from, &len)))
        from += len;
    while (step->right && to > from) {
        size_t last = to - 1;
        while (utf8_is_continuation(v->s[last]))
            last--;
        if (!unicode_is_space(utf8_decode(v->s + last, &len)))
            break;
        to = last;
    }
    return text_view_cut(v, from, to);
}

static bool is_ascii(const struct text_view *v)
{
    for (size_t i = 0; i < v->n; i++)
        if ((unsigned char)v->s[i] >= 0x80)
            return false;
    return true;
}

static bool run_step(const struct normalizer_step *step, const struct text_view *v,
                     struct regex_scratch **regex, struct text_rewrite *out, struct err *e)
{
    switch (step->kind) {
    case STEP_FORM:
        unicode_normalize(step->form, v, out);
        return true;
    case STEP_LOWERCASE:
        lower(v, out);
        return true;
    case STEP_REPLACE:
        return replace(step, v, regex, out, e);
    default:
        if (v->n > 0)
            text_rewrite_put(out, step->content, step->n_content, text_view_origin(v, 0));
        text_rewrite_copy(out, v, 0, v->n);
        return true;
    }
}

bool normalizer_run(const struct normalizer *nz, struct normalizer_scratch *scratch, bool tracks,
                    struct text_view *text, struct err *e)
{
    unsigned turn = 0;

    for (size_t i = 0; i < nz->n_steps; i++) {
        const struct normalizer_step *step = &nz->steps[i];
        struct text_rewrite *out = &scratch->text[turn];

        if (step->kind == STEP_STRIP) {
            *text = strip(step, text);
            continue;
        }
        if (step->kind == STEP_FORM && is_ascii(text))
            continue;
        text_rewrite_reset(out, tracks);
        if (!run_step(step, text, &scratch->regex, out, e))
            return false;
        *text = text_rewrite_view(out, text);
        turn ^= 1;
    }
    if (nz->sentencepiece) {
        struct text_rewrite *out = &scratch->text[turn];
        text_rewrite_reset(out, tracks);
        sp_normalizer_run(nz->sentencepiece, text, out);
        *text = text_rewrite_view(out, text);
    }
    return true;
}
