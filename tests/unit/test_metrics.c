/* test_metrics.c - a scraper refuses a whole page for one bad line, and a histogram that is not cumulative
 * makes quantiles of nonsense. */
#include "tests/unit/gateway_rig.h"

#include "common/file.h"
#include "gateway/metrics/metrics.h"
#include "gateway/pages.h"

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

static void page(struct rig *r, struct reply *reply)
{
    reply_init(reply);
    page_metrics(&r->service, NULL, reply);
    assert_string_equal(reply->headers[0].value, "text/plain; version=0.0.4; charset=utf-8");
}

static void numbers_stand_under_their_owner(void **state)
{
    struct rig *r = *state;
    struct board *b = &r->service.board;
    struct reply reply;

    stat_add(&board_slot(b, BOARD_SLOT_GATEWAY)->stats, STAT_requests_generate, 5);
    stat_add(&board_slot(b, board_rank_slot(b, 1, 0))->stats, STAT_steps, 9);
    stat_sub(&board_slot(b, board_rank_slot(b, 0, 0))->stats, STAT_sequences_running, 1);
    page(r, &reply);
    assert_non_null(strstr(reply.body.data, "\n# TYPE llmd_requests_generate_total counter\n"
                                            "llmd_requests_generate_total 5\n"));
    assert_non_null(strstr(reply.body.data, "llmd_steps_total{group=\"0\"} 0\n"
                                            "llmd_steps_total{group=\"1\"} 9\n"));
    assert_non_null(strstr(reply.body.data, "llmd_sequences_running{group=\"0\"} -1\n"));
    assert_non_null(strstr(reply.body.data, "\ntgi_request_count 5\n"));
    reply_fini(&reply);
}

static void histograms_are_cumulative_with_float_bounds(void **state)
{
    struct rig *r = *state;
    struct stats *s = &board_slot(&r->service.board, BOARD_SLOT_GATEWAY)->stats;
    struct reply reply;

    hist_observe(s, HIST_request_seconds, 0.2);
    hist_observe(s, HIST_request_seconds, 0.4);
    hist_observe(s, HIST_request_seconds, 1e6);
    page(r, &reply);
    assert_non_null(strstr(reply.body.data, "llmd_request_seconds_bucket{le=\"0.3\"} 1\n"
                                            "llmd_request_seconds_bucket{le=\"0.5\"} 2\n"));
    assert_non_null(strstr(reply.body.data, "llmd_request_seconds_bucket{le=\"1.0\"} 2\n"));
    assert_non_null(strstr(reply.body.data, "llmd_request_seconds_bucket{le=\"+Inf\"} 3\n"
                                            "llmd_request_seconds_sum 1000000.6\n"
                                            "llmd_request_seconds_count 3\n"));
    assert_non_null(strstr(reply.body.data,
                           "vllm:e2e_request_latency_seconds_count{model_name=\"stories-demo\","
                           "engine=\"0\"} 3\n"));
    reply_fini(&reply);
}

static void labels_are_escaped(void **state)
{
    struct buf out = { 0 };

    (void)state;
    metrics_label(&out, "a", "x\"y\\z\nw");
    assert_string_equal(out.data, "a=\"x\\\"y\\\\z\\nw\"");
    buf_fini(&out);
}

/* Every sample has a family announced before it, exactly once, and every line ends. */
static void page_is_well_formed(void **state)
{
    struct rig *r = *state;
    char family[128] = "";
    struct reply reply;
    char *seen[512];
    size_t n = 0;

    page(r, &reply);
    for (char *line = strtok(reply.body.data, "\n"); line; line = strtok(NULL, "\n")) {
        if (strncmp(line, "# TYPE ", 7) == 0) {
            assert_int_equal(sscanf(line, "# TYPE %127s", family), 1);
            for (size_t i = 0; i < n; i++)
                assert_string_not_equal(seen[i], family);
            assert_true(n < 512);
            seen[n++] = strdup(family);
        } else if (line[0] != '#') {
            assert_int_equal(strncmp(line, family, strlen(family)), 0);
            assert_non_null(strchr("{ _", line[strlen(family)]));
        }
    }
    assert_true(n > (size_t)N_STATS + N_HISTS);
    while (n > 0)
        free(seen[--n]);
    reply_fini(&reply);
}

/* ---- vLLM's and TGI's names ---- */

static void expect_line(const char *body, const char *line)
{
    if (!strstr(body, line))
        fail_msg("'%s' is not on the page", line);
}

#define VLLM(name, labels, value)                                                                  \
    "\nvllm:" name "{model_name=\"stories-demo\",engine=" labels "} " value "\n"

static void what_waits_in_the_gateway_waits_too(void **state)
{
    struct rig *r = *state;
    struct board *b = &r->service.board;
    struct stats *gateway = &board_slot(b, BOARD_SLOT_GATEWAY)->stats;
    struct reply reply;

    stat_set(gateway, STAT_requests_queued, 3);
    stat_set(&board_slot(b, board_rank_slot(b, 0, 0))->stats, STAT_sequences_waiting, 2);
    stat_set(&board_slot(b, board_rank_slot(b, 1, 0))->stats, STAT_sequences_waiting, 7);
    page(r, &reply);
    expect_line(reply.body.data, VLLM("num_requests_waiting", "\"0\"", "5"));
    expect_line(reply.body.data, VLLM("num_requests_waiting", "\"1\"", "7"));
    expect_line(reply.body.data,
                VLLM("num_requests_waiting_by_reason", "\"0\",reason=\"capacity\"", "5"));
    expect_line(reply.body.data, "\ntgi_queue_size 12\n");
    stat_set(gateway, STAT_requests_queued, 0);
    reply_fini(&reply);
}

