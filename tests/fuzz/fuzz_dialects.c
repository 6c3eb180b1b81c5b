/* fuzz_dialects.c - bodies of every dialect through parse, validate, and the answer to what was taken.
 *
 * The first byte chooses the dialect and its route, its highest bit the version of TGI; or a page with a body.
 * The rest is the body. */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>

#include "gateway/openai/generate.h"
#include "gateway/openai/openai.h"
#include "gateway/request.h"
#include "gateway/tgi/tgi.h"

static struct service *open_service(void)
{
    static struct service *service;
    static struct stats stats;
    struct err e;

    if (service)
        return service;
    service = calloc(1, sizeof *service);
    config_init(&service->config);
    if (!config_set(&service->config, "model", TEST_SOURCE_DIR "/models/stories-demo", "t", &e) ||
        !config_set(&service->config, "tool_call_parser", "hermes", "t", &e) ||
        !config_set(&service->config, "reasoning_parser", "qwen3", "t", &e) ||
        !service_open_model(service, &e))
        abort();
    service->n_groups = 1;
    service->stats = &stats;
    return service;
}

enum { FIRST_PAGE = 0xfc }; /* completions rendered, a chat rendered, /tokenize, /detokenize */

static const struct {
    const struct dialect *dialect;
    int variant;
} doors[] = {
    { &dialect_tgi, TGI_GENERATE },    { &dialect_tgi, TGI_GENERATE_STREAM },
    { &dialect_tgi, TGI_ROOT },        { &dialect_openai_completions, 0 },
    { &dialect_openai_chat, 0 },       { &dialect_oci, 0 },
    { &dialect_openai_embeddings, 0 }, { &dialect_openai_generate, 0 },
    { &dialect_tgi_vertex, 0 },        { &dialect_tgi_invocations, 0 },
    { &dialect_openai_responses, 0 },  { &dialect_openai_chat, OPENAI_CHAT_BATCH },
};

/* One token for each choice, then its end: the formatters see every combination of options. */
static void answer(struct request *rq)
{
    struct buf out = { 0 };
    struct reply r;

    for (uint32_t i = 0; i < rq->n_candidates; i++) {
        struct choice *c = &rq->choices[i];
        Llmd__SequenceTokens m = LLMD__SEQUENCE_TOKENS__INIT;
        int32_t id = 300 + (int32_t)i;
        assert(c->prompt->n_ids > 0);
        assert(c->seq.submit.max_tokens > 0 || rq->needs_no_generation || rq->pooling);
        if (rq->pooling)
            sequence_set_embedding(&c->seq, (const float[]){ 3, 4, 0 }, 3);
        m.tokens = &id;
        m.n_tokens = 1;
        sequence_append(&c->seq, &m, 0);
        c->seq.state = SEQUENCE_ENDED;
        c->seq.finish = LLMD__FINISH__FINISH_LENGTH;
        choice_take(c);
        assert(c->end != CHOICE_RUNNING);
    }
    reply_init(&r);
    if (rq->is_stream) {
        rq->dialect->begin(rq, &r);
        for (uint32_t i = 0; i < rq->n_choices; i++)
            rq->dialect->token(rq, &rq->choices[i], 0, &out);
        rq->dialect->end(rq, &out);
    } else {
        request_choose(rq);
        rq->dialect->whole(rq, &r);
    }
    assert(r.status == 200);
    reply_fini(&r);
    buf_fini(&out);
}

/* Bodies of the routes that need no worker. */
static void open_page(struct service *service, uint8_t which, const char *body, size_t n)
{
    struct reply r;

    reply_init(&r);
    if (which == 0xff)
        openai_detokenize_page(service, "application/json", body, n, &r);
    else if (which == 0xfe)
        openai_tokenize_page(service, "application/json", body, n, &r);
    else
        openai_render_page(service,
                           which == 0xfd ? &dialect_openai_chat : &dialect_openai_completions,
                           "application/json", body, n, &r);
    assert(r.status >= 200 && r.status < 500 && r.body.n > 0);
    reply_fini(&r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct service *service = open_service();
    struct request rq;
    struct fault f = { 0 };
    size_t door = n ? (data[0] & 0x7f) % (sizeof doors / sizeof *doors) : 0;
    struct err e;

    if (n == 0)
        return 0;
    if (data[0] >= FIRST_PAGE) {
        open_page(service, data[0], (const char *)data + 1, n - 1);
        return 0;
    }
    if (!config_set(&service->config, "tgi_compat", data[0] & 0x80 ? "0.9.3" : "3", "t", &e))
        abort();
    request_init(&rq, service, doors[door].dialect, doors[door].variant);
    if (rq.dialect->parse(&rq, NULL, (const char *)data + 1, n - 1, &f) &&
        request_make_choices(&rq, &f)) {
        answer(&rq);
    } else {
        struct reply r;
        reply_init(&r);
        assert(f.kind != FAULT_NONE);
        rq.dialect->fault(&f, &r);
        assert(r.status >= 400 && r.status < 500 && r.body.n > 0);
        reply_fini(&r);
    }
    request_fini(&rq);
    return 0;
}
