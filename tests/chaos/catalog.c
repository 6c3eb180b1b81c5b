/* catalog.c - the table of request forms, and how chance fills them. */
#include "tests/chaos/catalog.h"

#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "tests/chaos/random.h"

enum { PADDING_BYTES = 100000, SHARED_SENTENCE_BYTES = 92 };

#define JSON "Content-Type: application/json\r\n"

/* In a body, $p is a JSON string with a prompt, $q a short one, $h one that begins as others do or is short, $y a system prompt that all share, $s a seed, $n a
 * number of tokens, $k a small one, $t a temperature, $x a long meaningless string, $m the model's member with its comma or nothing. */
struct form {
    const char *name, *method, *path, *headers, *body;
    bool is_stream;
};

#define SAMPLED "\"do_sample\":true,\"temperature\":$t,\"seed\":$s,\"max_new_tokens\":$n"

#define TOOLS                                                                                      \
    "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"weather\",\"description\":\"The "  \
    "weather\","                                                                                   \
    "\"parameters\":{\"type\":\"object\",\"properties\":{}}}}]"

static const struct form all_forms[] = {
    { "tgi_greedy", "POST", "/generate", JSON,
      "{\"inputs\":$p,\"parameters\":{\"max_new_tokens\":$n,\"details\":true}}", false },
    { "tgi_sampled", "POST", "/generate", JSON,
      "{\"inputs\":$p,\"parameters\":{" SAMPLED ",\"repetition_penalty\":1.1,\"top_k\":40,"
      "\"details\":true,\"top_n_tokens\":3}}",
      false },
    { "tgi_best_of", "POST", "/generate", JSON,
      "{\"inputs\":$p,\"parameters\":{" SAMPLED ",\"best_of\":2,\"details\":true}}", false },
    { "tgi_stop", "POST", "/generate", JSON,
      "{\"inputs\":$p,\"parameters\":{" SAMPLED ",\"stop\":[\" and\",\"day\"],\"details\":true}}",
      false },
    { "tgi_stream_greedy", "POST", "/generate_stream", JSON,
      "{\"inputs\":$p,\"parameters\":{\"max_new_tokens\":$n,\"details\":true}}", true },
    { "tgi_stream_sampled", "POST", "/generate_stream", JSON,
      "{\"inputs\":$p,\"parameters\":{" SAMPLED ",\"top_p\":0.95,\"repetition_penalty\":1.2,"
      "\"details\":true,\"top_n_tokens\":2}}",
      true },
    { "tgi_stream_typical", "POST", "/generate_stream", JSON,
      "{\"inputs\":$p,\"parameters\":{" SAMPLED ",\"typical_p\":0.9,\"frequency_penalty\":0.3,"
      "\"return_full_text\":true,\"details\":true}}",
      true },
    { "tgi_root", "POST", "/", JSON,
      "{\"inputs\":$p,\"stream\":false,\"parameters\":{" SAMPLED "}}", false },
    { "tgi_root_stream", "POST", "/", JSON,
      "{\"inputs\":$p,\"stream\":true,\"parameters\":{" SAMPLED ",\"truncate\":8}}", true },
    { "tgi_prefill", "POST", "/generate", JSON,
      "{\"inputs\":$p,\"parameters\":{" SAMPLED
      ",\"decoder_input_details\":true,\"details\":true}}",
      false },
    { "tgi_watermark", "POST", "/generate_stream", JSON,
      "{\"inputs\":$p,\"parameters\":{" SAMPLED ",\"watermark\":true,\"details\":true}}", true },
    { "tgi_refused", "POST", "/generate", JSON,
      "{\"inputs\":\"\",\"parameters\":{\"max_new_tokens\":$n}}", false },

    { "completion_greedy", "POST", "/v1/completions", JSON,
      "{\"prompt\":$p,\"max_tokens\":$n,\"temperature\":0}", false },
    { "completion_n2", "POST", "/v1/completions", JSON,
      "{\"prompt\":$p,\"max_tokens\":$n,\"temperature\":$t,\"seed\":$s,\"n\":2}", false },
    { "completion_logprobs", "POST", "/v1/completions", JSON,
      "{\"prompt\":$p,\"max_tokens\":$n,\"temperature\":$t,\"seed\":$s,\"logprobs\":4,"
      "\"presence_penalty\":0.5}",
      false },
    { "completion_echo", "POST", "/v1/completions", JSON,
      "{\"prompt\":[$p,$p],\"max_tokens\":$n,\"temperature\":0,\"echo\":true}", false },
    { "completion_padded", "POST", "/v1/completions", JSON,
      "{\"prompt\":$p,\"max_tokens\":$n,\"temperature\":0,\"user\":$x}", false },
    { "completion_stream", "POST", "/v1/completions", JSON,
      "{\"prompt\":$p,\"max_tokens\":$n,\"temperature\":0,\"stream\":true}", true },
    { "completion_stream_n2", "POST", "/v1/completions", JSON,
      "{\"prompt\":$p,\"max_tokens\":$n,\"temperature\":$t,\"seed\":$s,\"n\":2,\"stream\":true,"
      "\"stream_options\":{\"include_usage\":true}}",
      true },
    { "completion_stream_logprobs", "POST", "/v1/completions", JSON,
      "{\"prompt\":$p,\"max_tokens\":$n,\"temperature\":$t,\"seed\":$s,\"logprobs\":2,"
      "\"frequency_penalty\":0.7,\"stream\":true}",
      true },
    { "completion_stream_stop", "POST", "/v1/completions", JSON,
      "{\"prompt\":$p,\"max_tokens\":$n,\"temperature\":$t,\"seed\":$s,\"stop\":[\" "
      "said\",\".\\n\"],"
      "\"stream\":true}",
      true },
    { "completion_stream_bias", "POST", "/v1/completions", JSON,
      "{\"prompt\":$p,\"max_tokens\":$n,\"temperature\":$t,\"seed\":$s,\"min_p\":0.05,"
      "\"logit_bias\":{\"1985\":-5},\"ignore_eos\":true,\"stream\":true}",
      true },

    { "completion_n4_shared", "POST", "/v1/completions", JSON,
      "{\"prompt\":$y,\"max_tokens\":$n,\"temperature\":$t,\"seed\":$s,\"n\":4,\"stream\":true}",
      true },
    { "completion_best_of", "POST", "/v1/completions", JSON,
      "{\"prompt\":$p,\"max_tokens\":$n,\"temperature\":$t,\"seed\":$s,\"n\":2,\"best_of\":4}",
      false },
    { "completion_beams", "POST", "/v1/completions", JSON,
      "{\"prompt\":$q,\"max_tokens\":12,\"temperature\":0,\"use_beam_search\":true,\"n\":3}",
      false },
    { "completion_prompt_logprobs", "POST", "/v1/completions", JSON,
      "{\"prompt\":$p,\"max_tokens\":$n,\"temperature\":$t,\"seed\":$s,\"prompt_logprobs\":3}",
      false },
    { "completion_shared_logprobs", "POST", "/v1/completions", JSON,
      "{\"prompt\":$y,\"max_tokens\":$n,\"temperature\":0,\"prompt_logprobs\":1}", false },
    { "completion_stream_echo_logprobs", "POST", "/v1/completions", JSON,
      "{\"prompt\":$p,\"max_tokens\":$n,\"temperature\":0,\"echo\":true,\"logprobs\":2,\"stream\":"
      "true}",
      true },

    { "chat_greedy", "POST", "/v1/chat/completions", JSON,
      "{\"messages\":[{\"role\":\"user\",\"content\":$p}],\"max_tokens\":$n,\"temperature\":0}",
      false },
    { "chat_logprobs", "POST", "/v1/chat/completions", JSON,
      "{\"messages\":[{\"role\":\"user\",\"content\":$p}],\"max_tokens\":$n,\"temperature\":$t,"
      "\"seed\":$s,\"logprobs\":true,\"top_logprobs\":3}",
      false },
    { "chat_stream", "POST", "/v1/chat/completions", JSON,
      "{\"messages\":[{\"role\":\"user\",\"content\":$p}],\"max_tokens\":$n,\"temperature\":$t,"
      "\"seed\":$s,\"repetition_penalty\":1.15,\"stream\":true}",
      true },
    { "chat_stream_n2", "POST", "/v1/chat/completions", JSON,
      "{\"messages\":[{\"role\":\"user\",\"content\":$p}],\"max_tokens\":$n,\"temperature\":$t,"
      "\"seed\":$s,\"n\":2,\"stop\":\"happy\",\"stream\":true,"
      "\"stream_options\":{\"include_usage\":true,\"continuous_usage_stats\":true}}",
      true },
    { "chat_turns", "POST", "/v1/chat/completions", JSON,
      "{\"messages\":[{\"role\":\"user\",\"content\":\"Tell me a story about a dog.\"},"
      "{\"role\":\"assistant\",\"content\":$p},{\"role\":\"user\",\"content\":\"Go on.\"}],"
      "\"max_tokens\":$n,\"temperature\":0,\"stream\":true}",
      true },

    { "chat_system", "POST", "/v1/chat/completions", JSON,
      "{\"messages\":[{\"role\":\"system\",\"content\":$y},{\"role\":\"user\",\"content\":$q}],"
      "\"max_tokens\":$n,\"temperature\":0,\"prompt_logprobs\":1}",
      false },
    { "chat_system_stream", "POST", "/v1/chat/completions", JSON,
      "{\"messages\":[{\"role\":\"system\",\"content\":$y},{\"role\":\"user\",\"content\":$q}],"
      "\"max_tokens\":$n,\"temperature\":$t,\"seed\":$s,\"stream\":true}",
      true },
    { "chat_beams", "POST", "/v1/chat/completions", JSON,
      "{\"messages\":[{\"role\":\"user\",\"content\":$q}],\"max_tokens\":8,\"use_beam_search\":"
      "true,"
      "\"n\":2}",
      false },
    { "chat_tools", "POST", "/v1/chat/completions", JSON,
      "{\"messages\":[{\"role\":\"user\",\"content\":$p}]," TOOLS ",\"max_tokens\":$n,"
      "\"temperature\":$t,\"seed\":$s}",
      false },
    { "chat_tools_stream", "POST", "/v1/chat/completions", JSON,
      "{\"messages\":[{\"role\":\"user\",\"content\":$p}]," TOOLS ",\"max_tokens\":$n,"
      "\"temperature\":$t,\"seed\":$s,\"stream\":true}",
      true },
    { "response", "POST", "/v1/responses", JSON,
      "{\"input\":$p,\"max_output_tokens\":$n,\"temperature\":$t,\"seed\":$s}", false },
    { "response_stream", "POST", "/v1/responses", JSON,
      "{\"input\":$q,\"instructions\":$y,\"max_output_tokens\":$n,\"temperature\":$t,\"seed\":$s,"
      "\"stream\":true}",
      true },
    { "embedding", "POST", "/v1/embeddings", JSON, "{\"input\":$p}", false },
    { "embedding_shared", "POST", "/v1/embeddings", JSON,
      "{\"input\":[$y,$p,$q],\"encoding_format\":\"base64\"}", false },

    { "predict", "POST", "/predict", JSON,
      "{\"inputs\":$p,\"parameters\":{\"max_new_tokens\":$n,\"temperature\":0}}", false },
    { "predict_stream", "POST", "/predict", JSON,
      "{\"inputs\":$p,\"stream\":true,\"parameters\":{\"max_new_tokens\":$n,\"temperature\":0}}",
      true },
    { "predict_events", "POST", "/predict", JSON "Accept: text/event-stream\r\n",
      "{\"inputs\":$p,\"stream\":true,\"parameters\":{\"max_new_tokens\":$n,\"temperature\":0}}",
      true },
    { "predict_route", "POST", "/predict", JSON "route: /v1/completions\r\n",
      "{\"prompt\":$p,\"max_tokens\":$n,\"temperature\":$t,\"seed\":$s,\"stream\":true}", true },
    { "models", "GET", "/v1/models", "", NULL, false },
};

