/* jinja_format.c - Python's two ways to fill values into a text: "%s" % x and "{}".format(x).
 *
 * Braces take a position, a name or nothing, and no format after a colon: no chat template known to us
 * uses more. */
#include "text/jinja/jinja.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/utf8.h"

enum { WIDTH_MAX = 1000000 };

struct spec {
    bool left, zero, plus, space, alt;
    int64_t width, precision; /* precision -1: none given */
};

/* ---- % -------------------------------------------------------------------------------------------- */

struct percent {
    struct jrun *r;
    struct jbuf *b;
    struct jval args; /* a tuple, a dict, or the one value */
    uint32_t n_used;
};

static bool next_arg(struct percent *p, struct jval *out)
{
    if (p->args.kind == J_SEQ && p->args.seq->type == JSEQ_TUPLE) {
        if (p->n_used >= p->args.seq->n)
            return jrun_fail(p->r, "not enough arguments for format string");
        *out = p->args.seq->items[p->n_used++];
        return true;
    }
    if (p->n_used++ > 0)
        return jrun_fail(p->r, "not enough arguments for format string");
    *out = p->args;
    return true;
}

static bool named_arg(struct percent *p, struct jval key, struct jval *out)
{
    if (p->args.kind != J_DICT)
        return jrun_fail(p->r, "format requires a mapping");
    if (!jdict_get(p->r, p->args.dict, key, out))
        return false;
    return out->kind != J_ABSENT ||
           jrun_fail(p->r, "format has no value for '%.*s'", (int)(key.n < 80 ? key.n : 80), key.s);
}

/* The number at s[*at], bounded; 0 when there is none. */
static int64_t read_number(struct jval s, size_t *at)
{
    int64_t n = 0;

    for (; *at < s.n && s.s[*at] >= '0' && s.s[*at] <= '9'; ++*at)
        n = n < WIDTH_MAX ? n * 10 + (s.s[*at] - '0') : WIDTH_MAX;
    return n;
}

static bool read_size(struct percent *p, struct jval format, size_t *at, int64_t *out)
{
    struct jval v;

    if (*at >= format.n || format.s[*at] != '*') {
        *out = read_number(format, at);
        return true;
    }
    ++*at;
    if (!next_arg(p, &v))
        return false;
    if (!jval_is_int(v) || jval_as_int(v) > WIDTH_MAX || jval_as_int(v) < -WIDTH_MAX)
        return jrun_fail(p->r, "* wants a small int");
    *out = jval_as_int(v);
    return true;
}

static bool read_spec(struct percent *p, struct jval format, size_t *at, struct spec *s)
{
    for (; *at < format.n && strchr("-0+ #", format.s[*at]) && format.s[*at]; ++*at) {
        s->left |= format.s[*at] == '-';
        s->zero |= format.s[*at] == '0';
        s->plus |= format.s[*at] == '+';
        s->space |= format.s[*at] == ' ';
        s->alt |= format.s[*at] == '#';
    }
    if (!read_size(p, format, at, &s->width))
        return false;
    if (s->width < 0) {
        s->left = true;
        s->width = -s->width;
    }
    if (*at < format.n && format.s[*at] == '.') {
        ++*at;
        if (!read_size(p, format, at, &s->precision))
            return false;
        if (s->precision < 0)
            s->precision = 0;
    }
    while (*at < format.n && strchr("hlL", format.s[*at]) && format.s[*at])
        ++*at;
    return *at < format.n || jrun_fail(p->r, "incomplete format");
}

/* Add `text` (sign and prefix of `head` bytes first) padded to the width. */
static void add_padded(struct percent *p, const struct spec *s, const char *text, size_t n,
                       size_t head, bool is_number)
{
    size_t count = jutf8_count(text, n);
    size_t fill = (size_t)s->width > count ? (size_t)s->width - count : 0;
    bool zeros = s->zero && is_number && !s->left;

    if (!s->left && !zeros)
        jbuf_fill(p->b, ' ', fill);
    jbuf_add(p->b, text, head);
    if (zeros)
        jbuf_fill(p->b, '0', fill);
    jbuf_add(p->b, text + head, n - head);
    if (s->left)
        jbuf_fill(p->b, ' ', fill);
}

