/* openai.h - what the completions and the chat dialect share: parameters, errors, usage, logprobs.
 *
 * Shapes, key order and texts are those of vLLM's OpenAI server. */
#ifndef LLMD_GATEWAY_OPENAI_OPENAI_H
#define LLMD_GATEWAY_OPENAI_OPENAI_H

#include "gateway/fields.h"
#include "gateway/request.h"

#define OPENAI_COMMON(X)                                                                           \
    X(model, FIELD_STRING, FIELD_NULL, 0, 0)                                                       \
    X(n, FIELD_INT, FIELD_NULL, 1, 16384)                                                          \
    X(best_of, FIELD_INT, FIELD_NULL, 1, 16384)                                                    \
    X(temperature, FIELD_NUMBER, FIELD_NULL, 0, 0)                                                 \
    X(top_p, FIELD_NUMBER, FIELD_NULL, 0, 0)                                                       \
    X(top_k, FIELD_INT, FIELD_NULL, INT32_MIN, INT32_MAX)                                          \
    X(min_p, FIELD_NUMBER, FIELD_NULL, 0, 0)                                                       \
    X(presence_penalty, FIELD_NUMBER, FIELD_NULL, 0, 0)                                            \
    X(frequency_penalty, FIELD_NUMBER, FIELD_NULL, 0, 0)                                           \
    X(repetition_penalty, FIELD_NUMBER, FIELD_NULL, 0, 0)                                          \
    X(seed, FIELD_INT, FIELD_NULL, INT64_MIN, INT64_MAX)                                           \
    X(stop, FIELD_ANY, FIELD_NULL, 0, 0)                                                           \
    X(stop_token_ids, FIELD_ARRAY, FIELD_NULL, 0, 0)                                               \
    X(include_stop_str_in_output, FIELD_BOOL, 0, 0, 0)                                             \
    X(ignore_eos, FIELD_BOOL, 0, 0, 0)                                                             \
    X(max_tokens, FIELD_INT, FIELD_NULL, INT64_MIN, INT64_MAX)                                     \
    X(min_tokens, FIELD_INT, 0, INT64_MIN, INT64_MAX)                                              \
    X(logit_bias, FIELD_OBJECT, FIELD_NULL, 0, 0)                                                  \
    X(allowed_token_ids, FIELD_ARRAY, FIELD_NULL, 0, 0)                                            \
    X(bad_words, FIELD_ARRAY, FIELD_NULL, 0, 0)                                                    \
    X(prompt_logprobs, FIELD_INT, FIELD_NULL, INT64_MIN, INT64_MAX)                                \
    X(skip_special_tokens, FIELD_BOOL, 0, 0, 0)                                                    \
    X(spaces_between_special_tokens, FIELD_BOOL, 0, 0, 0)                                          \
    X(truncate_prompt_tokens, FIELD_INT, FIELD_NULL, -1, INT32_MAX)                                \
    X(truncation_side, FIELD_STRING, FIELD_NULL, 0, 0)                                             \
    X(stream, FIELD_BOOL, FIELD_NULL, 0, 0)                                                        \
    X(stream_options, FIELD_OBJECT, FIELD_NULL, 0, 0)                                              \
    X(priority, FIELD_INT, 0, INT32_MIN, INT32_MAX)                                                \
    X(cache_salt, FIELD_STRING, FIELD_NULL, 0, 0)                                                  \
    X(request_id, FIELD_STRING, 0, 0, 0)                                                           \
    X(echo, FIELD_BOOL, FIELD_NULL, 0, 0)                                                          \
    X(add_special_tokens, FIELD_BOOL, 0, 0, 0)                                                     \
    X(return_tokens_as_token_ids, FIELD_BOOL, FIELD_NULL, 0, 0)                                    \
    X(return_token_ids, FIELD_BOOL, FIELD_NULL, 0, 0)                                              \
    X(use_beam_search, FIELD_BOOL, FIELD_NULL, 0, 0)                                               \
    X(length_penalty, FIELD_NUMBER, FIELD_NULL, 0, 0)                                              \
    X(early_stopping, FIELD_ANY, FIELD_NULL, 0, 0)                                                 \
    X(stream_interval, FIELD_INT, FIELD_NULL, 1, INT32_MAX)                                        \
    X(logprob_token_ids, FIELD_ARRAY, FIELD_NULL, 0, 0)                                            \
    X(repetition_detection, FIELD_OBJECT, FIELD_NULL, 0, 0)                                        \
    X(thinking_token_budget, FIELD_INT, FIELD_NULL, -1, UINT32_MAX)                                \
    X(user, FIELD_STRING, FIELD_NULL, 0, 0)                                                        \
    X(session_id, FIELD_STRING, FIELD_NULL, 0, 0)

