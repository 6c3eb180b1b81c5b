/* test_openapi.c - if this breaks, the description of the API is not of this API: a route or a parameter is missing
 * from it, or is there and not taken. */
#include <ctype.h>
#include <dirent.h>
#include <stdio.h>

#include "tests/unit/gateway_rig.h"

#include "gateway/openai/openai.h"
#include "gateway/openapi.h"
#include "gateway/pages.h"
#include "gateway/routes.h"

static json_t *document;

static int set_up(void **state)
{
    *state = rig_new();
    document = openapi_make();
    return document ? 0 : -1;
}

static int tear_down(void **state)
{
    json_decref(document);
    rig_free(*state);
    return 0;
}

static const struct {
    enum http_method method;
    const char *verb;
} verbs[] = { { HTTP_GET, "get" }, { HTTP_POST, "post" } };

static json_t *operation_of(const struct http_route *r, const char *verb)
{
    json_t *item = json_object_get(json_object_get(document, "paths"), r->path);

    return json_object_get(item, verb);
}

/* ---- routes ---- */

static void every_route_is_described(void **state)
{
    json_t *seen = json_object();
    size_t n, n_operations = 0;
    const struct http_route *routes = routes_all(&n);

    (void)state;
    for (size_t i = 0; i < n; i++) {
        const struct route *route = routes[i].serve;
        if (!route->summary || !route->summary[0])
            fail_msg("route %s has no .summary: give it one in gateway/routes.c", routes[i].path);
        for (size_t v = 0; v < 2; v++) {
            json_t *operation = operation_of(&routes[i], verbs[v].verb);
            const char *id = json_string_value(json_object_get(operation, "operationId"));
            if (!(routes[i].methods & HTTP_METHOD_BIT(verbs[v].method)))
                continue;
            if (!operation)
                fail_msg("%s %s is not in the document", verbs[v].verb, routes[i].path);
            assert_non_null(id);
            if (json_object_get(seen, id))
                fail_msg("operationId '%s' is there twice", id);
            json_object_set_new(seen, id, json_true());
            assert_non_null(json_object_get(json_object_get(operation, "responses"), "200"));
            n_operations++;
        }
    }
    assert_true(n_operations >= n);
    json_decref(seen);
}

/* A POST takes a body, and a table says which; but one that a GET does as well takes none. */
static void every_body_has_its_fields(void **state)
{
    size_t n;
    const struct http_route *routes = routes_all(&n);

    (void)state;
    for (size_t i = 0; i < n; i++) {
        const struct route *route = routes[i].serve;
        if (!(routes[i].methods & HTTP_METHOD_BIT(HTTP_POST)) ||
            (routes[i].methods & HTTP_METHOD_BIT(HTTP_GET)))
            continue;
        if (!route->fields[0] && !route->like[0])
            fail_msg("POST %s names no field table: give it .fields or .like in gateway/routes.c",
                     routes[i].path);
        assert_non_null(json_object_get(operation_of(&routes[i], "post"), "requestBody"));
    }
}

static void keys_are_asked_for_where_they_are(void **state)
{
    size_t n;
    const struct http_route *routes = routes_all(&n);

    (void)state;
    for (size_t i = 0; i < n; i++) {
        const struct route *route = routes[i].serve;
        bool is_post = routes[i].methods & HTTP_METHOD_BIT(HTTP_POST);
        json_t *operation = operation_of(&routes[i], is_post ? "post" : "get");
        json_t *security = json_object_get(operation, "security");
        assert_int_equal(route->access == ROUTE_IS_OPEN, security != NULL);
        assert_int_equal(json_array_size(security), 0);
    }
}

/* ---- parameters ---- */

/* The schema of a $ref, or itself. */
static json_t *resolve(json_t *schema)
{
    const char *reference = json_string_value(json_object_get(schema, "$ref"));
    json_t *at = document;
    char path[256], *save;

    if (!reference)
        return schema;
    snprintf(path, sizeof path, "%s", reference);
    for (char *name = strtok_r(path + 2, "/", &save); name; name = strtok_r(NULL, "/", &save))
        at = json_object_get(at, name);
    if (!at)
        fail_msg("%s leads nowhere", reference);
    return at;
}

static void every_reference_leads_somewhere(json_t *v)
{
    const char *key;
    json_t *child;
    size_t i;

    if (json_is_object(v)) {
        resolve(v);
        json_object_foreach (v, key, child)
            every_reference_leads_somewhere(child);
    }
    json_array_foreach (v, i, child)
        every_reference_leads_somewhere(child);
}

