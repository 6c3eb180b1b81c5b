/* generate.h - vLLM's /generate, on the path that TGI has too. */
#ifndef LLMD_GATEWAY_OPENAI_GENERATE_H
#define LLMD_GATEWAY_OPENAI_GENERATE_H

#include "common/json.h"
#include "gateway/dialect.h"

extern const struct dialect dialect_openai_generate;

/* The body of a POST /generate is vLLM's: then its dialect parses it and gives the answer. */
bool openai_generate_is_meant(const json_t *root);

#endif
