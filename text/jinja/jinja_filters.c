/* jinja_filters.c - filters of single values; those of lists are in jinja_filters_seq.c. */
#include "text/jinja/jinja.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

/* ---- text ---------------------------------------------------------------------------------------- */

static bool filter_trim(struct jrun *r, struct jcall *c, struct jval *out)
{
    struct jval s;

    return jval_to_str(r, c->self, &s) && jstr_strip(r, s, c->arg[0], JSIDE_BOTH, out);
}

static bool filter_upper(struct jrun *r, struct jcall *c, struct jval *out)
{
    struct jval s;

    return jval_to_str(r, c->self, &s) && jstr_case(r, s, JCASE_UPPER, out);
}

static bool filter_lower(struct jrun *r, struct jcall *c, struct jval *out)
{
    struct jval s;

    return jval_to_str(r, c->self, &s) && jstr_case(r, s, JCASE_LOWER, out);
}

static bool filter_capitalize(struct jrun *r, struct jcall *c, struct jval *out)
{
    struct jval s;

    return jval_to_str(r, c->self, &s) && jstr_capitalize(r, s, out);
}

/* Words start after white space, hyphens and opening brackets only, unlike str.title(). */
static bool filter_title(struct jrun *r, struct jcall *c, struct jval *out)
{
    struct jbuf b = { .run = r };
    bool in_word = false;
    struct jval s;

    if (!jval_to_str(r, c->self, &s))
        return false;
    for (size_t at = 0; at < s.n && !b.is_full;) {
        uint32_t cp = jutf8_next(s.s, &at);
        jutf8_add_case(&b, cp, in_word ? JCASE_LOWER : JCASE_UPPER);
        in_word =
            !(jutf8_is_space(cp) || cp == '-' || cp == '(' || cp == '{' || cp == '[' || cp == '<');
    }
    return jrun_work(r, s.n / 4) && jbuf_done(&b, out);
}

static bool filter_string(struct jrun *r, struct jcall *c, struct jval *out)
{
    return jval_to_str(r, c->self, out);
}

static bool filter_safe(struct jrun *r, struct jcall *c, struct jval *out)
{
    if (!jval_to_str(r, c->self, out))
        return false;
    out->markup = true;
    return true;
}

static bool filter_escape(struct jrun *r, struct jcall *c, struct jval *out)
{
    struct jval s;

    return jval_to_str(r, c->self, &s) && jop_escape(r, s, out);
}

static bool filter_forceescape(struct jrun *r, struct jcall *c, struct jval *out)
{
    struct jval s;

    if (!jval_to_str(r, c->self, &s))
        return false;
    s.markup = false;
    return jop_escape(r, s, out);
}

static bool filter_replace(struct jrun *r, struct jcall *c, struct jval *out)
{
    struct jval s, from, to;
    int64_t count = -1;

    if (c->arg[2].kind == J_NONE)
        c->arg[2].kind = J_ABSENT;
    return jval_to_str(r, c->self, &s) && jval_to_str(r, c->arg[0], &from) &&
           jval_to_str(r, c->arg[1], &to) && jcall_int(r, c, 2, -1, &count) &&
           jstr_replace(r, s, from, to, count, out);
}

static bool filter_center(struct jrun *r, struct jcall *c, struct jval *out)
{
    int64_t width;
    struct jval s;

    return jval_to_str(r, c->self, &s) && jcall_int(r, c, 0, 80, &width) &&
           jstr_pad(r, s, width, ' ', JSIDE_BOTH, out);
}

static bool indentation(struct jrun *r, struct jval width, struct jval *out)
{
    struct jbuf b = { .run = r };

    if (width.kind == J_STR) {
        *out = width;
        return true;
    }
    if (width.kind != J_ABSENT && !jval_is_int(width))
        return jrun_fail(r, "the width of indent must be an integer or a string");
    if (width.kind == J_ABSENT || jval_as_int(width) > 0)
        jbuf_fill(&b, ' ', width.kind == J_ABSENT ? 4 : (size_t)jval_as_int(width));
    return jbuf_done(&b, out);
}

