/* access.c - Authorization: Bearer KEY. */
#include "gateway/admission/access.h"

#include <string.h>
#include <strings.h>

/* The scheme in any case (RFC 9110, 11.1), then one or more spaces (RFC 6750). */
const char *access_bearer(const char *authorization, size_t *n)
{
    static const char scheme[] = "Bearer ";
    const char *key;

    if (!authorization || strncasecmp(authorization, scheme, sizeof scheme - 1) != 0)
        return NULL;
    key = authorization + sizeof scheme - 1;
    key += strspn(key, " ");
    *n = strcspn(key, " \t");
    return *n > 0 && key[*n] == '\0' ? key : NULL;
}

static bool asks(const struct service *s, const struct route *route)
{
    if (!atomic_load(&s->admission.keys.asks))
        return false;
    switch (route->access) {
    case ROUTE_NEEDS_KEY:
        return true;
    case ROUTE_IS_METRICS:
        return !atomic_load(&s->metrics_are_open);
    case ROUTE_IS_OPEN:
        break;
    }
    return false;
}

enum access_result access_check(struct service *s, const struct route *route,
                                const struct http_request *http, uint32_t *key)
{
    const char *text;
    size_t n;

    *key = KEY_NOBODY;
    if (!asks(s, route))
        return ACCESS_GIVEN;
    text = access_bearer(http_request_header(http, "Authorization"), &n);
    if (!text)
        return ACCESS_NO_KEY;
    *key = key_table_find(&s->admission.keys, text, n);
    return *key == KEY_UNKNOWN ? ACCESS_WRONG_KEY : ACCESS_GIVEN;
}

/* TGI answers with nothing, vLLM with a string where its other errors have an object: so do we. */
void access_refuse(const struct route *route, enum access_result why, struct reply *r)
{
    bool is_tgi = route->dialect && route->dialect->id == DIALECT_TGI;

    reply_set(r, 401, is_tgi ? NULL : REPLY_JSON);
    reply_header(r, "WWW-Authenticate", "%s",
                 why == ACCESS_WRONG_KEY ? "Bearer error=\"invalid_token\"" : "Bearer");
    if (!is_tgi)
        buf_add_str(&r->body, "{\"error\":\"Unauthorized\"}");
}
