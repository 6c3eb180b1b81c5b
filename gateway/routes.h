/* routes.h - every path this gateway serves: who answers it, and how. */
#ifndef LLMD_GATEWAY_ROUTES_H
#define LLMD_GATEWAY_ROUTES_H

#include "gateway/dialect.h"
#include "gateway/net/http_route.h"

/* Whether a key is wanted, where the settings name any. */
enum route_access {
    ROUTE_NEEDS_KEY,  /* it computes or reveals */
    ROUTE_IS_OPEN,    /* probes, documents */
    ROUTE_IS_METRICS, /* as the setting metrics_access says */
};

enum { ROUTE_TABLES_MAX = 6, ROUTE_LIKE_MAX = 4 };

struct route {
    const struct dialect *dialect; /* whose errors it has; NULL: plain pages */
    int variant;                   /* of the dialect */
    bool generates;                /* takes a permit, and then `dialect` answers */
    bool always_streams;
    bool
        refuses_by_body; /* one without a permit is refused in a stream, if its body asks for one */
    enum route_access access;
    void (*serve)(struct service *s, const struct http_request *http, struct reply *r);

    /* its description (openapi.h): none is without */
    const char *summary;                                   /* what it does, for who calls it */
    const char *content_type;                              /* of the answer; NULL: JSON */
    const struct field_table *fields[ROUTE_TABLES_MAX];    /* of the JSON body of a POST */
    const struct field_table *or_fields[ROUTE_TABLES_MAX]; /* of another form that it may have */
    const struct route *like[ROUTE_LIKE_MAX];              /* whose body it may have as well */
};

/* As http_route_find(); and by what the OCI settings name, on the predict path by its `route` header.  http
 * may be NULL. */
enum http_route_result routes_find(const struct service *s, enum http_method method,
                                   const char *path, const struct http_request *http,
                                   const struct route **route, char allow[HTTP_ALLOW_BYTES]);

/* The route of a path, whatever the method; NULL when there is none. */
const struct route *routes_of_path(const struct service *s, const char *path);

/* All of them, in their order; .serve is a struct route. */
const struct http_route *routes_all(size_t *n);

/* 404 and 405, in the shape of whoever owns the path. */
void routes_refuse(const struct service *s, const char *path, int status, const char *allow,
                   struct reply *r);

#endif
