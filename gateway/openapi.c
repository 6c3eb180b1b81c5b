/* openapi.c - route table and field tables to an OpenAPI document. */
#include "gateway/openapi.h"

#include <assert.h>
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "gateway/pages.h"
#include "gateway/routes.h"

enum { NAME_BYTES = 96 };

/* ---- parameters ---- */

const char *openapi_parameter(const char *name)
{
    static const char *const lines[][2] = {
#define PARAMETER(name, text) { #name, text },
#include "gateway/parameters.def"
#undef PARAMETER
    };

    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
        if (strcmp(lines[i][0], name) == 0)
            return lines[i][1];
    return NULL;
}

static const char *type_name(enum field_type type)
{
    switch (type) {
    case FIELD_BOOL:
        return "boolean";
    case FIELD_INT:
        return "integer";
    case FIELD_NUMBER:
        return "number";
    case FIELD_STRING:
        return "string";
    case FIELD_ARRAY:
        return "array";
    case FIELD_OBJECT:
        return "object";
    case FIELD_ANY:
        break;
    }
    return NULL; /* of several */
}

/* Bounds that are only those of an int64_t are no bounds to tell of. */
static void add_range(json_t *schema, const struct field *f)
{
    if (f->type != FIELD_INT)
        return;
    if (f->min > INT64_MIN)
        json_object_set_new(schema, "minimum", json_integer(f->min));
    if (f->max < INT64_MAX)
        json_object_set_new(schema, "maximum", json_integer(f->max));
}

static json_t *schema_of_field(const struct field *f)
{
    const char *type = type_name(f->type), *text = openapi_parameter(f->name);
    json_t *schema = json_object();

    if (type && (f->flags & FIELD_NULL))
        json_object_set_new(schema, "type", json_pack("[ss]", type, "null"));
    else if (type)
        json_object_set_new(schema, "type", json_string(type));
    add_range(schema, f);
    if (text)
        json_object_set_new(schema, "description", json_string(text));
    return schema;
}

/* ---- bodies ---- */

static json_t *member(json_t *object, const char *name)
{
    json_t *v = json_object_get(object, name);

    if (!v) {
        v = json_object();
        json_object_set_new(object, name, v);
    }
    return v;
}

/* The schema of what lies at "a.b[].c" in this one, made where it is not yet. */
static json_t *schema_at(json_t *schema, const char *inside)
{
    char name[NAME_BYTES];

    while (inside && *inside) {
        size_t n = strcspn(inside, ".");
        bool is_list = n > 2 && strncmp(inside + n - 2, "[]", 2) == 0;
        snprintf(name, sizeof name, "%.*s", (int)(is_list ? n - 2 : n), inside);
        schema = member(member(schema, "properties"), name);
        if (is_list)
            schema = member(schema, "items");
        if (!json_object_get(schema, "type")) /* an answer's object may be null */
            json_object_set_new(schema, "type", json_string("object"));
        inside += n + (inside[n] == '.');
    }
    return schema;
}

static void add_table(json_t *root, const struct field_table *t)
{
    json_t *schema = schema_at(root, t->inside);
    json_t *properties = member(schema, "properties");

    for (size_t i = 0; i < t->n; i++) {
        const struct field *f = &t->rows[i];
        json_t *required;
        if (json_object_get(properties, f->name)) /* of an older version, or a table within it */
            continue;
        json_object_set_new(properties, f->name, schema_of_field(f));
        if (!(f->flags & FIELD_REQUIRED))
            continue;
        required = json_object_get(schema, "required");
        if (!required) {
            required = json_array();
            json_object_set_new(schema, "required", required);
        }
        json_array_append_new(required, json_string(f->name));
    }
}

static json_t *schema_of_tables(const struct field_table *const tables[ROUTE_TABLES_MAX])
{
    json_t *schema = json_pack("{ss}", "type", "object");

    for (size_t i = 0; i < ROUTE_TABLES_MAX && tables[i]; i++)
        add_table(schema, tables[i]);
    return schema;
}

/* "/v1/chat/completions" to "v1_chat_completions"; "/" to "root". */
static void name_of_path(const char *path, char out[NAME_BYTES])
{
    size_t n = 0;

    for (path += *path == '/'; *path && n + 1 < NAME_BYTES; path++)
        out[n++] = isalnum((unsigned char)*path) ? *path : '_';
    out[n] = '\0';
    if (n == 0)
        strcpy(out, "root");
}

/* A body's schema is named for the first path of its route, that of its other form by OTHER behind it. */
#define OTHER "_other"

