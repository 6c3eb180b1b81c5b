/* gateway_client.h - the gateway's end of the link, as a test sees it: it keeps every stream's tokens,
 * drops what comes twice and fails the test when an index leaves a gap, or when a token comes before all log
 * probabilities of its prompt.  As a gateway does, it answers
 * HELLO with RESYNC, and submits again, with the tokens it holds, what the worker does not know. */
#ifndef LLMD_TESTS_GATEWAY_CLIENT_H
#define LLMD_TESTS_GATEWAY_CLIENT_H

#include "proto/link.h"

enum { CLIENT_STREAMS_MAX = 2048, CLIENT_TOKENS_MAX = 600 };
enum { CLIENT_TOP_MAX = 5, CLIENT_EMBEDDING_MAX = 256 };

/* What a stream asks for. */
struct client_request {
    const int32_t *prompt;
    uint32_t n_prompt;
    const int32_t *generated;
    uint32_t n_generated;
    uint32_t max_tokens, min_tokens;
    bool ignore_eos;
    int32_t stop_token; /* 0 = none */
    int64_t deadline_ns;
    int32_t priority;
    bool want_prompt_logprobs;
    uint32_t prompt_top_logprobs;
    Llmd__Pooling pooling;
    Llmd__Sampling sampling;
};

/* What is said of a token of a prompt; unused top entries are zero. */
struct client_measure {
    float logprob;
    uint32_t rank, n_top;
    int32_t top[CLIENT_TOP_MAX];
    float top_logprob[CLIENT_TOP_MAX];
};

struct client_stream {
    uint64_t id;
    uint32_t n;
    int32_t tokens[CLIENT_TOKENS_MAX];
    float logprobs[CLIENT_TOKENS_MAX];
    struct client_measure prompt[CLIENT_TOKENS_MAX];
    uint32_t n_prompt; /* of these */
    float embedding[CLIENT_EMBEDDING_MAX];
    uint32_t n_embedding;
    uint32_t n_accepted, n_unknown;
    uint32_t n_cached; /* prompt tokens the worker found computed */
    bool refused;
    Llmd__RefuseReason reason;
    char text[256]; /* of REFUSED or of FINISH_ERROR */
    Llmd__Finish finish;
    bool forgotten;                /* cancelled or acknowledged by this side */
    bool is_unsent;                /* the link took no SUBMIT; it is sent after the next HELLO */
    struct client_request request; /* borrows its lists from the test */
};

struct client {
    struct link *link;
    uint32_t peer;
    struct client_stream *streams; /* [CLIENT_STREAMS_MAX] */
    uint32_t n_streams;
    uint32_t n_hello, n_duplicates, n_messages;
    uint32_t n_prompt_duplicates; /* of what is said of prompts */
    bool is_draining;             /* the last HELLO said so */
    uint32_t epoch;
    bool is_greeted; /* HELLO came on this connection; tokens before it are the last one's */
    bool no_resync;  /* do not answer HELLO */
    bool no_ack;     /* do not acknowledge finished streams */
};

void client_open(struct client *c, const char *instance, uint32_t peer);
/* Close the link and open it again under the same number: a gateway that died and came back. */
void client_reconnect(struct client *c, const char *instance);
void client_close(struct client *c);

struct client_request client_request(const int32_t *prompt, uint32_t n_prompt, uint32_t max_tokens);
/* Send SUBMIT; the stream's place is kept even when it is refused. */
struct client_stream *client_submit(struct client *c, uint64_t id, const struct client_request *r);
void client_cancel(struct client *c, struct client_stream *s);
void client_ack(struct client *c, struct client_stream *s);
void client_resync(struct client *c);
struct client_stream *client_find(const struct client *c, uint64_t id);

/* Take in everything that is there. */
void client_receive(struct client *c);

/* Refused, or its finish came. */
bool client_stream_is_over(const struct client_stream *s);
bool client_all_over(const struct client *c);

#endif
