/* thinking.c - see thinking.h. */
#include "gpu-worker/thinking.h"

#include <assert.h>
#include <stdbool.h>
#include <string.h>

static bool ends_with(const int32_t *tokens, uint32_t n, const int32_t *mark, size_t n_mark)
{
    return n_mark > 0 && n_mark <= n &&
           memcmp(tokens + n - n_mark, mark, n_mark * sizeof *mark) == 0;
}

int32_t thinking_forced(const Llmd__Thinking *t, const int32_t *generated, uint32_t n)
{
    bool is_open = t && t->is_open;
    uint64_t n_thought = 0;

    if (!t)
        return -1;
    assert(t->n_close > 0);
    if (is_open) /* a prompt that has more than the budget has none of the closing mark */
        n_thought = t->n_before < t->budget ? t->n_before : t->budget;
    for (uint32_t i = 1; i <= n; i++) {
        if (is_open) {
            n_thought++;
            is_open = !ends_with(generated, i, t->close, t->n_close);
        } else if (ends_with(generated, i, t->open, t->n_open)) {
            is_open = true;
            n_thought = 0;
        }
    }
    if (!is_open || n_thought < t->budget)
        return -1;
    n_thought -= t->budget; /* tokens of the mark that are there */
    return t->close[n_thought < t->n_close ? n_thought : 0];
}
