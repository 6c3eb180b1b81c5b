/* token_params.c - parameters that name tokens: which may come, which never, which end the answer or a thought. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/answer/reasoning.h"
#include "gateway/openai/openai.h"
#include "text/token_list.h"
#include "text/tokenizer.h"

enum {
    STOP_TOKENS_MAX = 128,
    LOGIT_BIAS_MAX = 1024,
    BAD_WORDS_MAX = 128, /* runs of ids, as vLLM counts them */
};

bool openai_has_token(const struct request *rq, int64_t id)
{
    return id >= 0 && id < rq->service->model.vocab_size;
}

static bool apply_logit_bias(struct request *rq, const json_t *bias, struct fault *f)
{
    size_t n = json_object_size(bias);
    Llmd__LogitBias *entries = arena_alloc(&rq->arena, n * sizeof *entries);
    Llmd__LogitBias **list = arena_alloc(&rq->arena, n * sizeof *list);
    const char *key;
    json_t *v;
    size_t i = 0;

    if (n > LOGIT_BIAS_MAX)
        return openai_invalid(f, "logit_bias", (double)n,
                              "logit_bias may have at most %d entries, got %zu.", LOGIT_BIAS_MAX,
                              n);
    json_object_foreach ((json_t *)(uintptr_t)bias, key, v) {
        char *end;
        long long id = strtoll(key, &end, 10);
        double value = json_is_number(v) ? json_number_value(v) : NAN;
        if (*key == '\0' || *end || !isfinite(value))
            return fault_set(f, FAULT_INVALID, "logit_bias",
                             "logit_bias maps token ids to numbers, got '%.40s'", key);
        if (!openai_has_token(rq, id))
            return fault_set(f, FAULT_INVALID, "logit_bias",
                             "token_id %lld in logit_bias contains out-of-vocab token id", id);
        llmd__logit_bias__init(&entries[i]);
        entries[i].token = (int32_t)id;
        entries[i].bias = (float)fmax(-100, fmin(100, value));
        list[i] = &entries[i];
        i++;
    }
    rq->sampling.logit_bias = list;
    rq->sampling.n_logit_bias = n;
    return true;
}

static bool apply_allowed_tokens(struct request *rq, const json_t *list, struct fault *f)
{
    size_t n = json_array_size(list);
    int32_t *ids = arena_alloc(&rq->arena, n * sizeof *ids);

    if (n == 0)
        return fault_set(f, FAULT_INVALID, "allowed_token_ids",
                         "allowed_token_ids is not None and empty!");
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(list, i);
        if (!json_is_integer(v) || !openai_has_token(rq, json_integer_value(v)))
            return fault_set(f, FAULT_INVALID, "allowed_token_ids",
                             "allowed_token_ids contains out-of-vocab token id!");
        ids[i] = (int32_t)json_integer_value(v);
    }
    rq->sampling.allowed_tokens = ids;
    rq->sampling.n_allowed_tokens = n;
    return true;
}

/* ---- bad words ---- */

struct bad_words {
    struct request *rq;
    Llmd__BadWord *runs; /* [BAD_WORDS_MAX] */
    Llmd__BadWord **list;
    size_t n;
};

static bool encode_word(const struct bad_words *b, const char *word, bool with_space,
                        struct token_list *ids, struct fault *f)
{
    struct buf text = { 0 };
    struct err e;
    bool ok;

    buf_printf(&text, "%s%s", with_space ? " " : "", word);
    ids->n = 0;
    ok = tokenizer_encode(b->rq->service->tokenizer, text.data, text.n, 0, ids, &e) ||
         fault_set(f, FAULT_INVALID, "bad_words", "tokenizer error %s", e.msg);
    buf_fini(&text);
    return ok;
}

static bool add_run(struct bad_words *b, const struct token_list *ids, struct fault *f)
{
    Llmd__BadWord *run = &b->runs[b->n];

    if (b->n == BAD_WORDS_MAX)
        return openai_invalid(f, "bad_words", (double)b->n + 1,
                              "bad_words may make at most %d runs of tokens", BAD_WORDS_MAX);
    llmd__bad_word__init(run);
    run->n_tokens = ids->n;
    run->tokens = arena_alloc(&b->rq->arena, ids->n * sizeof *run->tokens);
    memcpy(run->tokens, ids->ids, ids->n * sizeof *run->tokens);
    b->list[b->n++] = run;
    return true;
}

/* A word is forbidden at the beginning of a text and behind a space: the second spelling counts when it
 * is a word of its own, with another first token and of the same length. */
static bool add_word(struct bad_words *b, const char *word, struct fault *f)
{
    struct token_list plain = { 0 }, spaced = { 0 };
    bool ok;

    word += strspn(word, " \t\n\v\f\r");
    ok = encode_word(b, word, false, &plain, f) && encode_word(b, word, true, &spaced, f);
    if (ok && plain.n > 0)
        ok = add_run(b, &plain, f);
    if (ok && plain.n > 0 && spaced.n == plain.n && spaced.ids[0] != plain.ids[0])
        ok = add_run(b, &spaced, f);
    token_list_fini(&plain);
    token_list_fini(&spaced);
    return ok;
}

