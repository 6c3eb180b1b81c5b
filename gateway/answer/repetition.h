/* repetition.h - a text that goes round in circles.
 *
 * As vLLM's repetition_detection: the tokens end with the same run of min_size to max_size tokens, min_count times in a
 * row.  A pure function of the tokens, looked at when each of them comes. */
#ifndef LLMD_GATEWAY_ANSWER_REPETITION_H
#define LLMD_GATEWAY_ANSWER_REPETITION_H

#include <stdbool.h>
#include <stdint.h>

struct repetition_rule {
    uint32_t min_size, max_size; /* tokens of a run; max_size 0 = nothing is looked for */
    uint32_t min_count;          /* >= 2 */
};

bool repetition_found(const struct repetition_rule *rule, const int32_t *tokens, uint32_t n);

#endif
