/* bench_prompts.c - see bench_prompts.h. */
#include "llmctl/bench_prompts.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "common/mem.h"

enum { LINE_BYTES_MAX = 16 << 20, PROMPTS_MAX = 1 << 20 };

uint64_t bench_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

double bench_uniform(uint64_t *state)
{
    return (double)(bench_random(state) >> 11) * 0x1p-53;
}

double bench_interval(uint64_t *state, double rate)
{
    return -log1p(-bench_uniform(state)) / rate;
}

static const json_t *last_content(const json_t *messages)
{
    return json_object_get(json_array_get(messages, json_array_size(messages) - 1), "content");
}

/* Caller frees; NULL and ERR_INPUT. */
static char *prompt_of(const char *line, size_t n, struct err *e)
{
    static const char *const keys[] = { "prompt", "inputs", "text" };
    const json_t *text = NULL;
    char *prompt = NULL;
    json_t *v;

    if (line[0] != '{')
        return mem_strndup(line, n);
    v = json_parse(line, n, e);
    if (!v)
        return NULL;
    for (size_t i = 0; i < 3 && !text; i++)
        text = json_object_get(v, keys[i]);
    if (!text)
        text = last_content(json_object_get(v, "messages"));
    if (json_is_string(text) && json_string_length(text) > 0)
        prompt = mem_strndup(json_string_value(text), json_string_length(text));
    else
        err_set(e, ERR_INPUT, 0, "no text under 'prompt', 'inputs', 'text' or 'messages'");
    json_decref(v);
    return prompt;
}

static bool add(struct bench_prompts *p, const char *line, size_t n, struct err *e)
{
    char *prompt = prompt_of(line, n, e);

    if (!prompt)
        return false;
    if (p->n == PROMPTS_MAX) {
        free(prompt);
        return err_set(e, ERR_INPUT, 0, "more than %d prompts", PROMPTS_MAX);
    }
    p->texts = mem_realloc(p->texts, (p->n + 1) * sizeof *p->texts);
    p->texts[p->n++] = prompt;
    return true;
}

bool bench_prompts_read(struct bench_prompts *p, const char *path, struct err *e)
{
    FILE *f = fopen(path, "re");
    char *line = NULL;
    size_t cap = 0, number = 0;
    bool ok = true;
    ssize_t n;

    if (!f)
        return err_set(e, ERR_SYS, errno, "open '%s'", path);
    while (ok && (n = getline(&line, &cap, f)) > 0) {
        number++;
        while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == '\r'))
            line[--n] = '\0';
        if (n > LINE_BYTES_MAX)
            ok = err_set(e, ERR_INPUT, 0, "a line of more than %d bytes", LINE_BYTES_MAX);
        else if (n > 0)
            ok = add(p, line, (size_t)n, e);
    }
    free(line);
    fclose(f);
    if (!ok)
        return err_wrap(e, "'%s' line %zu", path, number);
    return p->n > 0 || err_set(e, ERR_INPUT, 0, "'%s' has no prompt", path);
}

void bench_prompts_fini(struct bench_prompts *p)
{
    for (size_t i = 0; i < p->n; i++)
        free(p->texts[i]);
    free(p->texts);
    *p = (struct bench_prompts){ 0 };
}

/* Words that every tokenizer has: about one token each. */
static const char *const words[] = {
    "the",   "of",   "and",  "to",   "in",    "that",  "was",   "his",   "he",   "it",   "with",
    "is",    "for",  "as",   "had",  "you",   "not",   "be",    "her",   "on",   "at",   "by",
    "which", "have", "or",   "from", "this",  "him",   "but",   "all",   "she",  "they", "were",
    "my",    "are",  "me",   "one",  "their", "so",    "an",    "said",  "them", "we",   "who",
    "would", "been", "will", "no",   "when",  "there", "if",    "more",  "out",  "up",   "into",
    "do",    "any",  "your", "what", "has",   "man",   "could", "other", "than",
};

void bench_prompts_put(struct bench_prompts *p, size_t i, struct buf *out)
{
    if (p->texts) {
        buf_add_str(out, p->texts[i % p->n]);
        return;
    }
    for (uint64_t k = 0; k < p->words; k++) {
        if (k > 0)
            buf_add_char(out, ' ');
        buf_add_str(out, words[bench_random(&p->random) % (sizeof words / sizeof *words)]);
    }
}
