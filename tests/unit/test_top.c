/* test_top.c - the screen of `llmctl top`, and the quantiles on it.
 *
 * What would break in production: a frame larger than the terminal, which scrolls and flickers, or a percentile
 * of yesterday. */
#include "llmctl/top_view.h"

#include <stdio.h>

#include "tests/check.h"

/* ---- histograms ---- */

static const char page[] = "# HELP x y\n"
                           "x_bucket{le=\"0.1\"} 10\n"
                           "xx_bucket{le=\"0.1\"} 99\n"
                           "x_bucket{le=\"0.2\"} 30\n"
                           "x_bucket{le=\"+Inf\"} 40\n"
                           "x_sum 5\nx_count 40\n";

static void quantiles_are_linear_within_a_bucket(void **state)
{
    struct metrics_histogram h;

    (void)state;
    assert_true(metrics_histogram_read(&h, page, "x"));
    assert_int_equal(h.n, 3);
    assert_true(metrics_quantile(&h, 0.25) > 0.0999 && metrics_quantile(&h, 0.25) < 0.1001);
    assert_true(metrics_quantile(&h, 0.5) > 0.1499 && metrics_quantile(&h, 0.5) < 0.1501);
    assert_true(metrics_quantile(&h, 0.99) > 0.1999 && metrics_quantile(&h, 0.99) < 0.2001);
    assert_false(metrics_histogram_read(&h, page, "y"));
    assert_true(metrics_quantile(&h, 0.5) < 0);
}

static void only_what_came_since_counts(void **state)
{
    struct metrics_histogram before, now, since;

    (void)state;
    metrics_histogram_read(&before, page, "x");
    now = before;
    now.counts[1] += 10; /* ten between 0.1 and 0.2 */
    now.counts[2] += 10;
    since = metrics_histogram_since(&before, &now);
    assert_true(since.counts[0] == 0 && since.counts[1] == 10 && since.counts[2] == 10);
    assert_true(metrics_quantile(&since, 0.5) > 0.149 && metrics_quantile(&since, 0.5) < 0.151);
    since = metrics_histogram_since(&now, &before); /* a server that began anew */
    assert_true(since.counts[2] == before.counts[2]);
    since = metrics_histogram_since(NULL, &now);
    assert_true(since.counts[2] == now.counts[2]);
}

static void strange_pages_are_no_trap(void **state)
{
    static const char *const pages[] = {
        "",
        "x_bucket",
        "x_bucket{le=\"",
        "x_bucket{le=\"1\"",
        "x_bucket{le=\"nan\"} 1\n",
        "x_bucket{le=\"1\"} -5\n",
        "x_bucket{le=\"1\"} x\nx_bucket{le=\"0.5\"} 1\n",
    };
    struct metrics_histogram h;

    (void)state;
    for (size_t i = 0; i < sizeof pages / sizeof *pages; i++) {
        metrics_histogram_read(&h, pages[i], "x");
        assert_true(h.n <= 1);
    }
}

/* ---- the screen ---- */

static Llmd__ProcessStatus processes[12], *process_list[12];
static Llmd__GroupStatus group = LLMD__GROUP_STATUS__INIT, *groups[] = { &group };
static Llmd__Status status_of_server(void)
{
    static char names[12][16];
    Llmd__Status s = LLMD__STATUS__INIT;

    for (int i = 0; i < 12; i++) {
        processes[i] = (Llmd__ProcessStatus)LLMD__PROCESS_STATUS__INIT;
        snprintf(names[i], sizeof names[i], "worker %d.0", i);
        processes[i].name = names[i];
        processes[i].state = "ready";
        processes[i].pid = 100 + (uint32_t)i;
        processes[i].restarts = i == 5 ? 3 : 0;
        processes[i].rss_bytes = (uint64_t)(i + 1) << 20;
        processes[i].uptime_ns = (uint64_t)(20 - i) * 1000000000;
        process_list[i] = &processes[i];
    }
    group.state = "up";
    group.sequences_running = 7;
    group.sequences_waiting = 2;
    group.kv_pages_used = 50;
    group.tokens_per_s = 123.4;
    s.version = "0.1.0";
    s.state = "ready";
    s.served_model_name = "demo";
    s.kv_pages = 100;
    s.processes = process_list;
    s.n_processes = 12;
    s.groups = groups;
    s.n_groups = 1;
    return s;
}