static bool filter_indent(struct jrun *r, struct jcall *c, struct jval *out)
{
    bool first = jval_truth(c->arg[1]), blank = jval_truth(c->arg[2]);
    struct jbuf b = { .run = r };
    struct jval s = c->self, by;

    if (s.kind == J_UNDEF)
        return jrun_undef_fail(r, s);
    if (s.kind != J_STR)
        return jrun_fail(r, "indent wants a string, found '%s'", jval_type_name(s));
    if (!indentation(r, c->arg[0], &by) || !jrun_work(r, s.n / 16))
        return false;
    /* A line end at the very end starts one more line, which is empty. */
    for (size_t at = 0;;) {
        size_t next, n = jutf8_line(s.s + at, s.n - at, &next);
        bool is_first = at == 0;
        if (!is_first)
            jbuf_add_char(&b, '\n');
        if (is_first ? first : blank || n > 0)
            jbuf_add(&b, by.s, by.n);
        jbuf_add(&b, s.s + at, n);
        if (n == next || b.is_full)
            break;
        at += next;
    }
    return jbuf_done(&b, out);
}

static bool filter_wordcount(struct jrun *r, struct jcall *c, struct jval *out)
{
    bool in_word = false;
    int64_t count = 0;
    struct jval s;

    if (!jval_to_str(r, c->self, &s))
        return false;
    for (size_t at = 0; at < s.n;) {
        uint32_t cp = jutf8_next(s.s, &at);
        utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)cp);
        bool is_word = cp == '_' || (k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO) ||
                       (k >= UTF8PROC_CATEGORY_ND && k <= UTF8PROC_CATEGORY_NO);
        count += is_word && !in_word;
        in_word = is_word;
    }
    *out = jval_int(count);
    return jrun_work(r, s.n / 4);
}

static bool filter_truncate(struct jrun *r, struct jcall *c, struct jval *out)
{
    struct jval s = c->self, end = jval_str("...", 3);
    int64_t length, leeway, count;
    struct jbuf b = { .run = r };
    size_t n;

    if (!jcall_int(r, c, 0, 255, &length) || !jcall_int(r, c, 3, 5, &leeway) ||
        (c->arg[2].kind != J_ABSENT && !jcall_str(r, c, 2, &end)) || !jval_length(r, s, &count))
        return false;
    if (length < (int64_t)jutf8_count(end.s, end.n) || leeway < 0)
        return jrun_fail(r, "truncate wants a length of at least that of its end");
    if (count <= length || count - length <= leeway) {
        *out = s;
        return true;
    }
    if (s.kind != J_STR)
        return jrun_fail(r, "truncate wants a string, found '%s'", jval_type_name(s));
    n = jutf8_offset(s.s, s.n, (size_t)length - jutf8_count(end.s, end.n));
    if (!jval_truth(c->arg[1])) {
        const char *space = n ? memrchr(s.s, ' ', n) : NULL;
        n = space ? (size_t)(space - s.s) : n;
    }
    jbuf_add(&b, s.s, n);
    jbuf_add(&b, end.s, end.n);
    return jbuf_done(&b, out);
}

static bool filter_format(struct jrun *r, struct jcall *c, struct jval *out)
{
    struct jseq args = { .type = JSEQ_TUPLE, .n = c->n_pos, .items = c->pos };
    struct jdict *named = jdict_new(r, c->n_kw);
    struct jval s;

    if (c->n_pos > 0 && c->n_kw > 0)
        return jrun_fail(r, "can't handle positional and keyword arguments at the same time");
    for (uint32_t i = 0; i < c->n_kw; i++)
        if (!jdict_set(r, named, jval_str(c->kw[i].name, c->kw[i].n), c->kw[i].value))
            return false;
    return jval_to_str(r, c->self, &s) &&
           jformat_percent(r, s, c->n_kw ? jval_dict(named) : jval_seq(&args), out);
}

/* ---- numbers ------------------------------------------------------------------------------------- */

/* Text of a number without white space around and underscores inside, as Python's int() and float()
 * read it.  False: not so, or longer than any number that matters. */
static bool number_text(struct jval s, char text[64])
{
    size_t from = jutf8_trim_left(s.s, s.n), to = jutf8_trim_right(s.s, s.n), n = 0;

    for (size_t i = from; i < to && n < 63; i++) {
        if (s.s[i] == '_') {
            bool between = i > from && i + 1 < to && s.s[i - 1] >= '0' && s.s[i - 1] <= '9' &&
                           s.s[i + 1] >= '0' && s.s[i + 1] <= '9';
            if (!between)
                return false;
        } else {
            text[n++] = s.s[i];
        }
    }
    text[n] = '\0';
    return n > 0 && n < 63;
}

static bool parse_float(struct jval s, double *f)
{
    char text[64], *end;

    if (!number_text(s, text))
        return false;
    if (text[strspn(text, "+-.0123456789eE")] != '\0' && strcasestr(text, "inf") == NULL &&
        strcasestr(text, "nan") == NULL)
        return false; /* strtod() would take hexadecimal too */
    if (strchr(text, '(') || strchr(text, 'x') || strchr(text, 'X'))
        return false;
    *f = strtod(text, &end);
    return end != text && *end == '\0';
}

