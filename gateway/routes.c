/* routes.c - the table of paths. */
#include "gateway/routes.h"

#include <string.h>

#include "gateway/openai/openai.h"
#include "gateway/pages.h"
#include "gateway/tgi/tgi.h"
#include "gateway/web/web.h"

#define OPENAI_FIELDS &openai_common_fields, &openai_repetition_fields
#define CHAT_FIELDS   &openai_chat_fields, &openai_template_fields, OPENAI_FIELDS
#define HTML          "text/html; charset=utf-8"
#define TGI_FIELDS    .fields = { &tgi_body_fields, &tgi_parameter_fields, &tgi_old_parameter_fields }

static const struct route generate = { .dialect = &dialect_tgi,
                                       .variant = TGI_GENERATE,
                                       .generates = true,
                                       .summary = "Continue a text.",
                                       TGI_FIELDS,
                                       .or_fields = { &openai_generate_fields, OPENAI_FIELDS } };
static const struct route generate_stream = { .dialect = &dialect_tgi,
                                              .variant = TGI_GENERATE_STREAM,
                                              .generates = true,
                                              .always_streams = true,
                                              .summary = "Continue a text, token by token.",
                                              TGI_FIELDS };
static const struct route root = { .dialect = &dialect_tgi,
                                   .variant = TGI_ROOT,
                                   .generates = true,
                                   .refuses_by_body = true,
                                   .summary = "Continue a text, streaming if asked.",
                                   TGI_FIELDS };
static const struct route completions = { .dialect = &dialect_openai_completions,
                                          .generates = true,
                                          .summary = "Continue a text, or several.",
                                          .fields = { &openai_completion_fields, OPENAI_FIELDS } };
static const struct route chat = { .dialect = &dialect_openai_chat,
                                   .generates = true,
                                   .summary = "Answer a conversation.",
                                   .fields = { CHAT_FIELDS } };
static const struct route chat_batch = { .dialect = &dialect_openai_chat,
                                         .variant = OPENAI_CHAT_BATCH,
                                         .generates = true,
                                         .summary = "Answer several conversations at once.",
                                         .fields = { CHAT_FIELDS } };
static const struct route chat_render = { .dialect = &dialect_openai_chat,
                                          .serve = page_render_chat,
                                          .summary = "The tokens that a chat would begin with.",
                                          .like = { &chat } };
static const struct route completions_render = {
    .dialect = &dialect_openai_completions,
    .serve = page_render_completions,
    .summary = "The tokens that completions would begin with.",
    .like = { &completions }
};
static const struct route responses = { .dialect = &dialect_openai_responses,
                                        .generates = true,
                                        .summary =
                                            "Answer a text or a conversation; nothing is stored.",
                                        .fields = { &openai_response_fields, OPENAI_FIELDS } };
static const struct route invocations = {
    .dialect = &dialect_tgi_invocations,
    .generates = true,
    .summary = "SageMaker's path: the body decides between /, chat and completions.",
    .like = { &root, &chat, &completions }
};
static const struct route vertex = { .dialect = &dialect_tgi_vertex,
                                     .generates = true,
                                     .summary = "Vertex AI's path: continue several texts.",
                                     .fields = { &tgi_vertex_fields, &tgi_vertex_chat_fields } };
static const struct route predict = {
    .dialect = &dialect_oci,
    .generates = true,
    .summary = "OCI's path: continue a text; the `route` header names another route's form.",
    .fields = { &oci_body_fields, &oci_parameter_fields },
    .like = { &chat, &completions }
};
static const struct route embeddings = {
    .dialect = &dialect_openai_embeddings,
    .generates = true,
    .summary = "The embedding of a text, or of several.",
    .fields = { &openai_embedding_fields, &openai_template_fields, &openai_common_fields }
};
static const struct route model = { .dialect = &dialect_openai_chat,
                                    .serve = page_model,
                                    .summary = "A model that is served." };
static const struct route models = { .dialect = &dialect_openai_chat,
                                     .serve = page_models,
                                     .summary = "The models that are served." };
static const struct route info = { .dialect = &dialect_tgi,
                                   .serve = page_info,
                                   .summary = "The model and the limits of requests." };
static const struct route to_tokens = { .dialect = &dialect_tgi,
                                        .serve = page_tokenize,
                                        .summary = "The tokens of a text.",
                                        .fields = { &openai_tokenize_fields,
                                                    &openai_template_fields },
                                        .like = { &generate } };