static struct top_view view;

static const char *screen_of(unsigned columns, unsigned rows, bool utf8)
{
    static struct buf out;
    const struct top_screen screen = { .columns = columns, .rows = rows, .utf8 = utf8 };

    buf_clear(&out);
    top_view_put(&out, &view, &screen);
    return out.data;
}

static void check_size(const char *text, unsigned columns, unsigned rows)
{
    unsigned row = 1, column = 0;

    for (; *text; text++) {
        if (*text == '\n') {
            row++;
            column = 0;
        } else if (((unsigned char)*text & 0xc0) != 0x80 && ++column > columns)
            fail_msg("line %u is wider than %u", row, columns);
    }
    assert_int_equal(row, rows);
}

static void a_frame_fits_any_screen(void **state)
{
    static const unsigned sizes[][2] = { { 80, 24 }, { 200, 60 }, { 40, 10 }, { 20, 3 }, { 5, 1 } };
    Llmd__Status s = status_of_server();

    (void)state;
    view = (struct top_view){ .status = &s, .interval_ms = 1000 };
    for (int i = 0; i < 300; i++)
        top_view_sample(&view, NULL, (uint64_t)i * 1000000000);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        check_size(screen_of(sizes[i][0], sizes[i][1], true), sizes[i][0], sizes[i][1]);
        check_size(screen_of(sizes[i][0], sizes[i][1], false), sizes[i][0], sizes[i][1]);
    }
}

static void it_shows_load_and_keys(void **state)
{
    static const char *const words[] = {
        "123.4",  "7 running",  "2 waiting", "50 of 100",  "##########..........",
        "q quit", "worker 0.0", "demo",      "sort (name)"
    };
    Llmd__Status s = status_of_server();

    (void)state;
    view = (struct top_view){ .status = &s, .interval_ms = 1000 };
    top_view_sample(&view, NULL, 1);
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (!strstr(screen_of(100, 40, false), words[i]))
            fail_msg("'%s' is not in\n%s", words[i], screen_of(100, 40, false));
}

static void processes_come_in_the_chosen_order(void **state)
{
    static const char *const first[N_TOP_ORDERS] = { "worker 0.0", "worker 11.0", "worker 5.0",
                                                     "worker 11.0" };
    Llmd__Status s = status_of_server();

    (void)state;
    view = (struct top_view){ .status = &s, .interval_ms = 1000 };
    top_view_sample(&view, NULL, 1);
    for (int i = 0; i < N_TOP_ORDERS; i++) {
        const char *text, *at;
        view.order = (enum top_order)i;
        text = screen_of(100, 40, false);
        at = strstr(text, "LAST EXIT\n");
        assert_non_null(at);
        if (strncmp(at + 10, first[i], strlen(first[i])) != 0)
            fail_msg("order %d begins with %.12s", i, at + 10);
    }
}

static void a_server_that_is_away_is_told(void **state)
{
    (void)state;
    view =
        (struct top_view){ .interval_ms = 1000, .trouble = "no llmd at '/run/llmd/control.sock'" };
    assert_non_null(strstr(screen_of(80, 24, false), "no server: no llmd at"));
    check_size(screen_of(80, 24, false), 80, 24);
}

static void rates_become_blocks(void **state)
{
    Llmd__Status s = status_of_server();

    (void)state;
    view = (struct top_view){ .status = &s, .interval_ms = 1000 };
    for (int i = 0; i < 3; i++) {
        group.tokens_per_s = i == 1 ? 0 : 70;
        top_view_sample(&view, NULL, (uint64_t)i);
    }
    assert_non_null(strstr(screen_of(80, 24, false), "#_#"));
    assert_non_null(strstr(screen_of(80, 24, true), "\xe2\x96\x88\xe2\x96\x81\xe2\x96\x88"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quantiles_are_linear_within_a_bucket),
        cmocka_unit_test(only_what_came_since_counts),
        cmocka_unit_test(strange_pages_are_no_trap),
        cmocka_unit_test(a_frame_fits_any_screen),
        cmocka_unit_test(it_shows_load_and_keys),
        cmocka_unit_test(processes_come_in_the_chosen_order),
        cmocka_unit_test(a_server_that_is_away_is_told),
        cmocka_unit_test(rates_become_blocks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
