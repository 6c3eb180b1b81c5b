/* dialect.h - what a dialect is: a parser into struct request, and formatters out of it.
 *
 * Formatters are pure: the same request with the same tokens gives the same bytes and the same pieces,
 * whenever the tokens came, so that a successor can write an answer again (design section 4).  That is
 * why an event has a number of tokens that was asked for, and several choices take turns. */
#ifndef LLMD_GATEWAY_DIALECT_H
#define LLMD_GATEWAY_DIALECT_H

#include <stddef.h>

#include "gateway/fault.h"
#include "gateway/fields.h"
#include "gateway/reply.h"

struct request;
struct choice;
struct service;
struct stats;

enum dialect_id {
    DIALECT_NONE,
    DIALECT_TGI,
    DIALECT_OPENAI_COMPLETIONS,
    DIALECT_OPENAI_CHAT,
    DIALECT_OCI,
    DIALECT_OPENAI_EMBEDDINGS,
    DIALECT_OPENAI_GENERATE,
    DIALECT_OPENAI_RESPONSES,
};

struct dialect {
    enum dialect_id id;
    const char *name;

    /* The Content-Type is good enough.  content_type may be NULL. */
    bool (*takes)(const char *content_type, struct fault *f);
    /* Fill rq from the body; http may be NULL.  On failure rq->is_stream is set as far as it could
     * be read. */
    bool (*parse)(struct request *rq, const struct http_request *http, const char *body, size_t n,
                  struct fault *f);
    /* All choices have ended: the whole answer. */
    void (*whole)(struct request *rq, struct reply *r);
    /* A stream: status and fields; one event for token i of c (i == c->n_done: it ended without
     * one); what comes after the last event.  Nothing appended means nothing sent. */
    void (*begin)(struct request *rq, struct reply *r);
    void (*token)(struct request *rq, struct choice *c, uint32_t i, struct buf *out);
    void (*end)(struct request *rq, struct buf *out);
    /* It has ended well: what the statistics are told beyond what all dialects tell.  NULL: nothing. */
    void (*count)(const struct request *rq, struct stats *stats);
    /* Refused or failed: a whole answer, or the last event of a stream. */
    void (*fault)(const struct fault *f, struct reply *r);
    void (*stream_fault)(struct request *rq, const struct fault *f, struct buf *out);
    /* The body of an answer that the HTTP layer gives by itself; returns its Content-Type. */
    const char *(*layer_error)(int status, const char *text, struct buf *body);

    bool faults_in_stream; /* what is wrong with a stream's request is told inside the stream */
    bool has_permit_per_sequence; /* best_of takes as many */
    bool can_abort;               /* an answer cut by the server's end has a form of its own */
    uint32_t keep_alive_s;        /* a comment after so long without an event; 0 = none */
};

extern const struct dialect dialect_tgi, dialect_openai_completions, dialect_openai_chat,
    dialect_openai_embeddings, dialect_openai_responses, dialect_oci;

/* What their bodies hold. */
extern const struct field_table tgi_body_fields, tgi_parameter_fields, tgi_old_parameter_fields,
    tgi_vertex_fields, tgi_vertex_chat_fields, openai_common_fields, openai_completion_fields,
    openai_chat_fields, openai_generate_fields, openai_tokenize_fields, openai_detokenize_fields,
    openai_embedding_fields, openai_response_fields, openai_template_fields,
    openai_repetition_fields, oci_body_fields, oci_parameter_fields;

#endif
