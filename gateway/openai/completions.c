/* completions.c - POST /v1/completions, as vLLM answers it. */
#include <string.h>

#include "gateway/openai/openai.h"
#include "text/detokenizer.h"
#include "text/tokenizer.h"

enum { MAX_TOKENS_DEFAULT = 16 };

#define COMPLETION_OWN(X)                                                                          \
    X(prompt, FIELD_ANY, FIELD_NULL, 0, 0)                                                         \
    X(suffix, FIELD_ANY, FIELD_NULL, 0, 0)                                                         \
    X(logprobs, FIELD_INT, FIELD_NULL, INT64_MIN, INT64_MAX)

struct completion_own {
    COMPLETION_OWN(FIELD_MEMBER)
};

#define FIELD_OWNER struct completion_own
static const struct field own_fields[] = { COMPLETION_OWN(FIELD_ROW) };
#undef FIELD_OWNER
FIELD_TABLE(openai_completion_fields, "", own_fields);

/* ---- the prompt ---- */

/* The text of a prompt given as ids, which the echo begins with. */
static void spell_prompts(struct request *rq)
{
    struct buf text = { 0 };

    for (uint32_t i = 0; i < rq->n_prompts; i++) {
        struct prompt *p = &rq->prompts[i];
        if (p->text)
            continue;
        buf_clear(&text);
        detokenize(rq->service->tokenizer, p->ids, p->n_ids, DETOKENIZER_SKIP_SPECIAL, &text);
        p->text = arena_strndup(&rq->arena, text.data ? text.data : "", text.n);
        p->text_bytes = text.n;
    }
    buf_fini(&text);
}

/* ---- parse ---- */

static bool apply_own(struct request *rq, const struct openai_params *p,
                      const struct completion_own *own, struct fault *f)
{
    if (own->suffix.is_set)
        return fault_set(f, FAULT_INVALID, "suffix", "suffix is not currently supported");
    if (own->logprobs.i < 0)
        return fault_set(f, FAULT_INVALID, "logprobs", "`logprobs` must be a positive value.");
    if (!openai_apply_logprobs(rq, p, own->logprobs.is_set, own->logprobs.i, f))
        return false;
    if (!own->logprobs.is_set || !openai_extra(rq)->echo)
        return true;
    if (rq->beam.width)
        return fault_set(f, FAULT_UNSUPPORTED, "logprobs",
                         "logprobs of an echoed prompt are not supported with beam search");
    if (!rq->want_prompt_logprobs)
        rq->prompt_top_logprobs = (uint32_t)own->logprobs.i;
    rq->want_prompt_logprobs = true;
    return true;
}

static bool fill(struct request *rq, const struct http_request *http, const json_t *root,
                 struct openai_params *p, struct fault *f)
{
    unsigned flags =
        !p->add_special_tokens.is_set || p->add_special_tokens.b ? TOKENIZER_ADD_SPECIAL : 0;
    int64_t max_tokens = p->max_tokens.is_set ? p->max_tokens.i : MAX_TOKENS_DEFAULT;
    struct completion_own own;

    if (!openai_read_own(root, own_fields, sizeof own_fields / sizeof *own_fields, &own, sizeof own,
                         f) ||
        !openai_apply(rq, http, p, f) || !apply_own(rq, p, &own, f) ||
        !openai_set_prompts(rq, "prompt", own.prompt.json, flags, f))
        return false;
    if (openai_extra(rq)->echo)
        spell_prompts(rq);
    if (max_tokens == 0 && openai_extra(rq)->echo) {
        rq->needs_no_generation = true;
        max_tokens = 1;
    }
    return openai_apply_lengths(rq, p, max_tokens, f);
}

static bool completions_parse(struct request *rq, const struct http_request *http, const char *body,
                              size_t n, struct fault *f)
{
    struct openai_extra *extra = arena_alloc(&rq->arena, sizeof *extra);

    *extra = (struct openai_extra){ .id_prefix = "cmpl-",
                                    .object = "text_completion",
                                    .chunk_object = "text_completion" };
    rq->extra = extra;
    return openai_read(rq, http, body, n, fill, f);
}

/* ---- logprobs, in the legacy form of four lists ---- */

static uint64_t count_chars(const struct buf *text)
{
    uint64_t count = 0;

    for (size_t i = 0; i < text->n; i++)
        count += ((unsigned char)text->data[i] & 0xc0) != 0x80;
    return count;
}

