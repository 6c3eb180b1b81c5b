/* jinja_text.c - values as text: Python's str() and repr(). */
#include "text/jinja/jinja.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Digits and exponent of the shortest decimal that reads back as f. */
static int shortest(double f, char digits[32], int *exponent)
{
    char text[40];
    int n = 0;
    char *e;

    for (int precision = 0; precision <= 16; precision++) {
        snprintf(text, sizeof text, "%.*e", precision, f);
        if (strtod(text, NULL) == f)
            break;
    }
    e = strchr(text, 'e');
    *exponent = atoi(e + 1);
    for (const char *p = text; p < e; p++)
        if (*p >= '0' && *p <= '9')
            digits[n++] = *p;
    while (n > 1 && digits[n - 1] == '0')
        n--;
    return n;
}

void jval_add_float(struct jbuf *b, double f)
{
    char digits[32], text[40];
    int n, exponent;

    if (isnan(f) || isinf(f)) {
        jbuf_add_str(b, isnan(f) ? "nan" : f > 0 ? "inf" : "-inf");
        return;
    }
    n = shortest(f, digits, &exponent);
    if (signbit(f))
        jbuf_add_char(b, '-');
    if (exponent < -4 || exponent >= 16) {
        jbuf_add(b, digits, 1);
        if (n > 1)
            jbuf_add_char(b, '.');
        jbuf_add(b, digits + 1, (size_t)n - 1);
        snprintf(text, sizeof text, "e%c%02d", exponent < 0 ? '-' : '+', abs(exponent));
        jbuf_add_str(b, text);
    } else if (exponent < 0) {
        jbuf_add_str(b, "0.");
        jbuf_fill(b, '0', (size_t)(-exponent - 1));
        jbuf_add(b, digits, (size_t)n);
    } else {
        int whole = exponent + 1 < n ? exponent + 1 : n;
        jbuf_add(b, digits, (size_t)whole);
        jbuf_fill(b, '0', (size_t)(exponent + 1 - whole));
        jbuf_add_char(b, '.');
        jbuf_add(b, digits + whole, (size_t)(n - whole));
        if (n == whole)
            jbuf_add_char(b, '0');
    }
}

/* ---- repr() -------------------------------------------------------------------------------------- */

static void repr_char(struct jbuf *b, uint32_t cp, char quote)
{
    static const char short_forms[] = "\\\\\nn\rr\tt";
    char text[16];

    for (const char *p = short_forms; *p; p += 2) {
        if (cp == (unsigned char)*p) {
            jbuf_add_char(b, '\\');
            jbuf_add_char(b, p[1]);
            return;
        }
    }
    if (cp == (unsigned char)quote)
        jbuf_add_char(b, '\\');
    if (jutf8_is_printable(cp)) {
        jbuf_add_cp(b, cp);
        return;
    }
    snprintf(text, sizeof text, cp < 0x100 ? "\\x%02x" : cp < 0x10000 ? "\\u%04x" : "\\U%08x", cp);
    jbuf_add_str(b, text);
}

static void repr_str(struct jbuf *b, struct jval v)
{
    bool has_single = memchr(v.s, '\'', v.n), has_double = memchr(v.s, '"', v.n);
    char quote = has_single && !has_double ? '"' : '\'';

    if (v.markup)
        jbuf_add_str(b, "Markup(");
    jbuf_add_char(b, quote);
    for (size_t at = 0; at < v.n && !b->is_full;)
        repr_char(b, jutf8_next(v.s, &at), quote);
    jbuf_add_char(b, quote);
    if (v.markup)
        jbuf_add_char(b, ')');
}

static bool repr_items(struct jbuf *b, const struct jseq *s, int nest)
{
    for (uint32_t i = 0; i < s->n; i++) {
        if (i > 0)
            jbuf_add_str(b, ", ");
        if (!jval_repr(b, s->items[i], nest + 1))
            return false;
    }
    return true;
}

static bool repr_range(struct jbuf *b, const struct jseq *s)
{
    /* The step is not kept; the bounds are, past the items (range() in jinja_globals.c). */
    char text[96];
    int64_t step = s->items[s->n + 2].i;

    snprintf(text, sizeof text, "range(%" PRId64 ", %" PRId64, s->items[s->n].i,
             s->items[s->n + 1].i);
    jbuf_add_str(b, text);
    if (step != 1) {
        snprintf(text, sizeof text, ", %" PRId64, step);
        jbuf_add_str(b, text);
    }
    jbuf_add_char(b, ')');
    return true;
}

