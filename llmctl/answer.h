/* answer.h - stream an answer of the server's OpenAI dialect to the terminal. */
#ifndef LLMD_LLMCTL_ANSWER_H
#define LLMD_LLMCTL_ANSWER_H

#include "common/json.h"
#include "llmctl/command.h"
#include "llmctl/sse.h"

/* What `generate` and `chat` may ask for; 0 or NULL = the server's default. */
struct answer_options {
    const char *model;
    uint64_t max_tokens;
    double temperature;
    bool has_temperature;
    uint64_t seed;
    bool has_seed;
    bool stats;
};

/* The argp of these options; a child of a command's own, like global_options. */
extern const struct argp answer_argp;

struct answer {
    bool raw;                            /* pass every byte on, even to a terminal */
    struct buf text;                     /* all of it */
    char finish[32];                     /* finish_reason; "" = none came */
    char error[256];                     /* an error inside the stream; "" = none */
    uint64_t n_tokens;                   /* of the server's usage; 0 = it told none */
    uint64_t n_pieces;                   /* events with text */
    uint64_t sent_ns, first_ns, last_ns; /* CLOCK_MONOTONIC; 0 = not yet */
    struct sse sse;
    unsigned char held; /* terminal_add_safe() */
};

/* Where the server listens ("http://127.0.0.1:8080") and the model's name, from STATUS.  An exit code;
 * failures are told on stderr. */
struct server {
    char url[128];
    char model[256];
};
bool answer_url(const Llmd__Status *s, char *url, size_t n); /* false: it does not listen */
int answer_find_server(const struct globals *g, struct server *s);

/* POST body to url, write the text to stdout as it comes, stop when stop_fd is readable.  An exit code;
 * failures are told on stderr.  `a` is zeroed but for .raw; answer_fini() it in any case. */
int answer_stream(struct answer *a, const char *url, const struct buf *body, int stop_fd);
void answer_fini(struct answer *a);

/* "32 tokens, first after 12.3 ms, 211.4 tokens/s" to stderr. */
void answer_print_stats(const struct answer *a);

/* model, stream and the options, as members of the object that `w` has open. */
void answer_put_options(struct json_writer *w, const struct answer_options *o, const char *model);

#endif