/* Where the name of the next token begins, in characters of all names: lists are written in order, so the
 * sum is carried on from token to token. */
static uint64_t *text_offset(const struct choice *c, bool is_first)
{
    struct openai_extra *extra = openai_extra(c->rq);

    if (!extra->name_chars)
        extra->name_chars =
            arena_alloc(&c->rq->arena, c->rq->n_choices * sizeof *extra->name_chars);
    if (is_first)
        extra->name_chars[c->index] = 0;
    return &extra->name_chars[c->index];
}

/* A token of the prompt, or behind it, as the lists show it. */
struct shown_token {
    int32_t id;
    const struct token_logprob *logprob; /* NULL: nothing is known */
    const struct token_top *top;
};

/* Token i of prompt and answer together. */
static struct shown_token token_at(const struct choice *c, uint32_t i)
{
    const struct sequence *s = i < c->prompt->n_ids ? request_prompt_sequence(c) : &c->seq;
    uint32_t n_prompt = c->prompt->n_ids, k = i - n_prompt;

    if (i >= n_prompt)
        return (struct shown_token){ s->tokens[k], &s->logprobs[k], sequence_top(s, k) };
    if (i >= s->n_prompt_logprobs || s->prompt_logprobs[i].rank == 0)
        return (struct shown_token){ .id = c->prompt->ids[i] };
    return (struct shown_token){ c->prompt->ids[i], &s->prompt_logprobs[i],
                                 sequence_prompt_top(s, i) };
}

/* The token itself first, then the likeliest that are not it: one more than were asked for. */
static void put_top(struct json_writer *w, const struct choice *c, const struct shown_token *t)
{
    uint32_t left = openai_extra(c->rq)->top_logprobs;
    struct buf name = { 0 };

    if (!t->logprob) {
        jw_null(w);
        return;
    }
    jw_object(w);
    openai_token_name(c->rq, t->id, &name);
    jw_key(w, name.data ? name.data : "");
    jw_float(w, openai_clamp(t->logprob->logprob));
    for (uint32_t k = 0; k < t->logprob->n_top && left > 0; k++) {
        if (t->top[k].token == t->id)
            continue;
        openai_token_name(c->rq, t->top[k].token, &name);
        jw_key(w, name.data ? name.data : "");
        jw_float(w, openai_clamp(t->top[k].logprob));
        left--;
    }
    jw_object_end(w);
    buf_fini(&name);
}

static void put_name(struct json_writer *w, const struct choice *c, int32_t id)
{
    struct buf name = { 0 };

    openai_token_name(c->rq, id, &name);
    jw_strn(w, name.data ? name.data : "", name.n);
    buf_fini(&name);
}

static void put_offsets(struct json_writer *w, const struct choice *c, uint32_t from, uint32_t to,
                        bool is_first)
{
    uint64_t *offset = text_offset(c, is_first);
    struct buf name = { 0 };

    jw_key(w, "text_offset");
    jw_array(w);
    for (uint32_t i = from; i < to; i++) {
        jw_uint(w, *offset);
        openai_token_name(c->rq, token_at(c, i).id, &name);
        *offset += count_chars(&name);
    }
    jw_array_end(w);
    buf_fini(&name);
}

/* Of the answer's tokens [from, to), behind all of the prompt's with `with_prompt`. */
static void put_logprobs(struct json_writer *w, const struct choice *c, uint32_t from, uint32_t to,
                         bool with_prompt)
{
    bool is_first = from == 0;

    jw_key(w, "logprobs");
    if (!openai_extra(c->rq)->want_logprobs) {
        jw_null(w);
        return;
    }
    from = with_prompt ? 0 : c->prompt->n_ids + from;
    to += c->prompt->n_ids;
    jw_object(w);
    put_offsets(w, c, from, to, is_first);
    jw_key(w, "token_logprobs");
    jw_array(w);
    for (uint32_t i = from; i < to; i++) {
        const struct token_logprob *logprob = token_at(c, i).logprob;
        if (logprob)
            jw_float(w, openai_clamp(logprob->logprob));
        else
            jw_null(w);
    }
    jw_array_end(w);
    jw_key(w, "tokens");
    jw_array(w);
    for (uint32_t i = from; i < to; i++)
        put_name(w, c, token_at(c, i).id);
    jw_array_end(w);
    jw_key(w, "top_logprobs");
    jw_array(w);
    for (uint32_t i = from; i < to; i++) {
        struct shown_token t = token_at(c, i);
        put_top(w, c, &t);
    }
    jw_array_end(w);
    jw_object_end(w);
}

