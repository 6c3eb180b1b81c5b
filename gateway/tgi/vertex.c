/* vertex.c - POST /vertex: several prompts, each sampled, and of each the text alone.
 *
 * Of an instance's parameters only max_new_tokens and seed count, as in the original.  It answers 500 to an
 * instance that it cannot take; here that is a 422 that says why. */
#include <string.h>

#include "common/json_wide.h"
#include "gateway/openai/openai.h"
#include "gateway/tgi/fields.h"
#include "gateway/tgi/tgi.h"
#include "text/tokenizer.h"

#define NO_INSTANCES "instances" /* a fault's parameter */

#define INSTANCE_PARAMETERS(X)                                                                     \
    X(max_new_tokens, FIELD_INT, FIELD_NULL, 0, UINT32_MAX)                                        \
    X(seed, FIELD_INT, FIELD_NULL, 0, INT64_MAX)

struct instance_parameters {
    INSTANCE_PARAMETERS(FIELD_MEMBER)
};

#define FIELD_OWNER struct instance_parameters
static const struct field parameter_fields[] = { INSTANCE_PARAMETERS(FIELD_ROW) };
#undef FIELD_OWNER
FIELD_TABLE(tgi_vertex_fields, "instances[].parameters", parameter_fields);

/* A conversation spells its settings like OpenAI. */
#define CHAT_PARAMETERS(X)                                                                         \
    X(max_tokens, FIELD_INT, FIELD_NULL, 0, UINT32_MAX)                                            \
    X(max_completion_tokens, FIELD_INT, FIELD_NULL, 0, UINT32_MAX)                                 \
    X(seed, FIELD_INT, FIELD_NULL, 0, INT64_MAX)

struct chat_parameters {
    CHAT_PARAMETERS(FIELD_MEMBER)
};

#define FIELD_OWNER struct chat_parameters
static const struct field chat_fields[] = { CHAT_PARAMETERS(FIELD_ROW) };
#undef FIELD_OWNER
FIELD_TABLE(tgi_vertex_chat_fields, "instances[]", chat_fields);

#define COUNT(a) (sizeof(a) / sizeof *(a))

static bool instance_fault(struct fault *f, size_t i, const struct field_problem *p)
{
    return fault_set(f, FAULT_SCHEMA, p->name, "instances[%zu].%s: invalid type: %s, expected %s",
                     i, p->name, p->found, p->expected);
}

static void set_seed(struct request *rq, size_t i, const struct field_value *seed)
{
    rq->prompts[i].has_seed = true;
    rq->prompts[i].seed =
        seed->is_set ? (uint64_t)seed->i : request_choice_seed(rq->sampling.seed, (uint32_t)i);
}

static bool read_text(struct request *rq, size_t i, const json_t *instance, struct fault *f)
{
    const json_t *inputs = json_object_get(instance, "inputs");
    const json_t *parameters = json_object_get(instance, "parameters");
    struct instance_parameters p;
    struct field_problem problem;

    if (!fields_read(parameters, parameter_fields, COUNT(parameter_fields), FIELDS_STRICT, &p,
                     sizeof p, &problem))
        return instance_fault(f, i, &problem);
    if (json_string_length(inputs) == 0)
        return fault_set(f, FAULT_INVALID, "inputs", "`inputs` cannot be empty");
    set_seed(rq, i, &p.seed);
    rq->prompts[i].max_tokens = (uint32_t)p.max_new_tokens.i;
    if (p.max_new_tokens.is_set && p.max_new_tokens.i == 0)
        return fault_set(f, FAULT_INVALID, "max_new_tokens",
                         "`max_new_tokens` must be strictly positive");
    return request_tokenize(rq, i, json_string_value(inputs), json_string_length(inputs),
                            TOKENIZER_ADD_SPECIAL, f);
}

