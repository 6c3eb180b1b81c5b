/* repetition.c - see repetition.h. */
#include "gateway/answer/repetition.h"

#include <string.h>

/* The last `size` tokens are those before them, and so on: each token is the one that lies `size` before it. */
static bool repeats(const int32_t *tokens, uint32_t n, uint32_t size, uint32_t count)
{
    uint32_t n_same = size * (count - 1);

    return tokens[n - 1] == tokens[n - 1 - size] &&
           memcmp(tokens + n - n_same, tokens + n - n_same - size, n_same * sizeof *tokens) == 0;
}

bool repetition_found(const struct repetition_rule *rule, const int32_t *tokens, uint32_t n)
{
    uint32_t max = rule->max_size;

    if (max == 0)
        return false;
    if (max > n / rule->min_count)
        max = n / rule->min_count;
    for (uint32_t size = rule->min_size > 0 ? rule->min_size : 1; size <= max; size++)
        if (repeats(tokens, n, size, rule->min_count))
            return true;
    return false;
}
