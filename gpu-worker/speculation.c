/* speculation.c - see speculation.h. */
#include "gpu-worker/speculation.h"

#include <assert.h>

enum { MATCH_MIN = 2, MATCH_MAX = 4 };

#define WEIGHT 0.25 /* of what was seen last */

/* How many tokens before and at `at` are those at the end, up to MATCH_MAX. */
static uint32_t match_length(const int32_t *tokens, uint32_t n, uint32_t at)
{
    uint32_t length = 0;

    while (length < MATCH_MAX && length <= at && tokens[at - length] == tokens[n - 1 - length])
        length++;
    return length;
}

/* The latest of the longest matches.  What follows may run into what it is proposed for: a text that repeats
 * itself at once goes on to. */
uint32_t speculation_propose(int32_t *tokens, uint32_t n, uint32_t max)
{
    uint32_t best = MATCH_MIN - 1, next = 0;

    for (uint32_t at = n > 0 ? n - 1 : 0; at-- > 0 && best < MATCH_MAX;) {
        uint32_t length = match_length(tokens, n, at);
        if (length > best) {
            best = length;
            next = at + 1;
        }
    }
    if (next == 0)
        return 0;
    for (uint32_t i = 0; i < max; i++)
        tokens[n + i] = tokens[next + i];
    return max;
}

uint32_t speculation_wants(const struct speculation *s, uint32_t n_generated)
{
    if (n_generated < s->rest_until)
        return 0;
    return 1 + (uint32_t)((SPECULATION_MAX - 1) * (1 - s->misses));
}

void speculation_learn(struct speculation *s, uint32_t n_proposed, uint32_t n_true, double price,
                       uint32_t n_generated)
{
    assert(n_proposed > 0 && n_true <= n_proposed);
    s->misses += WEIGHT * ((double)(n_proposed - n_true) / n_proposed - s->misses);
    if (1 - s->misses >= price)
        return;
    s->misses = 1 - price; /* the next miss sends it to rest again */
    s->rest_until = n_generated + SPECULATION_REST;
}
