/* sequence.c - storage of a sequence's tokens. */
#include "gateway/sequence.h"

#include <assert.h>
#include <stdlib.h>

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
    s->tokens = NULL;
    s->logprobs = NULL;
    s->top = NULL;
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

static void store_logprob(struct sequence *s, uint32_t at, const Llmd__TokenLogprob *from)
{
    struct token_logprob *to = &s->logprobs[at];
    uint32_t cap = s->sampling.top_logprobs;

    *to = (struct token_logprob){ 0 };
    if (!from)
        return;
    to->logprob = from->logprob;
    to->rank = from->rank;
    to->n_top = from->n_top < cap ? (uint32_t)from->n_top : cap;
    for (uint32_t i = 0; i < to->n_top; i++)
        s->top[(size_t)at * cap + i] =
            (struct token_top){ from->top[i]->token, from->top[i]->logprob };
}

void sequence_append(struct sequence *s, const Llmd__SequenceTokens *msg, uint32_t from)
{
    uint32_t n = (uint32_t)msg->n_tokens;

    reserve(s, s->n_tokens + n - from);
    for (uint32_t i = from; i < n; i++) {
        if (s->sampling.want_logprobs)
            store_logprob(s, s->n_tokens, i < msg->n_logprobs ? msg->logprobs[i] : NULL);
        s->tokens[s->n_tokens++] = msg->tokens[i];
    }
}