static bool add_text(struct percent *p, const struct spec *s, struct jval v, char type)
{
    struct jbuf b = { .run = p->r };
    struct jval text;

    if (!(type == 's' ? jval_print(&b, v) : jval_repr(&b, v, 0)) || !jbuf_done(&b, &text))
        return false;
    if (s->precision >= 0)
        text.n = (uint32_t)jutf8_offset(text.s, text.n, (size_t)s->precision);
    add_padded(p, s, text.s, text.n, 0, false);
    return true;
}

static bool add_char(struct percent *p, const struct spec *s, struct jval v)
{
    char bytes[4];
    int64_t cp = jval_is_int(v) ? jval_as_int(v) : -1;

    if (v.kind == J_STR && v.n <= 4 && jutf8_count(v.s, v.n) == 1) {
        add_padded(p, s, v.s, v.n, 0, false);
        return true;
    }
    if (cp < 0 || cp > 0x10ffff || (cp >= 0xd800 && cp <= 0xdfff))
        return jrun_fail(p->r, "%%c requires int or char");
    add_padded(p, s, bytes, utf8_encode((uint32_t)cp, bytes), 0, false);
    return true;
}

static size_t put_sign(char *out, const struct spec *s, bool negative)
{
    if (!negative && !s->plus && !s->space)
        return 0;
    *out = negative ? '-' : s->plus ? '+' : ' ';
    return 1;
}

static bool add_int(struct percent *p, const struct spec *s, struct jval v, char type)
{
    char digits[32], text[1200];
    bool negative;
    uint64_t u;
    size_t n, len;

    if (v.kind == J_UNDEF)
        return jrun_undef_fail(p->r, v);
    if (v.kind == J_FLOAT && type == 'd' && fabs(v.f) < 9e18)
        v = jval_int((int64_t)v.f);
    if (!jval_is_int(v))
        return jrun_fail(p->r, "%%%c format: a number is required, not %s", type,
                         jval_type_name(v));
    negative = jval_as_int(v) < 0;
    u = negative ? 0 - (uint64_t)jval_as_int(v) : (uint64_t)jval_as_int(v);
    snprintf(digits, sizeof digits,
             type == 'x'   ? "%" PRIx64
             : type == 'X' ? "%" PRIX64
             : type == 'o' ? "%" PRIo64
                           : "%" PRIu64,
             u);
    n = put_sign(text, s, negative);
    if (s->alt && type != 'd') {
        text[n++] = '0';
        text[n++] = type;
    }
    len = strlen(digits);
    if (s->precision > 1000)
        return jrun_fail(p->r, "precision too large");
    memset(text + n, '0',
           (size_t)s->precision > len && s->precision > 0 ? (size_t)s->precision - len : 0);
    size_t zeros = s->precision > (int64_t)len ? (size_t)s->precision - len : 0;
    memcpy(text + n + zeros, digits, len);
    add_padded(p, s, text, n + zeros + len, n, true);
    return true;
}

static bool add_float(struct percent *p, const struct spec *s, struct jval v, char type)
{
    char format[] = { '%', '.', '*', type, '\0' }, text[1500];
    int precision = s->precision < 0 ? 6 : (int)s->precision;
    size_t n;

    if (v.kind == J_UNDEF)
        return jrun_undef_fail(p->r, v);
    if (!jval_is_num(v))
        return jrun_fail(p->r, "must be real number, not %s", jval_type_name(v));
    if (precision > 1000)
        return jrun_fail(p->r, "precision too large");
    n = put_sign(text, s, signbit(jval_as_float(v)));
    if (s->alt)
        return jrun_fail(p->r, "the # flag of %%%c is not supported", type);
    snprintf(text + n, sizeof text - n, format, precision, fabs(jval_as_float(v)));
    add_padded(p, s, text, strlen(text), n, true);
    return true;
}

/* One conversion; format.s[*at] is past the percent sign. */
static bool convert(struct percent *p, struct jval format, size_t *at)
{
    struct spec s = { .precision = -1 };
    struct jval v = { 0 };
    char type;

    if (*at < format.n && format.s[*at] == '(') {
        const char *end = memchr(format.s + *at, ')', format.n - *at);
        if (!end)
            return jrun_fail(p->r, "incomplete format key");
        ++*at;
        if (!named_arg(p, jval_str(format.s + *at, (size_t)(end - format.s) - *at), &v))
            return false;
        *at = (size_t)(end - format.s) + 1;
    }
    if (!read_spec(p, format, at, &s))
        return false;
    type = format.s[(*at)++];
    if (type == '%') {
        jbuf_add_char(p->b, '%');
        return true;
    }
    if (!type || !strchr("srcdiuxXofFeEgG", type))
        return jrun_fail(p->r, "unsupported format character");
    if (v.kind == J_ABSENT && !next_arg(p, &v))
        return false;
    if (type == 's' || type == 'r')
        return add_text(p, &s, v, type);
    if (type == 'c')
        return add_char(p, &s, v);
    if (strchr("diu", type))
        return add_int(p, &s, v, 'd');
    return strchr("xXo", type) ? add_int(p, &s, v, type) : add_float(p, &s, v, type);
}

