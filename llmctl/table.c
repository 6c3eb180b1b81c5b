/* table.c - align rows of text.  A character counts as one column: good for names and numbers. */
#include "llmctl/table.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "common/utf8.h"

enum { GAP = 2, CELL_BYTES = 512 };

void table_init(struct table *t, const struct table_column *columns, size_t n_columns)
{
    *t = (struct table){ .columns = columns, .n_columns = n_columns };
}

void table_fini(struct table *t)
{
    free(t->cells);
    arena_fini(&t->text);
    *t = (struct table){ 0 };
}

void table_add(struct table *t, enum tint tint, const char *fmt, ...)
{
    char text[CELL_BYTES];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    for (char *c = text; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = ' ';
    if (t->n_cells == t->cap) {
        t->cap = t->cap ? 2 * t->cap : 64;
        t->cells = mem_realloc(t->cells, t->cap * sizeof *t->cells);
    }
    t->cells[t->n_cells++] =
        (struct table_cell){ .text = arena_strdup(&t->text, text), .tint = tint };
}

static size_t columns_of(const char *text)
{
    size_t n = 0;

    for (; *text; text++)
        n += !utf8_is_continuation(*text);
    return n;
}

size_t table_bytes_of(const char *text, size_t n)
{
    size_t at = 0;

    while (text[at] && (n > 0 || utf8_is_continuation(text[at])))
        n -= !utf8_is_continuation(text[at++]);
    return at;
}

static void measure(const struct table *t, size_t *widths)
{
    for (size_t i = 0; i < t->n_columns; i++)
        widths[i] = columns_of(t->columns[i].title);
    for (size_t i = 0; i < t->n_cells; i++) {
        size_t n = columns_of(t->cells[i].text);
        if (n > widths[i % t->n_columns])
            widths[i % t->n_columns] = n;
    }
}

struct line {
    struct buf *out;
    size_t used, width; /* columns; width 0 = any */
    bool colours;
};

static void add_spaces(struct line *l, size_t n)
{
    while (n-- > 0 && (l->width == 0 || l->used < l->width)) {
        buf_add_char(l->out, ' ');
        l->used++;
    }
}

static void add_text(struct line *l, const char *text, enum tint tint)
{
    size_t room = l->width ? l->width - l->used : SIZE_MAX, n = columns_of(text);
    char cut[CELL_BYTES];

    if (room == 0)
        return;
    if (n > room) {
        n = room;
        snprintf(cut, sizeof cut, "%.*s", (int)table_bytes_of(text, room), text);
        text = cut;
    }
    terminal_add(l->out, text, tint, l->colours);
    l->used += n;
}

static void add_row(struct line l, const struct table *t, const struct table_cell *cells,
                    const size_t *widths)
{
    for (size_t i = 0; i < t->n_columns; i++) {
        size_t pad = widths[i] - columns_of(cells[i].text);
        bool is_right = t->columns[i].align == TABLE_RIGHT;
        if (is_right)
            add_spaces(&l, pad);
        add_text(&l, cells[i].text, cells[i].tint);
        if (i + 1 < t->n_columns)
            add_spaces(&l, GAP + (is_right ? 0 : pad));
    }
    buf_add_char(l.out, '\n');
}

void table_print(const struct table *t, struct buf *out, bool colours, unsigned width)
{
    struct line l = { .out = out, .width = width, .colours = colours };
    struct table_cell *titles = mem_zalloc(t->n_columns, sizeof *titles);
    size_t *widths = mem_zalloc(t->n_columns, sizeof *widths);

    assert(t->n_cells % t->n_columns == 0);
    measure(t, widths);
    for (size_t i = 0; i < t->n_columns; i++)
        titles[i] = (struct table_cell){ .text = t->columns[i].title, .tint = TINT_TITLE };
    add_row(l, t, titles, widths);
    for (size_t i = 0; i < t->n_cells; i += t->n_columns)
        add_row(l, t, t->cells + i, widths);
    free(titles);
    free(widths);
}