static void references_are_good(void **state)
{
    (void)state;
    assert_string_equal(json_string_value(json_object_get(document, "openapi")), "3.1.0");
    every_reference_leads_somewhere(document);
}

/* The i-th form of its body. */
static json_t *schema_of(const struct http_route *r, size_t form)
{
    json_t *body = json_object_get(operation_of(r, "post"), "requestBody");
    json_t *schema = json_object_get(
        json_object_get(json_object_get(body, "content"), "application/json"), "schema");

    if (json_object_get(schema, "oneOf"))
        schema = json_array_get(json_object_get(schema, "oneOf"), form);
    return resolve(schema);
}

/* Where a table's members are: "a[].b". */
static json_t *inside(json_t *schema, const char *path)
{
    char text[128], *save;

    snprintf(text, sizeof text, "%s", path);
    for (char *name = strtok_r(text, ".", &save); name; name = strtok_r(NULL, ".", &save)) {
        char *list = strstr(name, "[]");
        if (list)
            *list = '\0';
        schema = json_object_get(json_object_get(schema, "properties"), name);
        if (list)
            schema = json_object_get(schema, "items");
    }
    return schema;
}

static size_t expect_fields(const struct http_route *r, const struct field_table *const *tables,
                            size_t form)
{
    size_t n = 0;

    for (size_t t = 0; t < ROUTE_TABLES_MAX && tables[t]; t++)
        for (size_t k = 0; k < tables[t]->n; k++, n++) {
            const struct field *f = &tables[t]->rows[k];
            json_t *schema = inside(schema_of(r, form), tables[t]->inside);
            json_t *v = json_object_get(json_object_get(schema, "properties"), f->name);
            if (!v)
                fail_msg("parameter '%s' of %s is not in the document", f->name, r->path);
            if (!openapi_parameter(f->name))
                fail_msg("parameter '%s' of %s has no line: give it one in gateway/parameters.def",
                         f->name, r->path);
        }
    return n;
}

static void every_parameter_is_described(void **state)
{
    size_t n, n_fields = 0;
    const struct http_route *routes = routes_all(&n);

    (void)state;
    for (size_t i = 0; i < n; i++) {
        const struct route *route = routes[i].serve;
        n_fields += expect_fields(&routes[i], route->fields, 0);
        n_fields += expect_fields(&routes[i], route->or_fields, 1);
    }
    assert_true(n_fields > 100);
}

/* ---- the tables are those that the parsers read ---- */

static const char *good_value(const struct field *f)
{
    switch (f->type) {
    case FIELD_STRING:
        return "\"One day\"";
    case FIELD_ARRAY:
        return "[{\"role\":\"user\",\"content\":\"Hi\"}]";
    default:
        return "\"One day\"";
    }
}

/* A body with all that is required, and a wrong value of one member. */
static void write_body(const struct route *route, const struct field_table *wrong_table,
                       const struct field *wrong, struct buf *out)
{
    struct buf nested = { 0 };

    buf_add_str(out, "{\"prompt\":\"One day\"");
    for (size_t t = 0; t < ROUTE_TABLES_MAX && route->fields[t]; t++)
        for (size_t k = 0; k < route->fields[t]->n && !route->fields[t]->inside[0]; k++) {
            const struct field *f = &route->fields[t]->rows[k];
            if ((f->flags & FIELD_REQUIRED) && strcmp(f->name, wrong->name) != 0)
                buf_printf(out, ",\"%s\":%s", f->name, good_value(f));
        }
    buf_printf(&nested, "\"%s\":%s", wrong->name, wrong->type == FIELD_OBJECT ? "7" : "{}");
    if (wrong_table->inside[0])
        buf_printf(out, ",\"%s\":{%s}}", wrong_table->inside, nested.data);
    else if (strcmp(wrong->name, "prompt") == 0)
        out->n = 0, buf_printf(out, "{%s}", nested.data);
    else
        buf_printf(out, ",%s}", nested.data);
    buf_fini(&nested);
}

static void expect_named(struct rig *r, const char *path, const struct route *route,
                         const struct field_table *table, const struct field *f)
{
    struct buf body = { 0 };
    bool ok;

    write_body(route, table, f, &body);
    ok = rig_parse(r, route->dialect, route->variant, body.data);
    if (ok || (!strstr(r->fault.text, f->name) && !strstr(r->fault.param, f->name)))
        fail_msg("%s: %s: the parser %s", path, body.data, ok ? "takes it" : r->fault.text);
    rig_done(r);
    buf_fini(&body);
}