bool jformat_percent(struct jrun *r, struct jval format, struct jval args, struct jval *out)
{
    struct jbuf b = { .run = r };
    struct percent p = { .r = r, .b = &b, .args = args };
    bool is_tuple = args.kind == J_SEQ && args.seq->type == JSEQ_TUPLE, is_mapping;

    for (size_t at = 0; at < format.n && !b.is_full;) {
        const char *hit = memchr(format.s + at, '%', format.n - at);
        size_t end = hit ? (size_t)(hit - format.s) : format.n;
        jbuf_add(&b, format.s + at, end - at);
        at = end + 1;
        if (hit && (!jrun_work(r, 0) || !convert(&p, format, &at)))
            return false;
    }
    /* What takes a subscript may be a mapping, and those need not be used up. */
    is_mapping = args.kind == J_DICT || args.kind == J_UNDEF ||
                 (args.kind == J_SEQ && args.seq->type <= JSEQ_RANGE);
    if (is_tuple ? p.n_used < args.seq->n : p.n_used == 0 && !is_mapping)
        return jrun_fail(r, "not all arguments converted during string formatting");
    return jbuf_done(&b, out);
}

/* ---- .format() ------------------------------------------------------------------------------------- */

static bool brace_arg(struct jrun *r, const struct jcall *c, const char *name, size_t n,
                      uint32_t *n_auto, struct jval *out)
{
    uint32_t place = 0;

    if (n == 0) {
        place = (*n_auto)++;
    } else if (name[0] >= '0' && name[0] <= '9') {
        for (size_t i = 0; i < n; i++) {
            if (name[i] < '0' || name[i] > '9' || place > JCALL_ARGS_MAX)
                return jrun_fail(r, "format() takes a position, a name or nothing in braces");
            place = place * 10 + (uint32_t)(name[i] - '0');
        }
    } else {
        for (uint32_t i = 0; i < c->n_kw; i++) {
            if (c->kw[i].n == n && memcmp(c->kw[i].name, name, n) == 0) {
                *out = c->kw[i].value;
                return true;
            }
        }
        return jrun_fail(r, "format() has no argument '%.*s'", (int)(n < 80 ? n : 80), name);
    }
    if (place >= c->n_pos)
        return jrun_fail(r, "format() has no argument %u", place);
    *out = c->pos[place];
    return true;
}

bool jformat_braces(struct jrun *r, struct jval format, const struct jcall *c, struct jval *out)
{
    struct jbuf b = { .run = r };
    uint32_t n_auto = 0;

    for (size_t at = 0; at < format.n && !b.is_full; at++) {
        char ch = format.s[at];
        const char *end;
        struct jval v;
        if (ch != '{' && ch != '}') {
            jbuf_add_char(&b, ch);
            continue;
        }
        if (at + 1 < format.n && format.s[at + 1] == ch) {
            jbuf_add_char(&b, ch);
            at++;
            continue;
        }
        end = ch == '{' ? memchr(format.s + at, '}', format.n - at) : NULL;
        if (!end)
            return jrun_fail(r, "single '%c' in a format string", ch);
        at++;
        if (memchr(format.s + at, ':', (size_t)(end - format.s) - at) ||
            memchr(format.s + at, '!', (size_t)(end - format.s) - at) ||
            memchr(format.s + at, '.', (size_t)(end - format.s) - at) ||
            memchr(format.s + at, '[', (size_t)(end - format.s) - at))
            return jrun_fail(r, "format() takes a position, a name or nothing in braces");
        if (!brace_arg(r, c, format.s + at, (size_t)(end - format.s) - at, &n_auto, &v) ||
            !jrun_work(r, 0) || !jval_print(&b, v))
            return false;
        at = (size_t)(end - format.s);
    }
    return jbuf_done(&b, out);
}
