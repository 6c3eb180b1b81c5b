/* metrics_compat.c - the names that dashboards made for vLLM and for TGI look for.
 *
 * Only what our numbers fill truthfully: a metric whose meaning we cannot give is absent, since a wrong
 * graph is worse than an empty one.  `engine` is the group; what the gateway counts for all groups
 * together stands under engine 0. */
#include <inttypes.h>
#include <string.h>

#include "gateway/metrics.h"
#include "gateway/service.h"

static const struct stats *gateway_stats(const struct service *s)
{
    return &board_slot(&s->board, BOARD_SLOT_GATEWAY)->stats;
}

static const struct stats *group_stats(const struct service *s, uint32_t group)
{
    return &board_slot(&s->board, board_rank_slot(&s->board, group, 0))->stats;
}

static void vllm_labels(struct buf *labels, const struct service *s, uint32_t group)
{
    buf_clear(labels);
    metrics_label(labels, "model_name", s->model_name);
    buf_printf(labels, ",engine=\"%u\"", group);
}

/* ---- vLLM ---- */

/* One sample for each group. */
static void vllm_by_group(struct buf *out, const struct service *s, const char *name,
                          const char *type, const char *help, enum stat_id stat)
{
    struct buf labels = { 0 };

    metrics_family(out, "vllm:", name, "", type, help);
    for (uint32_t g = 0; g < s->n_groups; g++) {
        vllm_labels(&labels, s, g);
        buf_printf(out, "vllm:%s{%s} %" PRId64 "\n", name, labels.data,
                   (int64_t)stat_get(group_stats(s, g), stat));
    }
    buf_fini(&labels);
}

static void vllm_cache_usage(struct buf *out, const struct service *s)
{
    struct buf labels = { 0 };

    metrics_family(out, "vllm:", "kv_cache_usage_perc", "", "gauge",
                   "KV pages in use by the group, as a share of the host's; 1 is all.");
    for (uint32_t g = 0; g < s->n_groups; g++) {
        uint32_t pages = atomic_load(&s->group_kv_pages[g]);
        uint64_t used = stat_get(group_stats(s, g), STAT_kv_pages_leased);
        vllm_labels(&labels, s, g);
        buf_printf(out, "vllm:kv_cache_usage_perc{%s} %.9g\n", labels.data,
                   pages ? (double)used / pages : 0);
    }
    buf_fini(&labels);
}

static void vllm_success(struct buf *out, const struct service *s)
{
    static const struct {
        const char *reason;
        enum stat_id stat;
    } reasons[] = { { "stop", STAT_requests_finished_stop },
                    { "length", STAT_requests_finished_length },
                    { "abort", STAT_requests_cancelled },
                    { "error", STAT_requests_finished_error } };
    struct buf labels = { 0 };

    metrics_family(out, "vllm:", "request_success_total", "", "counter",
                   "Requests that ended, by how.");
    vllm_labels(&labels, s, 0);
    for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++)
        buf_printf(out, "vllm:request_success_total{%s,finished_reason=\"%s\"} %" PRIu64 "\n",
                   labels.data, reasons[i].reason, stat_get(gateway_stats(s), reasons[i].stat));
    buf_fini(&labels);
}

static void vllm_hist(struct buf *out, const struct service *s, const char *name, const char *help,
                      enum hist_id h)
{
    bool is_gateways = metrics_hist_owner(h) == OWNER_GATEWAY;
    struct buf labels = { 0 };

    metrics_family(out, "vllm:", name, "", "histogram", help);
    for (uint32_t g = 0; g < (is_gateways ? 1 : s->n_groups); g++) {
        const struct stats *stats = is_gateways ? gateway_stats(s) : group_stats(s, g);
        vllm_labels(&labels, s, g);
        metrics_hist(out, "vllm:", name, labels.data, &stats->hist[h], h);
    }
    buf_fini(&labels);
}

