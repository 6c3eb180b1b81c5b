/* sampling_rows.c - see sampling_rows.h.  The float operations are those of sampler.c, in its order. */
#include "gpu-worker/cuda/sampling_rows.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "gpu-worker/thinking.h"

static_assert((int)SAMPLING_OK == (int)SAMPLER_OK &&
                  (int)SAMPLING_NOT_FINITE == (int)SAMPLER_NOT_FINITE &&
                  (int)SAMPLING_NONE_LEFT == (int)SAMPLER_NONE_LEFT,
              "the kernel answers with the sampler's numbers");
static_assert(sizeof(struct sampling_row) == 64 && sizeof(struct sampling_edit) == 16 &&
                  sizeof(struct sampling_choice) == 32,
              "the same on both sides");

void sampling_rows_init(struct sampling_rows *s, uint32_t vocab_size, struct sampling_row *rows,
                        uint32_t rows_max, struct sampling_edit *edits, uint32_t edits_a_row)
{
    *s = (struct sampling_rows){ .vocab_size = vocab_size,
                                 .rows = rows,
                                 .rows_max = rows_max,
                                 .edits = edits,
                                 .edits_a_row = edits_a_row };
    s->places = mem_zalloc(vocab_size, sizeof *s->places);
}

void sampling_rows_fini(struct sampling_rows *s)
{
    free(s->places);
    *s = (struct sampling_rows){ 0 };
}

void sampling_rows_begin(struct sampling_rows *s)
{
    s->n_rows = s->n_edits = 0;
}

/* ---- what the kernel takes ---- */

static bool is_filter(float p)
{
    return p > 0 && p < 1;
}

bool sampling_rows_takes(const struct sampler_input *in, uint32_t vocab_size)
{
    const Llmd__Sampling *p = in->sampling;

    return vocab_size <= SAMPLING_VOCAB_MAX && p->watermark_gamma == 0 &&
           !is_filter(p->typical_p) && p->n_logprob_tokens == 0 &&
           (!p->want_logprobs || p->top_logprobs <= SAMPLING_TOP_MAX);
}

/* ---- edits ---- */

/* The token's edit in the row that is being made, a new one when it has none; NULL: there is no room. */
static struct sampling_edit *edit_of(struct sampling_rows *s, uint32_t first, int32_t token)
{
    uint32_t *place = &s->places[token];

    if (*place == 0) {
        if (s->n_edits - first == s->edits_a_row)
            return NULL;
        s->edits[s->n_edits++] = (struct sampling_edit){ .token = token };
        *place = s->n_edits - first;
    }
    return &s->edits[first + *place - 1];
}

static bool flag_all(struct sampling_rows *s, uint32_t first, const int32_t *ids, size_t n,
                     uint32_t flags)
{
    for (size_t i = 0; i < n; i++) {
        struct sampling_edit *edit = edit_of(s, first, ids[i]);
        if (!edit)
            return false;
        edit->flags |= flags;
    }
    return true;
}

/* Two biases of one token would be added one after the other. */
static bool add_bias(struct sampling_rows *s, uint32_t first, const Llmd__Sampling *p)
{
    for (size_t i = 0; i < p->n_logit_bias; i++) {
        struct sampling_edit *edit = edit_of(s, first, p->logit_bias[i]->token);
        if (!edit || s->n_edits - first != i + 1)
            return false;
        edit->add = p->logit_bias[i]->bias;
    }
    return true;
}

static bool add_repetition(struct sampling_rows *s, uint32_t first, const struct sampler_input *in)
{
    float penalty = in->sampling->repetition_penalty;

    return penalty == 0 || penalty == 1 ||
           flag_all(s, first, in->tokens, in->n_prompt + in->n_generated, SAMPLING_REPEATED);
}

/* Counts first, in .minus, which holds them exactly up to 2^24 tokens. */
static bool add_frequency_presence(struct sampling_rows *s, uint32_t first,
                                   const struct sampler_input *in)
{
    const Llmd__Sampling *p = in->sampling;
    bool is_share = p->frequency_is_share;
    const int32_t *seen = is_share ? in->tokens : in->tokens + in->n_prompt;
    uint32_t n = is_share ? in->n_prompt + in->n_generated : in->n_generated;
    float frequency = is_share ? p->frequency_penalty / (float)n : p->frequency_penalty;

    if (p->frequency_penalty == 0 && p->presence_penalty == 0)
        return true;
    if (!flag_all(s, first, seen, n, SAMPLING_SEEN))
        return false;
    for (uint32_t i = 0; i < n; i++)
        s->edits[first + s->places[seen[i]] - 1].minus += 1;
    for (uint32_t i = first; i < s->n_edits; i++)
        s->edits[i].minus *= frequency;
    return true;
}

static bool add_bad_word(struct sampling_rows *s, uint32_t first, const Llmd__BadWord *word,
                         const struct sampler_input *in)
{
    size_t n_before = word->n_tokens - 1;
    const int32_t *end = in->tokens + in->n_prompt + in->n_generated;

    if (n_before > in->n_generated ||
        memcmp(end - n_before, word->tokens, n_before * sizeof *end) != 0)
        return true;
    return flag_all(s, first, &word->tokens[n_before], 1, SAMPLING_MASKED);
}

