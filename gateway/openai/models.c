/* models.c - what is served here: /v1/models for OpenAI's clients. */
#include <inttypes.h>
#include <string.h>

#include "common/clock.h"
#include "common/json.h"
#include "gateway/openai/openai.h"
#include "gateway/pages.h"

static void put_permission(struct json_writer *w, uint64_t now_s)
{
    static const struct {
        const char *name;
        bool value;
    } allowed[] = { { "allow_create_engine", false }, { "allow_sampling", true },
                    { "allow_logprobs", true },       { "allow_search_indices", false },
                    { "allow_view", true },           { "allow_fine_tuning", false } };
    char id[40];

    snprintf(id, sizeof id, "modelperm-%016" PRIx64, request_random());
    jw_object(w);
    jw_key(w, "id");
    jw_str(w, id);
    jw_key(w, "object");
    jw_str(w, "model_permission");
    jw_key(w, "created");
    jw_uint(w, now_s);
    for (size_t i = 0; i < sizeof allowed / sizeof *allowed; i++) {
        jw_key(w, allowed[i].name);
        jw_bool(w, allowed[i].value);
    }
    jw_key(w, "organization");
    jw_str(w, "*");
    jw_key(w, "group");
    jw_null(w);
    jw_key(w, "is_blocking");
    jw_bool(w, false);
    jw_object_end(w);
}

static void put_model(struct json_writer *w, const struct service *s)
{
    uint64_t now_s = clock_wall_ns() / NS_PER_S;

    jw_object(w);
    jw_key(w, "id");
    jw_str(w, s->model_name);
    jw_key(w, "object");
    jw_str(w, "model");
    jw_key(w, "created");
    jw_uint(w, now_s);
    jw_key(w, "owned_by");
    jw_str(w, "vllm"); /* as its clients expect */
    jw_key(w, "root");
    jw_str(w, s->config.model);
    jw_key(w, "parent");
    jw_null(w);
    jw_key(w, "max_model_len");
    jw_uint(w, service_max_model_len(s));
    jw_key(w, "permission");
    jw_array(w);
    put_permission(w, now_s);
    jw_array_end(w);
    jw_object_end(w);
}

void page_models(struct service *s, const struct http_request *http, struct reply *r)
{
    struct json_writer w = { .out = &r->body };

    (void)http;
    reply_set(r, 200, REPLY_JSON);
    jw_object(&w);
    jw_key(&w, "object");
    jw_str(&w, "list");
    jw_key(&w, "data");
    jw_array(&w);
    put_model(&w, s);
    jw_array_end(&w);
    jw_object_end(&w);
}

/* OpenAI's; vLLM has no such route. */
void page_model(struct service *s, const struct http_request *http, struct reply *r)
{
    const char *name = http_request_path(http) + strlen(PAGE_MODEL);
    struct json_writer w = { .out = &r->body };
    struct fault f;

    if (strcmp(name, s->model_name) == 0) {
        reply_set(r, 200, REPLY_JSON);
        put_model(&w, s);
        return;
    }
    fault_set(&f, FAULT_NO_MODEL, "model", "The model `%.200s` does not exist.", name);
    openai_fault(&f, r);
}
