/* sse.h - split a stream of bytes into server-sent events (WHATWG HTML, section 9.2).
 *
 * Bytes may come in pieces of any size.  Lines end in LF, CR LF or CR; comments and fields that nobody
 * here needs (id, retry) are skipped; an event that is not ended by an empty line is dropped. */
#ifndef LLMD_LLMCTL_SSE_H
#define LLMD_LLMCTL_SSE_H

#include "common/buf.h"
#include "common/err.h"

#define SSE_EVENT_BYTES_MAX ((size_t)8 << 20)

/* One event: its type ("message" when not named) and its data, n bytes with a NUL behind them. */
typedef void sse_event_fn(void *arg, const char *type, const char *data, size_t n);

struct sse {
    struct buf line, type, data;
    bool has_data; /* a data field came, if only an empty one */
    bool after_cr; /* the next LF belongs to the last CR */
    bool started;  /* past the place of a byte order mark */
};

/* ERR_PROTO when an event or a line is larger than SSE_EVENT_BYTES_MAX; the stream is then over. */
bool sse_feed(struct sse *s, const char *bytes, size_t n, sse_event_fn *fn, void *arg,
              struct err *e);

void sse_fini(struct sse *s); /* a zeroed struct is a new stream */

#endif
