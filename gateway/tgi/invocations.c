/* invocations.c - POST /invocations: the body says which dialect it speaks.
 *
 * SageMaker knows one path, so there `inputs` is TGI's POST /, `messages` a chat and `prompt` a completion.
 * From the body on the request is the other dialect's; only what is refused before is TGI's.  0.9.3 knew
 * its own form alone. */
#include "common/json_wide.h"
#include "gateway/tgi/tgi.h"

static const struct {
    const char *member;
    const struct dialect *dialect;
} forms[] = {
    { "messages", &dialect_openai_chat },
    { "prompt", &dialect_openai_completions },
};

bool tgi_becomes_openai(struct request *rq, const json_t *root)
{
    if (json_object_get(root, "inputs"))
        return false;
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        if (!json_object_get(root, forms[i].member))
            continue;
        rq->dialect = forms[i].dialect;
        rq->variant = 0;
        return true;
    }
    return false;
}

static bool become(struct request *rq, const json_t *root, struct fault *f)
{
    if (tgi_becomes_openai(rq, root))
        return true;
    if (json_object_get(root, "inputs")) {
        rq->dialect = &dialect_tgi;
        rq->variant = TGI_ROOT;
        return true;
    }
    return fault_set(f, FAULT_SCHEMA, "",
                     "data did not match any variant of untagged enum SagemakerRequest");
}

static bool invocations_parse(struct request *rq, const struct http_request *http,
                              const char *bytes, size_t n, struct fault *f)
{
    struct err e;
    json_t *root;
    bool ok;

    if (tgi_is_old(rq->service)) {
        rq->dialect = &dialect_tgi;
        rq->variant = TGI_ROOT;
        return tgi_parse(rq, http, bytes, n, f);
    }
    root = json_wide_parse(bytes, n, &e);
    if (!root)
        return fault_set(f, FAULT_SYNTAX, "", "%s", e.msg);
    ok = become(rq, root, f);
    json_decref(root);
    return ok && rq->dialect->parse(rq, http, bytes, n, f);
}

static bool invocations_take(const char *content_type, struct fault *f)
{
    return dialect_tgi.takes(content_type, f);
}

static void invocations_fault(const struct fault *f, struct reply *r)
{
    dialect_tgi.fault(f, r);
}

static const char *invocations_layer_error(int status, const char *text, struct buf *body)
{
    return dialect_tgi.layer_error(status, text, body);
}

/* What writes answers is missing: the request has become another dialect's by then. */
const struct dialect dialect_tgi_invocations = {
    .id = DIALECT_TGI,
    .name = "invocations",
    .takes = invocations_take,
    .parse = invocations_parse,
    .fault = invocations_fault,
    .layer_error = invocations_layer_error,
};