static bool apply_bad_words(struct request *rq, const json_t *words, struct fault *f)
{
    struct bad_words b = { .rq = rq };

    b.runs = arena_alloc(&rq->arena, BAD_WORDS_MAX * sizeof *b.runs);
    b.list = arena_alloc(&rq->arena, BAD_WORDS_MAX * sizeof *b.list);
    for (size_t i = 0; i < json_array_size(words); i++) {
        const json_t *v = json_array_get(words, i);
        if (!json_is_string(v))
            return fault_set(f, FAULT_SCHEMA, "body.bad_words",
                             "1 validation error:\n  {'type': 'string_type', 'loc': ('body', "
                             "'bad_words', %zu), 'msg': 'Input should be a valid string'}",
                             i);
        if (json_string_length(v) == 0)
            return fault_set(f, FAULT_INVALID, "bad_words",
                             "bad_words cannot contain an empty string.");
        if (!add_word(&b, json_string_value(v), f))
            return false;
    }
    rq->sampling.bad_words = b.list;
    rq->sampling.n_bad_words = b.n;
    return true;
}

/* ---- tokens that end the answer ---- */

static bool apply_stop_tokens(struct request *rq, const struct openai_params *p, struct fault *f)
{
    size_t n = json_array_size(p->stop_token_ids.json);
    int32_t *ids = arena_alloc(&rq->arena, n * sizeof *ids);

    if (n > STOP_TOKENS_MAX)
        return openai_invalid(f, "stop_token_ids", (double)n,
                              "stop_token_ids may have at most %d entries, got %zu.",
                              STOP_TOKENS_MAX, n);
    rq->stop_tokens = ids;
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(p->stop_token_ids.json, i);
        if (!json_is_integer(v))
            return fault_set(f, FAULT_SCHEMA, "body.stop_token_ids",
                             "1 validation error:\n  {'type': 'int_type', 'loc': ('body', "
                             "'stop_token_ids', %zu), 'msg': 'Input should be a valid integer'}",
                             i);
        if (openai_has_token(rq, json_integer_value(v))) /* else it never comes */
            ids[rq->n_stop_tokens++] = (int32_t)json_integer_value(v);
    }
    return true;
}

bool openai_apply_tokens(struct request *rq, const struct openai_params *p, struct fault *f)
{
    return (!p->stop_token_ids.is_set || apply_stop_tokens(rq, p, f)) &&
           (!p->logit_bias.is_set || apply_logit_bias(rq, p->logit_bias.json, f)) &&
           (!p->allowed_token_ids.is_set ||
            apply_allowed_tokens(rq, p->allowed_token_ids.json, f)) &&
           (json_array_size(p->bad_words.json) == 0 || apply_bad_words(rq, p->bad_words.json, f));
}

/* ---- the end of a thought ---- */

/* The ids of a mark, in the arena; 0: it has none. */
static size_t spell_mark(struct request *rq, const char *mark, int32_t **ids)
{
    struct token_list list = { 0 };
    struct err e;
    size_t n = 0;

    if (tokenizer_encode(rq->service->tokenizer, mark, strlen(mark), TOKENIZER_PARSE_SPECIAL, &list,
                         &e)) {
        n = list.n;
        *ids = arena_alloc(&rq->arena, n * sizeof **ids);
        memcpy(*ids, list.ids, n * sizeof **ids);
    }
    token_list_fini(&list);
    return n;
}

/* Behind the last place where the mark stands; 0: nowhere. */
static uint32_t find_last(const struct prompt *p, const int32_t *mark, size_t n)
{
    for (uint32_t end = p->n_ids; n > 0 && end >= n; end--)
        if (memcmp(p->ids + end - n, mark, n * sizeof *mark) == 0)
            return end;
    return 0;
}

/* A prompt may end within a thought, which then has so many tokens already. */
static void note_open_thought(Llmd__Thinking *t, const struct reasoning_format *format,
                              const struct prompt *p)
{
    uint32_t opened = find_last(p, t->open, t->n_open), closed = find_last(p, t->close, t->n_close);

    t->is_open = opened > closed;
    if (t->is_open)
        t->n_before = p->n_ids - opened;
    else if (p->text)
        t->is_open = reasoning_is_open(format, p->text, p->text_bytes);
}

bool openai_apply_thinking(struct request *rq, const struct openai_params *p, struct fault *f)
{
    const struct service *s = rq->service;
    const struct reasoning_format *format =
        reasoning_find(s->config.reasoning_parser, s->chat.plain);
    Llmd__Thinking marks = LLMD__THINKING__INIT;

    if (!p->thinking_token_budget.is_set || p->thinking_token_budget.i < 0)
        return true;
    if (format) {
        marks.n_open = spell_mark(rq, format->open, &marks.open);
        marks.n_close = spell_mark(rq, format->close, &marks.close);
    }
    if (marks.n_close == 0)
        return fault_set(f, FAULT_INVALID, "thinking_token_budget",
                         "thinking_token_budget is set but reasoning_config is not configured. "
                         "Please set --reasoning-config to use thinking_token_budget.");
    marks.budget = (uint32_t)p->thinking_token_budget.i;
    for (uint32_t i = 0; i < rq->n_prompts; i++) {
        rq->prompts[i].thinking = arena_alloc(&rq->arena, sizeof marks);
        *rq->prompts[i].thinking = marks;
        note_open_thought(rq->prompts[i].thinking, format, &rq->prompts[i]);
    }
    return true;
}
