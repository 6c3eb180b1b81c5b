/* generation.c - text of a choice, and its end. */
#include "gateway/answer/generation.h"

#include <stdlib.h>

#include "common/mem.h"
#include "gateway/request.h"

void choice_init(struct choice *c, struct request *rq, const struct prompt *prompt, uint32_t index)
{
    unsigned flags = rq->shows_special_tokens ? 0 : DETOKENIZER_SKIP_SPECIAL;

    sequence_init(&c->seq);
    c->rq = rq;
    c->prompt = prompt;
    c->index = index;
    detokenizer_init(&c->detok, rq->service->tokenizer, flags);
    detokenizer_continue(&c->detok, prompt->ids, prompt->n_ids);
}

void choice_fini(struct choice *c)
{
    sequence_fini(&c->seq);
    buf_fini(&c->text);
    buf_fini(&c->marked);
    free(c->token_text);
    c->token_text = NULL;
}

static void reserve(struct choice *c, uint32_t n)
{
    if (n <= c->cap)
        return;
    c->cap = c->cap ? c->cap * 2 : 64;
    if (c->cap < n)
        c->cap = n;
    c->token_text = mem_realloc(c->token_text, c->cap * sizeof *c->token_text);
}

/* How the worker says that it ended, if token i is the last one; CHOICE_RUNNING otherwise. */
static enum choice_end end_of_token(const struct choice *c, uint32_t i)
{
    if (i + 1 < c->seq.n_tokens)
        return CHOICE_RUNNING;
    switch (c->seq.finish) {
    case LLMD__FINISH__FINISH_EOS:
        return CHOICE_EOS;
    case LLMD__FINISH__FINISH_STOP_TOKEN:
        return CHOICE_STOP_TOKEN;
    case LLMD__FINISH__FINISH_LENGTH:
        return CHOICE_LENGTH;
    default:
        return CHOICE_RUNNING;
    }
}

/* Special tokens leave no text, but for those that the request wants to see. */
static void push_token(struct choice *c, int32_t token)
{
    unsigned flags = c->detok.flags;

    for (uint32_t k = 0; k < c->rq->n_shown_tokens; k++)
        if (c->rq->shown_tokens[k] == token)
            c->detok.flags &= ~(unsigned)DETOKENIZER_SKIP_SPECIAL;
    detokenizer_push(&c->detok, token, &c->text);
    c->detok.flags = flags;
}

/* The token that ends a choice leaves no text, unless the client asked for it. */
static void add_text(struct choice *c, uint32_t i, enum choice_end end)
{
    bool is_mark = end == CHOICE_EOS || end == CHOICE_STOP_TOKEN;

    if (!is_mark || c->rq->keeps_stop)
        push_token(c, c->seq.tokens[i]);
    if (end != CHOICE_RUNNING)
        detokenizer_flush(&c->detok, &c->text);
}

/* TGI looks for stop strings where special tokens can be seen: "<|im_end|>" is one that clients send. */
static void add_marked(struct choice *c, uint32_t i, size_t n_before)
{
    const struct tokenizer *t = c->rq->service->tokenizer;
    size_t n = 0;
    const char *mark;

    if (c->rq->stop_rule != STOP_AT_END || c->rq->stops.n == 0)
        return;
    if (c->text.n > n_before)
        buf_add(&c->marked, c->text.data + n_before, c->text.n - n_before);
    if (!tokenizer_is_special(t, c->seq.tokens[i]))
        return;
    mark = tokenizer_token_str(t, c->seq.tokens[i], &n);
    buf_add(&c->marked, mark, n);
}

/* A stop string is complete; text past it, and for OpenAI the string itself, is not part of the answer. */
static bool meets_stop_string(struct choice *c, size_t n_before)
{
    const struct request *rq = c->rq;
    struct stop_hit hit;

    if (rq->stops.n == 0 || c->n_done < rq->min_tokens)
        return false;
    if (rq->stop_rule == STOP_AT_END)
        return stop_ends(&rq->stops, c->marked.data ? c->marked.data : "", c->marked.n,
                         &c->stop_which);
    if (c->text.n == 0)
        return false;
    if (!stop_find(&rq->stops, c->text.data, c->text.n, n_before, &hit))
        return false;
    c->stop_which = hit.which;
    c->text.n = rq->keeps_stop ? hit.end : hit.start;
    return true;
}

