/* fake_runtime.h - a small deterministic model behind gpu-worker/runtime.h.
 *
 * Its "KV" of a token is the token's id, written to the sequence's page, and its logits are a hash of
 * all ids read back through the page table.  So a wrong page, position, chunk or commit changes the
 * tokens, just as it would with a real model.  Every batch is checked against batch.h. */
#ifndef LLMD_TESTS_FAKE_RUNTIME_H
#define LLMD_TESTS_FAKE_RUNTIME_H

#include "gpu-worker/runtime.h"

enum {
    FAKE_VOCAB = 300,
    FAKE_EOS = 2,
    FAKE_LAYERS = 1,
    FAKE_HEADS = 1,
    FAKE_HEAD_DIM = 1,
    FAKE_HIDDEN = 12,
    FAKE_SHORT = 2,     /* .sys of an error: the device is full */
    FAKE_POISON = 299,  /* see fake_poison */
    FAKE_NAN = 298,     /* a row whose token is this has logits that are no numbers */
    FAKE_ECHO = 13,     /* what it said so many tokens ago it mostly says again, */
    FAKE_ECHO_FROM = 30 /* from this many tokens on */
};

struct fake_settings {
    uint32_t max_model_len;
    uint32_t step_us; /* how long a forward pass takes */
    /* A turn of the engine takes that and no more, by fake_clock.h, whatever else the machine does. */
    bool is_exact;
    bool poison_aborts; /* a row whose token is FAKE_POISON kills the process */
    bool no_eos;
    uint32_t rests; /* idle turns that the runtime has use for */
    bool draws;     /* every other draw is made here, and its logits are not handed over */
    uint64_t kv_identity;
    enum err_code fail; /* runtime_forward() returns this, if any */
    uint32_t n_short;   /* so many of its next calls find too little memory */
};

extern struct fake_settings fake_settings;

/* What the last forward pass was given, and how many there were; rows of all of them. */
extern uint32_t fake_n_forwards, fake_last_rows, fake_last_seqs;
extern uint64_t fake_n_rows;
extern uint32_t fake_n_draws; /* made here */
extern uint32_t fake_n_rests; /* that were of use */
/* How often the engine found logits that are no numbers. */
extern uint32_t fake_n_doubts;

struct runtime *fake_runtime_new(struct kvpool *pool);

/* The logits after these tokens: what a correct batch must produce. */
void fake_logits(const int32_t *tokens, uint32_t n, float *logits);
/* And the hidden state, [FAKE_HIDDEN]. */
void fake_hidden(const int32_t *tokens, uint32_t n, float *hidden);

#endif
