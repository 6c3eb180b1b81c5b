/* service.c - open the model, keep track of who is in service. */
#include "gateway/service.h"

#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "proto/control.h"

/* FNV-1a: names the configuration in system_fingerprint, guards nothing. */
static uint32_t hash_text(uint32_t h, const char *s)
{
    for (; *s; s++)
        h = (h ^ (unsigned char)*s) * 16777619u;
    return h;
}

static void make_fingerprint(struct service *s)
{
    uint32_t h = hash_text(2166136261u, s->config.model);
    char value[CONFIG_TEXT_BYTES];

    for (int id = 0; id < N_CONFIG; id++) {
        if (config_is_live((enum config_id)id))
            continue;
        config_value(&s->config, (enum config_id)id, value, sizeof value);
        h = hash_text(h, value);
    }
    snprintf(s->fingerprint, sizeof s->fingerprint, "llmd-%s-tp%u-%08x", LLMD_VERSION,
             (unsigned)s->config.tp_size, h);
}

static size_t longest_token(const struct tokenizer *t)
{
    size_t longest = 1;

    for (int32_t id = 0; id < tokenizer_vocab_size(t); id++) {
        size_t n = 0;
        tokenizer_token_bytes(t, id, &n);
        longest = n > longest ? n : longest;
    }
    return longest;
}

bool service_open_model(struct service *s, struct err *e)
{
    struct err chat = { 0 };
    uint64_t len;

    if (!model_info_read(&s->model, s->config.model, e))
        return false;
    s->tokenizer = tokenizer_open(s->config.model, e);
    if (!s->tokenizer)
        return false;
    s->token_bytes_max = longest_token(s->tokenizer);
    if (!chat_templates_load(&s->chat, s->config.model, &chat))
        log_warning("chat template: %s, serving without /v1/chat/completions", chat.msg);
    snprintf(s->chat_error, sizeof s->chat_error, "%s",
             s->chat.plain ? ""
             : chat.msg[0] ? chat.msg
                           : "the model has no chat template");
    config_served_name(&s->config, s->model_name, sizeof s->model_name);
    len = s->config.max_model_len ? s->config.max_model_len : s->model.max_model_len;
    atomic_store(&s->max_model_len, (uint32_t)len);
    atomic_store(&s->logprobs_max, (uint32_t)s->config.max_logprobs);
    s->started_s = clock_wall_ns() / NS_PER_S;
    make_fingerprint(s);
    oci_paths_read(&s->paths, &s->config);
    return true;
}

void service_close_model(struct service *s)
{
    tokenizer_close(s->tokenizer);
    chat_templates_fini(&s->chat);
    s->tokenizer = NULL;
}

/* What the groups compute at once, and some that they can begin with as soon as one ends: the others are
 * given their turns here. */
static uint32_t sequences_under_way(const struct service *s)
{
    const struct config *c = &s->config;
    uint64_t ahead = c->max_num_seqs / 4 + 1;

    if (ahead > c->max_waiting_seqs)
        ahead = c->max_waiting_seqs;
    return (uint32_t)((c->max_num_seqs + ahead) * s->n_groups);
}

void service_apply_settings(struct service *s)
{
    atomic_store(&s->max_body_bytes, s->config.max_body_bytes);
    atomic_store(&s->request_timeout_s, s->config.request_timeout_s);
    atomic_store(&s->predict_timeout_s, s->config.predict_timeout_s);
    atomic_store(&s->unavailable_wait_s, s->config.unavailable_wait_s);
    atomic_store(&s->metrics_are_open, strcmp(s->config.metrics_access, "open") == 0);
    atomic_store(&s->logs_prompts, strcmp(s->config.log_prompts, "on") == 0);
    admission_set_max(&s->admission, s->config.max_concurrent_requests);
    admission_set_room(&s->admission, sequences_under_way(s));
}

bool service_load_keys(struct service *s, struct err *e)
{
    bool ok = key_table_load(&s->admission.keys, s->config.api_key, s->config.api_keys_file, e);

    log_info("keys asked=%d live=%u", atomic_load(&s->admission.keys.asks),
             atomic_load(&s->admission.keys.n_live));
    return ok;
}

