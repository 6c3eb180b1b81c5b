/* fuzz_bearer.c - any value of an Authorization field: no key, or one without blanks that lies inside it. */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/admission/access.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    char *value = malloc(n + 1);
    const char *key;
    size_t n_key;

    if (!value)
        abort();
    memcpy(value, data, n);
    value[n] = '\0';
    key = access_bearer(value, &n_key);
    if (key) {
        assert(key > value && n_key > 0 && key + n_key == value + strlen(value));
        assert(!memchr(key, ' ', n_key) && !memchr(key, '\t', n_key));
    }
    free(value);
    return 0;
}
