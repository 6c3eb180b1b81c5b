/* fuzz_accept.c - any value of Accept, Accept-Encoding or If-None-Match: read within its bounds, and never more said than
 * is there. */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "gateway/web/accept.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    char *value = malloc(n + 1);

    if (!value)
        abort();
    memcpy(value, data, n);
    value[n] = '\0';
    if (accept_names(value, "gzip"))
        assert(strcasestr(value, "gzip"));
    if (accept_names(value, "text/html"))
        assert(strcasestr(value, "text/html"));
    if (accept_has_etag(value, "W/\"ab\""))
        assert(strstr(value, "\"ab\"") || strchr(value, '*'));
    free(value);
    return 0;
}