static void lower_to(_Atomic uint32_t *value, uint32_t limit)
{
    uint32_t now = atomic_load(value);

    while (limit > 0 && limit < now && !atomic_compare_exchange_weak(value, &now, limit)) {
    }
}

void service_tell_serving(struct service *s, bool again)
{
    Llmd__Serving serving = LLMD__SERVING__INIT;
    struct err e;

    if (again)
        atomic_store(&s->told_serving, 0);
    if (s->control < 0 || service_groups_ready(s) == 0 || atomic_exchange(&s->told_serving, 1))
        return;
    serving.epoch = s->gateway_epoch;
    if (!control_send(s->control, MSG_SERVING, &serving, NULL, 0, &e))
        atomic_store(&s->told_serving, 0);
}

static void note_served(struct service *s, bool was_served)
{
    service_tell_serving(s, false);
    admission_set_served(&s->admission, service_groups_ready(s) > 0);
    if (service_groups_ready(s) > 0)
        atomic_store(&s->unserved_since_ns, 0);
    else if (was_served)
        atomic_store(&s->unserved_since_ns, clock_mono_ns());
}

void service_note_hello(struct service *s, const Llmd__Hello *hello)
{
    if (hello->group >= s->n_groups)
        return;
    lower_to(&s->max_model_len, hello->max_model_len);
    if (hello->logprobs_max < atomic_load(&s->logprobs_max))
        atomic_store(&s->logprobs_max, hello->logprobs_max);
    atomic_store(&s->group_kv_pages[hello->group], hello->kv_pages);
    atomic_store(&s->group_hello[hello->group], 1);
    note_served(s, false);
}

void service_note_group(struct service *s, uint32_t group, bool is_up, const char *cause)
{
    bool was_served = service_groups_ready(s) > 0;

    if (group >= s->n_groups)
        return;
    atomic_store(&s->group_up[group], is_up);
    note_served(s, was_served);
    pthread_mutex_lock(&s->causes_lock);
    snprintf(s->causes[group], sizeof s->causes[group], "%s", cause ? cause : "");
    pthread_mutex_unlock(&s->causes_lock);
}

void service_beat(struct service *s, uint32_t index)
{
    uint64_t oldest_ns;

    atomic_store_explicit(&s->beats_ns[index], clock_mono_ns(), memory_order_relaxed);
    oldest_ns = atomic_load_explicit(&s->beats_ns[index], memory_order_relaxed);
    for (uint32_t i = 0; i <= s->n_threads; i++) {
        uint64_t ns = atomic_load_explicit(&s->beats_ns[i], memory_order_relaxed);
        oldest_ns = ns < oldest_ns ? ns : oldest_ns;
    }
    atomic_store_explicit(&s->slot->heartbeat_ns, oldest_ns, memory_order_relaxed);
}

uint32_t service_groups_ready(const struct service *s)
{
    uint32_t n = 0;

    for (uint32_t g = 0; g < s->n_groups; g++)
        n += atomic_load(&s->group_up[g]) && atomic_load(&s->group_hello[g]);
    return n;
}

bool service_is_alive(const struct service *s)
{
    uint64_t since_ns = atomic_load(&s->unserved_since_ns);
    uint64_t wait_ns = atomic_load(&s->unavailable_wait_s) * NS_PER_S;

    return service_groups_ready(s) > 0 || service_is_draining(s) ||
           (since_ns > 0 && clock_mono_ns() - since_ns < wait_ns);
}

bool service_refuses(const struct service *s)
{
    return service_is_draining(s) && clock_mono_ns() >= atomic_load(&s->refuses_from_ns);
}

bool service_is_ready(const struct service *s)
{
    return !service_is_draining(s) && service_groups_ready(s) > 0;
}

void service_describe(struct service *s, char *out, size_t n)
{
    size_t at;

    if (service_is_draining(s)) {
        snprintf(out, n, "the server is shutting down");
        return;
    }
    at = (size_t)snprintf(out, n, "no group is in service");
    pthread_mutex_lock(&s->causes_lock);
    for (uint32_t g = 0; g < s->n_groups && at < n; g++)
        if (s->causes[g][0])
            at += (size_t)snprintf(out + at, n - at, "; group %u: %s", g, s->causes[g]);
    pthread_mutex_unlock(&s->causes_lock);
}
