/* pattern.c - see pattern.h. */
#include "text/tokenizer/pattern.h"

#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "text/tokenizer/json_field.h"

bool pattern_init_regex(struct pattern *p, const char *regex, struct err *e)
{
    *p = (struct pattern){ .regex = regex_compile(regex, strlen(regex), 0, e) };
    return p->regex != NULL;
}

bool pattern_load(struct pattern *p, const json_t *json, struct err *e)
{
    const char *string, *regex;
    size_t n_string, n_regex;

    *p = (struct pattern){ 0 };
    if (!json_is_object(json))
        return err_set(e, ERR_MODEL, 0, "'pattern' is not an object with 'String' or 'Regex'");
    if (!json_field_str(json, "String", &string, &n_string, e) ||
        !json_field_str(json, "Regex", &regex, &n_regex, e))
        return false;
    if (regex)
        return pattern_init_regex(p, regex, e);
    if (!string)
        return err_set(e, ERR_MODEL, 0, "'pattern' has neither 'String' nor 'Regex'");
    *p = (struct pattern){ .string = mem_strndup(string, n_string), .n = n_string };
    return true;
}

void pattern_fini(struct pattern *p)
{
    free(p->string);
    regex_free(p->regex);
    *p = (struct pattern){ 0 };
}

enum regex_result pattern_search(const struct pattern *p, struct regex_scratch **scratch,
                                 const char *s, size_t n, size_t at, size_t *from, size_t *to)
{
    const char *found;

    if (p->regex) {
        if (!*scratch)
            *scratch = regex_scratch_new();
        return regex_search(p->regex, *scratch, s, n, at, from, to);
    }
    found = p->n > 0 ? memmem(s + at, n - at, p->string, p->n) : NULL;
    if (!found)
        return REGEX_NO_MATCH;
    *from = (size_t)(found - s);
    *to = *from + p->n;
    return REGEX_MATCH;
}