/* dialect_openai_chat's variants. */
enum openai_chat_variant {
    OPENAI_CHAT,
    OPENAI_CHAT_BATCH, /* several conversations */
};

struct openai_params {
    OPENAI_COMMON(FIELD_MEMBER)
};

struct openai_extra {
    const char *id_prefix; /* "cmpl-", "chatcmpl-" */
    const char *object;    /* "text_completion", "chat.completion" */
    const char *chunk_object;
    bool include_usage;
    bool continuous_usage;
    bool echo;
    bool want_logprobs;
    uint32_t top_logprobs;
    bool logprob_ids;     /* "token_id:42" instead of text */
    bool token_ids;       /* token_ids, prompt_token_ids in the answer */
    uint64_t *name_chars; /* [n_choices] of the token names listed so far */
};

static inline struct openai_extra *openai_extra(const struct request *rq)
{
    return rq->extra;
}

bool openai_takes(const char *content_type, struct fault *f);

/* A body that is an object.  The caller gives *root back with json_decref(), on failure too. */
bool openai_parse(const char *body, size_t n, json_t **root, struct fault *f);
/* The whole of a dialect's parse(), rq->extra being set: an object whose common members are good by themselves, then
 * `fill` for what is the route's own. */
typedef bool openai_fill_fn(struct request *rq, const struct http_request *http, const json_t *root,
                            struct openai_params *p, struct fault *f);
bool openai_read(struct request *rq, const struct http_request *http, const char *body, size_t n,
                 openai_fill_fn *fill, struct fault *f);
/* A common member has this name. */
bool openai_knows(const char *name);
/* A table of the dialect's own members, with errors in vLLM's form. */
bool openai_read_own(const json_t *root, const struct field *table, size_t n, void *out,
                     size_t out_bytes, struct fault *f);

/* Who asks for which model: ids, priority, the model's name. */
bool openai_apply_identity(struct request *rq, const struct http_request *http,
                           const struct openai_params *p, struct fault *f);
/* These, sampling, stops, stream options into rq. */
bool openai_apply(struct request *rq, const struct http_request *http,
                  const struct openai_params *p, struct fault *f);
/* After the prompts: truncation, length, and the tokens to generate.  max_tokens < 0: all that fit. */
bool openai_apply_lengths(struct request *rq, const struct openai_params *p, int64_t max_tokens,
                          struct fault *f);
/* truncate_prompt_tokens, to at most `room`. */
bool openai_apply_truncation(struct request *rq, const struct openai_params *p, uint32_t room,
                             struct fault *f);
/* token_params.c: those that name tokens; after the prompts and their truncation, the budget of thoughts. */
bool openai_apply_tokens(struct request *rq, const struct openai_params *p, struct fault *f);
bool openai_apply_thinking(struct request *rq, const struct openai_params *p, struct fault *f);
bool openai_has_token(const struct request *rq, int64_t id);
/* logprobs.c: of the prompt; of the answer, with n_top alternatives (-1: all) or those of logprob_token_ids. */
bool openai_apply_prompt_logprobs(struct request *rq, const struct openai_params *p,
                                  struct fault *f);
bool openai_apply_logprobs(struct request *rq, const struct openai_params *p, bool are_wanted,
                           int64_t n_top, struct fault *f);

