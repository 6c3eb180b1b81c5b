/* json.c - jansson with strict flags, and the writer. */
#include "common/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/file.h"
#include "common/utf8.h"

json_t *json_parse(const char *bytes, size_t n, struct err *e)
{
    json_error_t at;
    json_t *v = json_loadb(bytes, n, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &at);

    if (!v)
        err_set(e, ERR_INPUT, 0, "%s at line %d column %d", at.text, at.line, at.column);
    return v;
}

json_t *json_parse_file(const char *path, size_t bytes_max, struct err *e)
{
    char *bytes = NULL;
    size_t n = 0;
    json_t *v;

    if (!file_read(path, bytes_max, &bytes, &n, e))
        return NULL;
    v = json_parse(bytes, n, e);
    if (!v && e) {
        e->code = ERR_MODEL;
        err_wrap(e, "'%s' is not JSON", path);
    }
    free(bytes);
    return v;
}

static void before_value(struct json_writer *w)
{
    if (w->need_comma)
        buf_add_char(w->out, ',');
    w->need_comma = true;
}

static void open_with(struct json_writer *w, char c)
{
    before_value(w);
    buf_add_char(w->out, c);
    w->need_comma = false;
}

static void close_with(struct json_writer *w, char c)
{
    buf_add_char(w->out, c);
    w->need_comma = true;
}

void jw_object(struct json_writer *w)
{
    open_with(w, '{');
}

void jw_object_end(struct json_writer *w)
{
    close_with(w, '}');
}

void jw_array(struct json_writer *w)
{
    open_with(w, '[');
}

void jw_array_end(struct json_writer *w)
{
    close_with(w, ']');
}

static void add_escaped(struct buf *out, unsigned char c)
{
    static const char *const short_form[0x20] = {
        ['\b'] = "\\b", ['\t'] = "\\t", ['\n'] = "\\n", ['\f'] = "\\f", ['\r'] = "\\r",
    };

    if (c == '"')
        buf_add(out, "\\\"", 2);
    else if (c == '\\')
        buf_add(out, "\\\\", 2);
    else if (short_form[c])
        buf_add(out, short_form[c], 2);
    else
        buf_printf(out, "\\u%04x", c);
}

static void add_string(struct buf *out, const char *bytes, size_t n)
{
    const unsigned char *s = (const unsigned char *)bytes;

    buf_reserve(out, n + 2);
    buf_add_char(out, '"');
    for (size_t i = 0; i < n;) {
        size_t run = i;
        size_t len = 1;
        while (run < n && s[run] >= 0x20 && s[run] < 0x80 && s[run] != '"' && s[run] != '\\')
            run++;
        buf_add(out, s + i, run - i);
        i = run;
        if (i == n)
            break;
        if (s[i] < 0x80) {
            if (s[i] == 0x7f)
                buf_add_char(out, 0x7f);
            else
                add_escaped(out, s[i]);
        } else if (utf8_next(bytes + i, n - i, &len) == UTF8_CHAR) {
            buf_add(out, s + i, len);
        } else {
            buf_add(out, "\xef\xbf\xbd", 3);
        }
        i += len;
    }
    buf_add_char(out, '"');
}

void jw_key(struct json_writer *w, const char *key)
{
    before_value(w);
    add_string(w->out, key, strlen(key));
    buf_add_char(w->out, ':');
    w->need_comma = false;
}

void jw_str(struct json_writer *w, const char *s)
{
    if (s)
        jw_strn(w, s, strlen(s));
    else
        jw_null(w);
}

void jw_strn(struct json_writer *w, const char *bytes, size_t n)
{
    before_value(w);
    add_string(w->out, bytes, n);
}

void jw_int(struct json_writer *w, int64_t v)
{
    before_value(w);
    buf_printf(w->out, "%lld", (long long)v);
}

void jw_uint(struct json_writer *w, uint64_t v)
{
    before_value(w);
    buf_printf(w->out, "%llu", (unsigned long long)v);
}

void jw_bool(struct json_writer *w, bool v)
{
    before_value(w);
    buf_add_str(w->out, v ? "true" : "false");
}

void jw_null(struct json_writer *w)
{
    before_value(w);
    buf_add_str(w->out, "null");
}

/* "1e+20" and "5" are JSON numbers already; only a bare integer gets ".0", so that clients in typed
 * languages see a float. */
static void add_number(struct json_writer *w, const char *text)
{
    buf_add_str(w->out, text);
    if (!strpbrk(text, ".e"))
        buf_add_str(w->out, ".0");
}

void jw_float(struct json_writer *w, float v)
{
    char text[32];

    if (!isfinite(v)) {
        jw_null(w);
        return;
    }
    before_value(w);
    for (int digits = 6; digits <= 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, (double)v);
        if (strtof(text, NULL) == v)
            break;
    }
    add_number(w, text);
}

void jw_double(struct json_writer *w, double v)
{
    char text[32];

    if (!isfinite(v)) {
        jw_null(w);
        return;
    }
    before_value(w);
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, v);
        if (strtod(text, NULL) == v)
            break;
    }
    add_number(w, text);
}

/* json_parse() bounds the depth, so recursion is bounded too. */
void jw_json(struct json_writer *w, const json_t *v)
{
    const char *key;
    json_t *member;
    size_t i;

    switch (v ? json_typeof(v) : JSON_NULL) {
    case JSON_OBJECT:
        jw_object(w);
        json_object_foreach ((json_t *)(uintptr_t)v, key, member) {
            jw_key(w, key);
            jw_json(w, member);
        }
        jw_object_end(w);
        break;
    case JSON_ARRAY:
        jw_array(w);
        json_array_foreach (v, i, member)
            jw_json(w, member);
        jw_array_end(w);
        break;
    case JSON_STRING:
        jw_strn(w, json_string_value(v), json_string_length(v));
        break;
    case JSON_INTEGER:
        jw_int(w, json_integer_value(v));
        break;
    case JSON_REAL:
        jw_double(w, json_real_value(v));
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        jw_bool(w, json_is_true(v));
        break;
    case JSON_NULL:
        jw_null(w);
        break;
    }
}
