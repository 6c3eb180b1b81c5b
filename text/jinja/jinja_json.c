/* jinja_json.c - the tojson filter: Python's json.dumps with ensure_ascii off, which is what chat
 * templates get from the usual renderer (Jinja's own tojson escapes HTML; this one does not). */
#include "text/jinja/jinja.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct writer {
    struct jrun *r;
    struct jbuf *b;
    bool ascii, sort_keys, has_indent;
    struct jval indent, item_separator, key_separator;
};

static bool write_value(const struct writer *w, struct jval v, int nest);

static void write_unicode_escape(struct jbuf *b, uint32_t cp)
{
    static const char hex[] = "0123456789abcdef";

    if (cp > 0xffff) {
        write_unicode_escape(b, 0xd800 + ((cp - 0x10000) >> 10));
        write_unicode_escape(b, 0xdc00 + ((cp - 0x10000) & 0x3ff));
        return;
    }
    jbuf_add_str(b, "\\u");
    for (int shift = 12; shift >= 0; shift -= 4)
        jbuf_add_char(b, hex[cp >> shift & 15]);
}

static void write_char(const struct writer *w, uint32_t cp)
{
    static const char short_forms[] = "\"\"\\\\\nn\rr\tt\ff\bb";

    for (const char *p = short_forms; *p; p += 2) {
        if (cp == (unsigned char)*p) {
            jbuf_add_char(w->b, '\\');
            jbuf_add_char(w->b, p[1]);
            return;
        }
    }
    if (cp < 0x20 || (w->ascii && cp > 0x7e))
        write_unicode_escape(w->b, cp);
    else
        jbuf_add_cp(w->b, cp);
}

static bool is_plain(unsigned char c, bool ascii)
{
    return c >= 0x20 && c != '"' && c != '\\' && !(ascii && c > 0x7e);
}

static void write_str(const struct writer *w, struct jval s)
{
    jbuf_add_char(w->b, '"');
    for (size_t at = 0; at < s.n && !w->b->is_full;) {
        size_t run = at;
        while (run < s.n && is_plain((unsigned char)s.s[run], w->ascii))
            run++;
        jbuf_add(w->b, s.s + at, run - at);
        at = run;
        if (at < s.n)
            write_char(w, jutf8_next(s.s, &at));
    }
    jbuf_add_char(w->b, '"');
}

static void write_float(const struct writer *w, double f)
{
    if (isfinite(f))
        jval_add_float(w->b, f);
    else
        jbuf_add_str(w->b, isnan(f) ? "NaN" : f > 0 ? "Infinity" : "-Infinity");
}

static void new_line(const struct writer *w, int nest)
{
    jbuf_add_char(w->b, '\n');
    for (int i = 0; i < nest; i++)
        jbuf_add(w->b, w->indent.s, w->indent.n);
}

static bool write_seq(const struct writer *w, const struct jseq *s, int nest)
{
    if (s->type > JSEQ_GROUP)
        return jrun_fail(w->r, "Object of type %s is not JSON serializable",
                         jval_type_name(jval_seq((struct jseq *)(uintptr_t)s)));
    jbuf_add_char(w->b, '[');
    for (uint32_t i = 0; i < s->n; i++) {
        if (i > 0)
            jbuf_add(w->b, w->item_separator.s, w->item_separator.n);
        if (w->has_indent)
            new_line(w, nest + 1);
        if (!write_value(w, s->items[i], nest + 1))
            return false;
    }
    if (w->has_indent && s->n > 0)
        new_line(w, nest);
    jbuf_add_char(w->b, ']');
    return true;
}

static bool write_key(const struct writer *w, struct jval key)
{
    struct jval text = key;

    if (key.kind == J_NONE || key.kind == J_BOOL || jval_is_num(key)) {
        struct jbuf plain = { .run = w->r };
        struct writer sub = *w;
        sub.b = &plain;
        if (!write_value(&sub, key, 0) || !jbuf_done(&plain, &text))
            return false;
    } else if (key.kind != J_STR) {
        return jrun_fail(w->r, "keys must be str, int, float, bool or None, not %s",
                         jval_type_name(key));
    }
    write_str(w, text);
    jbuf_add(w->b, w->key_separator.s, w->key_separator.n);
    return true;
}

