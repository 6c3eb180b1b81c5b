/* test_migration.c - the tables of docs/migrating-from-*.md are those of the sources.
 *
 * What would break in production: somebody moves a deployment by a table that tells of an option that is taken
 * no longer, or keeps one from him that would have been obeyed.
 *
 * LLMD_WRITE_DOCS=1 writes the tables into the documents instead of comparing. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/file.h"
#include "supervisor/foreign.h"
#include "tests/check.h"

#define BEGIN "<!-- options -->\n"
#define END   "<!-- end -->\n"

static void put_option_name(struct buf *out, const char *setting)
{
    for (; *setting; setting++)
        buf_printf(out, "%c", *setting == '_' ? '-' : *setting);
}

/* | option | setting | remark | */
static void put_row(struct buf *out, const struct foreign_option *o)
{
    bool is_own = config_find(o->name) >= 0;

    buf_printf(out, "| `--%s` | ", o->name);
    if (is_own) {
        buf_add_str(out, "the same");
    } else if (o->setting >= 0) {
        buf_add_str(out, "`--");
        put_option_name(out, config_name((enum config_id)o->setting));
        if (!o->has_value)
            buf_printf(out, " %s", o->value);
        buf_add_str(out, "`");
    } else {
        buf_add_str(out, "no effect");
    }
    buf_printf(out, " | %s |\n", o->remark);
}

static void make_table(struct buf *out, enum foreign_server server)
{
    const struct foreign_option *o;

    buf_add_str(out, "| option | here | remark |\n| --- | --- | --- |\n");
    for (size_t i = 0; (o = foreign_row(i)); i++)
        if (o->server & server)
            put_row(out, o);
}

static char *read_document(const char *path)
{
    FILE *f = fopen(path, "r");
    struct buf text = { 0 };
    char piece[4096];
    size_t n;

    assert_non_null(f);
    while ((n = fread(piece, 1, sizeof piece, f)) > 0)
        buf_add(&text, piece, n);
    fclose(f);
    return buf_take(&text);
}

static void write_document(const char *path, const char *text, const char *table)
{
    const char *begin = strstr(text, BEGIN), *end = strstr(text, END);
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    fprintf(f, "%.*s%s%s", (int)(begin + strlen(BEGIN) - text), text, table, end);
    assert_int_equal(fclose(f), 0);
}

static void expect_table(const char *document, enum foreign_server server)
{
    struct buf table = { 0 };
    char path[512];
    char *text;
    const char *begin, *end;

    snprintf(path, sizeof path, TEST_SOURCE_DIR "/docs/%s", document);
    text = read_document(path);
    begin = strstr(text, BEGIN);
    end = strstr(text, END);
    assert_true(begin && end && begin < end);
    make_table(&table, server);
    if (getenv("LLMD_WRITE_DOCS"))
        write_document(path, text, table.data);
    else if (strlen(table.data) != (size_t)(end - begin) - strlen(BEGIN) ||
             strncmp(begin + strlen(BEGIN), table.data, table.n) != 0)
        fail_msg("docs/%s is not what supervisor/foreign.def says: run test_migration with "
                 "LLMD_WRITE_DOCS=1",
                 document);
    free(text);
    buf_fini(&table);
}

static void tgis_options_are_those_that_are_taken(void **state)
{
    (void)state;
    expect_table("migrating-from-tgi.md", FOREIGN_TGI);
}

static void vllms_options_are_those_that_are_taken(void **state)
{
    (void)state;
    expect_table("migrating-from-vllm.md", FOREIGN_VLLM);
}

/* A row OWN of a name that is none of ours would be an option that is refused. */
static void options_that_are_called_ours_are(void **state)
{
    const struct foreign_option *o;
    size_t n_own = 0;

    (void)state;
    for (size_t i = 0; (o = foreign_row(i)); i++) {
        assert_true(o->setting >= 0 || o->remark[0] || config_find(o->name) >= 0);
        n_own += config_find(o->name) >= 0;
    }
    assert_true(n_own >= 15);
}

/* Every `--option` in the second column of the document is a setting. */
static void llama_cpps_options_lead_to_settings(void **state)
{
    char *text = read_document(TEST_SOURCE_DIR "/docs/migrating-from-llamacpp.md");
    size_t n = 0;

    (void)state;
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        char *second = line[0] == '|' ? strstr(line, " | ") : NULL;
        char name[80];
        if (!second || sscanf(second, " | `--%79[a-z-]", name) != 1)
            continue;
        if (config_find(name) < 0)
            fail_msg("docs/migrating-from-llamacpp.md: --%s is no setting", name);
        n++;
    }
    assert_true(n >= 12);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_that_are_called_ours_are),
        cmocka_unit_test(tgis_options_are_those_that_are_taken),
        cmocka_unit_test(vllms_options_are_those_that_are_taken),
        cmocka_unit_test(llama_cpps_options_lead_to_settings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
