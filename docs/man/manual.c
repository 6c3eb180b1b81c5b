/* manual.c - make-manual: fill the templates of manual pages from the tables of the programs, at build time.
 *
 *   make-manual TEMPLATE > PAGE
 *
 * A template is mdoc(7).  Lines of it that stand for lists:
 *
 *   @commands       every command of llmctl with its options (llmctl/commands.c)
 *   @settings       every setting as an option of llmd (common/config.def)
 *   @keys           the same as keys of the settings file */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/config.h"
#include "llmctl/commands.h"

enum { COLUMNS = 78 };

/* ---- text ---- */

/* A word or sentence for roff: no line of it is a request, and hyphens of options are hyphens. */
static void put_escaped(struct buf *out, const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        bool begins = out->n == 0 || out->data[out->n - 1] == '\n';
        if (text[i] == '\\')
            buf_add_str(out, "\\e");
        else if (text[i] == '-')
            buf_add_str(out, "\\-");
        else if (text[i] == '`' || text[i] == '\'')
            buf_add_str(out, text[i] == '`' ? "\\(ga" : "\\(aq");
        else {
            if (begins && text[i] == '.')
                buf_add_str(out, "\\&");
            buf_add_char(out, text[i]);
        }
    }
}

static bool ends_sentence(const char *text, size_t i)
{
    return text[i] == '.' && text[i + 1] == ' ' &&
           (text[i + 2] == ' ' || isupper((unsigned char)text[i + 2]) ||
            isdigit((unsigned char)text[i + 2]) || text[i + 2] == '-');
}

/* Each sentence on a line of its own, as mdoc wants it. */
static void put_text(struct buf *out, const char *text)
{
    size_t begin = 0, n = strlen(text);

    for (size_t i = 0; i < n; i++)
        if (ends_sentence(text, i)) {
            put_escaped(out, text + begin, i + 1 - begin);
            buf_add_char(out, '\n');
            begin = i + 2;
            while (text[begin] == ' ')
                begin++;
        }
    put_escaped(out, text + begin, n - begin);
    buf_add_char(out, '\n');
}

/* One argument of a macro: in quotes, with what they would end doubled. */
static void put_argument(struct buf *out, const char *text)
{
    struct buf escaped = { 0 };

    put_escaped(&escaped, text, strlen(text));
    buf_add_char(out, '"');
    for (size_t i = 0; i < escaped.n; i++) {
        if (escaped.data[i] == '"')
            buf_add_char(out, '"');
        buf_add_char(out, escaped.data[i]);
    }
    buf_add_char(out, '"');
    buf_fini(&escaped);
}

/* ---- commands ---- */

static void put_option(void *arg, const struct argp_option *o)
{
    struct buf *out = arg;

    if (strcmp(o->name, "runtime-dir") == 0) /* of all: in OPTIONS */
        return;
    buf_add_str(out, ".It ");
    if (o->key > ' ' && o->key < 127 && isalnum(o->key))
        buf_printf(out, "Fl %c , ", o->key);
    buf_add_str(out, "Fl Fl ");
    put_escaped(out, o->name, strlen(o->name));
    if (o->arg) {
        buf_add_str(out, " Ns = Ns Ar ");
        put_argument(out, o->arg);
    }
    buf_add_char(out, '\n');
    put_text(out, o->doc);
}

/* The text before and behind the \v of an argp's .doc, as paragraphs. */
static void put_doc(struct buf *out, const char *doc)
{
    const char *rest = strchr(doc, '\v');
    char *first = rest ? strndup(doc, (size_t)(rest - doc)) : strdup(doc);

    put_text(out, first);
    if (rest)
        put_text(out, rest + 1);
    free(first);
}

/* "inspect MODEL\nverify MODEL": a line each. */
static void put_synopsis(struct buf *out, const struct command *c)
{
    char *all = strdup(c->argp->args_doc ? c->argp->args_doc : ""), *rest = all, *line;

    while ((line = strsep(&rest, "\n"))) {
        buf_printf(out, ".It Cm %s Oo Ar option ... Oc", c->name);
        if (line[0]) {
            buf_add_str(out, " Ar ");
            put_argument(out, line);
        }
        buf_add_char(out, '\n');
    }
    free(all);
}

