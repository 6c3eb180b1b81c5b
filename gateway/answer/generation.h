/* generation.h - one choice of an answer: from tokens to text, and when it ends.
 *
 *   sequence (upstream) --tokens--> choice_take(): text, stop strings, end --> dialect's formatter
 *
 * Text only grows until the choice ends; then it may be cut once, at a stop string, and never into
 * what was shown.  token_text[i] says how much text there was, and how much could be shown, when
 * token i had come: what a stream shows at token i depends on tokens 0..i and on nothing else. */
#ifndef LLMD_GATEWAY_ANSWER_GENERATION_H
#define LLMD_GATEWAY_ANSWER_GENERATION_H

#include "common/buf.h"
#include "gateway/answer/sequence.h"
#include "text/detokenizer.h"

struct request;
struct prompt;

enum choice_end {
    CHOICE_RUNNING,
    CHOICE_EOS,         /* the model's own end; .seq.tokens' last */
    CHOICE_STOP_TOKEN,  /* one of the request's */
    CHOICE_STOP_STRING, /* .stop_which */
    CHOICE_LENGTH,
    CHOICE_REPETITION, /* it goes round in circles */
    CHOICE_TIME,       /* the request's deadline, where that is no failure */
    CHOICE_ABORTED,    /* the server is ending */
    CHOICE_FAILED,     /* .seq.fault */
};

struct token_text {
    uint32_t end;   /* bytes of text after this token */
    uint32_t shown; /* of these, what no stop string can cut off any more */
};

struct choice {
    struct sequence seq;
    struct request *rq;
    const struct prompt *prompt;
    uint32_t index; /* as shown */

    struct detokenizer detok;
    struct buf text;               /* of the tokens taken */
    struct buf marked;             /* STOP_AT_END with stops: the same with special tokens in it */
    struct token_text *token_text; /* [n_done] */
    uint32_t n_done, cap;          /* tokens taken; those after a stop string never are */
    enum choice_end end;
    size_t stop_which;

    /* the stream's */
    uint32_t n_shown; /* tokens written out */
    bool end_shown;
};

/* seq must be filled by the caller. */
void choice_init(struct choice *c, struct request *rq, const struct prompt *prompt, uint32_t index);
void choice_fini(struct choice *c);

/* Take the tokens that have come since the last call.  Sets c->end when it is over, by what the worker
 * said or by a stop string (the sequence is then still running, and is the caller's to cancel). */
void choice_take(struct choice *c);
/* It ends here, with the text it has: the server ends, or the time is over. */
void choice_abort(struct choice *c);
void choice_cut(struct choice *c);

/* Text that tokens from to i add to what is shown; i == n_done: the end without one. */
const char *choice_delta(const struct choice *c, uint32_t from, uint32_t i, size_t *n);
/* The part of the whole text that token i made, for per-token lists: "" while a character is
 * incomplete. */
const char *choice_token_text(const struct choice *c, uint32_t i, size_t *n);
/* Token i is the last and carries the end.  A failure is no end that a token could carry. */
static inline bool choice_ends_at(const struct choice *c, uint32_t i)
{
    return c->end != CHOICE_RUNNING && c->end != CHOICE_FAILED && i + 1 >= c->n_done;
}

#endif
