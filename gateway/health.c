/* health.c - is this server alive, and can it take work.
 *
 * The truth, from heartbeats and the groups' own words, never by running the model; a few atomic loads,
 * so it answers while every compute thread is busy. */
#include "common/json.h"
#include "gateway/pages.h"

/* TGI's and vLLM's probe: 200 and nothing, or 503.  vLLM's 503 is empty, TGI's says so in JSON; the
 * body is TGI's, since vLLM's clients look at the status only.  There a 503 means that all is lost, and
 * orchestrators restart the container for it: so none is given for a pause that clients only wait through. */
void page_health(struct service *s, const struct http_request *http, struct reply *r)
{
    (void)http;
    if (service_is_alive(s)) {
        reply_set(r, 200, NULL);
        return;
    }
    reply_set(r, 503, REPLY_JSON);
    buf_add_str(&r->body, "{\"error\":\"unhealthy\",\"error_type\":\"healthcheck\"}");
}

/* This process answers; nothing else is claimed. */
void page_live(struct service *s, const struct http_request *http, struct reply *r)
{
    struct json_writer w = { .out = &r->body };

    (void)s;
    (void)http;
    reply_set(r, 200, REPLY_JSON);
    jw_object(&w);
    jw_key(&w, "status");
    jw_str(&w, "live");
    jw_object_end(&w);
}

/* For load balancers: should new work come here?  Says why not. */
void page_ready(struct service *s, const struct http_request *http, struct reply *r)
{
    uint32_t n_ready = service_groups_ready(s);
    bool is_ready = service_is_ready(s);
    struct json_writer w = { .out = &r->body };
    char cause[FAULT_TEXT_BYTES];

    (void)http;
    reply_set(r, is_ready ? 200 : 503, REPLY_JSON);
    jw_object(&w);
    jw_key(&w, "status");
    if (is_ready)
        jw_str(&w, n_ready < s->n_groups ? "degraded" : "ready");
    else
        jw_str(&w, service_is_draining(s) ? "draining" : "unavailable");
    jw_key(&w, "groups_ready");
    jw_uint(&w, n_ready);
    jw_key(&w, "groups");
    jw_uint(&w, s->n_groups);
    if (!is_ready) {
        service_describe(s, cause, sizeof cause);
        jw_key(&w, "cause");
        jw_str(&w, cause);
        reply_header(r, "Retry-After", "%d", FAULT_RETRY_AFTER_S);
    }
    jw_object_end(&w);
}

void page_version(struct service *s, const struct http_request *http, struct reply *r)
{
    struct json_writer w = { .out = &r->body };

    (void)s;
    (void)http;
    reply_set(r, 200, REPLY_JSON);
    jw_object(&w);
    jw_key(&w, "version");
    jw_str(&w, LLMD_VERSION);
    jw_object_end(&w);
}

void page_load(struct service *s, const struct http_request *http, struct reply *r)
{
    struct json_writer w = { .out = &r->body };

    (void)http;
    reply_set(r, 200, REPLY_JSON);
    jw_object(&w);
    jw_key(&w, "server_load");
    jw_uint(&w, admission_taken(&s->admission));
    jw_object_end(&w);
}
