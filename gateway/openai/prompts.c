/* prompts.c - a prompt, or what is to be embedded: text, ids, or a list of either. */
#include <string.h>

#include "gateway/openai/openai.h"

struct prompts_reader {
    struct request *rq;
    const char *member; /* of the body: "prompt", "input" */
    unsigned flags;     /* of the tokenizer */
};

static bool bad_prompt(const struct prompts_reader *r, struct fault *f)
{
    char path[FAULT_PARAM_BYTES];

    snprintf(path, sizeof path, "body.%s", r->member);
    return fault_set(f, FAULT_SCHEMA, path,
                     "1 validation error:\n  {'type': 'value_error', 'loc': ('body', '%s'), "
                     "'msg': 'Input should be a string, a list of strings, a list of token ids or "
                     "a list of lists of token ids'}",
                     r->member);
}

static bool no_prompt(const struct prompts_reader *r, struct fault *f)
{
    if (strcmp(r->member, "prompt") == 0)
        return fault_set(f, FAULT_INVALID, r->member,
                         "Either prompt or prompt_embeds must be provided and non-empty.");
    return fault_set(f, FAULT_INVALID, r->member, "%s cannot be empty.", r->member);
}

static bool read_ids(const struct prompts_reader *r, size_t i, const json_t *list, struct fault *f)
{
    size_t n = json_array_size(list);
    struct prompt *p = &r->rq->prompts[i];

    p->ids = arena_alloc(&r->rq->arena, n * sizeof *p->ids);
    p->n_ids = (uint32_t)n;
    for (size_t k = 0; k < n; k++) {
        const json_t *v = json_array_get(list, k);
        if (!json_is_integer(v))
            return bad_prompt(r, f);
        if (json_integer_value(v) < 0 || json_integer_value(v) >= r->rq->service->model.vocab_size)
            return fault_set(f, FAULT_INVALID, r->member, "Token id %lld is out of vocabulary",
                             (long long)json_integer_value(v));
        p->ids[k] = (int32_t)json_integer_value(v);
    }
    return n > 0 || no_prompt(r, f);
}

static bool read_one(const struct prompts_reader *r, size_t i, const json_t *v, struct fault *f)
{
    if (json_is_array(v))
        return read_ids(r, i, v, f);
    if (!json_is_string(v))
        return bad_prompt(r, f);
    if (json_string_length(v) == 0)
        return no_prompt(r, f);
    if (!openai_tokenize(r->rq, i, json_string_value(v), json_string_length(v), r->flags, f))
        return false;
    return r->rq->prompts[i].n_ids > 0 || no_prompt(r, f);
}

bool openai_set_prompts(struct request *rq, const char *member, const json_t *v, unsigned flags,
                        struct fault *f)
{
    struct prompts_reader r = { .rq = rq, .member = member, .flags = flags };
    bool is_list = json_is_array(v) && !json_is_integer(json_array_get(v, 0));
    size_t n = is_list ? json_array_size(v) : 1;

    if (!v || n == 0 || (json_is_array(v) && json_array_size(v) == 0))
        return no_prompt(&r, f);
    if (!request_set_prompts(rq, n, f))
        return false;
    for (size_t i = 0; i < n; i++)
        if (!read_one(&r, i, is_list ? json_array_get(v, i) : v, f))
            return false;
    return true;
}
