/* reply.c - fill an answer. */
#include "gateway/reply.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>

void reply_init(struct reply *r)
{
    *r = (struct reply){ .status = 200 };
}

void reply_fini(struct reply *r)
{
    buf_fini(&r->body);
    arena_fini(&r->arena);
}

void reply_header(struct reply *r, const char *name, const char *fmt, ...)
{
    char value[512];
    va_list ap;

    assert(r->n_headers < REPLY_HEADERS_MAX);
    va_start(ap, fmt);
    vsnprintf(value, sizeof value, fmt, ap);
    va_end(ap);
    r->headers[r->n_headers++] =
        (struct http_header){ .name = name, .value = arena_strdup(&r->arena, value) };
}

void reply_set(struct reply *r, int status, const char *content_type)
{
    r->status = status;
    if (content_type)
        reply_header(r, "Content-Type", "%s", content_type);
}
