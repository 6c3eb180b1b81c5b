/* request.h - one generation request in no dialect's words: prompts, sampling, stops, how many.
 *
 * A dialect's parser fills it through the functions here, which check what all dialects have in
 * common.  All memory is the request's arena, given back whole. */
#ifndef LLMD_GATEWAY_REQUEST_H
#define LLMD_GATEWAY_REQUEST_H

#include "common/arena.h"
#include "gateway/answer/generation.h"
#include "gateway/answer/repetition.h"
#include "gateway/answer/stop_match.h"
#include "gateway/dialect.h"
#include "gateway/fault.h"
#include "gateway/service.h"

struct prompt {
    const char *text; /* as given, or rendered by the template; NULL when given as ids */
    size_t text_bytes;
    int32_t *ids;
    uint32_t n_ids;
    uint32_t max_tokens; /* of its own; 0 = the request's */
    bool has_seed;       /* of its own: */
    uint64_t seed;
    const char *last; /* of a chat: its final message, where that is the assistant's; else NULL */
    size_t last_bytes;
    bool is_thinking;         /* the answer begins within a thought (answer/reasoning.h) */
    Llmd__Thinking *thinking; /* the budget of thoughts; NULL: none */
};

/* Sequences of one request; of these, no more than CONNECTION_SEQUENCES_MAX run at once. */
enum { REQUEST_SEQUENCES_MAX = 2048 };

enum stop_rule {
    STOP_ANYWHERE, /* OpenAI, vLLM: cut at the match */
    STOP_AT_END,   /* TGI: looked for at each token's end, kept in the text */
};

enum { REQUEST_SHOWN_TOKENS_MAX = 8 };

/* By what the best candidates of a prompt are chosen. */
enum best_rule {
    BEST_BY_SUM,  /* of the log probabilities of their tokens: OpenAI, vLLM */
    BEST_BY_MEAN, /* TGI */
};

/* Instead of sampling: the n likeliest continuations. */
struct beam_options {
    uint32_t width; /* >= n; 0 = tokens are sampled */
    double length_penalty;
    bool stops_early;
};

struct request {
    struct arena arena;
    struct service *service;
    const struct dialect *dialect;
    int variant; /* of the dialect: which of its routes */
    void *extra; /* the dialect's own, in the arena */
    void *owner; /* struct exchange */

    /* what is asked for */
    bool is_stream;
    struct prompt *prompts;
    uint32_t n_prompts;
    uint32_t n;       /* choices for each prompt */
    uint32_t best_of; /* sequences run for each prompt, the best n of which are shown; 0 = n */
    enum best_rule best_rule;
    struct beam_options beam;
    Llmd__Sampling sampling;
    uint32_t max_tokens; /* per choice; 0 = as many as fit */
    uint32_t min_tokens;
    bool ignore_eos;
    Llmd__Pooling pooling; /* not POOL_NONE: nothing is generated, the embedding is the answer */
    bool want_prompt_logprobs;
    uint32_t prompt_top_logprobs;
    const int32_t *stop_tokens;
    uint32_t n_stop_tokens;
    int32_t priority;
    uint64_t cache_salt; /* 0 = none */
    enum stop_rule stop_rule;
    struct stop_set stops;
    struct repetition_rule repetition;
    uint32_t event_tokens;     /* of a stream's event, in dialects that join tokens to one */
    bool keeps_stop;           /* the stop string or token stays in the text */
    bool shows_special_tokens; /* in the text */
    int32_t shown_tokens[REQUEST_SHOWN_TOKENS_MAX]; /* these in any case: marks for a parser */
    uint32_t n_shown_tokens;
    bool needs_no_generation; /* the prompt is the answer, alone or with its log probabilities */

    /* who asks, when */
    uint64_t answer_id;
    int64_t created_s;
    const char *custom_id; /* instead of answer_id; NULL = none */
    uint64_t started_ns, validated_ns, deadline_ns;
    bool cuts_at_deadline;  /* then what there is, is the answer */
    bool is_cut;            /* it was: the answer cannot be made again */
    uint64_t answered_ns;   /* the whole answer was made; 0 = not yet */
    uint64_t queue_ns;      /* that it tells */
    bool has_cached;        /* cached_tokens is what the answer tells, or told already */
    uint32_t cached_tokens; /* of the prompts, found in the prefix cache */
    uint32_t max_model_len; /* in force when it came */

    /* what has come */
    struct choice *choices; /* [n_candidates], prompt by prompt */
    uint32_t n_candidates;  /* sequences that run */
    uint32_t n_choices;     /* of these, shown: all, or the best of each prompt */
    uint32_t *shown;        /* [n_choices] index into choices: request_choice() */
    uint32_t n_ended;       /* candidates */
    uint32_t turn;          /* choice whose next token is to be shown: choices are shown in turns */
};

void request_init(struct request *rq, struct service *service, const struct dialect *dialect,
                  int variant);
void request_fini(struct request *rq);

/* Make room for n prompts. */
bool request_set_prompts(struct request *rq, size_t n, struct fault *f);
/* Tokenize text (kept) into prompt i with tokenizer_flags. */
bool request_tokenize(struct request *rq, size_t i, const char *text, size_t n, unsigned flags,
                      struct fault *f);
/* Keep only the last n tokens of a prompt. */
void request_truncate(struct request *rq, size_t i, uint32_t n_tokens);
/* Copy the strings of a JSON array (or the one string); they are known to be strings. */
void request_set_stops(struct request *rq, const json_t *strings);

/* Make all candidates; a fault when they are too many.  With more of them than are shown, log
 * probabilities are asked for. */
bool request_make_choices(struct request *rq, struct fault *f);
/* All candidates have ended: show the best of each prompt, best first (of equals the first), and number
 * them.  A pure function of the tokens; changes nothing where all are shown. */
void request_choose(struct request *rq);

/* The i-th choice that is shown. */
static inline struct choice *request_choice(const struct request *rq, uint32_t i)
{
    return &rq->choices[rq->shown[i]];
}

/* When a worker is to give up on a sequence of it: not before the gateway has cut the answer. */
uint64_t request_worker_deadline_ns(const struct request *rq);

/* Random bits: seeds, ids. */
uint64_t request_random(void);
/* The seed of choice k of a request with this seed: choice 0 has the seed itself. */
uint64_t request_choice_seed(uint64_t seed, uint32_t k);

/* The sequence that measures the prompt of c: one does it for all candidates. */
const struct sequence *request_prompt_sequence(const struct choice *c);

/* Sums over all candidates; a prompt counts once. */
uint64_t request_prompt_tokens(const struct request *rq);
uint64_t request_generated_tokens(const struct request *rq);
/* Of the prompts' tokens, those that each prompt's first candidate found in the prefix cache. */
uint32_t request_cached_tokens(const struct request *rq);

#endif
