/* terminal.h - what people see: colours, sizes and times in words, and text that is safe to show. */
#ifndef LLMD_LLMCTL_TERMINAL_H
#define LLMD_LLMCTL_TERMINAL_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"

enum tint { TINT_NONE, TINT_TITLE, TINT_DIM, TINT_GOOD, TINT_WARNING, TINT_BAD };

/* Colours are wanted on this descriptor: a terminal that is not dumb, and NO_COLOR is not set. */
bool terminal_has_colours(int fd);

/* Columns of the terminal behind fd, or 0 when it is none. */
unsigned terminal_width(int fd);

/* Append text, in a colour when `colours`. */
void terminal_add(struct buf *out, const char *text, enum tint tint, bool colours);

/* Append text without anything a terminal would obey: control characters but newline and tab, and the
 * C1 set, are left out.  A character may be split between calls: *held (0 at first) keeps its begin. */
void terminal_add_safe(struct buf *out, const char *bytes, size_t n, unsigned char *held);

/* "3d 4h", "2m 05s", "870 ms". */
void terminal_duration(char *out, size_t n, uint64_t ns);

/* "1.5 GiB". */
void terminal_bytes(char *out, size_t n, uint64_t bytes);

/* SIGINT and SIGTERM become readable on the returned descriptor from now on.  -1 when that fails. */
int terminal_catch_interrupt(void);

/* An interrupt has come since; it is used up. */
bool terminal_was_interrupted(int fd);

/* Sleep, but for an interrupt.  False when one came. */
bool terminal_sleep(int interrupt_fd, unsigned ms);

#endif
