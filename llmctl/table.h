/* table.h - rows of text under titles, each column as wide as its widest cell. */
#ifndef LLMD_LLMCTL_TABLE_H
#define LLMD_LLMCTL_TABLE_H

#include "common/arena.h"
#include "common/buf.h"
#include "llmctl/terminal.h"

enum table_align { TABLE_LEFT, TABLE_RIGHT };

struct table_column {
    const char *title;
    enum table_align align;
};

struct table_cell {
    const char *text;
    enum tint tint;
};

struct table {
    const struct table_column *columns; /* borrowed */
    size_t n_columns;
    struct table_cell *cells;
    size_t n_cells, cap;
    struct arena text;
};

void table_init(struct table *t, const struct table_column *columns, size_t n_columns);
void table_fini(struct table *t);

/* The next cell of the current row; the first cell after a full row begins a new one.  Control
 * characters become spaces. */
void table_add(struct table *t, enum tint tint, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Append titles and rows.  Lines are cut to `width` columns; 0 = never. */
void table_print(const struct table *t, struct buf *out, bool colours, unsigned width);

/* Bytes of the first n characters of text, or of all when it has fewer. */
size_t table_bytes_of(const char *text, size_t n);

#endif