/* Whatever the document says has a type is refused, by name, when it has another. */
static void parsers_read_the_fields_that_are_described(void **state)
{
    struct rig *r = *state;
    size_t n, n_checked = 0;
    const struct http_route *routes = routes_all(&n);

    for (size_t i = 0; i < n; i++) {
        const struct route *route = routes[i].serve;
        for (size_t t = 0; route->generates && t < ROUTE_TABLES_MAX && route->fields[t]; t++) {
            const struct field_table *table = route->fields[t];
            if (strstr(table->inside, "[]")) /* a form of its own; test_dialects has it */
                continue;
            for (size_t k = 0; k < table->n; k++)
                if (table->rows[k].type != FIELD_ANY) {
                    expect_named(r, routes[i].path, route, table, &table->rows[k]);
                    n_checked++;
                }
        }
    }
    assert_true(n_checked > 100);
}

static size_t count_in_file(const char *path, const char *words)
{
    static char text[1 << 18];
    FILE *f = fopen(path, "r");
    size_t n = 0;

    assert_non_null(f);
    text[fread(text, 1, sizeof text - 1, f)] = '\0';
    fclose(f);
    for (const char *at = text; (at = strstr(at, words)); at += strlen(words))
        n++;
    return n;
}

/* Tables in the sources of one folder below gateway/; each has to be told of. */
static size_t count_tables_told(const char *folder)
{
    char path[512];
    struct dirent *entry;
    size_t n_tables = 0;
    DIR *d;

    snprintf(path, sizeof path, TEST_SOURCE_DIR "/gateway/%s", folder);
    d = opendir(path);
    assert_non_null(d);
    while ((entry = readdir(d))) {
        size_t n = strlen(entry->d_name), n_rows, n_told;
        if (n < 3 || strcmp(entry->d_name + n - 2, ".c") != 0)
            continue;
        snprintf(path, sizeof path, TEST_SOURCE_DIR "/gateway/%s/%s", folder, entry->d_name);
        n_rows = count_in_file(path, "(FIELD_ROW)");
        n_told = count_in_file(path, "FIELD_TABLE(");
        if (n_rows != n_told)
            fail_msg("%s has %zu tables of fields and tells of %zu: add FIELD_TABLE() lines "
                     "(gateway/fields.h), and name them in gateway/routes.c",
                     path, n_rows, n_told);
        n_tables += n_rows;
    }
    closedir(d);
    return n_tables;
}

/* A table that nobody tells of would be parameters that nobody knows. */
static void every_field_table_is_told_of(void **state)
{
    static const char *const folders[] = { ".", "openai", "tgi", "oci", "answer" };
    size_t n_tables = 0;

    (void)state;
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++)
        n_tables += count_tables_told(folders[i]);
    assert_true(n_tables >= 8);
}

/* ---- answers ---- */

static const char *type_of(const json_t *v)
{
    switch (json_typeof(v)) {
    case JSON_OBJECT:
        return "object";
    case JSON_ARRAY:
        return "array";
    case JSON_STRING:
        return "string";
    case JSON_INTEGER:
        return "integer";
    case JSON_REAL:
        return "number";
    case JSON_NULL:
        return "null";
    default:
        return "boolean";
    }
}

static bool allows(const json_t *schema, const json_t *v)
{
    const json_t *types = json_object_get(schema, "type");
    bool found = json_is_string(types) && strcmp(json_string_value(types), type_of(v)) == 0;

    for (size_t i = 0; i < json_array_size(types); i++)
        found |= strcmp(json_string_value(json_array_get(types, i)), type_of(v)) == 0;
    return found;
}

/* Each member of v is in the schema, each that the schema requires in v. */
static void expect_described(const char *path, const json_t *schema, json_t *v)
{
    const json_t *properties = json_object_get(schema, "properties"), *name;
    const char *key;
    json_t *child;
    size_t i;

    if (!properties)
        return;
    json_array_foreach (json_object_get(schema, "required"), i, name)
        if (!json_object_get(v, json_string_value(name)))
            fail_msg("%s: no member '%s' in the answer; answers.def has it without '?'", path,
                     json_string_value(name));
    json_object_foreach (v, key, child) {
        const json_t *described = json_object_get(properties, key);
        json_t *item;
        if (!described || !allows(described, child))
            fail_msg("%s: '%s' is %s in the answer: give it its line in gateway/answers.def", path,
                     key, type_of(child));
        if (json_is_object(child))
            expect_described(path, described, child);
        json_array_foreach (child, i, item)
            if (json_is_object(item))
                expect_described(path, json_object_get(described, "items"), item);
    }
}

