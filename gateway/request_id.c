/* request_id.c - take what the client calls it, or call it something. */
#include "gateway/request_id.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "gateway/request.h"

static bool is_word(const char *id)
{
    size_t n = 0;

    for (; id[n]; n++)
        if (id[n] <= ' ' || id[n] > '~' || id[n] == '"' || id[n] == '\\')
            return false;
    return n > 0 && n < REQUEST_ID_BYTES;
}

void request_id_of(const struct http_request *http, uint64_t bits, char out[REQUEST_ID_BYTES])
{
    const char *id = http_request_header(http, "X-Request-Id");

    if (id && is_word(id))
        strcpy(out, id);
    else /* UINT32_MAX: a step that no other id of the answer takes */
        snprintf(out, REQUEST_ID_BYTES, "%016llx%016llx", (unsigned long long)bits,
                 (unsigned long long)request_choice_seed(bits, UINT32_MAX));
}
