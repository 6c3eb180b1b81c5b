/* metrics.c - GET /metrics: our own names, one family for each line of stats.def.
 *
 * stats.def is in parts, and the first name of each part tells who writes it: a worker's numbers have one
 * sample for each group, labelled so; those of the gateway and of llmd have one, without labels.  What
 * is known of every process is labelled with its slot and name. */
#include "gateway/metrics/metrics.h"

#include <inttypes.h>
#include <string.h>

#include "common/clock.h"
#include "gateway/pages.h"
#include "gateway/service.h"

enum stat_owner metrics_stat_owner(enum stat_id s)
{
    if (s < STAT_sequences_accepted)
        return OWNER_GATEWAY;
    if (s >= STAT_kv_host_pages) /* the list grows at its end */
        return OWNER_RANK0;
    return s < STAT_process_starts ? OWNER_RANK0 : OWNER_LLMD;
}

enum stat_owner metrics_hist_owner(enum hist_id h)
{
    return h < HIST_step_seconds ? OWNER_GATEWAY : OWNER_RANK0;
}

void metrics_family(struct buf *out, const char *prefix, const char *name, const char *suffix,
                    const char *type, const char *help)
{
    buf_printf(out, "# HELP %s%s%s %s\n# TYPE %s%s%s %s\n", prefix, name, suffix, help, prefix,
               name, suffix, type);
}

void metrics_label(struct buf *out, const char *name, const char *value)
{
    buf_printf(out, "%s=\"", name);
    for (; *value; value++) {
        if (*value == '\n') {
            buf_add_str(out, "\\n");
            continue;
        }
        if (*value == '"' || *value == '\\')
            buf_add_char(out, '\\');
        buf_add_char(out, *value);
    }
    buf_add_char(out, '"');
}

static void put_bound(struct buf *out, double bound)
{
    char text[32];

    snprintf(text, sizeof text, "%.12g", bound);
    buf_printf(out, "%s%s", text, strpbrk(text, ".e") ? "" : ".0");
}

void metrics_hist(struct buf *out, const char *prefix, const char *name, const char *labels,
                  const struct stat_hist *h, enum hist_id id)
{
    const char *comma = *labels ? "," : "";
    uint64_t below = 0;
    int n;
    const double *bounds = hist_bounds(id, &n);

    for (int i = 0; i < n; i++) {
        below += atomic_load_explicit(&h->bucket[i], memory_order_relaxed);
        buf_printf(out, "%s%s_bucket{%s%sle=\"", prefix, name, labels, comma);
        put_bound(out, bounds[i]);
        buf_printf(out, "\"} %" PRIu64 "\n", below);
    }
    /* The count is the sum of what was read above, so that the buckets are cumulative even while
     * their writer goes on. */
    below += atomic_load_explicit(&h->bucket[n], memory_order_relaxed);
    buf_printf(out, "%s%s_bucket{%s%sle=\"+Inf\"} %" PRIu64 "\n", prefix, name, labels, comma,
               below);
    buf_printf(out, *labels ? "%s%s_sum{%s} %.9g\n" : "%s%s_sum%s %.9g\n", prefix, name, labels,
               stat_hist_sum(h, id));
    buf_printf(out, *labels ? "%s%s_count{%s} %" PRIu64 "\n" : "%s%s_count%s %" PRIu64 "\n", prefix,
               name, labels, below);
}

/* ---- whose slot ---- */

static bool is_slot_of(const struct board *b, uint32_t slot, enum stat_owner owner)
{
    switch (owner) {
    case OWNER_LLMD:
        return slot == BOARD_SLOT_LLMD;
    case OWNER_GATEWAY:
        return slot == BOARD_SLOT_GATEWAY;
    case OWNER_RANK0:
        break;
    }
    return slot >= BOARD_SLOT_RANKS && (slot - BOARD_SLOT_RANKS) % b->hdr->tp_size == 0;
}

/* group="0", or nothing. */
static void put_group(struct buf *out, const struct board *b, uint32_t slot)
{
    if (slot >= BOARD_SLOT_RANKS)
        buf_printf(out, "group=\"%u\"", (slot - BOARD_SLOT_RANKS) / b->hdr->tp_size);
}

static void put_process(struct buf *out, const struct board *b, uint32_t slot)
{
    put_group(out, b, slot);
    if (slot >= BOARD_SLOT_RANKS)
        buf_printf(out, ",rank=\"%u\",", (slot - BOARD_SLOT_RANKS) % b->hdr->tp_size);
    buf_printf(out, "slot=\"%u\",", slot);
    metrics_label(out, "process", board_slot(b, slot)->name);
}

