/* test_web.c - if this breaks, browsers keep an old page for a year, a health probe gets HTML, or a page runs scripts
 * that are not ours. */
#include "tests/unit/gateway_rig.h"

#include "gateway/net/http_route.h"
#include "gateway/pages.h"
#include "gateway/routes.h"
#include "gateway/web/accept.h"
#include "gateway/web/web.h"

static int set_up(void **state)
{
    struct rig *r = rig_new();
    struct err e;

    assert_ok(board_create(&r->service.board, 2, 2, 7, &e), e);
    r->service.n_groups = 2;
    *state = r;
    return 0;
}

static int tear_down(void **state)
{
    struct rig *r = *state;

    board_close(&r->service.board);
    rig_free(r);
    return 0;
}

static const char *field(const struct reply *r, const char *name)
{
    for (size_t i = 0; i < r->n_headers; i++)
        if (strcmp(r->headers[i].name, name) == 0)
            return r->headers[i].value;
    return NULL;
}

/* ---- what a request says ---- */

static void lists_name_words(void **state)
{
    static const struct {
        const char *list, *word;
        bool names;
    } cases[] = {
        { NULL, "gzip", false },
        { "", "gzip", false },
        { "gzip", "gzip", true },
        { "GZip", "gzip", true },
        { "deflate, gzip;q=1.0, *;q=0.5", "gzip", true },
        { "gzip;q=0", "gzip", false },
        { "gzip ; Q=0.000", "gzip", false },
        { "gzip;q=0.001", "gzip", true },
        { "gzip;x=0;q=0, br", "gzip", false },
        { "gzip;q=0 ;x=1", "gzip", false },
        { "xgzip, gzipx", "gzip", false },
        { "*", "gzip", false },
        { ",, ,gzip,", "gzip", true },
        { "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "text/html", true },
        { "*/*", "text/html", false },
        { "application/json", "text/html", false },
        { "a;b=\"text/html, c\", d", "text/html", false },
        { "a;b=\"\\\", \", text/html", "text/html", true },
        { "a;b=\"open, text/html", "text/html", false },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (accept_names(cases[i].list, cases[i].word) != cases[i].names)
            fail_msg("'%s' %s", cases[i].list ? cases[i].list : "(none)", cases[i].word);
}

static void tags_compare_weakly(void **state)
{
    (void)state;
    assert_true(accept_has_etag("W/\"ab\"", "W/\"ab\""));
    assert_true(accept_has_etag("\"ab\"", "W/\"ab\""));
    assert_true(accept_has_etag("\"x\", W/\"ab\" ", "\"ab\""));
    assert_true(accept_has_etag("*", "\"ab\""));
    assert_false(accept_has_etag("\"a\"", "W/\"ab\""));
    assert_false(accept_has_etag("ab", "W/\"ab\""));
    assert_false(accept_has_etag("\"x, W/\"ab\"", "W/\"ab\""));
    assert_false(accept_has_etag("", "W/\"ab\""));
    assert_false(accept_has_etag(NULL, "W/\"ab\""));
}

/* ---- files ---- */

static const unsigned char plain[] = "plain", packed[] = "zip";

static struct reply answer_of(const char *name, const char *encoding, const char *known)
{
    const struct embedded_file file = { name, "W/\"12\"", plain, 5, packed, 3 };
    const struct web_wish wish = { encoding, known };
    struct reply r;

    reply_init(&r);
    web_answer(&file, &wish, &r);
    return r;
}

static void pages_are_asked_for_again_and_assets_never(void **state)
{
    struct reply page = answer_of("index.html", NULL, NULL);
    struct reply asset = answer_of("assets/chat-0123456789.js", NULL, NULL);

    (void)state;
    assert_int_equal(page.status, 200);
    assert_string_equal(field(&page, "Content-Type"), "text/html; charset=utf-8");
    assert_string_equal(field(&page, "Cache-Control"), "no-cache");
    assert_string_equal(field(&page, "ETag"), "W/\"12\"");
    assert_string_equal(field(&page, "Vary"), "Accept, Accept-Encoding");
    assert_string_equal(field(&asset, "Content-Type"), "text/javascript; charset=utf-8");
    assert_string_equal(field(&asset, "Cache-Control"), "public, max-age=31536000, immutable");
    assert_string_equal(field(&asset, "X-Content-Type-Options"), "nosniff");
    reply_fini(&page);
    reply_fini(&asset);
}

static void files_are_packed_for_who_can_unpack(void **state)
{
    struct reply zip = answer_of("assets/a.css", "gzip, deflate, br", NULL);
    struct reply raw = answer_of("assets/a.css", "gzip;q=0, br", NULL);

    (void)state;
    assert_string_equal(field(&zip, "Content-Encoding"), "gzip");
    assert_int_equal(zip.body.n, 3);
    assert_memory_equal(zip.body.data, packed, 3);
    assert_null(field(&raw, "Content-Encoding"));
    assert_int_equal(raw.body.n, 5);
    assert_memory_equal(raw.body.data, plain, 5);
    reply_fini(&zip);
    reply_fini(&raw);
}

static void what_is_known_is_not_sent_again(void **state)
{
    struct reply r = answer_of("index.html", "gzip", "\"11\", W/\"12\"");

    (void)state;
    assert_int_equal(r.status, 304);
    assert_int_equal(r.body.n, 0);
    assert_string_equal(field(&r, "ETag"), "W/\"12\"");
    assert_non_null(field(&r, "Content-Security-Policy")); /* a 304 brings the fields up to date */
    assert_null(field(&r, "Content-Encoding"));
    reply_fini(&r);
}

static void pages_run_our_scripts_alone(void **state)
{
    struct reply r = answer_of("status.html", NULL, NULL);
    const char *policy = field(&r, "Content-Security-Policy");
    static const char *const wanted[] = { "default-src 'none'",    "script-src 'self'",
                                          "style-src 'self'",      "connect-src 'self'",
                                          "base-uri 'none'",       "form-action 'none'",
                                          "frame-ancestors 'none'" };

    (void)state;
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        if (!strstr(policy, wanted[i]))
            fail_msg("%s is not in '%s'", wanted[i], policy);
    assert_null(strstr(policy, "unsafe"));
    assert_string_equal(field(&r, "Referrer-Policy"), "no-referrer");
    assert_string_equal(field(&r, "Cross-Origin-Opener-Policy"), "same-origin");
    reply_fini(&r);
}

/* ---- what is built in ---- */

/* Whether a page's text holds what its policy forbids: scripts or styles of its own, other places. */
static void check_page(const struct embedded_file *f)
{
    static const char *const forbidden[] = { "<script>", "<style",  " style=", " onclick",
                                             " onload",  "http://", "https://" };
    char *text = calloc(1, f->n + 1);

    assert_non_null(text);
    memcpy(text, f->bytes, f->n);
    for (size_t i = 0; i < sizeof forbidden / sizeof *forbidden; i++)
        if (strstr(text, forbidden[i]))
            fail_msg("%s has %s", f->name, forbidden[i]);
    free(text);
}

static void assert_built_in(const char *reference)
{
    char name[128];

    snprintf(name, sizeof name, "assets/%.*s", (int)strcspn(reference, "\""), reference);
    if (!web_find(name))
        fail_msg("%s is referred to and not built in", name);
}

static void pages_refer_to_what_is_built_in(void **state)
{
    static const char *const pages[] = { "index.html", "status.html", "docs.html" };

    (void)state;
    for (size_t i = 0; i < sizeof pages / sizeof *pages; i++) {
        const struct embedded_file *f = web_find(pages[i]);
        char *text;
        assert_non_null(f);
        check_page(f);
        text = calloc(1, f->n + 1);
        assert_non_null(text);
        memcpy(text, f->bytes, f->n);
        for (const char *at = text; (at = strstr(at, "assets/")); at++)
            assert_built_in(at + strlen("assets/"));
        free(text);
    }
}

static void packed_files_are_gzip_and_shorter(void **state)
{
    size_t n_packed = 0;

    (void)state;
    for (size_t i = 0; i < embedded_files_n; i++) {
        const struct embedded_file *f = &embedded_files[i];
        assert_true(f->n > 0);
        if (!f->gzip)
            continue;
        n_packed++;
        assert_true(f->n_gzip < f->n);
        assert_memory_equal(f->gzip, "\x1f\x8b\x08", 3);
        assert_int_equal(f->gzip[f->n_gzip - 4] | f->gzip[f->n_gzip - 3] << 8 |
                             f->gzip[f->n_gzip - 2] << 16,
                         (int)f->n); /* its length modulo 2^32 ends it */
    }
    assert_true(n_packed > 0);
}

/* ---- routes ---- */

static void routes_lead_to_the_pages(void **state)
{
    static const struct {
        const char *path;
        enum http_route_result result;
        enum route_access access;
    } cases[] = {
        { "/", HTTP_ROUTE_FOUND, ROUTE_IS_OPEN },
        { "/ui/status", HTTP_ROUTE_FOUND, ROUTE_IS_OPEN },
        { "/ui/status.json", HTTP_ROUTE_FOUND, ROUTE_IS_METRICS },
        { "/ui/assets/x.js", HTTP_ROUTE_FOUND, ROUTE_IS_OPEN },
        { "/predict/ui/status", HTTP_ROUTE_FOUND, ROUTE_IS_OPEN },
        { "/ui/assets/", HTTP_ROUTE_NO_PATH, 0 },
        { "/ui", HTTP_ROUTE_NO_PATH, 0 },
    };
    struct rig *r = *state;
    char allow[HTTP_ALLOW_BYTES];

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct route *route = NULL;
        assert_int_equal(routes_find(&r->service, HTTP_GET, cases[i].path, NULL, &route, allow),
                         cases[i].result);
        if (cases[i].result != HTTP_ROUTE_FOUND)
            continue;
        assert_int_equal(route->access, cases[i].access);
        assert_int_equal(routes_find(&r->service, HTTP_HEAD, cases[i].path, NULL, &route, allow),
                         HTTP_ROUTE_FOUND);
    }
}

static void state_is_told_in_full(void **state)
{
    struct rig *r = *state;
    struct board *b = &r->service.board;
    struct reply reply;
    struct err e;
    json_t *v, *p;

    snprintf(board_slot(b, board_rank_slot(b, 1, 1))->name, 32, "worker 1.1");
    atomic_store(&board_slot(b, board_rank_slot(b, 1, 1))->restarts, 3);
    atomic_store(&board_slot(b, board_rank_slot(b, 1, 1))->state, PROCESS_BACKOFF);
    snprintf(board_slot(b, board_rank_slot(b, 1, 1))->last_exit, 320, "killed by \"signal 9\"");
    stat_add(&board_slot(b, board_rank_slot(b, 1, 0))->stats, STAT_generated_tokens, 12);
    stat_sub(&board_slot(b, BOARD_SLOT_GATEWAY)->stats, STAT_requests_queued, 1);
    hist_observe(&board_slot(b, board_rank_slot(b, 0, 0))->stats, HIST_step_seconds, 1e9);
    hist_observe(&board_slot(b, board_rank_slot(b, 1, 0))->stats, HIST_step_seconds, 1e9);
    atomic_store(&r->service.is_draining, 1);
    reply_init(&reply);
    page_status_json(&r->service, NULL, &reply);
    v = json_parse(reply.body.data, reply.body.n, &e);
    assert_non_null(v);
    assert_string_equal(json_string_value(json_object_get(v, "state")), "draining");
    assert_string_equal(json_string_value(json_object_get(v, "model")), "stories-demo");
    assert_int_equal(json_array_size(json_object_get(v, "processes")), 6);
    p = json_array_get(json_object_get(v, "processes"), 5);
    assert_string_equal(json_string_value(json_object_get(p, "name")), "worker 1.1");
    assert_string_equal(json_string_value(json_object_get(p, "state")), "backoff");
    assert_string_equal(json_string_value(json_object_get(p, "last_exit")),
                        "killed by \"signal 9\"");
    assert_int_equal(json_integer_value(json_object_get(p, "restarts")), 3);
    assert_int_equal(json_integer_value(json_object_get(p, "group")), 1);
    assert_int_equal(json_integer_value(json_object_get(p, "rank")), 1);
    p = json_array_get(json_object_get(v, "groups"), 1);
    assert_int_equal(json_integer_value(json_object_get(p, "generated_tokens")), 12);
    p = json_object_get(v, "gateway");
    assert_int_equal(json_integer_value(json_object_get(p, "requests_queued")), -1);
    p = json_object_get(json_object_get(v, "histograms"), "step_seconds");
    assert_int_equal(json_array_size(json_object_get(p, "counts")),
                     json_array_size(json_object_get(p, "bounds")) + 1);
    p = json_object_get(p, "counts");
    assert_int_equal(json_integer_value(json_array_get(p, json_array_size(p) - 1)), 2);
    json_decref(v);
    reply_fini(&reply);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists_name_words),
        cmocka_unit_test(tags_compare_weakly),
        cmocka_unit_test(pages_are_asked_for_again_and_assets_never),
        cmocka_unit_test(files_are_packed_for_who_can_unpack),
        cmocka_unit_test(what_is_known_is_not_sent_again),
        cmocka_unit_test(pages_run_our_scripts_alone),
        cmocka_unit_test(pages_refer_to_what_is_built_in),
        cmocka_unit_test(packed_files_are_gzip_and_shorter),
        cmocka_unit_test(routes_lead_to_the_pages),
        cmocka_unit_test(state_is_told_in_full),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
