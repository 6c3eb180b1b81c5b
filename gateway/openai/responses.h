/* responses.h - /v1/responses between its files: what a request says that its answer repeats, and how far a stream
 * is.
 *
 * Nothing is stored: a response is known by its answer alone, so there is nothing to continue, fetch or cancel.
 *
 * An answer is a list of items: thoughts, messages, calls of functions.  Each is one run of the text
 * (text_parts.h) in a stream and in a whole answer alike. */
#ifndef LLMD_GATEWAY_OPENAI_RESPONSES_H
#define LLMD_GATEWAY_OPENAI_RESPONSES_H

#include "gateway/answer/chat.h"

struct response_item {
    enum part_kind kind; /* PART_REASONING, PART_CONTENT, PART_CALL */
    uint32_t index;      /* in the output */
    uint32_t call;
    const char *name; /* of a call */
    size_t name_bytes;
    const char *s; /* text or arguments */
    size_t n;
    uint32_t token_from, token_to; /* whose log probabilities it lists */
};

struct responses_extra {
    struct chat_extra chat; /* first, for chat_extra() and openai_extra() */

    /* members that the answer repeats: JSON, in the arena; NULL: the default */
    const char *instructions, *metadata, *tools, *tool_choice, *user, *effort;
    const char *truncation;
    int64_t max_output_tokens; /* 0: not given */
    bool has_one_call;

    /* the stream's */
    uint32_t n_events;
    uint32_t n_items;
    bool is_open; /* the last item goes on */
    struct response_item
        item; /* that one; .s is NULL and .from says where, if it lies in the text */
    size_t from;
};

static inline struct responses_extra *responses_extra(const struct request *rq)
{
    return rq->extra;
}

/* responses_input.c: `input` and `instructions` as the messages of a chat; caller gives them back with
 * json_decref().  NULL: f says why. */
json_t *responses_messages(const json_t *input, const char *instructions, struct fault *f);
/* Tools and tool_choice as a chat has them; likewise. */
json_t *responses_tools(const json_t *tools, struct fault *f);
json_t *responses_tool_choice(const json_t *choice);

/* responses_format.c */
void responses_whole(struct request *rq, struct reply *r);
void responses_token(struct request *rq, struct choice *c, uint32_t i, struct buf *out);
void responses_end(struct request *rq, struct buf *out);
void responses_stream_fault(struct request *rq, const struct fault *f, struct buf *out);

#endif
