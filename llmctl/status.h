/* status.h - a Status as people and programs read it. */
#ifndef LLMD_LLMCTL_STATUS_H
#define LLMD_LLMCTL_STATUS_H

#include <stdbool.h>

#include "common/buf.h"
#include "proto/llmd.pb-c.h"

/* Several lines and two tables, cut to `width` columns (0 = never). */
void status_put_table(struct buf *out, const Llmd__Status *s, bool colours, unsigned width);

/* One object with every field under its name in llmd.proto, and a newline. */
void status_put_json(struct buf *out, const Llmd__Status *s);

#endif