static bool add_masks(struct sampling_rows *s, uint32_t first, const struct sampler_input *in)
{
    const Llmd__Sampling *p = in->sampling;

    for (int m = 0; m < 2; m++)
        if (!flag_all(s, first, in->masked[m].ids, in->masked[m].n, SAMPLING_MASKED))
            return false;
    for (size_t i = 0; i < p->n_bad_words; i++)
        if (!add_bad_word(s, first, p->bad_words[i], in))
            return false;
    return true;
}

/* A bit that no kernel sees. */
enum { ALLOWED = 1 << 16 };

static bool allow_only(struct sampling_rows *s, uint32_t first, const Llmd__Sampling *p)
{
    if (p->n_allowed_tokens == 0)
        return true;
    if (!flag_all(s, first, p->allowed_tokens, p->n_allowed_tokens, ALLOWED))
        return false;
    for (uint32_t i = first; i < s->n_edits; i++) {
        struct sampling_edit *edit = &s->edits[i];
        edit->flags = edit->flags & ALLOWED ? edit->flags & ~(uint32_t)ALLOWED
                                            : edit->flags | SAMPLING_MASKED;
    }
    return true;
}

/* A thought that has used up its budget ends: one token is left, with the logit it had. */
static bool force(struct sampling_rows *s, uint32_t first, int32_t token)
{
    if (s->edits_a_row == 0)
        return false;
    s->edits[first] = (struct sampling_edit){ .token = token };
    s->n_edits = first + 1;
    return true;
}

static void forget_places(struct sampling_rows *s, uint32_t first)
{
    for (uint32_t i = first; i < s->n_edits; i++)
        s->places[s->edits[i].token] = 0;
}

static bool add_edits(struct sampling_rows *s, const struct sampler_input *in, uint32_t *flags)
{
    const Llmd__Sampling *p = in->sampling;
    uint32_t first = s->n_edits;
    int32_t forced = thinking_forced(p->thinking, in->tokens + in->n_prompt, in->n_generated);
    bool ok;

    if (forced >= 0 || p->n_allowed_tokens > 0)
        *flags |= SAMPLING_ONLY_EDITED;
    if (forced >= 0)
        return force(s, first, forced);
    ok = add_bias(s, first, p) && add_repetition(s, first, in) &&
         add_frequency_presence(s, first, in) && add_masks(s, first, in) && allow_only(s, first, p);
    forget_places(s, first);
    s->n_edits = ok ? s->n_edits : first;
    return ok;
}

/* ---- rows ---- */

bool sampling_rows_add(struct sampling_rows *s, const struct sampler_input *in, uint32_t logits_row)
{
    const Llmd__Sampling *p = in->sampling;
    bool is_raw = p->logprobs_mode == LLMD__LOGPROBS_MODE__LOGPROBS_RAW;
    struct sampling_row row = {
        .seed = p->seed,
        .position = in->n_generated,
        .top_p = is_filter(p->top_p) ? (double)p->top_p : 0,
        .scale = p->temperature < SAMPLER_TEMPERATURE_MIN ? 0 : 1.0f / p->temperature,
        .repetition = p->repetition_penalty,
        .presence = p->presence_penalty,
        .min_p = p->min_p,
        .top_k = p->top_k,
        .logits_row = logits_row,
        .first_edit = s->n_edits,
    };

    if (s->n_rows == s->rows_max || !sampling_rows_takes(in, s->vocab_size) ||
        !add_edits(s, in, &row.flags))
        return false;
    row.n_edits = s->n_edits - row.first_edit;
    if (p->want_logprobs) {
        row.flags |= is_raw ? SAMPLING_MEASURE_RAW : SAMPLING_MEASURE_KEPT;
        row.n_top = p->top_logprobs;
    }
    s->rows[s->n_rows++] = row;
    return true;
}

/* ---- answers ---- */

/* Weights are in units of 2^-SAMPLING_MASS_BITS. */
static double log_mass(const struct sampling_choice *c)
{
    return log(ldexp((double)c->mass, -SAMPLING_MASS_BITS));
}

enum sampler_result sampling_rows_read(const struct sampler_input *in,
                                       const struct sampling_choice *choice,
                                       const struct sampling_top *tops, struct sampler_output *out)
{
    const Llmd__Sampling *p = in->sampling;
    bool is_raw = p->logprobs_mode == LLMD__LOGPROBS_MODE__LOGPROBS_RAW;
    double less = 0;

    if (choice->result != SAMPLING_OK)
        return (enum sampler_result)choice->result;
    out->token = choice->token;
    if (!p->want_logprobs)
        return SAMPLER_OK;
    less = log_mass(choice) + (is_raw ? (double)choice->max : 0);
    out->rank = choice->rank;
    out->logprob = (float)((is_raw ? (double)choice->value : log((double)choice->value)) - less);
    for (uint32_t i = 0; i < p->top_logprobs; i++) {
        double value = i >= choice->n_top ? -INFINITY
                       : is_raw           ? (double)tops[i].value
                                          : log((double)tops[i].value);
        out->top[i] =
            (struct ledger_top){ i < choice->n_top ? tops[i].token : -1, (float)(value - less) };
    }
    return SAMPLER_OK;
}
