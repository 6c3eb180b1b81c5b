/* rounding.h - 32 floats become integer codes and one f16 scale: x[k] is about scale * codes[k].
 *
 * The scale is rounded to f16 before the codes are chosen, so that they are the best for the scale that is
 * stored. A block of zeroes has scale 0; so has one too small for f16.  Largest magnitude: 65504 * 127 in
 * eight bits, 65504 * 8 in four; what is not finite gives scale infinity or NaN, and so does its product. */
#ifndef LLMD_GPU_WORKER_OPS_ROUNDING_H
#define LLMD_GPU_WORKER_OPS_ROUNDING_H

#include <stdint.h>

/* Codes in -127..127: scale = max|x| / 127, each code the nearest. */
uint16_t rounding_i8(int8_t codes[32], const float x[32]);

/* Codes in -8..7.  With only sixteen levels the scale that makes room for the largest value is not the one
 * that loses least.  Some are tried; for the codes of each the scale is fitted by least squares, and the
 * one with the least sum of (x - scale * code)^2 is kept: the error of the output, as far as inputs are
 * alike.  On the demo model this diverged less than largest / -8 (0.061 for 0.070, mean of five texts),
 * while weights of x^2 or |x|, as others have them, made it worse. */
uint16_t rounding_i4(int8_t codes[32], const float x[32]);

/* The same for machines with AVX2: what the above call there. */
uint16_t rounding_i8_avx2(int8_t codes[32], const float x[32]);
uint16_t rounding_i4_avx2(int8_t codes[32], const float x[32]);

#endif
