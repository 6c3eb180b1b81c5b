/* beam_search.c - the rules by which beams live, are complete, and are compared. */
#include "gateway/answer/beam_search.h"

#include <assert.h>
#include <math.h>
#include <string.h>

void beam_search_init(struct beam_search *b, struct arena *arena,
                      const struct beam_search_setup *setup)
{
    struct beam *root = arena_alloc(arena, sizeof *root);

    assert(setup->width > 0 && setup->n_prompt > 0 && setup->max_tokens > 0);
    *b = (struct beam_search){ .setup = *setup, .arena = arena, .n_live = 1 };
    b->live = arena_alloc(arena, setup->width * sizeof(struct beam *));
    b->complete = arena_alloc(arena, setup->width * sizeof(struct beam *));
    b->next = arena_alloc(arena, setup->width * sizeof *b->next);
    b->live[0] = root;
}

/* With n tokens behind the prompt. */
static double score_at(const struct beam_search *b, double sum, uint32_t n)
{
    return sum / pow((double)(b->setup.n_prompt + n), b->setup.length_penalty);
}

static struct beam make_beam(const struct beam_search *b, const struct beam *parent,
                             const struct token_top *next, uint32_t rank)
{
    struct beam beam = { .parent = parent,
                         .n = parent->n + 1,
                         .token = next->token,
                         .is_end = b->setup.is_end(next->token, b->setup.ctx),
                         .rank = rank,
                         .logprob = next->logprob,
                         .sum = parent->sum + (double)next->logprob };

    beam.score = score_at(b, beam.sum, beam.is_end ? beam.n - 1 : beam.n);
    return beam;
}

static const struct beam *keep_beam(const struct beam_search *b, const struct beam *beam)
{
    struct beam *kept = arena_alloc(b->arena, sizeof *kept);

    *kept = *beam;
    return kept;
}

static void add_complete(struct beam_search *b, const struct beam *beam)
{
    uint32_t at = b->n_complete;

    while (at > 0 && beam->score > b->complete[at - 1]->score)
        at--;
    if (at == b->setup.width)
        return;
    if (b->n_complete < b->setup.width)
        b->n_complete++;
    memmove(&b->complete[at + 1], &b->complete[at], (b->n_complete - at - 1) * sizeof *b->complete);
    b->complete[at] = keep_beam(b, beam);
}

static void add_next(struct beam_search *b, const struct beam *beam)
{
    uint32_t at = b->n_next;

    while (at > 0 && beam->score > b->next[at - 1].score)
        at--;
    if (at == b->setup.width)
        return;
    if (b->n_next < b->setup.width)
        b->n_next++;
    memmove(&b->next[at + 1], &b->next[at], (b->n_next - at - 1) * sizeof *b->next);
    b->next[at] = *beam;
}

void beam_search_extend(struct beam_search *b, uint32_t i, const struct token_top *top,
                        uint32_t n_top)
{
    const struct beam *parent = b->live[i];
    uint32_t n_kept = n_top < b->setup.n_top ? n_top : b->setup.n_top;
    struct token_top *kept = arena_alloc(b->arena, n_kept * sizeof *kept);

    assert(i < b->n_live && !b->is_done);
    memcpy(kept, top, n_kept * sizeof *kept);
    for (uint32_t k = 0; k < n_top; k++) {
        struct beam beam = make_beam(b, parent, &top[k], k + 1);
        beam.top = kept;
        beam.n_top = n_kept;
        if (!beam.is_end)
            add_next(b, &beam);
        else if (parent->n >= b->setup.min_tokens)
            add_complete(b, &beam);
    }
}

/* Nothing that may become of a live beam comes before the last of those that are complete.  Its score is best
 * at one of the two ends: a penalty above 0 favours long texts, one below 0 short ones. */
static bool is_decided(const struct beam_search *b)
{
    double worst;

    if (b->n_complete < b->setup.width)
        return false;
    worst = b->complete[b->n_complete - 1]->score;
    for (uint32_t i = 0; i < b->n_live; i++) {
        const struct beam *beam = b->live[i];
        if (fmax(score_at(b, beam->sum, beam->n), score_at(b, beam->sum, b->setup.max_tokens)) >
            worst)
            return false;
    }
    return true;
}

void beam_search_step(struct beam_search *b)
{
    for (uint32_t i = 0; i < b->n_next; i++)
        b->live[i] = keep_beam(b, &b->next[i]);
    b->n_live = b->n_next;
    b->n_next = 0;
    b->n_steps++;
    if (b->setup.stops_early && b->n_complete == b->setup.width)
        b->n_live = 0;
    b->is_done = b->n_live == 0 || b->n_steps == b->setup.max_tokens || is_decided(b);
}

/* Two lists, each best first; of equals what is complete counts first, as it was found before. */
const struct beam *beam_search_best(const struct beam_search *b, uint32_t k)
{
    uint32_t c = 0, l = 0;

    for (;;) {
        const struct beam *complete = c < b->n_complete ? b->complete[c] : NULL;
        const struct beam *live = l < b->n_live ? b->live[l] : NULL;
        bool takes_live = !complete || (live && live->score > complete->score);
        const struct beam *best = takes_live ? live : complete;
        if (!best || c + l == k)
            return best;
        if (takes_live)
            l++;
        else
            c++;
    }
}

void beam_tokens(const struct beam *beam, int32_t *out)
{
    for (; beam->n > 0; beam = beam->parent)
        out[beam->n - 1] = beam->token;
}
