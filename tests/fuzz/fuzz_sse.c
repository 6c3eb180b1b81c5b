/* fuzz_sse.c - any bytes as an event stream: fed whole and in pieces, the events are the same. */
#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "llmctl/sse.h"

static void collect(void *arg, const char *type, const char *data, size_t n)
{
    assert(data[n] == '\0');
    buf_add_str(arg, type);
    buf_add_char(arg, '=');
    buf_add(arg, data, n);
    buf_add_char(arg, '|');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    const char *bytes = (const char *)data;
    struct buf whole = { 0 }, pieces = { 0 };
    struct sse a = { 0 }, b = { 0 };
    size_t piece = n > 0 ? 1 + data[0] % 7 : 1;

    buf_add(&whole, "", 0);
    buf_add(&pieces, "", 0);
    assert(sse_feed(&a, bytes, n, collect, &whole, NULL));
    for (size_t at = 0; at < n; at += piece)
        assert(sse_feed(&b, bytes + at, n - at < piece ? n - at : piece, collect, &pieces, NULL));
    assert(whole.n == pieces.n && memcmp(whole.data, pieces.data, whole.n) == 0);
    sse_fini(&a);
    sse_fini(&b);
    buf_fini(&whole);
    buf_fini(&pieces);
    return 0;
}