static void put_commands(struct buf *out)
{
    buf_add_str(out, ".Bl -tag -width Ds\n");
    for (const struct command *c = commands; c->name; c++) {
        struct buf options = { 0 };
        put_synopsis(out, c);
        put_doc(out, c->argp->doc);
        options_each(c->argp, put_option, &options);
        if (options.n > 0) {
            buf_add_str(out, ".Bl -tag -width Ds\n");
            buf_add(out, options.data, options.n);
            buf_add_str(out, ".El\n");
        }
        buf_fini(&options);
    }
    buf_add_str(out, ".El\n");
}

/* ---- settings ---- */

static const char *const aliases[N_CONFIG] = {
#define NUM(name, def, min, max, when, alias, help)  alias,
#define REAL(name, def, min, max, when, alias, help) alias,
#define TEXT(name, def, when, alias, help)           alias,
#define CHOICE(name, def, words, when, alias, help)  alias,
#include "common/config.def"
#undef NUM
#undef REAL
#undef TEXT
#undef CHOICE
};

static void put_where(struct buf *out, enum config_id id)
{
    char range[256];

    config_range(id, range, sizeof range);
    buf_add_str(out, "Default");
    if (strchr(range, '('))
        buf_add_str(out, " and range");
    buf_add_str(out, ": ");
    put_escaped(out, range, strlen(range));
    buf_add_str(out, config_is_live(id) ? "; a reload changes it.\n" : "; a restart changes it.\n");
    buf_add_str(out, "Environment:\n.Ev LLMD_");
    for (const char *c = config_name(id); *c; c++)
        buf_add_char(out, (char)toupper((unsigned char)*c));
    for (const char *a = aliases[id]; *a;) {
        size_t n = strcspn(a, "|");
        buf_printf(out, " , %.*s", (int)n, a);
        a += n + (a[n] == '|');
    }
    buf_add_str(out, " .\n");
}

static void put_setting(struct buf *out, enum config_id id, bool as_option)
{
    if (as_option) {
        buf_add_str(out, ".It Fl Fl ");
        for (const char *c = config_name(id); *c; c++)
            buf_add_str(out, *c == '_' ? "\\-" : (char[]){ *c, '\0' });
        buf_add_str(out, " Ns = Ns Ar value\n");
    } else {
        buf_printf(out, ".It Ic %s\n", config_name(id));
    }
    put_text(out, config_help(id));
    put_where(out, id);
}

static void put_settings(struct buf *out, bool as_options)
{
    buf_add_str(out, ".Bl -tag -width Ds\n");
    for (int i = 0; i < N_CONFIG; i++)
        if (config_name((enum config_id)i)[0])
            put_setting(out, (enum config_id)i, as_options);
    buf_add_str(out, ".El\n");
}

/* ---- templates ---- */

static void fill(struct buf *out, const char *line)
{
    if (strcmp(line, "@commands\n") == 0)
        put_commands(out);
    else if (strcmp(line, "@settings\n") == 0)
        put_settings(out, true);
    else if (strcmp(line, "@keys\n") == 0)
        put_settings(out, false);
    else
        buf_add_str(out, line);
}

/* Lines of text are broken at spaces; requests and displays stay as they are. */
static void put_wrapped(struct buf *out, const struct buf *page)
{
    bool is_display = false;

    for (char *rest = page->data, *line; (line = strsep(&rest, "\n")) && rest;) {
        size_t n = strlen(line), cut;
        is_display = strncmp(line, ".Bd", 3) == 0 || (is_display && strncmp(line, ".Ed", 3) != 0);
        while (n > COLUMNS && line[0] != '.' && !is_display) {
            for (cut = COLUMNS; cut > 0 && line[cut] != ' '; cut--) {
            }
            if (cut == 0)
                break;
            buf_add(out, line, cut);
            buf_add_char(out, '\n');
            line += cut + 1;
            n -= cut + 1;
        }
        buf_printf(out, "%s\n", line);
    }
}

int main(int argc, char **argv)
{
    struct buf out = { 0 }, page = { 0 };
    char *line = NULL;
    size_t cap = 0;
    FILE *f;

    if (argc != 2 || !(f = fopen(argv[1], "re"))) {
        fprintf(stderr, "make-manual: %s\n", argc == 2 ? strerror(errno) : "which template?");
        return EXIT_FAILURE;
    }
    while (getline(&line, &cap, f) > 0)
        fill(&out, line);
    free(line);
    fclose(f);
    put_wrapped(&page, &out);
    fwrite(page.data, 1, page.n, stdout);
    buf_fini(&page);
    buf_fini(&out);
    return fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
