/* http_route.c - walk the table; split and decode query strings. */
#include "gateway/net/http_route.h"

#include <assert.h>
#include <string.h>

static void allow_format(uint32_t methods, char allow[HTTP_ALLOW_BYTES])
{
    size_t at = 0;

    allow[0] = '\0';
    for (int m = 0; m < N_HTTP_METHODS; m++) {
        const char *name = http_method_name((enum http_method)m);
        size_t n = strlen(name);
        if (!(methods & HTTP_METHOD_BIT(m)))
            continue;
        assert(at + n + 2 < HTTP_ALLOW_BYTES);
        if (at > 0)
            allow[at++] = ',';
        memcpy(allow + at, name, n + 1);
        at += n;
    }
}

enum http_route_result http_route_find(const struct http_route *routes, size_t n,
                                       enum http_method method, const char *path,
                                       const void **serve, char allow[HTTP_ALLOW_BYTES])
{
    uint32_t seen = 0;

    for (size_t i = 0; i < n; i++) {
        uint32_t methods = routes[i].methods;
        if (strcmp(routes[i].path, path) != 0)
            continue;
        if (methods & HTTP_METHOD_BIT(HTTP_GET))
            methods |= HTTP_METHOD_BIT(HTTP_HEAD);
        if (methods & HTTP_METHOD_BIT(method)) {
            *serve = routes[i].serve;
            return HTTP_ROUTE_FOUND;
        }
        seen |= methods;
    }
    if (!seen)
        return HTTP_ROUTE_NO_PATH;
    allow_format(seen, allow);
    return HTTP_ROUTE_NO_METHOD;
}

/* Whether a (still encoded) name of n bytes decodes to `name`. */
static bool name_is(const char *encoded, size_t n, const char *name)
{
    char decoded[128];
    size_t got;

    return n <= sizeof decoded && http_percent_decode(decoded, &got, encoded, n, true) &&
           got == strlen(name) && memcmp(decoded, name, got) == 0;
}

bool http_query_get(const char *query, const char *name, char *out, size_t cap)
{
    assert(cap > 0);
    for (const char *at = query; *at;) {
        size_t n = strcspn(at, "&");
        const char *equals = memchr(at, '=', n);
        size_t name_n = equals ? (size_t)(equals - at) : n;
        if (name_is(at, name_n, name)) {
            const char *value = equals ? equals + 1 : at + n;
            size_t value_n = (size_t)(at + n - value), got;
            if (value_n >= cap || !http_percent_decode(out, &got, value, value_n, true))
                return false;
            out[got] = '\0';
            return true;
        }
        at += n + (at[n] == '&');
    }
    return false;
}