static bool repeats(const struct choice *c)
{
    return c->n_done >= c->rq->min_tokens &&
           repetition_found(&c->rq->repetition, c->seq.tokens, c->n_done);
}

static void take_token(struct choice *c)
{
    uint32_t i = c->n_done++;
    enum choice_end end = end_of_token(c, i);
    size_t n_before = c->text.n;

    if (end == CHOICE_RUNNING && repeats(c))
        end = CHOICE_REPETITION;
    reserve(c, c->n_done);
    add_text(c, i, end);
    add_marked(c, i, n_before);
    if (c->rq->stop_rule == STOP_AT_END) { /* TGI: length, then EOS, then stop strings */
        if (c->n_done >= c->seq.submit.max_tokens && end != CHOICE_RUNNING)
            end = CHOICE_LENGTH;
        else if (end == CHOICE_RUNNING && meets_stop_string(c, n_before))
            end = CHOICE_STOP_STRING;
    } else if (end != CHOICE_EOS && end != CHOICE_STOP_TOKEN && meets_stop_string(c, n_before)) {
        end = CHOICE_STOP_STRING;
    }
    c->token_text[i] =
        (struct token_text){ .end = (uint32_t)c->text.n, .shown = (uint32_t)c->text.n };
    if (end == CHOICE_RUNNING && c->rq->stop_rule == STOP_ANYWHERE && c->rq->stops.n > 0)
        c->token_text[i].shown =
            (uint32_t)stop_shown(&c->rq->stops, c->text.data ? c->text.data : "", c->text.n);
    c->end = end;
}

/* Ended by the worker without a token, or by a fault. */
static void take_bare_end(struct choice *c)
{
    if (c->seq.fault.kind != FAULT_NONE)
        c->end = CHOICE_FAILED;
    else if (c->seq.finish == LLMD__FINISH__FINISH_CANCELLED)
        c->end = CHOICE_ABORTED;
    else
        c->end = c->seq.finish == LLMD__FINISH__FINISH_EOS ||
                         c->seq.finish == LLMD__FINISH__FINISH_EMBEDDED
                     ? CHOICE_EOS
                     : CHOICE_LENGTH;
    detokenizer_flush(&c->detok, &c->text);
}

void choice_take(struct choice *c)
{
    while (c->end == CHOICE_RUNNING && c->n_done < c->seq.n_tokens)
        take_token(c);
    if (c->end == CHOICE_RUNNING && c->seq.state == SEQUENCE_ENDED)
        take_bare_end(c);
}

static void end_here(struct choice *c, enum choice_end end)
{
    if (c->end != CHOICE_RUNNING)
        return;
    detokenizer_flush(&c->detok, &c->text);
    c->end = end;
}

void choice_abort(struct choice *c)
{
    end_here(c, CHOICE_ABORTED);
}

void choice_cut(struct choice *c)
{
    end_here(c, CHOICE_TIME);
}

const char *choice_delta(const struct choice *c, uint32_t from, uint32_t i, size_t *n)
{
    size_t begin = from > 0 ? c->token_text[from - 1].shown : 0;
    size_t end = i < c->n_done ? c->token_text[i].shown : c->text.n; /* the bare end: the rest */

    if (begin > end) /* cannot be: what was shown is never cut */
        begin = end;
    *n = end - begin;
    return c->text.data ? c->text.data + begin : "";
}

const char *choice_token_text(const struct choice *c, uint32_t i, size_t *n)
{
    size_t from = i > 0 ? c->token_text[i - 1].end : 0;
    size_t to = c->token_text[i].end;

    *n = to > from ? to - from : 0; /* cut at a stop string that began in an earlier token */
    return c->text.data ? c->text.data + from : "";
}
