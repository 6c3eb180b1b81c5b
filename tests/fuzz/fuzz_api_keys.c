/* fuzz_api_keys.c - any bytes as a file of API keys: refused with a line's number, or keys whose lines read
 * back as the same keys. */
#include <assert.h>
#include <string.h>

#include "common/api_keys.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct api_keys k, again;
    struct buf out = { 0 }, again_out = { 0 };
    struct err e = { 0 };
    bool ok;

    if (!api_keys_parse(&k, (const char *)data, n, &e)) {
        assert(strncmp(e.msg, "line ", 5) == 0);
        return 0;
    }
    for (size_t i = 0; i < k.n; i++)
        api_key_write(&k.list[i], &out);
    ok = api_keys_parse(&again, out.data ? out.data : "", out.n, &e);
    assert(ok && again.n == k.n);
    for (size_t i = 0; i < again.n; i++)
        api_key_write(&again.list[i], &again_out);
    assert(out.n == again_out.n && (out.n == 0 || memcmp(out.data, again_out.data, out.n) == 0));
    api_keys_fini(&k);
    api_keys_fini(&again);
    buf_fini(&out);
    buf_fini(&again_out);
    return 0;
}
