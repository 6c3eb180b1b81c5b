/* sse.c - the event stream parser: a pure function over bytes and struct sse; tests/fuzz feeds it. */
#include "llmctl/sse.h"

#include <string.h>

static void dispatch(struct sse *s, sse_event_fn *fn, void *arg)
{
    if (s->has_data)
        fn(arg, s->type.n ? s->type.data : "message", s->data.data, s->data.n);
    buf_clear(&s->data);
    buf_clear(&s->type);
    s->has_data = false;
}

static bool is_field(const char *name, size_t n, const char *want)
{
    return n == strlen(want) && memcmp(name, want, n) == 0;
}

static void take_field(struct sse *s, const char *line, size_t n)
{
    const char *colon = memchr(line, ':', n);
    size_t name_n = colon ? (size_t)(colon - line) : n;
    const char *value = colon ? colon + 1 : line + n;
    size_t value_n = (size_t)(line + n - value);

    if (value_n > 0 && value[0] == ' ') {
        value++;
        value_n--;
    }
    if (is_field(line, name_n, "data")) {
        if (s->has_data)
            buf_add_char(&s->data, '\n');
        buf_add(&s->data, value, value_n);
        s->has_data = true;
    } else if (is_field(line, name_n, "event")) {
        buf_clear(&s->type);
        buf_add(&s->type, value, value_n);
    }
}

static void end_line(struct sse *s, sse_event_fn *fn, void *arg)
{
    const char *line = s->line.data ? s->line.data : "";
    size_t n = s->line.n;

    if (!s->started && n >= 3 && memcmp(line, "\xef\xbb\xbf", 3) == 0) {
        line += 3;
        n -= 3;
    }
    s->started = true;
    if (n == 0)
        dispatch(s, fn, arg);
    else if (line[0] != ':')
        take_field(s, line, n);
    buf_clear(&s->line);
}

bool sse_feed(struct sse *s, const char *bytes, size_t n, sse_event_fn *fn, void *arg,
              struct err *e)
{
    const char *end = bytes + n;

    while (bytes < end) {
        size_t run = 0, left = (size_t)(end - bytes);
        if (s->after_cr && *bytes == '\n') {
            s->after_cr = false;
            bytes++;
            continue;
        }
        s->after_cr = false;
        while (run < left && bytes[run] != '\n' && bytes[run] != '\r')
            run++;
        if (run > SSE_EVENT_BYTES_MAX - s->line.n || s->data.n + s->line.n > SSE_EVENT_BYTES_MAX)
            return err_set(e, ERR_PROTO, 0, "an event of the stream is larger than %zu bytes",
                           SSE_EVENT_BYTES_MAX);
        buf_add(&s->line, bytes, run);
        bytes += run;
        if (bytes == end)
            break;
        s->after_cr = *bytes++ == '\r';
        end_line(s, fn, arg);
    }
    return true;
}

void sse_fini(struct sse *s)
{
    buf_fini(&s->line);
    buf_fini(&s->type);
    buf_fini(&s->data);
    *s = (struct sse){ 0 };
}
