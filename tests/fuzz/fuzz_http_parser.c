/* fuzz_http_parser.c - any bytes, fed whole and in pieces: no fault, and the same meaning both times.
 *
 * The first byte picks the sizes of the pieces and how tight the limits are; the rest is the stream. */
#include <stdint.h>
#include <stdio.h>

#include "tests/http_describe.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static const struct http_limits tight = {
    .head_bytes_max = 200,
    .target_bytes_max = 30,
    .fields_max = 3,
    .chunk_ext_bytes_max = 10,
    .trailer_bytes_max = 20,
};

static void expect_same(const struct buf *whole, const char *bytes, size_t n,
                        const struct http_limits *limits, uint64_t body_max,
                        struct describe_pieces pieces)
{
    struct buf cut = { 0 };

    http_describe(&cut, bytes, n, limits, body_max, pieces);
    if (strcmp(whole->data, cut.data) != 0) {
        fprintf(stderr, "first %zu each %zu seed %u\nwhole: %s\ncut:   %s\n", pieces.first,
                pieces.each, pieces.seed, whole->data, cut.data);
        abort();
    }
    buf_fini(&cut);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    const char *bytes = (const char *)data + 1;
    const struct http_limits *limits;
    struct buf whole = { 0 };
    uint64_t body_max;

    if (n < 1)
        return 0;
    limits = data[0] & 1 ? &tight : &http_limits_default;
    body_max = data[0] & 2 ? 16 : UINT64_MAX;
    n--;
    http_describe(&whole, bytes, n, limits, body_max, (struct describe_pieces){ 0 });
    expect_same(&whole, bytes, n, limits, body_max, (struct describe_pieces){ .each = 1 });
    expect_same(&whole, bytes, n, limits, body_max,
                (struct describe_pieces){ .seed = 1u + (data[0] >> 2) });
    if (n > 1)
        expect_same(&whole, bytes, n, limits, body_max,
                    (struct describe_pieces){ .first = 1 + (data[0] >> 2) % (n - 1) });
    buf_fini(&whole);
    return 0;
}
