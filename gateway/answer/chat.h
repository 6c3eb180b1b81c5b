/* chat.h - what /v1/chat/completions and /v1/responses share: tools, thoughts, and answers cut into parts. */
#ifndef LLMD_GATEWAY_ANSWER_CHAT_H
#define LLMD_GATEWAY_ANSWER_CHAT_H

#include "gateway/answer/chat_text.h"
#include "gateway/openai/openai.h"
#include "proto/stats.h"

enum { CHAT_CALL_ID_BYTES = 32 };

struct chat_extra {
    struct openai_extra common; /* first, for openai_extra() */
    struct chat_rules rules;
    bool shows_prompt;
    struct chat_text *texts; /* [n_choices], of a stream: how far each was read */
    struct text_parts parts; /* that the token at hand makes */
};

static inline struct chat_extra *chat_extra(const struct request *rq)
{
    return rq->extra;
}

/* Check `tools` and `tool_choice` (either may be NULL), and decide how calls are found. */
bool chat_set_tools(struct request *rq, const json_t *tools, const json_t *tool_choice,
                    struct fault *f);
/* The prompt is there: decide how thoughts are found.  Needs rules.hides_thoughts as it is wanted. */
void chat_set_thoughts(struct request *rq);

/* What the tokens of a choice up to i add to its parts since the last call, in the order of tokens; valid until the
 * next call. */
const struct text_parts *chat_take(struct choice *c, uint32_t i);
/* The parts of the whole text, in the request's arena; of a stream, as they were streamed. */
struct text_parts chat_split(const struct choice *c);

/* The answers that were looked through for calls, had[is_stream][there are some], in the statistics. */
void chat_count(const struct request *rq, const enum stat_id had[2][2], struct stats *stats);

/* The id of a call: a pure function of the request, so that a successor gives the same. */
void chat_call_id(const struct choice *c, uint32_t call, char out[CHAT_CALL_ID_BYTES]);
/* 64 bits for an id, of the request and this number alone. */
uint64_t chat_derive_id(const struct request *rq, uint64_t number);

#endif