void metrics_vllm(struct buf *out, struct service *s)
{
    vllm_by_group(out, s, "num_requests_running", "gauge", "Sequences in the batch.",
                  STAT_sequences_running);
    vllm_by_group(out, s, "num_requests_waiting", "gauge", "Sequences waiting for the batch.",
                  STAT_sequences_waiting);
    vllm_cache_usage(out, s);
    vllm_by_group(out, s, "prefix_cache_queries_total", "counter",
                  "Tokens looked up in the prefix cache.", STAT_prefix_cache_queries);
    vllm_by_group(out, s, "prefix_cache_hits_total", "counter", "Tokens found in the prefix cache.",
                  STAT_prefix_cache_hits);
    vllm_by_group(out, s, "spec_decode_num_drafts_total", "counter", "Times tokens were proposed.",
                  STAT_drafts);
    vllm_by_group(out, s, "spec_decode_num_draft_tokens_total", "counter", "Tokens proposed.",
                  STAT_draft_tokens);
    vllm_by_group(out, s, "spec_decode_num_accepted_tokens_total", "counter",
                  "Proposed tokens that were drawn.", STAT_draft_tokens_accepted);
    vllm_by_group(out, s, "num_preemptions_total", "counter", "Sequences preempted.",
                  STAT_sequences_preempted);
    vllm_by_group(out, s, "prompt_tokens_total", "counter", "Prompt tokens computed.",
                  STAT_prompt_tokens);
    vllm_by_group(out, s, "generation_tokens_total", "counter", "Tokens generated.",
                  STAT_generated_tokens);
    vllm_success(out, s);
    vllm_hist(out, s, "time_to_first_token_seconds", "Arrival to first token.",
              HIST_time_to_first_token_seconds);
    vllm_hist(out, s, "inter_token_latency_seconds", "Gap between two outputs.",
              HIST_inter_token_latency_seconds);
    vllm_hist(out, s, "e2e_request_latency_seconds", "Whole time of a request.",
              HIST_request_seconds);
    vllm_hist(out, s, "request_queue_time_seconds", "Accepted to first scheduled.",
              HIST_queue_seconds);
    vllm_hist(out, s, "request_prompt_tokens", "Prompt tokens per request.",
              HIST_request_prompt_tokens);
    vllm_hist(out, s, "request_generation_tokens", "Generated tokens per request.",
              HIST_request_generated_tokens);
    vllm_hist(out, s, "request_params_max_tokens", "Token limit asked for.",
              HIST_request_max_tokens);
    vllm_hist(out, s, "iteration_tokens_total", "Tokens per engine step.", HIST_step_tokens);
}

/* ---- TGI ---- */

static void tgi_value(struct buf *out, const char *name, const char *type, uint64_t v)
{
    buf_printf(out, "# TYPE %s %s\n%s %" PRIu64 "\n", name, type, name, v);
}

static void tgi_failures(struct buf *out, const struct stats *s)
{
    static const struct {
        const char *err;
        enum stat_id stat;
    } causes[] = { { "validation", STAT_requests_refused_invalid },
                   { "overloaded", STAT_requests_refused_overload },
                   { "generation", STAT_requests_finished_error },
                   { "dropped", STAT_requests_cancelled } };

    buf_add_str(out, "# TYPE tgi_request_failure counter\n");
    for (size_t i = 0; i < sizeof causes / sizeof *causes; i++)
        buf_printf(out, "tgi_request_failure{err=\"%s\"} %" PRIu64 "\n", causes[i].err,
                   stat_get(s, causes[i].stat));
}

static void tgi_hist(struct buf *out, const char *name, const struct stat_hist *h, enum hist_id id)
{
    buf_printf(out, "# TYPE tgi_%s histogram\n", name);
    metrics_hist(out, "tgi_", name, "", h, id);
}

static uint64_t sum_of_groups(const struct service *s, enum stat_id stat)
{
    uint64_t sum = 0;

    for (uint32_t g = 0; g < s->n_groups; g++)
        sum += stat_get(group_stats(s, g), stat);
    return sum;
}

/* All groups' histograms of one kind together: TGI has no label for them. */
static void tgi_group_hist(struct buf *out, const struct service *s, const char *name,
                           enum hist_id id)
{
    struct stat_hist sum;

    memset(&sum, 0, sizeof sum);
    for (uint32_t g = 0; g < s->n_groups; g++) {
        const struct stat_hist *h = &group_stats(s, g)->hist[id];
        for (int i = 0; i < HIST_BUCKETS_MAX; i++)
            atomic_fetch_add(&sum.bucket[i], atomic_load(&h->bucket[i]));
        atomic_fetch_add(&sum.sum_parts, atomic_load(&h->sum_parts));
    }
    tgi_hist(out, name, &sum, id);
}

void metrics_tgi(struct buf *out, struct service *s)
{
    const struct stats *g = gateway_stats(s);

    tgi_value(out, "tgi_request_count", "counter", stat_get(g, STAT_requests_generate));
    tgi_value(out, "tgi_request_success", "counter",
              stat_get(g, STAT_requests_finished_stop) +
                  stat_get(g, STAT_requests_finished_length));
    tgi_failures(out, g);
    tgi_hist(out, "request_duration", &g->hist[HIST_request_seconds], HIST_request_seconds);
    tgi_hist(out, "request_validation_duration", &g->hist[HIST_request_validation_seconds],
             HIST_request_validation_seconds);
    tgi_group_hist(out, s, "request_queue_duration", HIST_queue_seconds);
    tgi_hist(out, "request_input_length", &g->hist[HIST_request_prompt_tokens],
             HIST_request_prompt_tokens);
    tgi_hist(out, "request_max_new_tokens", &g->hist[HIST_request_max_tokens],
             HIST_request_max_tokens);
    tgi_hist(out, "request_generated_tokens", &g->hist[HIST_request_generated_tokens],
             HIST_request_generated_tokens);
    tgi_value(out, "tgi_queue_size", "gauge", sum_of_groups(s, STAT_sequences_waiting));
    tgi_value(out, "tgi_batch_current_size", "gauge", sum_of_groups(s, STAT_sequences_running));
}
