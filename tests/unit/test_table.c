/* test_table.c - aligned text for people.
 *
 * What would break in production: columns that do not line up, or a last word of a process that paints
 * the operator's terminal. */
#include "llmctl/table.h"

#include "tests/check.h"

static const struct table_column columns[] = { { "NAME", TABLE_LEFT },
                                               { "PID", TABLE_RIGHT },
                                               { "LAST", TABLE_LEFT } };

static void fill(struct table *t)
{
    table_init(t, columns, 3);
    table_add(t, TINT_NONE, "worker %d.%d", 0, 1);
    table_add(t, TINT_NONE, "%d", 12345);
    table_add(t, TINT_BAD, "signal 9");
    table_add(t, TINT_NONE, "\xc3\xa9t\xc3\xa9");
    table_add(t, TINT_NONE, "7");
    table_add(t, TINT_NONE, "-");
}

static void table_aligns_columns_by_characters(void **state)
{
    struct buf out = { 0 };
    struct table t;

    (void)state;
    fill(&t);
    table_print(&t, &out, false, 0);
    assert_string_equal(out.data, "NAME          PID  LAST\n"
                                  "worker 0.1  12345  signal 9\n"
                                  "\xc3\xa9t\xc3\xa9             7  -\n");
    table_fini(&t);
    table_fini(&t);
    buf_fini(&out);
}

static void table_cuts_lines_to_the_width_between_characters(void **state)
{
    (void)state;
    for (unsigned width = 1; width < 40; width++) {
        struct buf out = { 0 };
        struct table t;
        fill(&t);
        table_print(&t, &out, false, width);
        size_t used = 0;
        for (const char *c = out.data; *c; c++) {
            if (*c == '\n')
                used = 0;
            else
                used += ((unsigned char)*c & 0xc0) != 0x80;
            assert_true(used <= width);
            if ((unsigned char)*c >= 0xc0)
                assert_true(((unsigned char)c[1] & 0xc0) == 0x80);
        }
        table_fini(&t);
        buf_fini(&out);
    }
}

static void table_colours_go_around_the_text(void **state)
{
    struct buf out = { 0 };
    struct table t;

    (void)state;
    fill(&t);
    table_print(&t, &out, true, 0);
    assert_non_null(strstr(out.data, "\033[1mNAME\033[0m          \033[1mPID\033[0m"));
    assert_non_null(strstr(out.data, "12345  \033[31msignal 9\033[0m\n"));
    table_fini(&t);
    buf_fini(&out);
}

static void table_cells_hold_no_control_characters(void **state)
{
    struct buf out = { 0 };
    struct table t;

    (void)state;
    table_init(&t, columns, 3);
    table_add(&t, TINT_NONE, "a\nb");
    table_add(&t, TINT_NONE, "\x1b[2J");
    table_add(&t, TINT_NONE,
              "x\xc2\x9b"
              "2Jy\x7f");
    table_print(&t, &out, false, 0);
    assert_string_equal(strchr(out.data, '\n'), "\na b    [2J  x2Jy \n");
    table_fini(&t);
    buf_fini(&out);
}

static void table_of_no_rows_has_titles(void **state)
{
    struct buf out = { 0 };
    struct table t;

    (void)state;
    table_init(&t, columns, 3);
    table_print(&t, &out, false, 0);
    assert_string_equal(out.data, "NAME  PID  LAST\n");
    table_fini(&t);
    buf_fini(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(table_aligns_columns_by_characters),
        cmocka_unit_test(table_cuts_lines_to_the_width_between_characters),
        cmocka_unit_test(table_colours_go_around_the_text),
        cmocka_unit_test(table_cells_hold_no_control_characters),
        cmocka_unit_test(table_of_no_rows_has_titles),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
