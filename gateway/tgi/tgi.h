/* tgi.h - the TGI dialect's own: what its parser found that its formatter needs. */
#ifndef LLMD_GATEWAY_TGI_TGI_H
#define LLMD_GATEWAY_TGI_TGI_H

#include "common/json.h"
#include "gateway/request.h"

/* Its routes: they differ in who decides about streaming and in the shape around the answer. */
enum tgi_variant {
    TGI_GENERATE,        /* never streams */
    TGI_GENERATE_STREAM, /* always streams */
    TGI_ROOT,            /* `stream` decides; a plain answer is an array of one */
};

struct tgi_extra {
    bool is_old; /* 0.9.3's shapes */
    bool details;
    bool prefill; /* the prompt's tokens among them */
    bool samples; /* else greedy, and the answer's seed is null */
    bool return_full_text;
    uint32_t best_of;
    uint32_t top_n_tokens;
    size_t inputs_chars; /* code points of the prompt as given */
};

/* struct dialect's parse. */
bool tgi_parse(struct request *rq, const struct http_request *http, const char *body, size_t n,
               struct fault *f);

/* Setting tgi_compat: the shapes and defaults of 0.9.3, not of 3.x. */
bool tgi_is_old(const struct service *s);
/* Longest prompt, of max_total tokens in all. */
uint32_t tgi_max_input_tokens(const struct service *s, uint32_t max_total);

/* How many tokens a request may have. */
struct tgi_lengths {
    uint32_t max_total, max_input;
    uint64_t max_new; /* 0: as many as fit */
    uint32_t segment; /* new tokens that are checked at most */
};

/* Of the server, for a request that names no max_new_tokens. */
struct tgi_lengths tgi_lengths(const struct request *rq);
/* A prompt of n tokens is not too long, alone or with what is to come: else FAULT_INVALID. */
bool tgi_check_lengths(const struct tgi_lengths *l, uint64_t n, struct fault *f);

/* The prompt that a chat request's messages and tools make; an assistant's message at the end is left
 * open, to be continued. */
bool tgi_render_chat(struct request *rq, const json_t *chat, struct buf *text, struct fault *f);

/* Routes of their own: several prompts; the body says which dialect. */
extern const struct dialect dialect_tgi_vertex, dialect_tgi_invocations;

/* A body with messages or a prompt, and no inputs, speaks OpenAI's dialect: then rq becomes a request of
 * that. */
bool tgi_becomes_openai(struct request *rq, const json_t *root);

static inline const struct tgi_extra *tgi_extra(const struct request *rq)
{
    return rq->extra;
}

/* The error object of TGI, and of OCI's containers: {"error":TEXT,"error_type":TYPE}. */
void tgi_put_error(struct buf *out, const char *text, const char *type);

#endif
