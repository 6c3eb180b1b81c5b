/* fuzz_llmctl_text.c - any bytes as what llmctl reads of servers: a page of metrics, a log line, a stream of answers,
 * and as text that secrets are taken out of. */
#include <assert.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "llmctl/bench_request.h"
#include "llmctl/log_text.h"
#include "llmctl/metrics_text.h"
#include "llmctl/redact.h"

static void metrics(const char *text)
{
    struct metrics_histogram h;
    double q;

    if (!metrics_histogram_read(&h, text, "x"))
        return;
    for (unsigned i = 1; i < h.n; i++)
        assert(h.bounds[i] > h.bounds[i - 1]);
    q = metrics_quantile(&h, 0.5);
    assert(!isnan(q));
    h = metrics_histogram_since(&h, &h);
    assert(metrics_quantile(&h, 0.99) <= 0 || h.n == 0);
}

static void log_lines(const char *text)
{
    struct log_filter f = { .level_max = LOG_INFO, .since_ms = 1, .text = "id" };
    int level = log_text_level(text);

    assert(level >= LOG_ERROR && level <= LOG_DEBUG + 1);
    log_text_ms(text);
    log_text_passes(text, &f);
}

static void answers(const char *text, size_t n, enum bench_api api)
{
    struct bench_ask ask = { .api = api, .max_tokens = 1 };
    struct http_end end = { .result = HTTP_OK, .status = 200 };
    struct bench_request r;

    bench_request_init(&r, &ask, "x");
    for (size_t at = 0; at < n; at += 7)
        if (!r.post.on_body(r.post.arg, text + at, n - at < 7 ? n - at : 7))
            break;
    bench_request_end(&r, &end);
    assert(r.failure != BENCH_FINE || (r.is_finished && r.n_events > 0));
    bench_request_fini(&r);
}

/* Nothing is lost but what became the mark. */
static void secrets(const char *text, size_t n)
{
    struct buf once = { 0 };
    char *exact = malloc(n + 1);

    memcpy(exact, text, n);
    redact_add(&once, exact, n);
    if (once.n == 0 || !memmem(once.data, once.n, "(redacted)", 10))
        assert(once.n == n && (n == 0 || memcmp(once.data, exact, n) == 0));
    buf_fini(&once);
    free(exact);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    char *text = malloc(n + 1);

    memcpy(text, data, n);
    text[n] = '\0';
    metrics(text);
    log_lines(text);
    answers(text, n, BENCH_OPENAI);
    answers(text, n, BENCH_TGI);
    secrets(text, n);
    free(text);
    return 0;
}
