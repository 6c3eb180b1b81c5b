/* sequence.c - ledger entries written and read, in the one order that a crash cannot spoil. */
#include "gpu-worker/sequence.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool sequence_goes_before(const struct sequence *a, const struct sequence *b)
{
    if (sequence_priority(a) != sequence_priority(b))
        return sequence_priority(a) < sequence_priority(b);
    return a->order < b->order;
}

/* The request less its token lists, which have their own place in the entry.  Borrows from *submit. */
static Llmd__Submit without_tokens(const Llmd__Submit *submit)
{
    Llmd__Submit r = *submit;

    r.n_prompt = 0;
    r.prompt = NULL;
    r.n_generated = 0;
    r.generated = NULL;
    r.n_generated_logprobs = 0;
    r.generated_logprobs = NULL;
    return r;
}

size_t sequence_request_bytes(const Llmd__Submit *submit)
{
    Llmd__Submit r = without_tokens(submit);

    return llmd__submit__get_packed_size(&r);
}

static void store_measure(const struct ledger *l, struct ledger_entry *entry, uint32_t at,
                          const struct sampler_output *out, uint32_t n_top)
{
    ledger_logprobs(l, entry)[at] = out->logprob;
    ledger_ranks(l, entry)[at] = out->rank;
    if (n_top > 0)
        memcpy(ledger_top(l, entry, at), out->top, n_top * sizeof *out->top);
}

/* Nothing predicts the first token. */
static void store_first_measure(const struct ledger *l, struct ledger_entry *entry)
{
    store_measure(l, entry, 0, &(struct sampler_output){ 0 }, 0);
    for (uint32_t i = 0; i < entry->n_prompt_top; i++)
        ledger_top(l, entry, 0)[i] = (struct ledger_top){ .token = -1 };
    atomic_store_explicit(&entry->n_measured, 1, memory_order_relaxed);
}

/* Of a token that the client has: whoever asks for it again is told what it was told.  NULL: nothing is known. */
static void store_given(const struct ledger *l, struct ledger_entry *entry, uint32_t at,
                        const Llmd__TokenLogprob *given)
{
    size_t n_top = given ? given->n_top : 0;

    ledger_logprobs(l, entry)[at] = given ? given->logprob : 0;
    ledger_ranks(l, entry)[at] = given ? given->rank : 0;
    for (uint32_t i = 0; i < entry->n_top; i++)
        ledger_top(l, entry, at)[i] =
            i < n_top ? (struct ledger_top){ given->top[i]->token, given->top[i]->logprob }
                      : (struct ledger_top){ .token = -1 };
}

void sequence_store(const struct ledger *l, struct ledger_entry *entry, const Llmd__Submit *submit,
                    uint32_t peer, uint64_t now_ns)
{
    Llmd__Submit r = without_tokens(submit);
    int32_t *tokens = ledger_tokens(l, entry);
    uint32_t n_prompt = (uint32_t)submit->n_prompt, n_given = (uint32_t)submit->n_generated;

    assert(atomic_load_explicit(&entry->state, memory_order_relaxed) == LEDGER_FREE);
    assert(n_prompt + n_given <= l->hdr->tokens_max);
    assert(llmd__submit__get_packed_size(&r) <= l->hdr->request_bytes_max);
    entry->request_bytes = (uint32_t)llmd__submit__pack(&r, ledger_request(l, entry));
    memcpy(tokens, submit->prompt, n_prompt * sizeof *tokens);
    if (n_given > 0)
        memcpy(tokens + n_prompt, submit->generated, n_given * sizeof *tokens);
    entry->sequence_id = submit->sequence_id;
    entry->n_prompt = n_prompt;
    entry->n_given = n_given;
    entry->peer = peer;
    entry->accepted_ns = now_ns;
    entry->scheduled_ns = 0;
    entry->crashes = 0;
    entry->kills = 0;
    entry->n_cached = 0;
    entry->finish = LLMD__FINISH__FINISH_NONE;
    entry->stop_token = -1;
    entry->epoch = 0;
    entry->n_top = submit->sampling->want_logprobs ? submit->sampling->top_logprobs : 0;
    entry->n_prompt_top = submit->want_prompt_logprobs ? submit->prompt_top_logprobs : 0;
    entry->n_embedding = 0;
    atomic_store_explicit(&entry->n_measured, 0, memory_order_relaxed);
    if (submit->want_prompt_logprobs)
        store_first_measure(l, entry);
    for (uint32_t i = 0; submit->sampling->want_logprobs && i < n_given; i++)
        store_given(l, entry, n_prompt + i,
                    i < submit->n_generated_logprobs ? submit->generated_logprobs[i] : NULL);
    entry->error[0] = '\0';
    atomic_store_explicit(&entry->running, LEDGER_RESTS, memory_order_relaxed);
    atomic_store_explicit(&entry->n_pages, 0, memory_order_relaxed);
    atomic_store_explicit(&entry->n_generated, n_given, memory_order_relaxed);
    atomic_store_explicit(&entry->state, LEDGER_LIVE, memory_order_release);
}

static bool counts_fit(const struct ledger *l, const struct ledger_entry *entry,
                       uint32_t n_generated)
{
    return entry->sequence_id != 0 && entry->n_prompt > 0 &&
           (uint64_t)entry->n_prompt + n_generated <= l->hdr->tokens_max &&
           entry->n_given <= n_generated && entry->request_bytes <= l->hdr->request_bytes_max &&
           entry->n_top <= l->hdr->top_max && entry->n_prompt_top <= l->hdr->top_max &&
           entry->n_embedding <= l->hdr->embedding_max;
}

