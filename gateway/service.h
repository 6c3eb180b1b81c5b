/* service.h - what all threads of this gateway share: the model, the board, the limits, who is in
 * service.
 *
 * Filled by main before any thread starts.  Afterwards the model part is read-only, single words change
 * atomically (LIVE settings, drain, groups), and the causes of absent groups are behind a mutex,
 * since only people read them. */
#ifndef LLMD_GATEWAY_SERVICE_H
#define LLMD_GATEWAY_SERVICE_H

#include <pthread.h>
#include <stdatomic.h>

#include "common/config.h"
#include "gateway/admission/admission.h"
#include "gateway/model_info.h"
#include "gateway/oci/paths.h"
#include "gateway/upstream.h"
#include "proto/board.h"
#include "proto/connections.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

/* Limits of vLLM's dialect that are no settings yet. */
enum {
    SERVICE_STOPS_MAX = 4,
    SERVICE_CAUSE_BYTES = 240,
    SERVICE_LOOPS_MAX = 65,
    SERVICE_BEAT_MS = 1000,
};

struct service {
    struct config config; /* as booted; what is LIVE is below */
    uint32_t gateway_epoch, n_groups, n_threads;
    _Atomic uint64_t beats_ns[SERVICE_LOOPS_MAX]; /* last turn of each loop: threads, then main */
    char instance[64];

    /* the model */
    char model_name[CONFIG_TEXT_BYTES]; /* served name */
    struct model_info model;
    struct tokenizer *tokenizer;
    size_t token_bytes_max; /* a text longer than n times this is longer than n tokens */
    struct chat_templates chat;
    char chat_error[240];           /* why there is no template; "" = there is one */
    _Atomic uint32_t max_model_len; /* the least of setting, model and what the groups say */
    _Atomic uint32_t logprobs_max;  /* what the groups can give */
    uint64_t started_s;             /* wall clock */
    char fingerprint[64];
    struct oci_paths paths; /* further ones, of the settings */

    struct board board;
    struct board_slot *slot; /* this gateway's */
    struct stats *stats;     /* of that slot */
    struct connections connections;
    bool has_connections;
    _Atomic uint32_t journal_was_full; /* said once */
    int control;                       /* the socket to llmd; -1: none */
    struct admission admission;
    _Atomic uint32_t load[UPSTREAM_GROUPS_MAX]; /* sequences by group */

    /* LIVE settings */
    _Atomic bool metrics_are_open, logs_prompts;
    _Atomic uint64_t max_body_bytes, request_timeout_s, predict_timeout_s, unavailable_wait_s;

    /* who is in service */
    _Atomic uint32_t is_draining;
    _Atomic uint64_t refuses_from_ns; /* then: requests are taken until here (drain_lead_s) */
    _Atomic uint32_t group_up[UPSTREAM_GROUPS_MAX];    /* llmd's word */
    _Atomic uint32_t group_hello[UPSTREAM_GROUPS_MAX]; /* it has spoken to us */
    _Atomic uint32_t group_kv_pages[UPSTREAM_GROUPS_MAX];
    _Atomic uint32_t told_serving;      /* llmd knows that a group answers us */
    _Atomic uint64_t unserved_since_ns; /* no group; 0 = there is one, or never was */
    pthread_mutex_t causes_lock;
    char causes[UPSTREAM_GROUPS_MAX][SERVICE_CAUSE_BYTES];
};

/* Open the model directory of s->config: tokenizer, template, numbers.  ERR_SYS, ERR_MODEL. */
bool service_open_model(struct service *s, struct err *e);
void service_close_model(struct service *s);

/* Copy the LIVE settings from s->config to where the threads see them. */
void service_apply_settings(struct service *s);
/* Take the API keys that the settings name.  ERR_SYS, ERR_CONFIG: the file's keys stay what they were. */
bool service_load_keys(struct service *s, struct err *e);

/* A group said HELLO (any thread). */
void service_note_hello(struct service *s, const Llmd__Hello *hello);
/* llmd said how a group is (main thread). */
void service_note_group(struct service *s, uint32_t group, bool is_up, const char *cause);

/* Tell llmd that a group answers here, if one does and it was not told; `again`: to a new llmd.  Any thread.  What
 * the socket has no room for is left for the next call. */
void service_tell_serving(struct service *s, bool again);

/* Loop `index` turns: the board shows the one that has not done so for the longest time, and llmd
 * tells a hung process by it.  Any thread, of its own index. */
void service_beat(struct service *s, uint32_t index);

uint32_t service_groups_ready(const struct service *s);
/* A probe that restarts what it finds dead must leave this one alone: it serves, or finishes, or has been
 * without a group for no longer than requests wait for one. */
bool service_is_alive(const struct service *s);
/* Takes work: not draining, and a group is in service. */
bool service_is_ready(const struct service *s);
/* One sentence on why it is not. */
void service_describe(struct service *s, char *out, size_t n);

static inline bool service_is_draining(const struct service *s)
{
    return atomic_load_explicit(&s->is_draining, memory_order_relaxed) != 0;
}

/* Draining, and load balancers had the time to notice. */
bool service_refuses(const struct service *s);

static inline uint32_t service_max_model_len(const struct service *s)
{
    return atomic_load_explicit(&s->max_model_len, memory_order_relaxed);
}

#endif