/* ---- answers ---- */

static void put_text(struct json_writer *w, const struct choice *c, const char *text, size_t n,
                     bool with_prompt)
{
    struct buf all = { 0 };

    jw_key(w, "text");
    if (with_prompt)
        buf_add(&all, c->prompt->text, c->prompt->text_bytes);
    buf_add(&all, text, n);
    jw_strn(w, all.data ? all.data : "", all.n);
    buf_fini(&all);
}

static void put_choice(struct json_writer *w, const struct choice *c)
{
    const struct openai_extra *extra = openai_extra(c->rq);

    jw_object(w);
    jw_key(w, "index");
    jw_uint(w, c->index);
    put_text(w, c, c->text.data ? c->text.data : "", c->text.n, extra->echo);
    put_logprobs(w, c, 0, c->n_done, extra->echo);
    jw_key(w, "finish_reason");
    openai_put_finish(w, c);
    jw_key(w, "stop_reason");
    openai_put_stop_reason(w, c);
    jw_key(w, "token_ids");
    if (extra->token_ids)
        openai_put_ids(w, c->seq.tokens, c->n_done);
    else
        jw_null(w);
    openai_put_prompt_logprobs(w, c);
    openai_put_prompt_ids(w, c->rq, c->prompt);
    jw_key(w, "routed_experts");
    jw_null(w);
    jw_object_end(w);
}

static void completions_whole(struct request *rq, struct reply *r)
{
    struct json_writer w;

    openai_whole_begin(&w, rq, r, put_choice);
    openai_whole_end(&w);
}

static void completions_token(struct request *rq, struct choice *c, uint32_t i, struct buf *out)
{
    const struct openai_extra *extra = openai_extra(rq);
    uint32_t from = openai_event_first(c, i), to = i < c->n_done ? i + 1 : i; /* its tokens */
    bool is_end = choice_ends_at(c, i);
    bool echoes = extra->echo && i == 0;
    struct json_writer w;
    const char *delta;
    size_t n;

    if (!openai_completes_event(c, i))
        return;
    delta = choice_delta(c, from, i, &n);
    if (n == 0 && !is_end && !echoes && !extra->want_logprobs && !extra->token_ids)
        return;
    openai_chunk_begin(&w, out, rq);
    jw_key(&w, "choices");
    jw_array(&w);
    jw_object(&w);
    jw_key(&w, "index");
    jw_uint(&w, c->index);
    put_text(&w, c, delta, n, echoes);
    put_logprobs(&w, c, from, to, echoes);
    jw_key(&w, "finish_reason");
    if (is_end)
        openai_put_finish(&w, c);
    else
        jw_null(&w);
    jw_key(&w, "stop_reason");
    if (is_end)
        openai_put_stop_reason(&w, c);
    else
        jw_null(&w);
    jw_key(&w, "prompt_token_ids");
    if (extra->token_ids && i == 0)
        openai_put_ids(&w, c->prompt->ids, c->prompt->n_ids);
    else
        jw_null(&w);
    jw_key(&w, "token_ids");
    if (extra->token_ids)
        openai_put_ids(&w, c->seq.tokens + from, to - from);
    else
        jw_null(&w);
    jw_object_end(&w);
    jw_array_end(&w);
    if (extra->continuous_usage)
        openai_put_usage(&w, rq, true);
    if (is_end && !extra->include_usage) {
        jw_key(&w, "system_fingerprint");
        jw_str(&w, rq->service->fingerprint);
    }
    openai_chunk_end(&w, out);
}

const struct dialect dialect_openai_completions = {
    .id = DIALECT_OPENAI_COMPLETIONS,
    .name = "completions",
    .takes = openai_takes,
    .parse = completions_parse,
    .whole = completions_whole,
    .begin = openai_begin,
    .token = completions_token,
    .end = openai_end,
    .fault = openai_fault,
    .stream_fault = openai_stream_fault,
    .layer_error = openai_layer_error,
    .can_abort = true,
};