static const struct route to_text = { .dialect = &dialect_openai_chat,
                                      .serve = page_detokenize,
                                      .summary = "The text of tokens.",
                                      .fields = { &openai_detokenize_fields } };
static const struct route tgi_chat_tokenize = { .dialect = &dialect_tgi,
                                                .serve = page_tgi_chat_tokenize,
                                                .summary = "The tokens of a conversation.",
                                                .like = { &chat } };
static const struct route health = { .serve = page_health,
                                     .access = ROUTE_IS_OPEN,
                                     .summary = "200 while the server is alive." };
static const struct route live = { .serve = page_live,
                                   .access = ROUTE_IS_OPEN,
                                   .summary = "200 while this process answers." };
static const struct route ready = { .serve = page_ready,
                                    .access = ROUTE_IS_OPEN,
                                    .summary =
                                        "200 while new work should come here; says why not." };
static const struct route version = { .serve = page_version, .summary = "The server's version." };
static const struct route load = { .serve = page_load,
                                   .summary = "Generation requests in the house." };
static const struct route metrics = { .serve = page_metrics,
                                      .access = ROUTE_IS_METRICS,
                                      .summary = "Numbers for Prometheus.",
                                      .content_type = "text/plain; version=0.0.4; charset=utf-8" };
static const struct route openapi = { .serve = page_openapi,
                                      .access = ROUTE_IS_OPEN,
                                      .summary = "This description." };
static const struct route docs = { .serve = page_docs,
                                   .access = ROUTE_IS_OPEN,
                                   .summary = "This description as a page.",
                                   .content_type = HTML };
static const struct route home = { .serve = page_root,
                                   .access = ROUTE_IS_OPEN,
                                   .summary =
                                       "A browser gets the chat page, everybody else /health." };
static const struct route status_page = { .serve = page_status,
                                          .access = ROUTE_IS_OPEN,
                                          .summary = "The server's state as a page that moves.",
                                          .content_type = HTML };
static const struct route status_json = { .serve = page_status_json,
                                          .access = ROUTE_IS_METRICS,
                                          .summary = "What the status page shows." };
static const struct route asset = { .serve = page_asset,
                                    .access = ROUTE_IS_OPEN,
                                    .summary = "Scripts and styles of the pages.",
                                    .content_type = "*/*" };

#define GET  HTTP_METHOD_BIT(HTTP_GET)
#define POST HTTP_METHOD_BIT(HTTP_POST)

static const struct http_route table[] = {
    { "/", POST, &root },
    { "/", GET, &home },
    { "/generate", POST, &generate },
    { "/generate_stream", POST, &generate_stream },
    { "/invocations", POST, &invocations },
    { "/vertex", POST, &vertex },
    { "/tokenize", POST, &to_tokens },
    { "/detokenize", POST, &to_text },
    { "/chat_tokenize", POST, &tgi_chat_tokenize },
    { "/v1/completions", POST, &completions },
    { "/v1/completions/render", POST, &completions_render },
    { "/v1/chat/completions", POST, &chat },
    { "/v1/chat/completions/batch", POST, &chat_batch },
    { "/v1/chat/completions/render", POST, &chat_render },
    { "/v1/responses", POST, &responses },
    { "/predict", POST, &predict },
    { "/predictWithResponseStream", POST, &predict },
    { "/v1/embeddings", POST, &embeddings },
    { "/v1/models", GET, &models },
    { PAGE_MODEL "{id}", GET, &model },
    { "/info", GET, &info },
    { "/health", GET, &health },
    { "/health/live", GET, &live },
    { "/health/ready", GET, &ready },
    { "/ping", GET | POST, &health },
    { "/version", GET, &version },
    { "/load", GET, &load },
    { "/metrics", GET, &metrics },
    { "/openapi.json", GET, &openapi },
    { "/api-doc/openapi.json", GET, &openapi },
    { "/docs", GET, &docs },
    { "/ui/status", GET, &status_page },
    { "/ui/status.json", GET, &status_json },
    { WEB_ASSETS "{file}", GET, &asset },
};

#define N_ROUTES (sizeof table / sizeof *table)

