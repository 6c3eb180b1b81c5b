/* err.c - fill and wrap struct err.  Any thread; touches nothing but its arguments.
 *
 * When a message is too long, the cause survives: what stands in front of it (a path, the context) is
 * cut, marked by "...".  Control characters become '?', so that a message is always one line, whatever
 * a client or a file name put into it. */
#include "common/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/utf8.h"

enum { MSG_BYTES = sizeof((struct err *)0)->msg, HEAD_BYTES_MIN = 48 };

/* printf into `out`, cut between characters, control characters replaced. */
static void format(char out[MSG_BYTES], const char *fmt, va_list ap)
{
    char text[MSG_BYTES + 4];
    int n = vsnprintf(text, sizeof text, fmt, ap);
    size_t len;

    if (n < 0)
        n = 0;
    text[n < (int)sizeof text ? n : (int)sizeof text - 1] = '\0';
    len = strlen(text);
    if (len >= MSG_BYTES)
        len = utf8_cut(text, MSG_BYTES - 1);
    for (size_t i = 0; i < len; i++)
        out[i] = (unsigned char)text[i] < 0x20 || text[i] == 0x7f ? '?' : text[i];
    out[len] = '\0';
}

/* out = "<head>: <tail>"; the head gives way first, but keeps a part one can recognise. */
static void join(char out[MSG_BYTES], const char *head, const char *tail)
{
    size_t n_head = strlen(head), n_tail = strlen(tail), room = MSG_BYTES - 1 - 2;

    if (n_head + n_tail <= room) {
        snprintf(out, MSG_BYTES, "%s: %s", head, tail);
        return;
    }
    if (n_head > HEAD_BYTES_MIN) {
        size_t keep = n_tail + 3 + HEAD_BYTES_MIN < room ? room - 3 - n_tail : HEAD_BYTES_MIN;
        if (keep + 3 < n_head) {
            n_head = utf8_cut(head, keep);
            room -= 3;
        }
    }
    if (n_head + n_tail > room)
        n_tail = utf8_cut(tail, room - n_head);
    snprintf(out, MSG_BYTES, "%.*s%s: %.*s", (int)n_head, head, head[n_head] ? "..." : "",
             (int)n_tail, tail);
}

bool err_set(struct err *e, enum err_code code, int sys, const char *fmt, ...)
{
    char text[MSG_BYTES], reason[96];
    va_list ap;

    if (!e)
        return false;
    va_start(ap, fmt);
    format(text, fmt, ap);
    va_end(ap);
    e->code = code;
    e->sys = sys;
    if (code == ERR_SYS)
        join(e->msg, text, strerror_r(sys, reason, sizeof reason));
    else
        memcpy(e->msg, text, sizeof text);
    return false;
}

bool err_wrap(struct err *e, const char *fmt, ...)
{
    char outer[MSG_BYTES], inner[MSG_BYTES];
    va_list ap;

    if (!e)
        return false;
    va_start(ap, fmt);
    format(outer, fmt, ap);
    va_end(ap);
    memcpy(inner, e->msg, sizeof inner);
    join(e->msg, outer, inner);
    return false;
}
