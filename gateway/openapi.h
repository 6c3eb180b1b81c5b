/* openapi.h - the API's description, made from what answers it.
 *
 * An OpenAPI 3.1 document: its paths are the route table's, its parameters the field tables that the parsers read bodies by
 * (fields.h), so it cannot say what is not so.  What no table knows is said beside it: a route's .summary,
 * a parameter's line in parameters.def, an answer's members in answers.def.  A route or a parameter without these fails test_openapi.
 *
 * It is the same for every server of a version, and says nothing of the model: so it needs no key. */
#ifndef LLMD_GATEWAY_OPENAPI_H
#define LLMD_GATEWAY_OPENAPI_H

#include "common/json.h"

/* A new reference, the caller's. */
json_t *openapi_make(void);

/* What a parameter is, or NULL. */
const char *openapi_parameter(const char *name);

#endif