static bool read_chat(struct request *rq, size_t i, const json_t *instance, struct fault *f)
{
    struct field_problem problem;
    struct chat_parameters p;
    struct buf text = { 0 };
    bool ok;

    if (!fields_read(instance, chat_fields, COUNT(chat_fields), FIELDS_STRICT, &p, sizeof p,
                     &problem))
        return instance_fault(f, i, &problem);
    set_seed(rq, i, &p.seed);
    rq->prompts[i].max_tokens =
        (uint32_t)(p.max_completion_tokens.is_set ? p.max_completion_tokens.i : p.max_tokens.i);
    ok = tgi_render_chat(rq, instance, &text, f) &&
         request_tokenize(rq, i, text.data ? text.data : "", text.n, TOKENIZER_PARSE_SPECIAL, f);
    buf_fini(&text);
    return ok;
}

static bool read_instance(struct request *rq, size_t i, const json_t *instance, struct fault *f)
{
    struct tgi_lengths l = tgi_lengths(rq);

    if (json_is_string(json_object_get(instance, "inputs"))) {
        if (!read_text(rq, i, instance, f))
            return false;
    } else if (json_is_array(json_object_get(instance, "messages"))) {
        if (!read_chat(rq, i, instance, f))
            return false;
    } else {
        return fault_set(f, FAULT_SCHEMA, "instances",
                         "instances[%zu]: data did not match any variant of untagged enum "
                         "VertexInstance",
                         i);
    }
    l.max_new = rq->prompts[i].max_tokens;
    if (rq->prompts[i].n_ids == 0)
        return fault_set(f, FAULT_INVALID, "inputs", "`inputs` cannot be empty");
    return tgi_check_lengths(&l, rq->prompts[i].n_ids, f);
}

static bool read_instances(struct request *rq, const json_t *root, struct fault *f)
{
    const json_t *instances = json_object_get(root, "instances");
    size_t n = json_array_size(instances);

    if (!tgi_fields_expect_object(root, "VertexRequest", f))
        return false;
    if (!json_is_array(instances))
        return fault_set(f, FAULT_SCHEMA, "instances", "%s",
                         instances ? "instances: invalid type, expected a sequence"
                                   : "missing field `instances`");
    if (n == 0)
        return fault_set(f, FAULT_INVALID, NO_INSTANCES, "there is no instance");
    if (!request_set_prompts(rq, n, f))
        return false;
    for (size_t i = 0; i < n; i++)
        if (!read_instance(rq, i, json_array_get(instances, i), f))
            return false;
    return true;
}

static bool vertex_parse(struct request *rq, const struct http_request *http, const char *bytes,
                         size_t n, struct fault *f)
{
    struct err e;
    json_t *root = json_wide_parse(bytes, n, &e);
    bool ok;

    (void)http;
    if (!root)
        return fault_set(f, FAULT_SYNTAX, "", "%s", e.msg);
    rq->stop_rule = STOP_AT_END;
    ok = read_instances(rq, root, f);
    json_decref(root);
    return ok;
}

static void vertex_whole(struct request *rq, struct reply *r)
{
    struct json_writer w = { .out = &r->body };

    reply_set(r, 200, REPLY_JSON);
    jw_object(&w);
    jw_key(&w, "predictions");
    jw_array(&w);
    for (uint32_t i = 0; i < rq->n_choices; i++) {
        const struct choice *c = request_choice(rq, i);
        jw_strn(&w, c->text.data ? c->text.data : "", c->text.n);
    }
    jw_array_end(&w);
    jw_object_end(&w);
}

static bool vertex_takes(const char *content_type, struct fault *f)
{
    return dialect_tgi.takes(content_type, f);
}

static void vertex_fault(const struct fault *f, struct reply *r)
{
    if (f->kind == FAULT_INVALID && strcmp(f->param, NO_INSTANCES) == 0) {
        reply_set(r, 422, REPLY_JSON);
        buf_add_str(&r->body,
                    "{\"error\":\"Input validation error\",\"error_type\":\"Input validation "
                    "error\"}");
        return;
    }
    dialect_tgi.fault(f, r);
}

static const char *vertex_layer_error(int status, const char *text, struct buf *body)
{
    return dialect_tgi.layer_error(status, text, body);
}

/* It never streams. */
const struct dialect dialect_tgi_vertex = {
    .id = DIALECT_TGI,
    .name = "vertex",
    .takes = vertex_takes,
    .parse = vertex_parse,
    .whole = vertex_whole,
    .fault = vertex_fault,
    .layer_error = vertex_layer_error,
};
