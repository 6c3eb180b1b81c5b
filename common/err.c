/* err.c - fill and wrap struct err.  Any thread; touches nothing but its arguments. */
#include "common/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

bool err_set(struct err *e, enum err_code code, int sys, const char *fmt, ...)
{
    va_list ap;
    int n;

    if (!e)
        return false;
    e->code = code;
    e->sys = sys;
    va_start(ap, fmt);
    n = vsnprintf(e->msg, sizeof e->msg, fmt, ap);
    va_end(ap);
    if (code == ERR_SYS && n >= 0 && (size_t)n < sizeof e->msg) {
        char text[96];
        snprintf(e->msg + n, sizeof e->msg - (size_t)n, ": %s", strerror_r(sys, text, sizeof text));
    }
    return false;
}

bool err_wrap(struct err *e, const char *fmt, ...)
{
    char outer[sizeof e->msg], inner[sizeof e->msg];
    va_list ap;
    int n;

    if (!e)
        return false;
    va_start(ap, fmt);
    n = vsnprintf(outer, sizeof outer, fmt, ap);
    va_end(ap);
    if (n < 0)
        return false;
    memcpy(inner, e->msg, sizeof inner);
    snprintf(e->msg, sizeof e->msg, "%.*s: %.*s", (int)sizeof outer - 1, outer,
             (int)sizeof inner - 1, inner);
    return false;
}
