/* tgi.c - the names that dashboards made for TGI look for.
 *
 * They have no labels for models or groups, so all groups are summed, and counters have no _total.  Bucket bounds
 * are ours, which quantile queries do not mind.  What is absent, and why: docs/metrics.md. */
#include <inttypes.h>
#include <string.h>

#include "gateway/metrics/metrics.h"
#include "gateway/service.h"

static void put_value(struct buf *out, const char *name, const char *type, const char *help,
                      uint64_t v)
{
    metrics_family(out, "tgi_", name, "", type, help);
    buf_printf(out, "tgi_%s %" PRIu64 "\n", name, v);
}

/* ---- all groups together ---- */

static uint64_t sum_of_groups(const struct service *s, enum stat_id stat)
{
    uint64_t sum = 0;

    for (uint32_t g = 0; g < s->n_groups; g++)
        sum += stat_get(metrics_of_group(s, g), stat);
    return sum;
}

static uint64_t kv_tokens(const struct service *s)
{
    uint64_t pages = 0;

    for (uint32_t g = 0; g < s->n_groups; g++)
        pages += atomic_load(&s->group_kv_pages[g]);
    return pages * s->config.kv_page_tokens;
}

/* ---- families ---- */

static void put_failures(struct buf *out, const struct stats *s)
{
    const struct {
        const char *err;
        uint64_t n;
    } causes[] = {
        { "validation", stat_get(s, STAT_requests_refused_invalid) },
        { "template", stat_get(s, STAT_requests_refused_template) },
        { "overloaded", stat_get(s, STAT_requests_refused_overload) +
                            stat_get(s, STAT_requests_refused_limited) },
        { "generation", stat_get(s, STAT_requests_finished_error) },
        { "dropped", stat_get(s, STAT_requests_cancelled) },
        { "incomplete", 0 }, /* an answer here ends with its tokens or with an error */
    };

    metrics_family(out, "tgi_", "request_failure", "", "counter",
                   "Requests that got no whole answer, by why.");
    for (size_t i = 0; i < sizeof causes / sizeof *causes; i++)
        buf_printf(out, "tgi_request_failure{err=\"%s\"} %" PRIu64 "\n", causes[i].err,
                   causes[i].n);
}

static const struct {
    const char *name;
    enum hist_id hist;
    const char *help;
} hists[] = {
    { "request_duration", HIST_request_seconds, "Whole time of a request, in seconds." },
    { "request_validation_duration", HIST_request_validation_seconds,
      "Parsing, template and tokenizer, in seconds." },
    { "request_queue_duration", HIST_request_queue_seconds,
      "Parsed to first scheduled, in seconds." },
    { "request_inference_duration", HIST_request_inference_seconds,
      "First scheduled to last token, in seconds." },
    { "request_mean_time_per_token_duration", HIST_request_time_per_token_seconds,
      "Mean gap between tokens of a request, in seconds." },
    { "request_input_length", HIST_request_prompt_tokens, "Prompt tokens per request." },
    { "request_max_new_tokens", HIST_request_max_tokens, "Token limit asked for." },
    { "request_generated_tokens", HIST_request_generated_tokens, "Generated tokens per request." },
};

static void put_hists(struct buf *out, const struct stats *g)
{
    for (size_t i = 0; i < sizeof hists / sizeof *hists; i++) {
        metrics_family(out, "tgi_", hists[i].name, "", "histogram", hists[i].help);
        metrics_hist(out, "tgi_", hists[i].name, "", &g->hist[hists[i].hist], hists[i].hist);
    }
}

/* A summary without quantiles: nobody keeps them. */
static void put_skipped(struct buf *out, const struct service *s)
{
    metrics_family(out, "tgi_", "request_skipped_tokens", "", "summary",
                   "Tokens that were proposed and accepted, per sequence.");
    buf_printf(out,
               "tgi_request_skipped_tokens_sum %" PRIu64 "\n"
               "tgi_request_skipped_tokens_count %" PRIu64 "\n",
               sum_of_groups(s, STAT_draft_tokens_accepted),
               sum_of_groups(s, STAT_sequences_finished));
}

void metrics_tgi(struct buf *out, struct service *s)
{
    const struct stats *g = metrics_of_gateway(s);

    put_value(out, "request_count", "counter", "Requests that asked for generation.",
              stat_get(g, STAT_requests_generate));
    put_value(out, "request_success", "counter", "Requests that got a whole answer.",
              stat_get(g, STAT_requests_finished_stop) +
                  stat_get(g, STAT_requests_finished_length));
    put_failures(out, g);
    put_hists(out, g);
    put_skipped(out, s);
    put_value(out, "queue_size", "gauge", "Requests and sequences that wait.",
              sum_of_groups(s, STAT_sequences_waiting) + stat_get(g, STAT_requests_queued));
    put_value(out, "batch_current_size", "gauge", "Sequences in the batch.",
              sum_of_groups(s, STAT_sequences_running));
    put_value(out, "batch_current_max_tokens", "gauge", "Tokens that the KV pages in use can hold.",
              sum_of_groups(s, STAT_kv_pages_leased) * s->config.kv_page_tokens);
    put_value(out, "batch_max_total_tokens", "gauge", "Tokens that all KV pages can hold.",
              kv_tokens(s));
}