static bool parse_int(struct jval s, int64_t base, int64_t *i)
{
    char text[64], *digits = text, *end;

    if (!number_text(s, text) || base < 0 || base == 1 || base > 36)
        return false;
    digits += *digits == '+' || *digits == '-';
    if (digits[0] == '0' && ((digits[1] | 0x20) == 'b' || (digits[1] | 0x20) == 'o') &&
        (base == 0 || base == ((digits[1] | 0x20) == 'b' ? 2 : 8))) {
        base = (digits[1] | 0x20) == 'b' ? 2 : 8;
        memmove(digits, digits + 2, strlen(digits + 2) + 1);
    } else if (base == 0 && digits[0] == '0' && digits[1] >= '0' && digits[1] <= '9') {
        return false;
    }
    if (*digits == '+' || *digits == '-' || *digits == '\0' || *digits == ' ')
        return false;
    errno = 0;
    *i = strtoll(text, &end, (int)base);
    return *end == '\0' && end != text && errno == 0;
}

static bool float_to_int(struct jrun *r, double f, int64_t *i)
{
    if (isnan(f) || isinf(f) || f >= 9223372036854775808.0 || f < -9223372036854775808.0)
        return jrun_fail(r, "cannot convert this float to an integer of 64 bits");
    *i = (int64_t)f;
    return true;
}

static bool filter_int(struct jrun *r, struct jcall *c, struct jval *out)
{
    struct jval v = c->self;
    int64_t base, i = 0;
    double f;

    if (v.kind == J_UNDEF)
        return jrun_undef_fail(r, v);
    if (!jcall_int(r, c, 1, 10, &base) || !jrun_work(r, v.kind == J_STR ? v.n / 4 : 0))
        return false;
    *out = c->arg[0].kind == J_ABSENT ? jval_int(0) : c->arg[0];
    if (v.kind == J_STR && parse_int(v, base, &i))
        *out = jval_int(i);
    else if (v.kind == J_FLOAT && isnan(v.f))
        return true;
    else if (v.kind == J_FLOAT || (v.kind == J_STR && parse_float(v, &f) && !isnan(f))) {
        if (!float_to_int(r, v.kind == J_FLOAT ? v.f : f, &i))
            return false;
        *out = jval_int(i);
    } else if (jval_is_int(v)) {
        *out = jval_int(jval_as_int(v));
    }
    return true;
}

static bool filter_float(struct jrun *r, struct jcall *c, struct jval *out)
{
    double f;

    if (c->self.kind == J_UNDEF)
        return jrun_undef_fail(r, c->self);
    if (!jrun_work(r, c->self.kind == J_STR ? c->self.n / 4 : 0))
        return false;
    *out = c->arg[0].kind == J_ABSENT ? jval_float(0.0) : c->arg[0];
    if (jval_is_num(c->self))
        *out = jval_float(jval_as_float(c->self));
    else if (c->self.kind == J_STR && parse_float(c->self, &f))
        *out = jval_float(f);
    return true;
}

static bool filter_abs(struct jrun *r, struct jcall *c, struct jval *out)
{
    struct jval v = c->self;

    if (v.kind == J_UNDEF)
        return jrun_undef_fail(r, v);
    if (!jval_is_num(v))
        return jrun_fail(r, "bad operand type for abs(): '%s'", jval_type_name(v));
    if (v.kind == J_FLOAT) {
        *out = jval_float(fabs(v.f));
        return true;
    }
    if (jval_as_int(v) < 0)
        return jop_negate(r, v, out);
    *out = jval_int(jval_as_int(v));
    return true;
}

/* Round half to even on the exact value, as Python does: printf() and strtod() are exact. */
static double round_decimal(double f, int64_t digits)
{
    char text[400];
    double scale;

    if (!isfinite(f) || digits > 300)
        return f;
    if (digits >= 0) {
        snprintf(text, sizeof text, "%.*f", digits > 30 ? 30 : (int)digits, f);
        return digits > 30 ? f : strtod(text, NULL);
    }
    if (digits < -308)
        return copysign(0.0, f);
    scale = pow(10.0, (double)-digits);
    return rint(f / scale) * scale;
}

static bool round_int(struct jrun *r, int64_t i, int64_t digits, struct jval *out)
{
    int64_t scale = 1, low, rest;

    *out = jval_int(i);
    if (digits >= 0)
        return true;
    if (digits < -18) {
        *out = jval_int(0);
        return true;
    }
    while (digits++ < 0)
        scale *= 10;
    rest = i % scale < 0 ? i % scale + scale : i % scale;
    if (__builtin_sub_overflow(i, rest, &low))
        return jrun_fail(r, "an integer grows past 64 bits");
    if (rest > scale / 2 || (rest == scale / 2 && low / scale % 2 != 0))
        if (__builtin_add_overflow(low, scale, &low))
            return jrun_fail(r, "an integer grows past 64 bits");
    *out = jval_int(low);
    return true;
}

