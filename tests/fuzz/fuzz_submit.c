/* fuzz_submit.c - any bytes as a SUBMIT: refused with a reason, or safe to run: its settings draw a token that they
 * allow, and its prompt can be measured. */
#include <assert.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "common/mem.h"
#include "gpu-worker/sampler.h"
#include "gpu-worker/submit_check.h"

enum { VOCAB = 1000, CONTEXT = 64, TOP_MAX = 20, HIDDEN = 16 };

static const struct submit_limits limits = { .vocab_size = VOCAB,
                                             .context_max = CONTEXT,
                                             .top_max = TOP_MAX,
                                             .request_bytes_max = 64 << 10,
                                             .embedding_max = HIDDEN,
                                             .hidden_size = HIDDEN };

static bool is_in(const int32_t *ids, size_t n, int32_t id)
{
    for (size_t i = 0; i < n; i++)
        if (ids[i] == id)
            return true;
    return n == 0;
}

static void draw(struct sampler *s, const Llmd__Submit *m, const float *logits)
{
    const Llmd__Sampling *p = m->sampling;
    int32_t tokens[2 * CONTEXT];
    struct ledger_top top[TOP_MAX];
    struct sampler_output out = { .top = top };
    struct sampler_input in = { .logits = logits,
                                .sampling = p,
                                .tokens = tokens,
                                .n_prompt = (uint32_t)m->n_prompt,
                                .n_generated = (uint32_t)m->n_generated };

    memcpy(tokens, m->prompt, m->n_prompt * sizeof *tokens);
    if (m->n_generated > 0)
        memcpy(tokens + m->n_prompt, m->generated, m->n_generated * sizeof *tokens);
    switch (sampler_draw(s, &in, &out)) {
    case SAMPLER_OK:
        assert(out.token >= 0 && out.token < VOCAB);
        assert(is_in(p->allowed_tokens, p->n_allowed_tokens, out.token));
        for (size_t i = 0; i < p->n_bad_words; i++)
            assert(p->bad_words[i]->n_tokens > 1 || p->bad_words[i]->tokens[0] != out.token);
        break;
    case SAMPLER_NONE_LEFT:
        assert(p->n_allowed_tokens + p->n_bad_words > 0);
        break;
    case SAMPLER_NOT_FINITE: /* the logits are; so must be what is made of them */
        assert(false);
    }
}

static void measure(struct sampler *s, const Llmd__Submit *m, const float *logits)
{
    struct ledger_top top[TOP_MAX];
    struct sampler_output out = { .token = m->prompt[m->n_prompt - 1], .top = top };

    assert(sampler_measure(s, logits, m->prompt_top_logprobs, &out) == SAMPLER_OK);
    assert(isfinite(out.logprob) && out.rank >= 1 && out.rank <= VOCAB);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static struct sampler *sampler;
    static float logits[VOCAB];
    Llmd__Submit *m = llmd__submit__unpack(NULL, n, data);
    Llmd__RefuseReason reason;
    struct err e = { 0 };

    if (!m)
        return 0;
    if (!sampler) {
        sampler = sampler_new(VOCAB);
        for (int i = 0; i < VOCAB; i++)
            logits[i] = (float)(i * 7919 % 211) / 10 - 9;
    }
    if (!submit_check(m, &limits, &reason, &e)) {
        assert(e.code == ERR_INPUT && e.msg[0]);
    } else {
        if (m->max_tokens > 0)
            draw(sampler, m, logits);
        if (m->want_prompt_logprobs)
            measure(sampler, m, logits);
    }
    llmd__submit__free_unpacked(m, NULL);
    return 0;
}