static json_t *reference_to(const struct route *route, const char *suffix)
{
    char name[NAME_BYTES], reference[NAME_BYTES + 32];
    size_t n;
    const struct http_route *routes = routes_all(&n);

    for (size_t i = 0; i < n; i++) {
        if (routes[i].serve != route)
            continue;
        name_of_path(routes[i].path, name);
        snprintf(reference, sizeof reference, "#/components/schemas/%s%s", name, suffix);
        return json_pack("{ss}", "$ref", reference);
    }
    assert(!"a route that is in no path");
    return NULL;
}

/* All forms that a body may have; the caller's. */
static json_t *forms_of(const struct route *route)
{
    json_t *forms = json_array();

    if (route->fields[0])
        json_array_append_new(forms, reference_to(route, ""));
    if (route->or_fields[0])
        json_array_append_new(forms, reference_to(route, OTHER));
    for (size_t i = 0; i < ROUTE_LIKE_MAX && route->like[i]; i++)
        json_array_append_new(forms, reference_to(route->like[i], ""));
    return forms;
}

static json_t *request_body(const struct route *route)
{
    json_t *forms = forms_of(route), *schema = NULL;

    if (json_array_size(forms) == 1)
        schema = json_incref(json_array_get(forms, 0));
    else if (json_array_size(forms) > 1)
        schema = json_pack("{sO}", "oneOf", forms);
    json_decref(forms);
    if (!schema)
        return NULL;
    return json_pack("{sbs{s{so}}}", "required", 1, "content", "application/json", "schema",
                     schema);
}

/* ---- answers ---- */

static const struct answer_member {
    const char *path, *inside, *name, *types;
} answer_members[] = {
#define ANSWER(path_, inside_, name_, types_) { path_, inside_, name_, types_ },
#include "gateway/answers.def"
#undef ANSWER
};

#define N_ANSWER_MEMBERS (sizeof answer_members / sizeof *answer_members)

/* "string|null?" as {"type":["string","null"]}. */
static json_t *schema_of_types(const char *types)
{
    json_t *list = json_array();

    while (*types && *types != '?') {
        size_t n = strcspn(types, "|?");
        json_array_append_new(list, json_stringn(types, n));
        types += n + (types[n] == '|');
    }
    if (json_array_size(list) == 1) {
        json_t *one = json_pack("{sO}", "type", json_array_get(list, 0));
        json_decref(list);
        return one;
    }
    return json_pack("{so}", "type", list);
}

static void add_answer_member(json_t *root, const struct answer_member *m)
{
    json_t *schema = schema_at(root, m->inside), *required;

    json_object_set_new(member(schema, "properties"), m->name, schema_of_types(m->types));
    if (strchr(m->types, '?'))
        return;
    required = json_object_get(schema, "required");
    if (!required) {
        required = json_array();
        json_object_set_new(schema, "required", required);
    }
    json_array_append_new(required, json_string(m->name));
}

/* Of the JSON that a path answers with; NULL: nothing is said of it. */
static json_t *schema_of_answer(const char *path)
{
    json_t *schema = NULL;

    for (size_t i = 0; i < N_ANSWER_MEMBERS; i++) {
        if (strcmp(answer_members[i].path, path) != 0)
            continue;
        if (!schema)
            schema = json_pack("{ss}", "type", "object");
        add_answer_member(schema, &answer_members[i]);
    }
    return schema;
}

static bool has_stream(const struct route *route)
{
    for (size_t i = 0; i < ROUTE_TABLES_MAX && route->fields[i]; i++)
        for (size_t k = 0; k < route->fields[i]->n; k++)
            if (strcmp(route->fields[i]->rows[k].name, "stream") == 0)
                return true;
    return route->like[0] && has_stream(route->like[0]);
}

#define ANSWERED "_answer"

/* The content of a good answer in JSON. */
static json_t *json_content(const char *path)
{
    char name[NAME_BYTES], reference[NAME_BYTES + 40];
    json_t *schema = schema_of_answer(path);

    if (!schema)
        return json_object();
    json_decref(schema);
    name_of_path(path, name);
    snprintf(reference, sizeof reference, "#/components/schemas/%s" ANSWERED, name);
    return json_pack("{s{ss}}", "schema", "$ref", reference);
}

static json_t *good_answer(const struct route *route, const char *path)
{
    const char *type = route->content_type ? route->content_type : REPLY_JSON;
    json_t *content = json_object();

    if (!route->always_streams)
        json_object_set_new(content, type, json_content(path));
    if (route->generates && (route->always_streams || has_stream(route)))
        json_object_set_new(content, REPLY_SSE, json_object());
    return json_pack("{ssso}", "description",
                     route->generates ? "The answer, whole or streamed." : "The answer.", "content",
                     content);
}

static void add_reference(json_t *responses, const char *status, const char *name)
{
    char reference[NAME_BYTES];

    snprintf(reference, sizeof reference, "#/components/responses/%s", name);
    json_object_set_new(responses, status, json_pack("{ss}", "$ref", reference));
}