static void put_value(struct buf *out, enum stat_id s, uint64_t v)
{
    if (stat_is_gauge(s))
        buf_printf(out, " %" PRId64 "\n", (int64_t)v);
    else
        buf_printf(out, " %" PRIu64 "\n", v);
}

static void put_stat(struct buf *out, const struct board *b, enum stat_id s)
{
    const char *suffix = stat_is_gauge(s) ? "" : "_total";

    metrics_family(out, "llmd_", stat_name(s), suffix, stat_is_gauge(s) ? "gauge" : "counter",
                   stat_help(s));
    for (uint32_t slot = 0; slot < b->hdr->n_slots; slot++) {
        if (!is_slot_of(b, slot, metrics_stat_owner(s)))
            continue;
        buf_printf(out, "llmd_%s%s", stat_name(s), suffix);
        if (slot >= BOARD_SLOT_RANKS) {
            buf_add_char(out, '{');
            put_group(out, b, slot);
            buf_add_char(out, '}');
        }
        put_value(out, s, stat_get(&board_slot(b, slot)->stats, s));
    }
}

static void put_hist(struct buf *out, const struct board *b, enum hist_id h)
{
    struct buf labels = { 0 };

    metrics_family(out, "llmd_", hist_name(h), "", "histogram", hist_help(h));
    for (uint32_t slot = 0; slot < b->hdr->n_slots; slot++) {
        if (!is_slot_of(b, slot, metrics_hist_owner(h)))
            continue;
        buf_clear(&labels);
        put_group(&labels, b, slot);
        metrics_hist(out, "llmd_", hist_name(h), labels.data ? labels.data : "",
                     &board_slot(b, slot)->stats.hist[h], h);
    }
    buf_fini(&labels);
}

/* ---- what the slots say besides their statistics ---- */

static double age_s(uint64_t since_ns, uint64_t now_ns)
{
    return since_ns == 0 || since_ns > now_ns ? 0 : (double)(now_ns - since_ns) / 1e9;
}

static void put_slot_gauge(struct buf *out, const struct board *b, const char *name,
                           const char *help, double (*value)(const struct board_slot *, uint64_t))
{
    uint64_t now_ns = clock_mono_ns();

    metrics_family(out, "llmd_", name, "", "gauge", help);
    for (uint32_t slot = 0; slot < b->hdr->n_slots; slot++) {
        buf_printf(out, "llmd_%s{", name);
        put_process(out, b, slot);
        buf_printf(out, "} %.9g\n", value(board_slot(b, slot), now_ns));
    }
}

static double slot_is_up(const struct board_slot *s, uint64_t now_ns)
{
    (void)now_ns;
    return atomic_load_explicit(&s->state, memory_order_relaxed) == PROCESS_READY;
}

static double slot_heartbeat_age(const struct board_slot *s, uint64_t now_ns)
{
    return age_s(atomic_load_explicit(&s->heartbeat_ns, memory_order_relaxed), now_ns);
}

static double slot_step_age(const struct board_slot *s, uint64_t now_ns)
{
    return age_s(atomic_load_explicit(&s->step_started_ns, memory_order_relaxed), now_ns);
}

static double slot_uptime(const struct board_slot *s, uint64_t now_ns)
{
    return age_s(atomic_load_explicit(&s->started_ns, memory_order_relaxed), now_ns);
}

static void put_restarts(struct buf *out, const struct board *b)
{
    metrics_family(out, "llmd_", "process_restarts", "_total", "counter",
                   "Times the process was started again.");
    for (uint32_t slot = 0; slot < b->hdr->n_slots; slot++) {
        buf_add_str(out, "llmd_process_restarts_total{");
        put_process(out, b, slot);
        buf_printf(out, "} %u\n",
                   atomic_load_explicit(&board_slot(b, slot)->restarts, memory_order_relaxed));
    }
}

void metrics_own(struct buf *out, const struct board *b)
{
    for (int s = 0; s < N_STATS; s++)
        put_stat(out, b, (enum stat_id)s);
    for (int h = 0; h < N_HISTS; h++)
        put_hist(out, b, (enum hist_id)h);
    put_slot_gauge(out, b, "process_up", "1 while the process is in service.", slot_is_up);
    put_slot_gauge(out, b, "process_uptime_seconds", "Since the process was started.", slot_uptime);
    put_slot_gauge(out, b, "process_heartbeat_age_seconds", "Since its main loop last ran.",
                   slot_heartbeat_age);
    put_slot_gauge(out, b, "process_step_age_seconds",
                   "How long its current forward pass has run; 0 while idle.", slot_step_age);
    put_restarts(out, b);
}

const struct stats *metrics_of_gateway(const struct service *s)
{
    return &board_slot(&s->board, BOARD_SLOT_GATEWAY)->stats;
}