static void names_of_others_have_our_numbers(void **state)
{
    struct rig *r = *state;
    struct board *b = &r->service.board;
    struct stats *gateway = &board_slot(b, BOARD_SLOT_GATEWAY)->stats;
    struct stats *group = &board_slot(b, board_rank_slot(b, 1, 0))->stats;
    struct reply reply;

    stat_add(gateway, STAT_requests_finished_stop, 4);
    stat_add(gateway, STAT_requests_finished_length, 5);
    stat_add(gateway, STAT_requests_refused_template, 2);
    stat_add(gateway, STAT_requests_refused_overload, 1);
    stat_add(gateway, STAT_requests_refused_limited, 6);
    stat_add(group, STAT_prompt_tokens, 90);
    stat_add(group, STAT_prefix_cache_hits, 10);
    stat_add(group, STAT_kv_pages_leased, 5);
    stat_add(group, STAT_draft_tokens_accepted, 8);
    atomic_store(&r->service.group_kv_pages[1], 20);
    page(r, &reply);
    expect_line(reply.body.data,
                VLLM("request_success_total", "\"0\",finished_reason=\"length\"", "5"));
    expect_line(reply.body.data,
                VLLM("prompt_tokens_by_source_total", "\"1\",source=\"local_cache_hit\"", "10"));
    expect_line(reply.body.data, VLLM("prompt_tokens_total", "\"1\"", "90"));
    expect_line(reply.body.data, VLLM("kv_cache_usage_perc", "\"1\"", "0.25"));
    expect_line(reply.body.data, VLLM("gpu_cache_usage_perc", "\"1\"", "0.25"));
    expect_line(reply.body.data, "num_gpu_blocks=\"20\",enable_prefix_caching=\"True\"} 1\n");
    expect_line(reply.body.data, "\nllmd_kv_usage_ratio{group=\"1\"} 0.25\n");
    expect_line(reply.body.data, "\nllmd_draining 0\n");
    expect_line(reply.body.data, "\ntgi_request_success 9\n");
    expect_line(reply.body.data, "\ntgi_request_failure{err=\"template\"} 2\n");
    expect_line(reply.body.data, "\ntgi_request_failure{err=\"overloaded\"} 7\n");
    expect_line(reply.body.data, "\ntgi_request_skipped_tokens_sum 8\n");
    expect_line(reply.body.data, "\ntgi_batch_current_max_tokens 80\n");
    expect_line(reply.body.data, "\ntgi_batch_max_total_tokens 320\n");
    reply_fini(&reply);
}

/* ---- the document ---- */

static char *read_document(void)
{
    struct err e;
    char *text;
    size_t n;

    assert_ok(file_read(TEST_SOURCE_DIR "/docs/metrics.md", 1 << 20, &text, &n, &e), e);
    return text;
}

static bool is_family(const char *body, const char *name)
{
    char line[160];

    snprintf(line, sizeof line, "\n# TYPE %s ", name);
    return strstr(body, line) != NULL;
}

static void expect_test(const char *cell, const char *metric)
{
    static const char *const folders[] = { "unit", "proc" };
    char name[64], path[256];

    if (!cell || sscanf(cell, "| %63[a-z_]", name) != 1)
        fail_msg("docs/metrics.md names no test of %s", metric);
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, TEST_SOURCE_DIR "/tests/%s/%s.c", folders[i], name);
        if (file_exists(path))
            return;
    }
    fail_msg("docs/metrics.md names %s, which is no test", name);
}

/* A row says what is served, and is believed: so it must be true. */
static void the_document_is_true(void **state)
{
    char *text = read_document(), *save, name[128];
    struct reply reply;
    size_t n = 0;

    page(*state, &reply);
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        bool is_absent = strstr(line, "| absent |") != NULL;
        const char *at = line[0] == '|' ? strchr(line, '`') : NULL;
        if (!at || sscanf(at, "`%127[^`]`", name) != 1 || strchr(name, '*'))
            continue;
        if (is_absent == is_family(reply.body.data, name))
            fail_msg("docs/metrics.md says that %s is %s", name, is_absent ? "absent" : "served");
        if (!is_absent)
            expect_test(strstr(line, "| test_"), name);
        n++;
    }
    assert_true(n > 100);
    free(text);
    reply_fini(&reply);
}

static void the_document_is_complete(void **state)
{
    char *text = read_document(), *save, name[128], quoted[160];
    struct reply reply;

    page(*state, &reply);
    for (char *line = strtok_r(reply.body.data, "\n", &save); line;
         line = strtok_r(NULL, "\n", &save)) {
        if (sscanf(line, "# TYPE %127s", name) != 1)
            continue;
        snprintf(quoted, sizeof quoted, "| `%s` |", name);
        if (strncmp(name, "llmd_", 5) != 0 && !strstr(text, quoted))
            fail_msg("%s is not in docs/metrics.md", name);
    }
    free(text);
    reply_fini(&reply);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_stand_under_their_owner),
        cmocka_unit_test(histograms_are_cumulative_with_float_bounds),
        cmocka_unit_test(labels_are_escaped),
        cmocka_unit_test(page_is_well_formed),
        cmocka_unit_test(what_waits_in_the_gateway_waits_too),
        cmocka_unit_test(names_of_others_have_our_numbers),
        cmocka_unit_test(the_document_is_true),
        cmocka_unit_test(the_document_is_complete),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