/* The text of a semantic error, with vLLM's suffix. */
bool openai_invalid(struct fault *f, const char *param, double value, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* The prompts in body member `member`: a string, ids, or a list of either. */
bool openai_set_prompts(struct request *rq, const char *member, const json_t *v, unsigned flags,
                        struct fault *f);
/* Tokens of text i, refusing early what can never fit. */
bool openai_tokenize(struct request *rq, size_t i, const char *text, size_t n, unsigned flags,
                     struct fault *f);

/* ---- formatting ---- */
/* The answer's id, as member `key`. */
void openai_put_id(struct json_writer *w, const struct request *rq, const char *key);
/* id, object, created, model: the head of every answer and chunk. */
void openai_put_head(struct json_writer *w, const struct request *rq, bool is_chunk);
/* Is the number of prompt tokens that were found computed part of the answer? */
bool openai_tells_cached(const struct request *rq);
void openai_put_usage(struct json_writer *w, const struct request *rq, bool is_chunk);
void openai_put_finish(struct json_writer *w, const struct choice *c); /* finish_reason's value */
void openai_put_stop_reason(struct json_writer *w, const struct choice *c); /* its value */
void openai_put_ids(struct json_writer *w, const int32_t *ids, size_t n);
/* The text a logprob list shows for a token. */
void openai_token_name(const struct request *rq, int32_t token, struct buf *out);
/* "prompt_logprobs" of a choice's prompt, null unless asked for. */
void openai_put_prompt_logprobs(struct json_writer *w, const struct choice *c);
float openai_clamp(float logprob);
/* logprobs.c: tokens [from, to) of an answer whose log probabilities are there, as a list of objects. */
void openai_put_token_logprobs(struct json_writer *w, const struct choice *c, uint32_t from,
                               uint32_t to);
/* A whole answer up to its usage, with the choices as the route writes them; then the route's own members;
 * then the end. */
void openai_whole_begin(struct json_writer *w, struct request *rq, struct reply *r,
                        void (*put_choice)(struct json_writer *w, const struct choice *c));
void openai_whole_end(struct json_writer *w);
/* "prompt_token_ids", null unless asked for. */
void openai_put_prompt_ids(struct json_writer *w, const struct request *rq,
                           const struct prompt *prompt);
void openai_chunk_begin(struct json_writer *w, struct buf *out, const struct request *rq);
void openai_chunk_end(struct json_writer *w, struct buf *out);
/* Usage chunk when asked for, then [DONE]. */
void openai_end(struct request *rq, struct buf *out);
void openai_begin(struct request *rq, struct reply *r);
void openai_fault(const struct fault *f, struct reply *r);
void openai_stream_fault(struct request *rq, const struct fault *f, struct buf *out);
const char *openai_layer_error(int status, const char *text, struct buf *body);
/* {"error":{...}} of any status. */
void openai_put_error(struct buf *out, const char *message, const char *type, const char *param,
                      int code, bool with_spaces);

/* A stream's events have stream_interval tokens, the first and the last come at once: token i of c (or the end without
 * one, i == n_done) completes one, which begins with token openai_event_first(). */
static inline bool openai_completes_event(const struct choice *c, uint32_t i)
{
    return i % c->rq->event_tokens == 0 || choice_ends_at(c, i);
}

static inline uint32_t openai_event_first(const struct choice *c, uint32_t i)
{
    return i == 0 ? 0 : (i - 1) / c->rq->event_tokens * c->rq->event_tokens + 1;
}

/* ---- pages.c: without HTTP around them ---- */
void openai_tokenize_page(struct service *s, const char *type, const char *bytes, size_t n,
                          struct reply *r);
void openai_detokenize_page(struct service *s, const char *type, const char *bytes, size_t n,
                            struct reply *r);
/* render.c: the body that `dialect` (chat or completions) would answer. */
void openai_render_page(struct service *s, const struct dialect *dialect, const char *type,
                        const char *bytes, size_t n, struct reply *r);

/* ---- messages.c: a conversation to a prompt ---- */
struct openai_chat_options {
    bool add_generation_prompt;
    bool continue_final_message;
    const json_t *documents;      /* or NULL */
    const json_t *tools;          /* or NULL: shown to the model */
    const json_t *kwargs;         /* or NULL: further variables */
    const char *reasoning_effort; /* or NULL */
    const char *chat_template;    /* or NULL: the model's */
};

#define OPENAI_TEMPLATE(X)                                                                         \
    X(add_generation_prompt, FIELD_BOOL, FIELD_NULL, 0, 0)                                         \
    X(continue_final_message, FIELD_BOOL, 0, 0, 0)                                                 \
    X(chat_template, FIELD_STRING, FIELD_NULL, 0, 0)                                               \
    X(chat_template_kwargs, FIELD_OBJECT, FIELD_NULL, 0, 0)

/* What a body says of the template, borrowed from root; the other options are NULL. */
bool openai_read_template(const struct request *rq, const json_t *root, bool generates_by_default,
                          struct openai_chat_options *options, struct fault *f);

/* Render the messages with the model's template into *text.  *last is the final message's content, for
 * echo, in rq's arena, and only there when its role is assistant. */
bool openai_render_chat(struct request *rq, const json_t *messages,
                        const struct openai_chat_options *options, struct buf *text,
                        const char **last, struct fault *f);
/* The same, and the tokens of it, as prompt i. */
bool openai_set_chat_prompt(struct request *rq, size_t i, const json_t *messages,
                            const struct openai_chat_options *options, unsigned flags,
                            struct fault *f);

#endif
