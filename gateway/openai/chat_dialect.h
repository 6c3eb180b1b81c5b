/* chat_dialect.h - /v1/chat/completions between its files. */
#ifndef LLMD_GATEWAY_OPENAI_CHAT_DIALECT_H
#define LLMD_GATEWAY_OPENAI_CHAT_DIALECT_H

#include "gateway/answer/chat.h"

/* chat_format.c */
void chat_whole(struct request *rq, struct reply *r);
void chat_token(struct request *rq, struct choice *c, uint32_t i, struct buf *out);

#endif
