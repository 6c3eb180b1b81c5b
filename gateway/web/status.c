/* status.c - GET /ui/status.json: the board and the service as they are now, for the status page.
 *
 * Counters are totals: whoever draws rates asks again and subtracts.  One answer is some 8 KB, so that a page may
 * ask each second. */
#include "common/clock.h"
#include "common/json.h"
#include "gateway/metrics/metrics.h"
#include "gateway/pages.h"
#include "gateway/service.h"

static double age_s(uint64_t since_ns, uint64_t now_ns)
{
    return since_ns == 0 || since_ns > now_ns ? 0 : (double)(now_ns - since_ns) / NS_PER_S;
}

static void put_uint(struct json_writer *w, const char *key, uint64_t v)
{
    jw_key(w, key);
    jw_uint(w, v);
}

static void put_str(struct json_writer *w, const char *key, const char *v)
{
    jw_key(w, key);
    jw_str(w, v);
}

static void put_seconds(struct json_writer *w, const char *key, double v)
{
    jw_key(w, key);
    jw_float(w, (float)v);
}

/* ---- the service ---- */

static const char *state_of(const struct service *s)
{
    if (service_is_draining(s))
        return "draining";
    if (!service_is_ready(s))
        return "unavailable";
    return service_groups_ready(s) < s->n_groups ? "degraded" : "ready";
}

static void put_service(struct json_writer *w, struct service *s)
{
    char cause[FAULT_TEXT_BYTES];

    put_str(w, "state", state_of(s));
    jw_key(w, "cause");
    if (service_is_ready(s)) {
        jw_null(w);
    } else {
        service_describe(s, cause, sizeof cause);
        jw_str(w, cause);
    }
    put_str(w, "version", LLMD_VERSION);
    put_str(w, "model", s->model_name);
    put_uint(w, "max_model_len", service_max_model_len(s));
    put_uint(w, "kv_page_tokens", s->config.kv_page_tokens);
    put_uint(w, "requests_max", atomic_load(&s->admission.permits_max));
    put_seconds(w, "uptime_s", age_s(s->board.hdr->started_ns, clock_mono_ns()));
}

/* ---- processes ---- */

static uint64_t word(const _Atomic uint64_t *v)
{
    return atomic_load_explicit(v, memory_order_relaxed);
}

static void put_place(struct json_writer *w, const struct board *b, uint32_t slot)
{
    if (slot < BOARD_SLOT_RANKS)
        return;
    put_uint(w, "group", (slot - BOARD_SLOT_RANKS) / b->hdr->tp_size);
    put_uint(w, "rank", (slot - BOARD_SLOT_RANKS) % b->hdr->tp_size);
}

static void put_process(struct json_writer *w, const struct board *b, uint32_t slot)
{
    const struct board_slot *p = board_slot(b, slot);
    uint64_t now_ns = clock_mono_ns();

    jw_object(w);
    put_str(w, "name", p->name);
    put_place(w, b, slot);
    put_str(w, "state", process_state_name(atomic_load(&p->state)));
    put_uint(w, "pid", atomic_load(&p->pid));
    put_uint(w, "restarts", atomic_load(&p->restarts));
    put_uint(w, "epoch", atomic_load(&p->epoch));
    put_seconds(w, "uptime_s", age_s(word(&p->started_ns), now_ns));
    put_seconds(w, "heartbeat_age_s", age_s(word(&p->heartbeat_ns), now_ns));
    put_seconds(w, "step_age_s", age_s(word(&p->step_started_ns), now_ns));
    put_seconds(w, "step_average_s", (double)word(&p->step_average_ns) / NS_PER_S);
    put_str(w, "last_exit", p->last_exit);
    jw_object_end(w);
}

static void put_processes(struct json_writer *w, const struct board *b)
{
    jw_key(w, "processes");
    jw_array(w);
    for (uint32_t slot = 0; slot < b->hdr->n_slots; slot++)
        put_process(w, b, slot);
    jw_array_end(w);
}

/* ---- numbers ---- */

static void put_stats(struct json_writer *w, const struct stats *stats, enum stat_owner owner)
{
    for (int i = 0; i < N_STATS; i++) {
        enum stat_id s = (enum stat_id)i;
        if (metrics_stat_owner(s) != owner)
            continue;
        jw_key(w, stat_name(s));
        if (stat_is_gauge(s))
            jw_int(w, (int64_t)stat_get(stats, s));
        else
            jw_uint(w, stat_get(stats, s));
    }
}

static void put_owner(struct json_writer *w, const char *key, const struct stats *stats,
                      enum stat_owner owner)
{
    jw_key(w, key);
    jw_object(w);
    put_stats(w, stats, owner);
    jw_object_end(w);
}

static void put_groups(struct json_writer *w, const struct service *s)
{
    jw_key(w, "groups");
    jw_array(w);
    for (uint32_t g = 0; g < s->n_groups; g++) {
        jw_object(w);
        jw_key(w, "up");
        jw_bool(w, atomic_load(&s->group_up[g]) && atomic_load(&s->group_hello[g]));
        put_uint(w, "kv_pages", atomic_load(&s->group_kv_pages[g]));
        put_stats(w, metrics_of_group(s, g), OWNER_RANK0);
        jw_object_end(w);
    }
    jw_array_end(w);
}

/* Bucket i of all its writers; [n bounds] is past the last. */
static uint64_t bucket(const struct service *s, enum hist_id h, int i)
{
    uint64_t n = 0;

    if (metrics_hist_owner(h) == OWNER_GATEWAY)
        return word(&metrics_of_gateway(s)->hist[h].bucket[i]);
    for (uint32_t g = 0; g < s->n_groups; g++)
        n += word(&metrics_of_group(s, g)->hist[h].bucket[i]);
    return n;
}

static void put_hist(struct json_writer *w, const struct service *s, enum hist_id h)
{
    int n;
    const double *bounds = hist_bounds(h, &n);

    jw_key(w, hist_name(h));
    jw_object(w);
    jw_key(w, "bounds");
    jw_array(w);
    for (int i = 0; i < n; i++)
        jw_double(w, bounds[i]);
    jw_array_end(w);
    jw_key(w, "counts");
    jw_array(w);
    for (int i = 0; i <= n; i++)
        jw_uint(w, bucket(s, h, i));
    jw_array_end(w);
    jw_object_end(w);
}

static void put_hists(struct json_writer *w, const struct service *s)
{
    static const enum hist_id drawn[] = { HIST_time_to_first_token_seconds,
                                          HIST_inter_token_latency_seconds, HIST_step_seconds };

    jw_key(w, "histograms");
    jw_object(w);
    for (size_t i = 0; i < sizeof drawn / sizeof *drawn; i++)
        put_hist(w, s, drawn[i]);
    jw_object_end(w);
}

void page_status_json(struct service *s, const struct http_request *http, struct reply *r)
{
    struct json_writer w = { .out = &r->body };

    (void)http;
    reply_set(r, 200, REPLY_JSON);
    reply_header(r, "Cache-Control", "no-store");
    jw_object(&w);
    put_service(&w, s);
    put_processes(&w, &s->board);
    put_owner(&w, "llmd", &board_slot(&s->board, BOARD_SLOT_LLMD)->stats, OWNER_LLMD);
    put_owner(&w, "gateway", metrics_of_gateway(s), OWNER_GATEWAY);
    put_groups(&w, s);
    put_hists(&w, s);
    jw_object_end(&w);
}
