/* fake_worker.h - a group's rank 0 for tests of the gateway: the real link, the real messages, a ledger
 * in a list, and tokens that are a pure function of prompt, seed and position.
 *
 * No thread of its own: fake_worker_step() does all that is due.  fake_worker_run() puts it on a thread
 * for process tests; then the atomic knobs and counters are how to talk with it. */
#ifndef LLMD_TESTS_FAKE_WORKER_H
#define LLMD_TESTS_FAKE_WORKER_H

#include <pthread.h>
#include <stdatomic.h>

#include "proto/link.h"

enum { FAKE_PEERS_MAX = 16 };
enum { FAKE_PROMPT_PIECE = 2 }; /* log probabilities of a prompt in one message */
enum { FAKE_EMBEDDING = 8 };    /* its length */
enum { FAKE_TOKENS_MAX = 4096, FAKE_FIRST_TOKEN = 300, FAKE_N_TOKENS = 1500, FAKE_EOS = 2 };

struct fake_sequence {
    struct fake_sequence *next;
    uint64_t id;
    uint32_t peer;
    int32_t tokens[FAKE_TOKENS_MAX];
    uint32_t n_tokens, n_sent, max_tokens, min_tokens;
    uint64_t key;       /* of prompt and seed */
    const char *script; /* what it says, a byte a token; NULL: the tokens of its key */
    bool ignore_eos, want_logprobs, wants_prompt;
    uint32_t n_top;
    int32_t prompt[FAKE_TOKENS_MAX];
    uint32_t n_prompt, n_prompt_top;
    uint32_t n_prompt_sent; /* log probabilities of the prompt; n_prompt when none are wanted */
    Llmd__Pooling pooling;
    Llmd__Finish finish;
    bool finish_sent;
};

struct fake_worker {
    struct link *link;
    char instance[64];
    uint32_t group, epoch;
    struct fake_sequence *ledger;
    bool hello_due
        [FAKE_PEERS_MAX]; /* by peer: an answer to it was lost, so it must say again what it holds */
    uint64_t next_step_ns;
    pthread_t thread;

    /* knobs */
    _Atomic bool is_paused;        /* accepts, but makes no token */
    _Atomic uint32_t step_us;      /* pause between steps */
    _Atomic uint32_t eos_at;       /* every sequence ends there by EOS; 0 = never */
    _Atomic uint32_t refuse_first; /* so many SUBMITs are refused as FULL */
    _Atomic uint32_t live_max;     /* with so many in the ledger it is FULL; 0 = never */
    _Atomic uint32_t fail_at;      /* every sequence ends there with FINISH_ERROR; 0 = never */
    _Atomic bool sends_twice;      /* each message of tokens, again */
    _Atomic bool is_silent;        /* answers nothing at all */
    _Atomic bool must_stop;
    const char *_Atomic says; /* the script of every sequence to come; NULL: by its seed */
    _Atomic uint32_t restart; /* 1: lose the link, keep the ledger; 2: lose both */

    /* what it saw */
    _Atomic uint32_t n_submits, n_cancels, n_acks, n_resyncs, n_connects, n_held_listed;
    _Atomic uint32_t n_resubmitted_tokens; /* Submit.generated */
    _Atomic uint32_t n_prompt_logprobs;    /* sent, again included */
    _Atomic uint32_t n_live;               /* sequences in the ledger */
    _Atomic int32_t last_priority;         /* of the newest SUBMIT */
};

/* A sequence with this seed says this, a byte a token, and ends: thoughts, a text, and two calls of tools as Hermes
 * models write them. */
enum { FAKE_SCRIPT_SEED = 20240726, FAKE_BYTE_TOKEN = 3 };
extern const char fake_script[];

/* Token `i` of a sequence. */
uint64_t fake_key(const int32_t *prompt, size_t n, uint64_t seed);
int32_t fake_token(uint64_t key, uint32_t i);
float fake_logprob(uint64_t key, uint32_t i);
/* Of the prompt's token i > 0; its rank is 2, and it is the second of the alternatives. */
float fake_prompt_logprob(uint64_t key, uint32_t i);
float fake_embedding(uint64_t key, Llmd__Pooling pooling, uint32_t i);

bool fake_worker_open(struct fake_worker *w, const char *instance, uint32_t group, struct err *e);
void fake_worker_close(struct fake_worker *w);
void fake_worker_step(struct fake_worker *w);

void fake_worker_run(struct fake_worker *w);
void fake_worker_join(struct fake_worker *w);

#endif
