/* regex.h - the one door to PCRE2, for the patterns in tokenizer.json.
 *
 * Those patterns are written for Oniguruma (Ruby's syntax).  regex_compile() translates what the two
 * engines read differently (\s, \w, \v, \h, \u, ...) and refuses what cannot be translated faithfully, so a
 * compiled pattern matches as its author saw it match.
 *
 * Compiled code is shared by all threads; a regex_scratch serves one thread at a time.  Where the
 * system forbids memory that is both written and executed there is no JIT, and matching is slower
 * but the same. */
#ifndef LLMD_TEXT_REGEX_H
#define LLMD_TEXT_REGEX_H

#include <stdbool.h>
#include <stddef.h>

#include "common/err.h"

struct regex;
struct regex_scratch;

enum regex_flags {
    REGEX_NO_JIT = 1u << 0, /* interpret, as on a system that forbids JIT (for tests) */
};

enum regex_result {
    REGEX_MATCH,
    REGEX_NO_MATCH,
    REGEX_TOO_HARD, /* the engine's own limits were reached: this text and pattern take too long */
};

/* Returns, caller frees.  NULL and ERR_MODEL for a pattern we do not understand. */
struct regex *regex_compile(const char *pattern, size_t n, unsigned flags, struct err *e);
void regex_free(struct regex *re);
bool regex_is_jit(const struct regex *re);

struct regex_scratch *regex_scratch_new(void);
void regex_scratch_free(struct regex_scratch *scratch);

/* The first match in s[at..n), looking behind `at` where the pattern does; [*from, *to) is set on
 * REGEX_MATCH.  s must be valid UTF-8 and `at` the beginning of a character: neither is checked, and
 * PCRE2 reads wild memory when it is not so. */
enum regex_result regex_search(const struct regex *re, struct regex_scratch *scratch, const char *s,
                               size_t n, size_t at, size_t *from, size_t *to);

#endif