const struct stats *metrics_of_group(const struct service *s, uint32_t group)
{
    return &board_slot(&s->board, board_rank_slot(&s->board, group, 0))->stats;
}

/* ---- the service ---- */

static void put_groups(struct buf *out, const struct service *s, const char *name, const char *help,
                       double (*value)(const struct service *s, uint32_t group))
{
    metrics_family(out, "llmd_", name, "", "gauge", help);
    for (uint32_t g = 0; g < s->n_groups; g++)
        buf_printf(out, "llmd_%s{group=\"%u\"} %.9g\n", name, g, value(s, g));
}

static double group_is_up(const struct service *s, uint32_t group)
{
    return atomic_load(&s->group_up[group]) && atomic_load(&s->group_hello[group]);
}

static double group_kv_pages(const struct service *s, uint32_t group)
{
    return atomic_load(&s->group_kv_pages[group]);
}

static double group_kv_usage(const struct service *s, uint32_t group)
{
    uint32_t pages = atomic_load(&s->group_kv_pages[group]);

    return pages ? (double)stat_get(metrics_of_group(s, group), STAT_kv_pages_leased) / pages : 0;
}

void metrics_service(struct buf *out, const struct service *s)
{
    metrics_family(out, "llmd_", "build_info", "", "gauge", "1; what is served, and by what.");
    buf_add_str(out, "llmd_build_info{version=\"" LLMD_VERSION "\",");
    metrics_label(out, "model", s->model_name);
    buf_add_str(out, "} 1\n");
    metrics_family(out, "llmd_", "draining", "", "gauge",
                   "1 while the server finishes what runs and takes nothing new.");
    buf_printf(out, "llmd_draining %d\n", service_is_draining(s));
    put_groups(out, s, "group_up", "1 while the group takes work.", group_is_up);
    put_groups(out, s, "kv_pages", "KV pages that the group may lease.", group_kv_pages);
    put_groups(out, s, "kv_usage_ratio", "Share of them that its sequences use.", group_kv_usage);
}

/* ---- by API key ---- */

static uint64_t key_requests(const struct key_table *t, uint32_t key)
{
    return atomic_load_explicit(&t->records[key].n_requests, memory_order_relaxed);
}

static uint64_t key_limited(const struct key_table *t, uint32_t key)
{
    return atomic_load_explicit(&t->records[key].n_limited, memory_order_relaxed);
}

static uint64_t key_prompt_tokens(const struct key_table *t, uint32_t key)
{
    return atomic_load_explicit(&t->records[key].n_prompt_tokens, memory_order_relaxed);
}

static uint64_t key_generated_tokens(const struct key_table *t, uint32_t key)
{
    return atomic_load_explicit(&t->records[key].n_generated_tokens, memory_order_relaxed);
}

static uint64_t key_active(const struct key_table *t, uint32_t key)
{
    return atomic_load_explicit(&t->n_requests[key], memory_order_relaxed);
}

/* Of the keys in force; the samples of one that was removed end. */
void metrics_keys(struct buf *out, struct key_table *t)
{
    static const struct {
        const char *name, *suffix, *help;
        uint64_t (*value)(const struct key_table *t, uint32_t key);
    } families[] = {
        { "key_requests", "_total", "Generation requests admitted, by API key.", key_requests },
        { "key_requests_limited", "_total",
          "Generation requests refused for one of their API key's limits.", key_limited },
        { "key_prompt_tokens", "_total", "Prompt tokens, by API key.", key_prompt_tokens },
        { "key_generated_tokens", "_total", "Generated tokens, by API key.", key_generated_tokens },
        { "key_requests_active", "", "Generation requests holding a permit now, by API key.",
          key_active },
    };
    char name[KEY_NAME_BYTES];

    for (size_t f = 0; f < sizeof families / sizeof *families; f++) {
        metrics_family(out, "llmd_", families[f].name, families[f].suffix,
                       *families[f].suffix ? "counter" : "gauge", families[f].help);
        for (uint32_t key = KEY_SETTING; key < KEYS_MAX; key++) {
            if (!key_is_live(key_table_record(t, key)))
                continue;
            key_table_name(t, key, name);
            buf_printf(out, "llmd_%s%s{", families[f].name, families[f].suffix);
            metrics_label(out, "key", name);
            buf_printf(out, "} %" PRIu64 "\n", families[f].value(t, key));
        }
    }
}

void page_metrics(struct service *s, const struct http_request *http, struct reply *r)
{
    (void)http;
    reply_set(r, 200, "text/plain; version=0.0.4; charset=utf-8");
    metrics_own(&r->body, &s->board);
    metrics_service(&r->body, s);
    metrics_keys(&r->body, &s->admission.keys);
    metrics_process(&r->body, s);
    metrics_vllm(&r->body, s);
    metrics_tgi(&r->body, s);
}
