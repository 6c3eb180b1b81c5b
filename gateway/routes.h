/* routes.h - every path this gateway serves: who answers it, and how. */
#ifndef LLMD_GATEWAY_ROUTES_H
#define LLMD_GATEWAY_ROUTES_H

#include "gateway/dialect.h"
#include "gateway/net/http_route.h"

struct route {
    const struct dialect *dialect; /* whose errors it has; NULL: plain pages */
    int variant;                   /* of the dialect */
    bool generates;                /* takes a permit, and then `dialect` answers */
    bool always_streams;
    void (*serve)(struct service *s, const struct http_request *http, struct reply *r);
};

/* As http_route_find(); and by what the OCI settings name, on the predict path by its `route` header.  http
 * may be NULL. */
enum http_route_result routes_find(const struct service *s, enum http_method method,
                                   const char *path, const struct http_request *http,
                                   const struct route **route, char allow[HTTP_ALLOW_BYTES]);

/* The route of a path, whatever the method; NULL when there is none. */
const struct route *routes_of_path(const struct service *s, const char *path);

/* 404 and 405, in the shape of whoever owns the path. */
void routes_refuse(const struct service *s, const char *path, int status, const char *allow,
                   struct reply *r);

#endif
