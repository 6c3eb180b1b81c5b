/* vllm.c - the names that dashboards made for vLLM look for.
 *
 * Only what our numbers fill truthfully: a metric whose meaning we cannot give is absent, since a wrong
 * graph is worse than an empty one (docs/metrics.md says which, and why).  `engine` is the group; what the
 * gateway counts for all groups together stands under engine 0.  Names of before vLLM's V1 engine that old dashboards
 * still ask for are given where they mean the same. */
#include <inttypes.h>
#include <string.h>

#include "gateway/metrics/metrics.h"
#include "gateway/service.h"

enum { ONCE = 1 }; /* groups of a family that has one sample, or one for each value of a label */

static void put_labels(struct buf *labels, const struct service *s, uint32_t group)
{
    buf_clear(labels);
    metrics_label(labels, "model_name", s->model_name);
    buf_printf(labels, ",engine=\"%u\"", group);
}

/* A sample of engine 0, or of each; value() is asked for each. */
static void put_family(struct buf *out, const struct service *s, const char *name, const char *type,
                       const char *help, uint32_t n_groups,
                       double (*value)(const struct service *s, uint32_t group))
{
    struct buf labels = { 0 };

    metrics_family(out, "vllm:", name, "", type, help);
    for (uint32_t g = 0; g < n_groups; g++) {
        put_labels(&labels, s, g);
        buf_printf(out, "vllm:%s{%s} %.17g\n", name, labels.data, value(s, g));
    }
    buf_fini(&labels);
}

/* ---- a worker's numbers, one sample for each group ---- */

static const struct {
    const char *name, *type;
    enum stat_id stat;
    const char *help;
} group_stats[] = {
    { "num_requests_running", "gauge", STAT_sequences_running, "Sequences in the batch." },
    { "prefix_cache_queries_total", "counter", STAT_prefix_cache_queries,
      "Tokens looked up in the prefix cache." },
    { "prefix_cache_hits_total", "counter", STAT_prefix_cache_hits,
      "Tokens found in the prefix cache." },
    { "prompt_tokens_cached_total", "counter", STAT_prefix_cache_hits,
      "Prompt tokens that were not computed, since their KV was found." },
    { "prompt_tokens_total", "counter", STAT_prompt_tokens, "Prompt tokens computed." },
    { "generation_tokens_total", "counter", STAT_generated_tokens, "Tokens generated." },
    { "num_preemptions_total", "counter", STAT_sequences_preempted, "Sequences preempted." },
    { "spec_decode_num_drafts_total", "counter", STAT_drafts, "Times tokens were proposed." },
    { "spec_decode_num_draft_tokens_total", "counter", STAT_draft_tokens, "Tokens proposed." },
    { "spec_decode_num_accepted_tokens_total", "counter", STAT_draft_tokens_accepted,
      "Proposed tokens that were drawn." },
};

static void put_group_stats(struct buf *out, const struct service *s)
{
    struct buf labels = { 0 };

    for (size_t i = 0; i < sizeof group_stats / sizeof *group_stats; i++) {
        metrics_family(out, "vllm:", group_stats[i].name, "", group_stats[i].type,
                       group_stats[i].help);
        for (uint32_t g = 0; g < s->n_groups; g++) {
            put_labels(&labels, s, g);
            buf_printf(out, "vllm:%s{%s} %" PRId64 "\n", group_stats[i].name, labels.data,
                       (int64_t)stat_get(metrics_of_group(s, g), group_stats[i].stat));
        }
    }
    buf_fini(&labels);
}

/* Those that wait for their turn are in no group yet. */
static double waiting(const struct service *s, uint32_t group)
{
    uint64_t n = stat_get(metrics_of_group(s, group), STAT_sequences_waiting);

    return (double)(n + (group == 0 ? stat_get(metrics_of_gateway(s), STAT_requests_queued) : 0));
}

static double kv_usage(const struct service *s, uint32_t group)
{
    uint32_t pages = atomic_load(&s->group_kv_pages[group]);
    uint64_t used = stat_get(metrics_of_group(s, group), STAT_kv_pages_leased);

    return pages ? (double)used / pages : 0;
}

/* What this server has not: no cache elsewhere, no pictures.  Dashboards divide by some of them. */
static double none(const struct service *s, uint32_t group)
{
    (void)s;
    (void)group;
    return 0;
}

static void put_absent(struct buf *out, const struct service *s)
{
    static const char *const names[] = { "external_prefix_cache_queries_total",
                                         "external_prefix_cache_hits_total",
                                         "mm_cache_queries_total", "mm_cache_hits_total" };

    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        put_family(out, s, names[i], "counter", "Always 0: this server has no such cache.", ONCE,
                   none);
}