static enum http_route_result find(const struct http_route *routes, size_t n,
                                   enum http_method method, const char *path,
                                   const struct route **route, char allow[HTTP_ALLOW_BYTES])
{
    const void *serve = NULL;
    enum http_route_result result = http_route_find(routes, n, method, path, &serve, allow);

    *route = serve;
    return result;
}

static bool is_below(const char *path, const char *folder)
{
    return strncmp(path, folder, strlen(folder)) == 0 && path[strlen(folder)];
}

static enum http_route_result find_own(enum http_method method, const char *path,
                                       const struct route **route, char allow[HTTP_ALLOW_BYTES])
{
    if (is_below(path, PAGE_MODEL))
        path = PAGE_MODEL "{id}"; /* a name in it, which may have slashes */
    else if (is_below(path, WEB_ASSETS))
        path = WEB_ASSETS "{file}";
    return find(table, N_ROUTES, method, path, route, allow);
}

/* A path that an OCI deployment names: what it asks for there, or what comes there. */
static enum http_route_result find_further(const struct oci_paths *paths, enum http_method method,
                                           const char *path, const struct route **route,
                                           char allow[HTTP_ALLOW_BYTES])
{
    static const struct route *const kinds[] = {
        [OCI_PATH_HEALTH] = &health, [OCI_PATH_PREDICT] = &predict
    };
    struct http_route further[OCI_PATHS_MAX];

    for (size_t i = 0; i < paths->n; i++)
        further[i] = (struct http_route){ paths->path[i].path, paths->path[i].methods,
                                          kinds[paths->path[i].kind] };
    return find(further, paths->n, method, path, route, allow);
}

/* Below the predict path lie all others, as the service's edge shows them: /predict/v1/completions. */
static const char *below_predict(const char *path)
{
    static const char *const above[] = { "/predictWithResponseStream/", "/predict/" };

    for (size_t i = 0; i < sizeof above / sizeof *above; i++)
        if (is_below(path, above[i]))
            return path + strlen(above[i]) - 1;
    return path;
}

static enum http_route_result find_path(const struct service *s, enum http_method method,
                                        const char *path, const struct route **route,
                                        char allow[HTTP_ALLOW_BYTES])
{
    enum http_route_result result = find_own(method, below_predict(path), route, allow);

    if (result == HTTP_ROUTE_NO_PATH)
        result = find_further(&s->paths, method, below_predict(path), route, allow);
    return result;
}

/* What answers on the predict path: the route that its header names, or the one that the deployment's
 * predict endpoint is. */
static const struct route *predicting(const struct service *s, enum http_method method,
                                      const struct http_request *http)
{
    const char *wanted = http ? http_request_header(http, "route") : NULL;
    char ignored[HTTP_ALLOW_BYTES];
    const struct route *other;

    if (wanted && find_path(s, method, wanted, &other, ignored) == HTTP_ROUTE_FOUND)
        return other;
    if (find_own(method, s->config.predict_endpoint, &other, ignored) == HTTP_ROUTE_FOUND &&
        other->generates)
        return other;
    return &predict;
}

enum http_route_result routes_find(const struct service *s, enum http_method method,
                                   const char *path, const struct http_request *http,
                                   const struct route **route, char allow[HTTP_ALLOW_BYTES])
{
    enum http_route_result result = find_path(s, method, path, route, allow);

    if (result == HTTP_ROUTE_FOUND && *route == &predict)
        *route = predicting(s, method, http);
    return result;
}

const struct route *routes_of_path(const struct service *s, const char *path)
{
    const struct route *route = NULL;
    char allow[HTTP_ALLOW_BYTES];

    if (find_path(s, HTTP_POST, path, &route, allow) != HTTP_ROUTE_FOUND)
        find_path(s, HTTP_GET, path, &route, allow);
    return route;
}

const struct http_route *routes_all(size_t *n)
{
    *n = N_ROUTES;
    return table;
}

void routes_refuse(const struct service *s, const char *path, int status, const char *allow,
                   struct reply *r)
{
    const struct route *route = routes_of_path(s, path);

    if (route && route->dialect && route->dialect->id == DIALECT_TGI) { /* an empty body */
        reply_set(r, status, NULL);
    } else {
        reply_set(r, status, REPLY_JSON);
        buf_add_str(&r->body, status == 405 ? "{\"detail\":\"Method Not Allowed\"}"
                                            : "{\"detail\":\"Not Found\"}");
    }
    if (allow)
        reply_header(r, "Allow", "%s", allow);
}
