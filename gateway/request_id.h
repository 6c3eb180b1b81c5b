/* request_id.h - by what a request is known in the logs of all processes, and in its answer's X-Request-Id. */
#ifndef LLMD_GATEWAY_REQUEST_ID_H
#define LLMD_GATEWAY_REQUEST_ID_H

#include <stdint.h>

#include "gateway/net/http_request.h"

enum { REQUEST_ID_BYTES = 129 };

/* The client's own X-Request-Id, when that is a word: printable ASCII without blanks, quotes and backslashes, at
 * most 128 bytes; else one made of `bits`, so that an answer that is made again has the same. */
void request_id_of(const struct http_request *http, uint64_t bits, char out[REQUEST_ID_BYTES]);

#endif