/* ---- families with a label of their own ---- */

struct labelled {
    const char *value;
    double n;
};

static void put_labelled(struct buf *out, const struct service *s, uint32_t group, const char *name,
                         const char *label, const struct labelled *values, size_t n)
{
    struct buf labels = { 0 };

    put_labels(&labels, s, group);
    for (size_t i = 0; i < n; i++)
        buf_printf(out, "vllm:%s{%s,%s=\"%s\"} %.17g\n", name, labels.data, label, values[i].value,
                   values[i].n);
    buf_fini(&labels);
}

#define COUNT(a) (sizeof(a) / sizeof *(a))

static void put_waiting_by_reason(struct buf *out, const struct service *s)
{
    metrics_family(out, "vllm:", "num_requests_waiting_by_reason", "", "gauge",
                   "Requests that wait, by why.");
    for (uint32_t g = 0; g < s->n_groups; g++) {
        const struct labelled values[] = { { "capacity", waiting(s, g) }, { "deferred", 0 } };
        put_labelled(out, s, g, "num_requests_waiting_by_reason", "reason", values, COUNT(values));
    }
}

static void put_sleep_state(struct buf *out, const struct service *s)
{
    static const struct labelled values[] = { { "awake", 1 },
                                              { "weights_offloaded", 0 },
                                              { "discard_all", 0 } };

    metrics_family(out, "vllm:", "engine_sleep_state", "", "gauge",
                   "Always awake: this server has no sleep.");
    for (uint32_t g = 0; g < s->n_groups; g++)
        put_labelled(out, s, g, "engine_sleep_state", "sleep_state", values, COUNT(values));
}

static void put_prompt_sources(struct buf *out, const struct service *s)
{
    metrics_family(out, "vllm:", "prompt_tokens_by_source_total", "", "counter",
                   "Prompt tokens, by where their KV came from.");
    for (uint32_t g = 0; g < s->n_groups; g++) {
        const struct stats *stats = metrics_of_group(s, g);
        const struct labelled values[] = {
            { "local_compute", (double)stat_get(stats, STAT_prompt_tokens) },
            { "local_cache_hit", (double)stat_get(stats, STAT_prefix_cache_hits) },
            { "external_kv_transfer", 0 }
        };
        put_labelled(out, s, g, "prompt_tokens_by_source_total", "source", values, COUNT(values));
    }
}

static void put_success(struct buf *out, const struct service *s)
{
    const struct stats *g = metrics_of_gateway(s);
    uint64_t repeated = stat_get(g, STAT_requests_finished_repetition);
    uint64_t stop = stat_get(g, STAT_requests_finished_stop);
    const struct labelled values[] = {
        { "stop", (double)(stop - repeated) },
        { "length", (double)stat_get(g, STAT_requests_finished_length) },
        { "abort", (double)stat_get(g, STAT_requests_cancelled) },
        { "error", (double)stat_get(g, STAT_requests_finished_error) },
        { "repetition", (double)repeated }
    };

    metrics_family(out, "vllm:", "request_success_total", "", "counter",
                   "Requests that ended, by how.");
    put_labelled(out, s, 0, "request_success_total", "finished_reason", values, COUNT(values));
}

static void put_tool_parses(struct buf *out, const struct service *s)
{
    static const struct {
        const char *mode, *outcome, *type;
        enum stat_id id;
    } rows[] = {
        { "non_streaming", "tool_call", "chat_completions", STAT_chat_texts_called },
        { "non_streaming", "no_tool_call", "chat_completions", STAT_chat_texts_plain },
        { "streaming", "tool_call", "chat_completions", STAT_chat_streams_called },
        { "streaming", "no_tool_call", "chat_completions", STAT_chat_streams_plain },
        { "non_streaming", "tool_call", "responses", STAT_response_texts_called },
        { "non_streaming", "no_tool_call", "responses", STAT_response_texts_plain },
        { "streaming", "tool_call", "responses", STAT_response_streams_called },
        { "streaming", "no_tool_call", "responses", STAT_response_streams_plain },
    };

    struct buf labels = { 0 };

    metrics_label(&labels, "model_name", s->model_name);
    metrics_family(out, "vllm:", "tool_call_parser_invocations_total", "", "counter",
                   "Answers looked through for tool calls.");
    for (size_t i = 0; i < COUNT(rows); i++)
        buf_printf(out,
                   "vllm:tool_call_parser_invocations_total{%s,mode=\"%s\",outcome=\"%s\","
                   "request_type=\"%s\"} %" PRIu64 "\n",
                   labels.data, rows[i].mode, rows[i].outcome, rows[i].type,
                   stat_get(metrics_of_gateway(s), rows[i].id));
    buf_fini(&labels);
}