static bool filter_round(struct jrun *r, struct jcall *c, struct jval *out)
{
    struct jval method = c->arg[1].kind == J_ABSENT ? jval_str("common", 6) : c->arg[1];
    bool is_ceil = jval_is_str(method, "ceil");
    int64_t digits;
    double scaled;

    if (!jval_is_str(method, "common") && !is_ceil && !jval_is_str(method, "floor"))
        return jrun_fail(r, "method must be common, ceil or floor");
    if (c->self.kind == J_UNDEF)
        return jrun_undef_fail(r, c->self);
    if (!jval_is_num(c->self))
        return jrun_fail(r, "'%s' cannot be rounded", jval_type_name(c->self));
    if (!jcall_int(r, c, 0, 0, &digits))
        return false;
    if (jval_is_str(method, "common")) {
        if (jval_is_int(c->self))
            return round_int(r, jval_as_int(c->self), digits, out);
        *out = jval_float(round_decimal(c->self.f, digits));
        return true;
    }
    if (digits > 300 || digits < -300)
        return jrun_fail(r, "a precision of %" PRId64 " is out of range", digits);
    scaled = jval_as_float(c->self) * pow(10.0, (double)digits);
    if (!isfinite(scaled))
        return jrun_fail(r, "cannot convert this float to an integer");
    *out = jval_float((is_ceil ? ceil(scaled) : floor(scaled)) / pow(10.0, (double)digits));
    return true;
}

/* ---- any value ------------------------------------------------------------------------------------- */

static bool filter_default(struct jrun *r, struct jcall *c, struct jval *out)
{
    (void)r;
    *out = c->self;
    if (c->self.kind == J_UNDEF || (jval_truth(c->arg[1]) && !jval_truth(c->self)))
        *out = c->arg[0].kind == J_ABSENT ? jval_str("", 0) : c->arg[0];
    return true;
}

static bool filter_attr(struct jrun *r, struct jcall *c, struct jval *out)
{
    struct jval name = c->arg[0];

    if (!jval_to_str(r, name, &name))
        return false;
    /* Like a dot, but keys of dicts are not attributes. */
    if (c->self.kind == J_DICT && !jbuiltin_find(jinja_dict_methods, name.s, name.n)) {
        *out = jval_undef(r, c->self, name);
        return true;
    }
    if (c->self.kind == J_UNDEF) {
        *out = c->self;
        return jrun_undef_fail(r, c->self);
    }
    return jop_attr(r, c->self, name, NULL, out);
}

static bool filter_length(struct jrun *r, struct jcall *c, struct jval *out)
{
    int64_t n;

    if (!jval_length(r, c->self, &n))
        return false;
    *out = jval_int(n);
    return true;
}

static const struct jbuiltin value_filters[] = {
    { "trim", filter_trim, "chars=" },
    { "upper", filter_upper, "" },
    { "lower", filter_lower, "" },
    { "capitalize", filter_capitalize, "" },
    { "title", filter_title, "" },
    { "string", filter_string, "" },
    { "safe", filter_safe, "" },
    { "escape", filter_escape, "" },
    { "e", filter_escape, "" },
    { "forceescape", filter_forceescape, "" },
    { "replace", filter_replace, "old new count=" },
    { "center", filter_center, "width=" },
    { "indent", filter_indent, "width= first= blank=" },
    { "wordcount", filter_wordcount, "" },
    { "truncate", filter_truncate, "length= killwords= end= leeway=" },
    { "format", filter_format, NULL },
    { "int", filter_int, "default= base=" },
    { "float", filter_float, "default=" },
    { "abs", filter_abs, "" },
    { "round", filter_round, "precision= method=" },
    { "default", filter_default, "default_value= boolean=" },
    { "d", filter_default, "default_value= boolean=" },
    { "attr", filter_attr, "name" },
    { "length", filter_length, "" },
    { "count", filter_length, "" },
    { "tojson", jinja_tojson, "ensure_ascii= indent= separators= sort_keys=" },
    { NULL, NULL, NULL },
};

const struct jbuiltin *jinja_find_filter(const char *name, size_t n)
{
    const struct jbuiltin *f = jbuiltin_find(value_filters, name, n);

    return f ? f : jbuiltin_find(jinja_filters, name, n);
}