static const struct form peer_forms[] = {
    { "completion", "POST", "/v1/completions", JSON,
      "{$m\"prompt\":$p,\"max_tokens\":$n,\"temperature\":0}", false },
    { "completion_stream", "POST", "/v1/completions", JSON,
      "{$m\"prompt\":$p,\"max_tokens\":$n,\"temperature\":0,\"stream\":true}", true },
    { "completion_stream_stop", "POST", "/v1/completions", JSON,
      "{$m\"prompt\":$p,\"max_tokens\":$n,\"temperature\":0,\"stop\":[\" said\"],\"stream\":true}",
      true },
};

static const struct form large_forms[] = {
    { "completion_stream", "POST", "/v1/completions", JSON,
      "{\"prompt\":$q,\"max_tokens\":80,\"temperature\":0,\"ignore_eos\":true,\"stream\":true}",
      true },
    { "completion_stream_sampled", "POST", "/v1/completions", JSON,
      "{\"prompt\":$q,\"max_tokens\":80,\"temperature\":$t,\"seed\":$s,\"ignore_eos\":true,"
      "\"stream\":true}",
      true },
};

#define TOKENS "\"max_tokens\":$k,\"ignore_eos\":true,\"return_token_ids\":true"

static const struct form gpu_forms[] = {
    { "completion_greedy", "POST", "/v1/completions", JSON,
      "{\"prompt\":$h," TOKENS ",\"temperature\":0}", false },
    { "completion_stream", "POST", "/v1/completions", JSON,
      "{\"prompt\":$h," TOKENS ",\"temperature\":0,\"stream\":true}", true },
    { "completion_stream_sampled", "POST", "/v1/completions", JSON,
      "{\"prompt\":$h," TOKENS ",\"temperature\":$t,\"seed\":$s,\"top_p\":0.95,\"stream\":true}",
      true },
    { "completion_stream_n2", "POST", "/v1/completions", JSON,
      "{\"prompt\":$q," TOKENS ",\"temperature\":$t,\"seed\":$s,\"n\":2,\"stream\":true}", true },
    { "completion_logprobs", "POST", "/v1/completions", JSON,
      "{\"prompt\":$q," TOKENS ",\"temperature\":$t,\"seed\":$s,\"logprobs\":4,"
      "\"presence_penalty\":0.5}",
      false },
    { "completion_prompt_logprobs", "POST", "/v1/completions", JSON,
      "{\"prompt\":$h," TOKENS ",\"temperature\":0,\"prompt_logprobs\":1}", false },
    { "tgi_stream_sampled", "POST", "/generate_stream", JSON,
      "{\"inputs\":$h,\"parameters\":{\"do_sample\":true,\"temperature\":$t,\"seed\":$s,"
      "\"max_new_tokens\":$k,\"details\":true}}",
      true },
    { "tgi_prefill", "POST", "/generate", JSON,
      "{\"inputs\":$q,\"parameters\":{\"max_new_tokens\":$k,\"decoder_input_details\":true,"
      "\"details\":true}}",
      false },
    { "embedding", "POST", "/v1/embeddings", JSON, "{\"input\":$h}", false },
};