static void put_cache_config(struct buf *out, const struct service *s)
{
    metrics_family(out, "vllm:", "cache_config_info", "", "gauge",
                   "Settings of the KV cache, as labels.");
    for (uint32_t g = 0; g < s->n_groups; g++)
        buf_printf(out,
                   "vllm:cache_config_info{engine=\"%u\",block_size=\"%" PRIu64
                   "\",cache_dtype=\"%s\",num_gpu_blocks=\"%u\",enable_prefix_caching=\"%s\"} 1\n",
                   g, s->config.kv_page_tokens, s->config.kv_cache_dtype,
                   atomic_load(&s->group_kv_pages[g]),
                   strcmp(s->config.prefix_cache, "on") == 0 ? "True" : "False");
}

/* ---- histograms ---- */

static const struct {
    const char *name;
    enum hist_id hist;
    const char *help;
} hists[] = {
    { "time_to_first_token_seconds", HIST_time_to_first_token_seconds, "Arrival to first token." },
    { "inter_token_latency_seconds", HIST_inter_token_latency_seconds, "Gap between two outputs." },
    { "time_per_output_token_seconds", HIST_inter_token_latency_seconds,
      "inter_token_latency_seconds by its old name." },
    { "request_time_per_output_token_seconds", HIST_request_time_per_token_seconds,
      "Mean gap between tokens of a request." },
    { "e2e_request_latency_seconds", HIST_request_seconds, "Whole time of a request." },
    { "request_queue_time_seconds", HIST_request_queue_seconds, "Parsed to first scheduled." },
    { "request_inference_time_seconds", HIST_request_inference_seconds,
      "First scheduled to last token." },
    { "request_prefill_time_seconds", HIST_request_prefill_seconds,
      "First scheduled to first token." },
    { "request_decode_time_seconds", HIST_request_decode_seconds, "First to last token." },
    { "request_prompt_tokens", HIST_request_prompt_tokens, "Prompt tokens per request." },
    { "request_prefill_kv_computed_tokens", HIST_request_computed_tokens,
      "Prompt tokens per request that were not found in the prefix cache." },
    { "request_generation_tokens", HIST_request_generated_tokens, "Generated tokens per request." },
    { "request_max_num_generation_tokens", HIST_request_longest_tokens,
      "Tokens of the longest answer of a request." },
    { "request_params_max_tokens", HIST_request_max_tokens, "Token limit asked for." },
    { "request_params_n", HIST_request_answers, "Answers asked for." },
    { "iteration_tokens_total", HIST_step_tokens, "Tokens per engine step." },
};

static void put_hists(struct buf *out, const struct service *s)
{
    struct buf labels = { 0 };

    for (size_t i = 0; i < COUNT(hists); i++) {
        enum hist_id h = hists[i].hist;
        bool is_gateways = metrics_hist_owner(h) == OWNER_GATEWAY;
        metrics_family(out, "vllm:", hists[i].name, "", "histogram", hists[i].help);
        for (uint32_t g = 0; g < (is_gateways ? ONCE : s->n_groups); g++) {
            const struct stats *stats =
                is_gateways ? metrics_of_gateway(s) : metrics_of_group(s, g);
            put_labels(&labels, s, g);
            metrics_hist(out, "vllm:", hists[i].name, labels.data, &stats->hist[h], h);
        }
    }
    buf_fini(&labels);
}

void metrics_vllm(struct buf *out, struct service *s)
{
    put_group_stats(out, s);
    put_family(out, s, "num_requests_waiting", "gauge",
               "Sequences that wait for the batch, and requests for their turn.", s->n_groups,
               waiting);
    put_waiting_by_reason(out, s);
    put_family(out, s, "kv_cache_usage_perc", "gauge",
               "KV pages in use by the group, as a share of the host's; 1 is all.", s->n_groups,
               kv_usage);
    put_family(out, s, "gpu_cache_usage_perc", "gauge", "kv_cache_usage_perc by its old name.",
               s->n_groups, kv_usage);
    put_absent(out, s);
    put_sleep_state(out, s);
    put_prompt_sources(out, s);
    put_success(out, s);
    put_tool_parses(out, s);
    put_cache_config(out, s);
    put_hists(out, s);
}
