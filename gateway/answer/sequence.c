/* sequence.c - storage of a sequence's tokens. */
#include "gateway/answer/sequence.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"

enum { TOKENS_CAP_FIRST = 64 };

void sequence_init(struct sequence *s)
{
    llmd__submit__init(&s->submit);
    llmd__sampling__init(&s->sampling);
    s->submit.sampling = &s->sampling;
}

void sequence_fini(struct sequence *s)
{
    assert(s->state == SEQUENCE_NEW || s->state == SEQUENCE_ENDED);
    free(s->tokens);
    free(s->logprobs);
    free(s->top);
    free(s->prompt_logprobs);
    free(s->prompt_top);
    free(s->embedding);
    s->tokens = NULL;
    s->logprobs = s->prompt_logprobs = NULL;
    s->top = s->prompt_top = NULL;
    s->embedding = NULL;
}

static void reserve(struct sequence *s, uint32_t n)
{
    uint32_t cap = s->tokens_cap ? s->tokens_cap : TOKENS_CAP_FIRST;

    if (n <= s->tokens_cap)
        return;
    while (cap < n)
        cap *= 2;
    s->tokens = mem_realloc(s->tokens, cap * sizeof *s->tokens);
    if (s->sampling.want_logprobs)
        s->logprobs = mem_realloc(s->logprobs, cap * sizeof *s->logprobs);
    if (s->sampling.want_logprobs && s->sampling.top_logprobs)
        s->top = mem_realloc(s->top, (size_t)cap * s->sampling.top_logprobs * sizeof *s->top);
    s->tokens_cap = cap;
}

/* top: as many as `cap` have room there. */
static void store_logprob(struct token_logprob *to, struct token_top *top, uint32_t cap,
                          const Llmd__TokenLogprob *from)
{
    *to = (struct token_logprob){ 0 };
    if (!from)
        return;
    to->logprob = from->logprob;
    to->rank = from->rank;
    to->n_top = from->n_top < cap ? (uint32_t)from->n_top : cap;
    for (uint32_t i = 0; i < to->n_top; i++)
        top[i] = (struct token_top){ from->top[i]->token, from->top[i]->logprob };
}

void sequence_append(struct sequence *s, const Llmd__SequenceTokens *msg, uint32_t from)
{
    uint32_t n = (uint32_t)msg->n_tokens, n_top = s->sampling.top_logprobs;

    reserve(s, s->n_tokens + n - from);
    for (uint32_t i = from; i < n; i++) {
        if (s->sampling.want_logprobs)
            store_logprob(&s->logprobs[s->n_tokens], s->top + (size_t)s->n_tokens * n_top, n_top,
                          i < msg->n_logprobs ? msg->logprobs[i] : NULL);
        s->tokens[s->n_tokens++] = msg->tokens[i];
    }
}

static void list_measure(const struct sequence *s, uint32_t i, Llmd__TokenLogprob *to,
                         Llmd__TopLogprob **tops, Llmd__TopLogprob *top)
{
    llmd__token_logprob__init(to);
    to->logprob = s->logprobs[i].logprob;
    to->rank = s->logprobs[i].rank;
    to->n_top = s->logprobs[i].n_top;
    to->top = tops;
    for (uint32_t k = 0; k < to->n_top; k++) {
        llmd__top_logprob__init(&top[k]);
        top[k].token = sequence_top(s, i)[k].token;
        top[k].logprob = sequence_top(s, i)[k].logprob;
        tops[k] = &top[k];
    }
}

void sequence_list_tokens(struct sequence *s)
{
    size_t n = s->sampling.want_logprobs ? s->n_tokens : 0, n_tops = n * s->sampling.top_logprobs;
    Llmd__TokenLogprob *measures;
    Llmd__TopLogprob *tops, **top_list;

    s->submit.generated = s->tokens;
    s->submit.n_generated = s->n_tokens;
    s->submit.n_generated_logprobs = n;
    if (n == 0)
        return;
    /* one piece: both lists of pointers, then what they point to */
    s->submit.generated_logprobs =
        mem_alloc(n * sizeof *s->submit.generated_logprobs + n_tops * sizeof *top_list +
                  n * sizeof *measures + n_tops * sizeof *tops);
    top_list = (Llmd__TopLogprob **)(s->submit.generated_logprobs + n);
    measures = (Llmd__TokenLogprob *)(top_list + n_tops);
    tops = (Llmd__TopLogprob *)(measures + n);
    for (uint32_t i = 0; i < n; i++) {
        size_t first = (size_t)i * s->sampling.top_logprobs;
        list_measure(s, i, &measures[i], top_list + first, tops + first);
        s->submit.generated_logprobs[i] = &measures[i];
    }
}

void sequence_unlist(struct sequence *s)
{
    free(s->submit.generated_logprobs);
    s->submit.generated_logprobs = NULL;
    s->submit.n_generated_logprobs = 0;
    s->submit.generated = NULL;
    s->submit.n_generated = 0;
}

void sequence_append_prompt(struct sequence *s, const Llmd__SequenceTokens *msg)
{
    size_t n_prompt = s->submit.n_prompt, n_top = s->submit.prompt_top_logprobs;

    assert(msg->prompt_index <= s->n_prompt_logprobs);
    if (!sequence_awaits_prompt(s))
        return;
    if (!s->prompt_logprobs) {
        s->prompt_logprobs = mem_zalloc(n_prompt, sizeof *s->prompt_logprobs);
        s->prompt_top = mem_zalloc(n_prompt * n_top, sizeof *s->prompt_top);
    }
    for (size_t i = s->n_prompt_logprobs - msg->prompt_index;
         i < msg->n_prompt_logprobs && s->n_prompt_logprobs < n_prompt; i++) {
        size_t at = s->n_prompt_logprobs++;
        store_logprob(&s->prompt_logprobs[at], s->prompt_top + at * n_top, (uint32_t)n_top,
                      msg->prompt_logprobs[i]);
    }
}

void sequence_set_embedding(struct sequence *s, const float *values, size_t n)
{
    free(s->embedding);
    s->embedding = mem_alloc(n * sizeof *s->embedding);
    memcpy(s->embedding, values, n * sizeof *s->embedding);
    s->n_embedding = (uint32_t)n;
}
