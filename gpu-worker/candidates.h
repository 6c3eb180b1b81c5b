/* candidates.h - the tokens a draw may still choose, and the filters that narrow them.
 *
 * A list in ascending order of id, with a weight each (exp of the scaled logit, the best has 1).  Every
 * filter keeps a prefix of some order of preference, so it needs only the place of the cut: a histogram
 * over the float's upper bits finds the bucket of the cut in one pass, and a heap orders that one
 * bucket.  Linear in the vocabulary, whatever the distribution; no allocation. */
#ifndef LLMD_GPU_WORKER_CANDIDATES_H
#define LLMD_GPU_WORKER_CANDIDATES_H

#include <stdint.h>

enum { CANDIDATES_BLOCK = 256, CANDIDATES_BUCKETS = 1024 };

struct candidates {
    uint32_t cap; /* multiple of CANDIDATES_BLOCK; arrays below have as many */
    uint32_t n;
    uint32_t *ids;
    float *weights; /* 0..1; zero past n up to the end of its block */
    float *keys;    /* scratch: preference of each, 0..1 */
    uint64_t *heap; /* scratch */
    uint32_t bucket_n[CANDIDATES_BUCKETS];
    double bucket_mass[CANDIDATES_BUCKETS];
};

void candidates_init(struct candidates *c, uint32_t vocab_size);
void candidates_fini(struct candidates *c);

/* exp(x) for x <= 0, relative error below 3e-7; 0 below -87.  The same bits everywhere. */
float candidates_exp(float x);

/* weights[i] = exp((logits[i] - max) * scale) for all ids 0..n-1; logits must be readable up to a whole
 * block, with -INFINITY past n. */
void candidates_fill(struct candidates *c, const float *logits, uint32_t n, float max, float scale);

/* Sum of the weights in the one fixed order: 16 lanes in a block, blocks ascending. */
double candidates_mass(const struct candidates *c);

void candidates_keep_k(struct candidates *c, uint32_t k); /* the k heaviest */
void candidates_keep_mass(struct candidates *c,
                          double fraction); /* fewest that have the fraction */
void candidates_keep_ratio(struct candidates *c, float min_weight); /* weight >= min_weight */
/* Locally typical (Meister et al. 2022, arXiv:2202.00666): those whose surprise is nearest to the
 * entropy, until they have `fraction` of the mass. */
void candidates_keep_typical(struct candidates *c, double fraction);

/* Index of the candidate that u in [0, 1) falls on. */
uint32_t candidates_pick(const struct candidates *c, double u);

#endif