static bool repr_seq(struct jbuf *b, const struct jseq *s, int nest)
{
    static const char *const opens[] = { [JSEQ_LIST] = "[",
                                         [JSEQ_TUPLE] = "(",
                                         [JSEQ_GROUP] = "(",
                                         [JSEQ_KEYS] = "dict_keys([",
                                         [JSEQ_VALUES] = "dict_values([",
                                         [JSEQ_ITEMS] = "dict_items([" };
    static const char *const closes[] = {
        [JSEQ_LIST] = "]",  [JSEQ_TUPLE] = ")",   [JSEQ_GROUP] = ")",
        [JSEQ_KEYS] = "])", [JSEQ_VALUES] = "])", [JSEQ_ITEMS] = "])"
    };

    if (s->type == JSEQ_RANGE)
        return repr_range(b, s);
    if (s->type == JSEQ_GEN) {
        jbuf_add_str(b, "<generator object>");
        return true;
    }
    jbuf_add_str(b, opens[s->type]);
    if (!repr_items(b, s, nest))
        return false;
    if (s->n == 1 && (s->type == JSEQ_TUPLE || s->type == JSEQ_GROUP))
        jbuf_add_char(b, ',');
    jbuf_add_str(b, closes[s->type]);
    return true;
}

static bool repr_dict(struct jbuf *b, const struct jdict *d, int nest)
{
    jbuf_add_char(b, '{');
    for (uint32_t i = 0; i < d->n; i++) {
        if (i > 0)
            jbuf_add_str(b, ", ");
        if (!jval_repr(b, d->pairs[i].key, nest + 1))
            return false;
        jbuf_add_str(b, ": ");
        if (!jval_repr(b, d->pairs[i].value, nest + 1))
            return false;
    }
    jbuf_add_char(b, '}');
    return true;
}

static void repr_object(struct jbuf *b, struct jval v)
{
    char text[48];

    jbuf_add_char(b, '<');
    jbuf_add_str(b, jval_type_name(v));
    if (v.kind == J_MACRO && v.macro->name.kind == J_STR) {
        jbuf_add_char(b, ' ');
        repr_str(b, v.macro->name);
    }
    if (v.kind == J_LOOP) {
        snprintf(text, sizeof text, " %u/%u", v.loop->at + 1, v.loop->n);
        jbuf_add_str(b, text);
    }
    jbuf_add_char(b, '>');
}

bool jval_repr(struct jbuf *b, struct jval v, int nest)
{
    char text[32];

    if (nest > JINJA_VALUE_NEST_MAX)
        return jrun_fail(b->run, "a printed value is nested deeper than %d levels",
                         JINJA_VALUE_NEST_MAX);
    if (!jrun_work(b->run, 1) || b->is_full)
        return b->is_full ? jbuf_done(b, &v) : false;
    switch ((enum jkind)v.kind) {
    case J_ABSENT:
    case J_UNDEF:
        jbuf_add_str(b, "Undefined");
        return true;
    case J_NONE:
        jbuf_add_str(b, "None");
        return true;
    case J_BOOL:
        jbuf_add_str(b, v.b ? "True" : "False");
        return true;
    case J_INT:
        snprintf(text, sizeof text, "%" PRId64, v.i);
        jbuf_add_str(b, text);
        return true;
    case J_FLOAT:
        jval_add_float(b, v.f);
        return true;
    case J_STR:
        repr_str(b, v);
        return true;
    case J_SEQ:
        return repr_seq(b, v.seq, nest);
    case J_DICT:
        return repr_dict(b, v.dict, nest);
    case J_NAMESPACE:
        jbuf_add_str(b, "<Namespace ");
        if (!repr_dict(b, v.dict, nest))
            return false;
        jbuf_add_char(b, '>');
        return true;
    default:
        repr_object(b, v);
        return true;
    }
}

/* ---- str() --------------------------------------------------------------------------------------- */

bool jval_print(struct jbuf *b, struct jval v)
{
    if (v.kind == J_STR)
        jbuf_add(b, v.s, v.n);
    else if (v.kind != J_UNDEF)
        return jval_repr(b, v, 0);
    return true;
}

bool jval_to_str(struct jrun *r, struct jval v, struct jval *out)
{
    struct jbuf b = { .run = r };

    if (v.kind == J_STR) {
        *out = v;
        return true;
    }
    return jval_print(&b, v) && jbuf_done(&b, out);
}
