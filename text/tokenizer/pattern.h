/* pattern.h - what a normalizer or pre-tokenizer looks for: a plain string or a regular expression. */
#ifndef LLMD_TEXT_PATTERN_H
#define LLMD_TEXT_PATTERN_H

#include "common/json.h"
#include "text/tokenizer/regex.h"

struct pattern {
    char *string; /* n bytes; NULL: the regular expression */
    size_t n;
    struct regex *regex;
};

/* From {"String": "..."} or {"Regex": "..."}. */
bool pattern_load(struct pattern *p, const json_t *json, struct err *e);
bool pattern_init_regex(struct pattern *p, const char *regex, struct err *e);
void pattern_fini(struct pattern *p); /* a zeroed struct is fine */

/* The first match in s[at..n); see regex_search().  *scratch is made when it is first needed. */
enum regex_result pattern_search(const struct pattern *p, struct regex_scratch **scratch,
                                 const char *s, size_t n, size_t at, size_t *from, size_t *to);

#endif