static void expect_answer(const char *path, const char *verb, const struct reply *reply)
{
    const json_t *item = json_object_get(json_object_get(document, "paths"), path);
    const json_t *good =
        json_object_get(json_object_get(json_object_get(item, verb), "responses"), "200");
    json_t *schema = json_object_get(
        json_object_get(json_object_get(good, "content"), "application/json"), "schema");
    json_t *v = json_parse(reply->body.data, reply->body.n, NULL);

    assert_int_equal(reply->status, 200);
    assert_non_null(schema);
    assert_non_null(v);
    expect_described(path, resolve(schema), v);
    json_decref(v);
}

static void expect_generated(struct rig *r, const char *path, const struct dialect *d,
                             const char *body)
{
    static const int32_t dog[] = { 533, 607 };
    static const float values[] = { 3, 4 };
    struct reply reply;

    if (!rig_parse(r, d, 0, body))
        fail_msg("%s: %s", body, r->fault.text);
    if (r->rq.want_prompt_logprobs)
        rig_prompt(r, 0);
    for (uint32_t i = 0; i < r->rq.n_candidates; i++) {
        if (r->rq.pooling)
            sequence_set_embedding(&r->rq.choices[i].seq, values, 2);
        else
            rig_tokens(r, i, dog, 2, LLMD__FINISH__FINISH_LENGTH);
    }
    reply_init(&reply);
    request_choose(&r->rq);
    d->whole(&r->rq, &reply);
    expect_answer(path, "post", &reply);
    reply_fini(&reply);
    rig_done(r);
}

/* What is said of answers is held against answers, with and without what can be asked for. */
static void answers_are_as_described(void **state)
{
    struct rig *r = *state;

    expect_generated(r, "/v1/completions", &dialect_openai_completions, "{\"prompt\":\"a\"}");
    expect_generated(r, "/v1/completions", &dialect_openai_completions,
                     "{\"prompt\":\"a\",\"logprobs\":1,\"prompt_logprobs\":1,\"n\":2,"
                     "\"return_token_ids\":true}");
    expect_generated(r, "/v1/chat/completions", &dialect_openai_chat,
                     "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}");
    expect_generated(r, "/v1/chat/completions", &dialect_openai_chat,
                     "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"logprobs\":true,"
                     "\"top_logprobs\":1,\"return_token_ids\":true,\"return_prompt_text\":true}");
    expect_generated(r, "/v1/embeddings", &dialect_openai_embeddings, "{\"input\":\"a\"}");
    expect_generated(r, "/v1/embeddings", &dialect_openai_embeddings,
                     "{\"input\":[\"a\",\"b\"],\"encoding_format\":\"base64\"}");
    expect_generated(r, "/generate", &dialect_tgi, "{\"inputs\":\"a\"}");
    expect_generated(r, "/generate", &dialect_tgi,
                     "{\"inputs\":\"a\",\"parameters\":{\"details\":true,\"best_of\":2,"
                     "\"do_sample\":true,\"decoder_input_details\":true,\"top_n_tokens\":1}}");
}

static void pages_are_as_described(void **state)
{
    static const char text[] = "{\"prompt\":\"a b\",\"return_token_strs\":true}";
    static const char ids[] = "{\"tokens\":[264]}";
    struct rig *r = *state;
    struct reply reply;

    reply_init(&reply);
    openai_tokenize_page(&r->service, "application/json", text, sizeof text - 1, &reply);
    expect_answer("/tokenize", "post", &reply);
    reply_fini(&reply);
    reply_init(&reply);
    openai_detokenize_page(&r->service, "application/json", ids, sizeof ids - 1, &reply);
    expect_answer("/detokenize", "post", &reply);
    reply_fini(&reply);
    reply_init(&reply);
    page_models(&r->service, NULL, &reply);
    expect_answer("/v1/models", "get", &reply);
    reply_fini(&reply);
}

/* ---- the route ---- */

static void the_route_serves_it(void **state)
{
    struct rig *r = *state;
    struct reply reply;
    struct err e;
    json_t *v;

    reply_init(&reply);
    page_openapi(&r->service, NULL, &reply);
    v = json_parse(reply.body.data, reply.body.n, &e);
    assert_non_null(v);
    assert_true(json_equal(v, document));
    json_decref(v);
    reply_fini(&reply);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_route_is_described),
        cmocka_unit_test(every_body_has_its_fields),
        cmocka_unit_test(keys_are_asked_for_where_they_are),
        cmocka_unit_test(references_are_good),
        cmocka_unit_test(every_parameter_is_described),
        cmocka_unit_test(parsers_read_the_fields_that_are_described),
        cmocka_unit_test(every_field_table_is_told_of),
        cmocka_unit_test(answers_are_as_described),
        cmocka_unit_test(pages_are_as_described),
        cmocka_unit_test(the_route_serves_it),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