static const struct {
    const struct form *forms;
    uint32_t n;
} sets[] = {
    [CATALOG_ALL] = { all_forms, sizeof all_forms / sizeof *all_forms },
    [CATALOG_PEER] = { peer_forms, sizeof peer_forms / sizeof *peer_forms },
    [CATALOG_LARGE] = { large_forms, sizeof large_forms / sizeof *large_forms },
    [CATALOG_GPU] = { gpu_forms, sizeof gpu_forms / sizeof *gpu_forms },
};

/* ---- prompts: short ones, and long ones that begin alike ---- */

static const char shared_prefix[] =
    "Once upon a time there was a little girl named Lily who lived in a small house near the big "
    "forest. She had a dog called Max, a cat called Tom and a red ball that she loved very much. "
    "Every day after breakfast they went to the park together and played until the sun went down. "
    "One day the ball rolled away under a tree, and when they looked for it they found a door. ";

static const char system_prompt[] =
    "You tell short stories to small children before they go to bed. Use simple words that a child "
    "of "
    "four knows. Each story has a beginning, a middle and a happy end, and somebody in it learns "
    "to "
    "share, to be brave or to say sorry. There is a dog or a bird in most of them. Nobody is hurt, "
    "and "
    "nothing is scary for long. When the child asks for more, go on with the same people. When the "
    "child is sad, make it laugh. Do not talk about money, and never say that you are a machine. ";

