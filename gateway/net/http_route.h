/* http_route.h - which handler serves a path.
 *
 * An exact-path table, given by the caller, looked through in order: a gateway has some forty routes,
 * and a request costs thousands of times more than the walk. */
#ifndef LLMD_GATEWAY_NET_HTTP_ROUTE_H
#define LLMD_GATEWAY_NET_HTTP_ROUTE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gateway/net/http_parser.h"

#define HTTP_METHOD_BIT(m) (1u << (m))

struct http_route {
    const char *path;  /* exact, percent-decoded */
    uint32_t methods;  /* HTTP_METHOD_BIT()s; GET serves HEAD too */
    const void *serve; /* the caller's */
};

enum http_route_result { HTTP_ROUTE_FOUND, HTTP_ROUTE_NO_PATH, HTTP_ROUTE_NO_METHOD };

enum { HTTP_ALLOW_BYTES = 64 };

/* FOUND: *serve.  NO_METHOD (405): the Allow field's value in allow.  NO_PATH (404). */
enum http_route_result http_route_find(const struct http_route *routes, size_t n,
                                       enum http_method method, const char *path,
                                       const void **serve, char allow[HTTP_ALLOW_BYTES]);

/* The first value of `name` in a query string ("a=1&b=two+words"), decoded and NUL-terminated.
 * False when it is not there, malformed or (still encoded) longer than cap - 1; a name without '=' has
 * the value "". */
bool http_query_get(const char *query, const char *name, char *out, size_t cap);

#endif
