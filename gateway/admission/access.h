/* access.h - does this request bring an API key, and whose.
 *
 * Keys are asked for as soon as the settings name any; then every route that computes or reveals wants one, in
 * the form of both originals, `Authorization: Bearer KEY`.  Without one the answer is 401 in the words of whoever
 * owns the route, before the body is read. */
#ifndef LLMD_GATEWAY_ADMISSION_ACCESS_H
#define LLMD_GATEWAY_ADMISSION_ACCESS_H

#include "gateway/routes.h"
#include "gateway/service.h"

enum access_result {
    ACCESS_GIVEN,
    ACCESS_NO_KEY,
    ACCESS_WRONG_KEY,
};

/* *key: whose; KEY_NOBODY where none is asked for. */
enum access_result access_check(struct service *s, const struct route *route,
                                const struct http_request *http, uint32_t *key);

/* The key in the value of an Authorization field: its start, and *n.  NULL: it has another form. */
const char *access_bearer(const char *authorization, size_t *n);

void access_refuse(const struct route *route, enum access_result why, struct reply *r);

#endif
