/* watermark.h - which tokens are green behind a token.
 *
 * A generator that likes green tokens leaves text that who knows the rule can tell from others' (Kirchenbauer et
 * al. 2023, arXiv:2301.10226, algorithm 2 with one token of context).  The rule is that of TGI, so that detectors
 * made for it find ours: seed PyTorch's CPU generator with 15485863 * previous token, permute the vocabulary by its
 * randperm(), and the first gamma * vocab_size ids are green.  That generator is MT19937 (Matsumoto & Nishimura
 * 1998), seeded with the lower 32 bits; that randperm() swaps place i with place i + number % (n - i), i ascending. */
#ifndef LLMD_GPU_WORKER_WATERMARK_H
#define LLMD_GPU_WORKER_WATERMARK_H

#include <stdint.h>

/* How many are green: gamma * vocab_size, cut.  gamma 0..1, taken as the decimal of up to six places that it was
 * before it became a float. */
uint32_t watermark_n_green(uint32_t vocab_size, float gamma);

/* ids[0..n_green) become the green ones; ids has room for vocab_size and is scratch behind that. */
void watermark_green(uint32_t *ids, uint32_t vocab_size, uint32_t n_green, int32_t previous);

#endif