static bool sorted(const struct writer *w, const struct jdict *d, struct jpair **out)
{
    struct jpair *pairs;

    if (!jrun_room(w->r, d->n * sizeof *pairs))
        return false;
    pairs = jrun_alloc(w->r, d->n * sizeof *pairs);
    for (uint32_t i = 0; i < d->n; i++) {
        uint32_t at = i;
        while (at > 0) {
            int c;
            if (!jval_order(w->r, d->pairs[i].key, pairs[at - 1].key, "<", &c))
                return false;
            if (c >= 0)
                break;
            pairs[at] = pairs[at - 1];
            at--;
        }
        pairs[at] = d->pairs[i];
    }
    *out = pairs;
    return true;
}

static bool write_dict(const struct writer *w, const struct jdict *d, int nest)
{
    struct jpair *pairs = d->pairs;

    if (w->sort_keys && !sorted(w, d, &pairs))
        return false;
    jbuf_add_char(w->b, '{');
    for (uint32_t i = 0; i < d->n; i++) {
        if (i > 0)
            jbuf_add(w->b, w->item_separator.s, w->item_separator.n);
        if (w->has_indent)
            new_line(w, nest + 1);
        if (!write_key(w, pairs[i].key) || !write_value(w, pairs[i].value, nest + 1))
            return false;
    }
    if (w->has_indent && d->n > 0)
        new_line(w, nest);
    jbuf_add_char(w->b, '}');
    return true;
}

static bool write_value(const struct writer *w, struct jval v, int nest)
{
    if (nest > JINJA_VALUE_NEST_MAX)
        return jrun_fail(w->r, "a value is nested deeper than %d levels", JINJA_VALUE_NEST_MAX);
    if (!jrun_work(w->r, 0) || w->b->is_full)
        return w->b->is_full ? jbuf_done(w->b, &v) : false;
    switch ((enum jkind)v.kind) {
    case J_NONE:
        jbuf_add_str(w->b, "null");
        return true;
    case J_BOOL:
        jbuf_add_str(w->b, v.b ? "true" : "false");
        return true;
    case J_INT:
        return jval_print(w->b, v);
    case J_FLOAT:
        write_float(w, v.f);
        return true;
    case J_STR:
        write_str(w, v);
        return true;
    case J_SEQ:
        return write_seq(w, v.seq, nest);
    case J_DICT:
        return write_dict(w, v.dict, nest);
    default:
        return jrun_fail(w->r, "Object of type %s is not JSON serializable", jval_type_name(v));
    }
}

/* indent: a number of spaces, or the text itself. */
static bool read_indent(struct writer *w, struct jval v)
{
    struct jbuf spaces = { .run = w->r };

    if (v.kind == J_ABSENT || v.kind == J_NONE)
        return true;
    w->has_indent = true;
    w->item_separator = jval_str(",", 1);
    w->indent = v;
    if (v.kind == J_STR)
        return true;
    if (!jval_is_int(v))
        return jrun_fail(w->r, "indent must be an integer or a string");
    if (jval_as_int(v) > 0)
        jbuf_fill(&spaces, ' ', (size_t)jval_as_int(v));
    return jbuf_done(&spaces, &w->indent);
}

static bool read_separators(struct writer *w, struct jval v)
{
    struct jval *items;
    uint32_t n;

    if (v.kind == J_ABSENT || v.kind == J_NONE)
        return true;
    if (!jval_iterate(w->r, v, &items, &n))
        return false;
    if (n != 2 || items[0].kind != J_STR || items[1].kind != J_STR)
        return jrun_fail(w->r, "separators must be two strings");
    w->item_separator = items[0];
    w->key_separator = items[1];
    return true;
}

bool jinja_tojson(struct jrun *r, struct jcall *c, struct jval *out)
{
    struct jbuf b = { .run = r };
    struct writer w = { .r = r,
                        .b = &b,
                        .ascii = jval_truth(c->arg[0]),
                        .sort_keys = jval_truth(c->arg[3]),
                        .item_separator = jval_str(", ", 2),
                        .key_separator = jval_str(": ", 2) };

    return read_indent(&w, c->arg[1]) && read_separators(&w, c->arg[2]) &&
           write_value(&w, c->self, 0) && jbuf_done(&b, out);
}
