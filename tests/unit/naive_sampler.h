/* naive_sampler.h - the sampler as one would write it first: sort everything, in double precision. */
#ifndef LLMD_TESTS_NAIVE_SAMPLER_H
#define LLMD_TESTS_NAIVE_SAMPLER_H

#include "gpu-worker/sampler.h"

struct naive_result {
    int32_t token;
    double logprob; /* of the mode asked for */
    uint32_t rank;
    bool is_close; /* a decision was so near that rounding may turn it: compare nothing */
};

struct naive_result naive_draw(const struct sampler_input *in, uint32_t vocab_size);

#endif