static json_t *responses_of(const struct route *route, const char *path, bool has_body)
{
    json_t *responses = json_object();

    json_object_set_new(responses, "200", good_answer(route, path));
    if (has_body)
        add_reference(responses, "4XX", "Refused");
    if (route->access != ROUTE_IS_OPEN)
        add_reference(responses, "401", "Unauthorized");
    if (route->generates) {
        add_reference(responses, "429", "TooMany");
        add_reference(responses, "503", "Unavailable");
    }
    return responses;
}

static json_t *common_responses(void)
{
    static const char retry[] = "Retry-After";

    return json_pack(
        "{s{ss}s{ss}s{sss{s{sss{ss}}}}s{sss{s{sss{ss}}}}}", "Refused", "description",
        "The request is not one that this route takes; says why in the words of its dialect.",
        "Unauthorized", "description", "No API key, or a wrong one.", "TooMany", "description",
        "No room for another request, or a limit of the API key is used up.", "headers", retry,
        "description", "Seconds until it is worth asking again.", "schema", "type", "integer",
        "Unavailable", "description", "Nobody serves at the moment; says why.", "headers", retry,
        "description", "Seconds until it is worth asking again.", "schema", "type", "integer");
}

/* ---- routes ---- */

static const char *tag_of(const struct route *route)
{
    if (!route->dialect)
        return "Server";
    switch (route->dialect->id) {
    case DIALECT_TGI:
        return "TGI";
    case DIALECT_OCI:
        return "OCI";
    default:
        return "OpenAI";
    }
}

/* The name in the braces. */
static json_t *path_parameters(const char *path)
{
    const char *from = strchr(path, '{') + 1;
    char name[NAME_BYTES];

    snprintf(name, sizeof name, "%.*s", (int)strcspn(from, "}"), from);
    return json_pack("[{sssssbs{ss}}]", "name", name, "in", "path", "required", 1, "schema", "type",
                     "string");
}

static void add_operation(json_t *paths, const struct http_route *http, enum http_method method,
                          const char *verb)
{
    const struct route *route = http->serve;
    json_t *body = method == HTTP_POST ? request_body(route) : NULL;
    char path_name[NAME_BYTES], name[NAME_BYTES + 8];
    json_t *operation;

    if (!(http->methods & HTTP_METHOD_BIT(method)))
        return;
    name_of_path(http->path, path_name);
    snprintf(name, sizeof name, "%s_%s", verb, path_name);
    operation = json_pack("{sssss[s]}", "operationId", name, "summary",
                          route->summary ? route->summary : "", "tags", tag_of(route));
    json_object_set_new(operation, "responses", responses_of(route, http->path, body != NULL));
    if (body)
        json_object_set_new(operation, "requestBody", body);
    if (strchr(http->path, '{'))
        json_object_set_new(operation, "parameters", path_parameters(http->path));
    if (route->access == ROUTE_IS_OPEN)
        json_object_set_new(operation, "security", json_array());
    json_object_set_new(member(paths, http->path), verb, operation);
}

json_t *openapi_make(void)
{
    json_t *paths = json_object(), *schemas = json_object();
    size_t n;
    const struct http_route *routes = routes_all(&n);
    char name[NAME_BYTES + sizeof OTHER], answer[NAME_BYTES + sizeof ANSWERED];

    for (size_t i = 0; i < n; i++) {
        const struct route *route = routes[i].serve;
        add_operation(paths, &routes[i], HTTP_GET, "get");
        add_operation(paths, &routes[i], HTTP_POST, "post");
        name_of_path(routes[i].path, name);
        if (route->fields[0])
            json_object_set_new(schemas, name, schema_of_tables(route->fields));
        snprintf(answer, sizeof answer, "%.*s" ANSWERED, NAME_BYTES - 1, name);
        strcat(name, OTHER);
        if (route->or_fields[0])
            json_object_set_new(schemas, name, schema_of_tables(route->or_fields));
        json_object_set_new(schemas, answer, schema_of_answer(routes[i].path));
    }
    return json_pack("{sss{ssssss}s[{s[]}]sos{sos{s{ssss}}so}}", "openapi", "3.1.0", "info",
                     "title", "llmd", "version", LLMD_VERSION, "description",
                     "The APIs of text-generation-inference, of OpenAI as vLLM serves it, and of "
                     "OCI's containers.",
                     "security", "bearer", "paths", paths, "components", "schemas", schemas,
                     "securitySchemes", "bearer", "type", "http", "scheme", "bearer", "responses",
                     common_responses());
}

/* ---- the route ---- */

void page_openapi(struct service *s, const struct http_request *http, struct reply *r)
{
    struct json_writer w = { .out = &r->body };
    json_t *document = openapi_make();

    (void)s;
    (void)http;
    reply_set(r, 200, REPLY_JSON);
    jw_json(&w, document);
    json_decref(document);
}