bool sequence_load(struct sequence *s, const struct ledger *l, uint32_t index, uint32_t context_max,
                   struct err *e)
{
    struct ledger_entry *entry = ledger_entry(l, index);
    uint32_t state = atomic_load_explicit(&entry->state, memory_order_acquire);
    uint32_t n_generated = atomic_load_explicit(&entry->n_generated, memory_order_acquire);
    uint32_t n_measured = atomic_load_explicit(&entry->n_measured, memory_order_acquire);
    Llmd__Submit *request;

    assert(state == LEDGER_LIVE || state == LEDGER_DONE);
    if (!counts_fit(l, entry, n_generated))
        return err_set(e, ERR_PROTO, 0, "ledger entry %u: its counts do not fit its size", index);
    request = llmd__submit__unpack(NULL, entry->request_bytes, ledger_request(l, entry));
    if (!request || !request->sampling) {
        if (request)
            llmd__submit__free_unpacked(request, NULL);
        return err_set(e, ERR_PROTO, 0, "ledger entry %u: its request does not unpack", index);
    }
    if (n_measured > entry->n_prompt || (n_measured > 0) != request->want_prompt_logprobs) {
        llmd__submit__free_unpacked(request, NULL);
        return err_set(e, ERR_PROTO, 0, "ledger entry %u: %u tokens of its prompt are measured",
                       index, n_measured);
    }
    *s = (struct sequence){
        .state = state == LEDGER_LIVE ? SEQUENCE_WAITING : SEQUENCE_DONE,
        .index = index,
        .entry = entry,
        .id = entry->sequence_id,
        .peer = entry->peer,
        .request = request,
        .tokens = ledger_tokens(l, entry),
        .n_prompt = entry->n_prompt,
        .n_generated = n_generated,
        .n_measured = n_measured,
        .pages = ledger_pages(l, entry),
        .n_sent = entry->n_given,
        .n_prompt_sent = entry->n_given > 0 ? entry->n_prompt : 0,
    };
    s->generated_max = context_max > s->n_prompt ? context_max - s->n_prompt : 0;
    if (request->max_tokens < s->generated_max)
        s->generated_max = request->max_tokens;
    return true;
}

void sequence_unload(struct sequence *s)
{
    if (s->request)
        llmd__submit__free_unpacked(s->request, NULL);
    s->request = NULL;
    s->state = SEQUENCE_FREE;
}

void sequence_append(struct sequence *s, const struct ledger *l, const struct sampler_output *out)
{
    struct ledger_entry *entry = s->entry;
    uint32_t at = sequence_n_tokens(s);

    assert(at < l->hdr->tokens_max);
    s->tokens[at] = out->token;
    if (s->request->sampling->want_logprobs)
        store_measure(l, entry, at, out, entry->n_top);
    s->n_generated++;
    atomic_store_explicit(&entry->n_generated, s->n_generated, memory_order_release);
}

void sequence_measure(struct sequence *s, const struct ledger *l, const struct sampler_output *out)
{
    assert(s->n_measured > 0 && s->n_measured < s->n_prompt);
    assert(out->token == s->tokens[s->n_measured]);
    store_measure(l, s->entry, s->n_measured, out, s->entry->n_prompt_top);
    s->n_measured++;
    atomic_store_explicit(&s->entry->n_measured, s->n_measured, memory_order_release);
}

void sequence_embed(struct sequence *s, const struct ledger *l, const float *values, uint32_t n)
{
    assert(n <= l->hdr->embedding_max);
    memcpy(ledger_embedding(l, s->entry), values, n * sizeof *values);
    s->entry->n_embedding = n;
}

static bool contains(const int32_t *ids, size_t n, int32_t id)
{
    for (size_t i = 0; i < n; i++)
        if (ids[i] == id)
            return true;
    return false;
}

Llmd__Finish sequence_check_finish(const struct sequence *s, const int32_t *eos, uint32_t n_eos)
{
    const Llmd__Submit *r = s->request;
    bool may_stop = s->n_generated > 0 && s->n_generated >= r->min_tokens;
    int32_t last = s->tokens[sequence_n_tokens(s) - 1];

    if (sequence_is_pooled(s))
        return LLMD__FINISH__FINISH_EMBEDDED;
    if (may_stop && !r->ignore_eos && contains(eos, n_eos, last))
        return LLMD__FINISH__FINISH_EOS;
    if (may_stop && contains(r->stop_tokens, r->n_stop_tokens, last))
        return LLMD__FINISH__FINISH_STOP_TOKEN;
    if (s->n_generated >= s->generated_max)
        return LLMD__FINISH__FINISH_LENGTH;
    return LLMD__FINISH__FINISH_NONE;
}

void sequence_finish(struct sequence *s, Llmd__Finish finish, const char *error)
{
    struct ledger_entry *entry = s->entry;

    entry->finish = finish;
    entry->stop_token =
        finish == LLMD__FINISH__FINISH_STOP_TOKEN ? s->tokens[sequence_n_tokens(s) - 1] : -1;
    snprintf(entry->error, sizeof entry->error, "%s", error ? error : "");
    atomic_store_explicit(&entry->state, LEDGER_DONE, memory_order_release);
    s->state = SEQUENCE_DONE;
}
