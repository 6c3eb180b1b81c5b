/* regex.c - Oniguruma patterns on PCRE2.
 *
 * The translation is a walk over the pattern that copies it and replaces single escapes.  It refuses:
 * classes inside classes and "&&" (PCRE2 10.42 reads them as plain characters), {n,m}+ (possessive
 * here, a repeated repetition there), POSIX brackets, word boundaries, back references, and options
 * other than i. */
#include "text/tokenizer/regex.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "common/buf.h"
#include "common/mem.h"

enum { JIT_STACK_START = 32 * 1024, JIT_STACK_MAX = 1024 * 1024, PATTERN_BYTES_MAX = 64 * 1024 };

struct regex {
    pcre2_code *code;
    bool jit;
};

struct regex_scratch {
    pcre2_match_data *match;
    pcre2_match_context *context;
    pcre2_jit_stack *jit_stack; /* made when a pattern outgrows the machine stack */
};

/* White_Space and \w of Unicode, as the inside of a class.  PCRE2's own \s has U+180E too, and
 * its own \w no marks. */
#define SPACE_IN_CLASS                                                                             \
    "\\x{9}-\\x{d} \\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}" \
    "\\x{3000}"
#define NOT_SPACE_IN_CLASS                                                                         \
    "\\x{0}-\\x{8}\\x{e}-\\x{1f}\\x{21}-\\x{84}\\x{86}-\\x{9f}\\x{a1}-\\x{167f}\\x{1681}-"         \
    "\\x{1fff}\\x{200b}-\\x{2027}\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}\\x{"    \
    "3001}-\\x{10ffff}"
#define WORD_IN_CLASS "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}"

/* A pattern on its way through the translation. */
struct walk {
    const char *s;
    size_t n, at;
    bool in_class;
    struct buf out;
};

static bool refuse(const struct walk *w, struct err *e, const char *what)
{
    return err_set(e, ERR_MODEL, 0, "regular expression '%.120s': %s at byte %zu is not supported",
                   w->s, what, w->at);
}

/* \uHHHH */
static bool put_code_point(struct walk *w, struct err *e)
{
    if (w->n - w->at < 6 || strspn(w->s + w->at + 2, "0123456789abcdefABCDEF") < 4)
        return refuse(w, e, "\\u without four digits");
    buf_printf(&w->out, "\\x{%.4s}", w->s + w->at + 2);
    w->at += 6;
    return true;
}

/* \p{..} and \x{..}: as they are, braces included. */
static bool put_braced(struct walk *w, struct err *e)
{
    const char *open = w->s + w->at + 2;
    const char *close;

    if (*open != '{') {
        if (w->s[w->at + 1] != 'x')
            return refuse(w, e, "\\p without braces");
        buf_add(&w->out, w->s + w->at, 2);
        w->at += 2;
        return true;
    }
    close = memchr(open, '}', w->n - w->at - 2);
    if (!close)
        return refuse(w, e, "'{' without '}'");
    buf_add(&w->out, w->s + w->at, (size_t)(close - (w->s + w->at)) + 1);
    w->at = (size_t)(close - w->s) + 1;
    return true;
}

/* A class escape: `inside` is what it holds; NULL where it has no form inside a class. */
static bool put_class(struct walk *w, const char *inside, bool negated, struct err *e)
{
    if (!inside)
        return refuse(w, e, "a negated escape inside a class");
    if (w->in_class)
        buf_add_str(&w->out, inside);
    else
        buf_printf(&w->out, "[%s%s]", negated ? "^" : "", inside);
    w->at += 2;
    return true;
}

static bool put_escape(struct walk *w, struct err *e)
{
    char c;

    if (w->at + 1 >= w->n)
        return refuse(w, e, "a last backslash");
    c = w->s[w->at + 1];
    switch (c) {
    case 's':
        return put_class(w, SPACE_IN_CLASS, false, e);
    case 'S':
        return w->in_class ? put_class(w, NOT_SPACE_IN_CLASS, false, e)
                           : put_class(w, SPACE_IN_CLASS, true, e);
    case 'w':
        return put_class(w, WORD_IN_CLASS, false, e);
    case 'W':
        return put_class(w, w->in_class ? NULL : WORD_IN_CLASS, true, e);
    case 'h':
        return put_class(w, "0-9A-Fa-f", false, e);
    case 'v':
        buf_add_str(&w->out, "\\x{b}");
        w->at += 2;
        return true;
    case 'u':
        return put_code_point(w, e);
    case 'p':
    case 'P':
    case 'x':
        return put_braced(w, e);
    default:
        if ((c >= '0' && c <= '9') ||
            (((c | 0x20) >= 'a' && (c | 0x20) <= 'z') && !strchr("rntfaedDAzZ", c)))
            return refuse(w, e, "this escape");
        buf_add(&w->out, w->s + w->at, 2);
        w->at += 2;
        return true;
    }
}

static bool put_in_class(struct walk *w, struct err *e)
{
    char c = w->s[w->at];

    if (c == '[')
        return refuse(w, e, "a class inside a class");
    if (c == '&' && w->at + 1 < w->n && w->s[w->at + 1] == '&')
        return refuse(w, e, "'&&'");
    if (c == ']')
        w->in_class = false;
    buf_add_char(&w->out, c);
    w->at++;
    return true;
}

static bool open_class(struct walk *w, struct err *e)
{
    size_t skip = w->at + 1 < w->n && w->s[w->at + 1] == '^' ? 2 : 1;

    if (w->at + skip < w->n && w->s[w->at + skip] == ']')
        return refuse(w, e, "an empty class");
    buf_add(&w->out, w->s + w->at, skip);
    w->at += skip;
    w->in_class = true;
    return true;
}