static const char *const openings[] = {
    "The dog",       "Once upon a time",     "Tom and Mia", "One day a bird",   "The old man",
    "A little boat", "Lily opened the door", "It was cold", "They went to the", "A big bear",
    "Mom said",
};

/* Behind so many bytes of what all share. */
static void put_opening(struct random *r, size_t n_shared, struct buf *out)
{
    const char *opening = openings[random_below(r, sizeof openings / sizeof *openings)];

    buf_printf(out, "\"%.*s%s%u\"", (int)n_shared, shared_prefix, opening, random_from(r, 1, 9));
}

static void put_field(char field, const char *model, struct random *r, struct buf *out)
{
    static const double temperatures[] = { 0.5, 0.7, 0.9, 1.0, 1.2 };

    switch (field) {
    case 'p':
        put_opening(r, random_below(r, 3) == 0 ? sizeof shared_prefix - 1 : 0, out);
        break;
    case 'q':
        put_opening(r, 0, out);
        break;
    case 'y':
        buf_printf(out, "\"%s\"", system_prompt);
        break;
    case 's':
        buf_printf(out, "%u", random_from(r, 1, 1000000));
        break;
    case 'n':
        buf_printf(out, "%u", random_below(r, 5) ? random_from(r, 16, 100) : 200);
        break;
    case 'h':
        put_opening(r, random_below(r, 3) == 0 ? SHARED_SENTENCE_BYTES : 0, out);
        break;
    case 'k':
        buf_printf(out, "%u", random_from(r, 6, 24));
        break;
    case 't':
        buf_printf(out, "%g", temperatures[random_below(r, 5)]);
        break;
    case 'x':
        buf_add_char(out, '"');
        for (uint32_t i = 0; i < PADDING_BYTES; i++)
            buf_add_char(out, (char)('a' + i % 26));
        buf_add_char(out, '"');
        break;
    case 'm':
        if (model)
            buf_printf(out, "\"model\":\"%s\",", model);
        break;
    }
}

