/* test_sse.c - events of a stream, whatever pieces the network cuts it into.
 *
 * What would break in production: text lost or doubled where a piece ends, or a server that sends CR LF. */
#include "llmctl/sse.h"

#include "tests/check.h"

/* All events, written one after another as "type=data|". */
static void collect(void *arg, const char *type, const char *data, size_t n)
{
    assert_int_equal(strlen(data), n); /* no NUL in these tests, but one behind */
    buf_printf(arg, "%s=%s|", type, data);
}

/* Feed in pieces of `piece` bytes. */
static void expect(const char *stream, size_t n, size_t piece, const char *want)
{
    struct buf got = { 0 };
    struct sse s = { 0 };
    struct err e;

    buf_add(&got, "", 0);
    for (size_t at = 0; at < n; at += piece) {
        size_t take = n - at < piece ? n - at : piece;
        char *exact = malloc(take); /* so that reading past a piece is seen */
        memcpy(exact, stream + at, take);
        assert_ok(sse_feed(&s, exact, take, collect, &got, &e), e);
        free(exact);
    }
    if (strcmp(got.data, want) != 0)
        fail_msg("pieces of %zu: got '%s', want '%s'", piece, got.data, want);
    sse_fini(&s);
    buf_fini(&got);
}

static void expect_always(const char *stream, const char *want)
{
    size_t n = strlen(stream);

    for (size_t piece = 1; piece <= n; piece++)
        expect(stream, n, piece, want);
}

static void sse_events_end_at_an_empty_line(void **state)
{
    (void)state;
    expect_always("data: a\n\ndata: b\n\ndata: c\n", "message=a|message=b|");
    expect_always("", "");
    expect_always("\n\n\n", "");
}

static void sse_takes_every_line_end(void **state)
{
    (void)state;
    expect_always("data: a\r\n\r\ndata: b\r\n\r\n", "message=a|message=b|");
    expect_always("data: a\r\rdata: b\n\r\ndata: c\r\n\n", "message=a|message=b|message=c|");
}

static void sse_joins_data_lines(void **state)
{
    (void)state;
    expect_always("data: a\ndata: b\ndata\ndata:\ndata:  c\n\n", "message=a\nb\n\n\n c|");
    expect_always("data\n\n", "message=|");
}

static void sse_skips_comments_and_other_fields(void **state)
{
    (void)state;
    expect_always(": keep-alive\n\nid: 7\nretry: 10\ndatax: no\ndat: no\n\ndata:yes\n\n",
                  "message=yes|");
}

static void sse_events_have_a_type(void **state)
{
    (void)state;
    expect_always("event: error\ndata: x\n\ndata: y\n\nevent: lost\n\ndata: z\n\n",
                  "error=x|message=y|message=z|");
}

static void sse_skips_a_byte_order_mark_at_the_start_only(void **state)
{
    (void)state;
    expect_always("\xef\xbb\xbf"
                  "data: a\n\n\xef\xbb\xbf"
                  "data: b\n\n",
                  "message=a|");
}

static void count(void *arg, const char *type, const char *data, size_t n)
{
    (void)type;
    assert_memory_equal(data, "a\0b", 4);
    *(size_t *)arg += n;
}

static void sse_data_may_hold_a_nul(void **state)
{
    struct sse s = { 0 };
    size_t n = 0;
    struct err e;

    (void)state;
    assert_ok(sse_feed(&s, "data: a\0b\n\n", 11, count, &n, &e), e);
    assert_int_equal(n, 3);
    sse_fini(&s);
}

static void sse_bounds_a_line_and_an_event(void **state)
{
    static char chunk[1 << 16];
    struct sse s = { 0 };
    struct err e = { 0 };
    size_t n = 0;

    (void)state;
    memset(chunk, 'x', sizeof chunk);
    while (sse_feed(&s, chunk, sizeof chunk, collect, NULL, &e))
        n += sizeof chunk;
    assert_int_equal(e.code, ERR_PROTO);
    assert_true(n <= SSE_EVENT_BYTES_MAX);
    sse_fini(&s);
    memcpy(chunk, "data: ", 6);
    chunk[sizeof chunk - 1] = '\n';
    for (n = 0; sse_feed(&s, chunk, sizeof chunk, collect, NULL, &e);)
        n += sizeof chunk;
    assert_in_range(n, 1 << 20, SSE_EVENT_BYTES_MAX + 2 * sizeof chunk);
    sse_fini(&s);
    sse_fini(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sse_events_end_at_an_empty_line),
        cmocka_unit_test(sse_takes_every_line_end),
        cmocka_unit_test(sse_joins_data_lines),
        cmocka_unit_test(sse_skips_comments_and_other_fields),
        cmocka_unit_test(sse_events_have_a_type),
        cmocka_unit_test(sse_skips_a_byte_order_mark_at_the_start_only),
        cmocka_unit_test(sse_data_may_hold_a_nul),
        cmocka_unit_test(sse_bounds_a_line_and_an_event),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