/* "(?" and what follows: groups, looks and (?i); other options mean other things to Oniguruma. */
static bool put_group(struct walk *w, struct err *e)
{
    static const char *const known[] = { "(?:",  "(?=",  "(?!",  "(?>",  "(?<=",
                                         "(?<!", "(?i:", "(?i)", "(?-i:" };

    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        size_t len = strlen(known[i]);
        if (w->n - w->at >= len && memcmp(w->s + w->at, known[i], len) == 0) {
            buf_add(&w->out, known[i], len);
            w->at += len;
            return true;
        }
    }
    return refuse(w, e, "this group");
}

static bool put_one(struct walk *w, struct err *e)
{
    char c = w->s[w->at];
    char next = w->at + 1 < w->n ? w->s[w->at + 1] : '\0';

    if (c == '\0')
        return refuse(w, e, "a NUL");
    if (c == '\\')
        return put_escape(w, e);
    if (w->in_class)
        return put_in_class(w, e);
    if (c == '[')
        return open_class(w, e);
    if (c == '(' && next == '?')
        return put_group(w, e);
    if (c == '(' && next == '*')
        return refuse(w, e, "a verb");
    if (c == '}' && next == '+')
        return refuse(w, e, "'}+'");
    buf_add_char(&w->out, c);
    w->at++;
    return true;
}

static bool translate(const char *pattern, size_t n, struct buf *out, struct err *e)
{
    struct walk w = { .s = pattern, .n = n };

    while (w.at < w.n)
        if (!put_one(&w, e)) {
            buf_fini(&w.out);
            return false;
        }
    *out = w.out;
    return true;
}

struct regex *regex_compile(const char *pattern, size_t n, unsigned flags, struct err *e)
{
    struct buf translated = { 0 };
    struct regex *re = NULL;
    pcre2_code *code;
    PCRE2_SIZE at;
    int rc;

    if (n > PATTERN_BYTES_MAX) {
        err_set(e, ERR_MODEL, 0, "regular expression of %zu bytes, the limit is %d", n,
                PATTERN_BYTES_MAX);
        return NULL;
    }
    if (!translate(pattern, n, &translated, e))
        return NULL;
    code = pcre2_compile((PCRE2_SPTR)translated.data, translated.n,
                         PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &rc,
                         &at, NULL);
    if (!code) {
        PCRE2_UCHAR why[128];
        pcre2_get_error_message(rc, why, sizeof why);
        err_set(e, ERR_MODEL, 0, "regular expression '%.120s': %s", pattern, (const char *)why);
        goto out;
    }
    re = mem_alloc(sizeof *re);
    *re = (struct regex){ .code = code };
    if (!(flags & REGEX_NO_JIT))
        re->jit = pcre2_jit_compile(code, PCRE2_JIT_COMPLETE) == 0;
out:
    buf_fini(&translated);
    return re;
}

void regex_free(struct regex *re)
{
    if (!re)
        return;
    pcre2_code_free(re->code);
    free(re);
}

bool regex_is_jit(const struct regex *re)
{
    return re->jit;
}

struct regex_scratch *regex_scratch_new(void)
{
    struct regex_scratch *scratch = mem_alloc(sizeof *scratch);

    *scratch = (struct regex_scratch){ .match = pcre2_match_data_create(1, NULL),
                                       .context = pcre2_match_context_create(NULL) };
    assert(scratch->match && scratch->context);
    return scratch;
}

void regex_scratch_free(struct regex_scratch *scratch)
{
    if (!scratch)
        return;
    if (scratch->jit_stack)
        pcre2_jit_stack_free(scratch->jit_stack);
    pcre2_match_context_free(scratch->context);
    pcre2_match_data_free(scratch->match);
    free(scratch);
}

static int match(const struct regex *re, struct regex_scratch *scratch, const char *s, size_t n,
                 size_t at)
{
    PCRE2_SPTR text = (PCRE2_SPTR)s;
    int rc = PCRE2_ERROR_JIT_STACKLIMIT;

    if (re->jit)
        rc = pcre2_jit_match(re->code, text, n, at, PCRE2_NO_UTF_CHECK, scratch->match,
                             scratch->context);
    if (re->jit && rc == PCRE2_ERROR_JIT_STACKLIMIT && !scratch->jit_stack) {
        scratch->jit_stack = pcre2_jit_stack_create(JIT_STACK_START, JIT_STACK_MAX, NULL);
        pcre2_jit_stack_assign(scratch->context, NULL, scratch->jit_stack);
        rc = pcre2_jit_match(re->code, text, n, at, PCRE2_NO_UTF_CHECK, scratch->match,
                             scratch->context);
    }
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
        rc = pcre2_match(re->code, text, n, at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, scratch->match,
                         scratch->context);
    return rc;
}

enum regex_result regex_search(const struct regex *re, struct regex_scratch *scratch, const char *s,
                               size_t n, size_t at, size_t *from, size_t *to)
{
    int rc = match(re, scratch, s, n, at);
    const PCRE2_SIZE *where;

    if (rc == PCRE2_ERROR_NOMATCH)
        return REGEX_NO_MATCH;
    if (rc < 0)
        return REGEX_TOO_HARD;
    where = pcre2_get_ovector_pointer(scratch->match);
    *from = where[0];
    *to = where[1];
    return REGEX_MATCH;
}
