/* test_metrics.c - a scraper refuses a whole page for one bad line, and a histogram that is not cumulative
 * makes quantiles of nonsense. */
#include "tests/unit/gateway_rig.h"

#include "gateway/metrics.h"
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_stand_under_their_owner),
        cmocka_unit_test(histograms_are_cumulative_with_float_bounds),
        cmocka_unit_test(labels_are_escaped),
        cmocka_unit_test(page_is_well_formed),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