static void fill(struct ask *ask, const struct form *form, const char *model, struct random *r)
{
    *ask = (struct ask){ .name = form->name,
                         .path = form->path,
                         .method = form->method,
                         .headers = form->headers,
                         .is_stream = form->is_stream };
    for (const char *at = form->body; at && *at; at++) {
        if (*at == '$')
            put_field(*++at, model, r, &ask->body);
        else
            buf_add_char(&ask->body, *at);
    }
}

void catalog_init(struct catalog *c, enum catalog_set set, uint32_t copies, const char *model,
                  uint64_t seed)
{
    struct random r = random_stream(seed, 1);

    *c = (struct catalog){ .n = sets[set].n * copies };
    c->asks = mem_zalloc(c->n, sizeof *c->asks);
    for (uint32_t i = 0; i < c->n; i++)
        fill(&c->asks[i], &sets[set].forms[i % sets[set].n], model, &r);
}

void catalog_fini(struct catalog *c)
{
    for (uint32_t i = 0; i < c->n; i++) {
        buf_fini(&c->asks[i].body);
        buf_fini(&c->asks[i].calm);
    }
    free(c->asks);
    *c = (struct catalog){ 0 };
}

static void write_chunked(const struct buf *body, struct random *r, struct buf *out)
{
    size_t at = 0;

    buf_add_str(out, "Transfer-Encoding: chunked\r\n\r\n");
    while (at < body->n) {
        size_t n = random_from(r, 1, body->n > 1000 ? 8000 : 80);
        if (n > body->n - at)
            n = body->n - at;
        buf_printf(out, "%zx\r\n", n);
        buf_add(out, body->data + at, n);
        buf_add_str(out, "\r\n");
        at += n;
    }
    buf_add_str(out, "0\r\n\r\n");
}

void ask_write(const struct ask *ask, bool is_last, struct random *chunked, struct buf *out)
{
    buf_printf(out, "%s %s HTTP/1.1\r\nHost: chaos\r\n%s%s", ask->method, ask->path,
               is_last ? "Connection: close\r\n" : "", ask->headers);
    if (ask->body.n == 0) {
        buf_add_str(out, "\r\n");
    } else if (chunked) {
        write_chunked(&ask->body, chunked, out);
    } else {
        buf_printf(out, "Content-Length: %zu\r\n\r\n", ask->body.n);
        buf_add(out, ask->body.data, ask->body.n);
    }
}
