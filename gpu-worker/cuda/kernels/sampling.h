/* sampling.h - K14, from the logits of a row to one token: what the kernel of sampling.cu is given and gives.
 *
 * The kernel draws what gpu-worker/sampler.c draws: the same order of steps, the same random number, the same polynomial
 * for exp(), ties by the lower token id.  Steps that name tokens (bias, penalties, masks) come from the host as edits, one
 * a token; what is left are passes over the row.  What the kernel does not do is the host's to know
 * (cuda/sampling_rows.h: sampling_rows_takes()): watermarks, typical_p, named alternatives, more than SAMPLING_TOP_MAX
 * alternatives.  Such rows are sampled on the CPU from the same logits.
 *
 * Weights are exp((logit - max) / temperature), 0..1.  They are summed as whole numbers of 2^-SAMPLING_MASS_BITS, so that
 * no order of adding matters: a row gives the same token in every run, beside any others.  sampler.c adds floats, in
 * a fixed order; the two differ where a draw, or a cut of top-p, falls on the edge between two tokens by less than
 * such a sum's rounding: about one draw in ten million.
 *
 * One block a row, which reads the row about six times, from L2 but for the first. */
#ifndef LLMD_CUDA_KERNELS_SAMPLING_H
#define LLMD_CUDA_KERNELS_SAMPLING_H

#include <stdint.h>

enum {
    SAMPLING_THREADS = 512,
    SAMPLING_MASS_BITS = 44,
    SAMPLING_VOCAB_MAX = 1 << 19, /* so that the sum of all weights is at most 2^63 */
    SAMPLING_TOP_MAX = 32,        /* alternatives a row */
    SAMPLING_KEPT_MAX = 4096,     /* tokens filtered in shared memory; more: where they lie */
};

/* How the logit of one token is changed, in this order:
 *   + add; with REPEATED * or / the row's repetition; with SEEN - minus, then - the row's presence; with MASKED -inf */
enum sampling_edit_flags {
    SAMPLING_REPEATED = 1,
    SAMPLING_SEEN = 2,
    SAMPLING_MASKED = 4,
};

struct sampling_edit {
    int32_t token;  /* a row's edits are of different tokens */
    uint32_t flags; /* enum sampling_edit_flags */
    float add;      /* logit_bias */
    float minus;    /* frequency penalty times the count, rounded to a float */
};

enum sampling_row_flags {
    SAMPLING_IDLE = 1, /* nothing is to be done: a place of a graph that this step does not use */
    SAMPLING_ONLY_EDITED = 2,  /* tokens without an edit are masked */
    SAMPLING_MEASURE_RAW = 4,  /* log probabilities of the model's own logits are wanted .. */
    SAMPLING_MEASURE_KEPT = 8, /* .. or of what was drawn from */
};

/* One draw. */
struct sampling_row {
    uint64_t seed, position; /* the number is philox_uniform(seed, position) */
    double top_p;            /* 0 < top_p < 1, else off */
    float scale;             /* 1 / temperature; 0: greedy */
    float repetition, presence, min_p;
    uint32_t top_k;      /* 0: off */
    uint32_t logits_row; /* of args->logits */
    uint32_t first_edit, n_edits;
    uint32_t flags; /* enum sampling_row_flags */
    uint32_t n_top; /* 0..SAMPLING_TOP_MAX; alternatives wanted, with one of the MEASURE flags */
};

/* The numbers are those of enum sampler_result. */
enum sampling_result {
    SAMPLING_OK,
    SAMPLING_NOT_FINITE, /* a logit is NaN or infinite */
    SAMPLING_NONE_LEFT,  /* every token is masked */
};

/* What became of a row.  Past `result` valid with a MEASURE flag only; the host makes logarithms of it
 * (sampling_rows_read()). */
struct sampling_choice {
    int32_t token;
    uint32_t result; /* enum sampling_result; token is -1 unless it is SAMPLING_OK */
    float value;     /* of the token: raw: its logit; kept: its weight */
    float max;       /* raw: the model's largest logit; kept: 0 */
    uint64_t
        mass; /* of all weights (raw: of the model's own logits, temperature 1), or of those kept */
    uint32_t rank;  /* 1 = the likeliest */
    uint32_t n_top; /* how many of the row's sampling_top were written */
};

/* Alternatives, best first. */
struct sampling_top {
    int32_t token;
    float value; /* as in struct sampling_choice */
};

struct sampling_args {
    const float *logits;             /* [any, vocab], not changed */
    float *work;                     /* [n_rows, vocab] scratch */
    const struct sampling_row *rows; /* [n_rows] */
    const struct sampling_edit *edits;
    struct sampling_choice *choices; /* [n_rows]; may be pinned memory of the host */
    struct sampling_top *tops;       /* [n_rows, SAMPLING_TOP_MAX]; the same */
    uint32_t n_rows;                 /* the grid: one block each */
    uint32_t vocab;                  /* 1..SAMPLING_VOCAB_MAX */
};

#endif
