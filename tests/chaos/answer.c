/* answer.c - see answer.h. */
#include "tests/chaos/answer.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { HEAD_BYTES_MAX = 16384, CHUNK_LINE_MAX = 16 };

static void bad(struct answer *a, const char *problem)
{
    a->phase = ANSWER_BAD;
    a->problem = problem;
}

/* ---- the head ---- */

/* The value of a header line, or NULL; *n its length. */
static const char *header(const char *line, size_t line_bytes, const char *name, size_t *n)
{
    size_t name_bytes = strlen(name);

    if (line_bytes < name_bytes + 2 || strncasecmp(line, name, name_bytes) != 0 ||
        memcmp(line + name_bytes, ": ", 2) != 0)
        return NULL;
    *n = line_bytes - name_bytes - 2;
    return line + name_bytes + 2;
}

static void read_field(struct answer *a, const char *line, size_t n, int *n_framings)
{
    const char *value;
    size_t len;

    if ((value = header(line, n, "Content-Length", &len))) {
        char *end;
        a->rest = strtoul(value, &end, 10);
        a->phase = ANSWER_LENGTH;
        ++*n_framings;
        if (!isdigit((unsigned char)value[0]) || end != value + len)
            bad(a, "malformed Content-Length");
    } else if ((value = header(line, n, "Transfer-Encoding", &len))) {
        a->phase = ANSWER_CHUNK_SIZE;
        ++*n_framings;
        if (len != 7 || strncasecmp(value, "chunked", 7) != 0)
            bad(a, "unknown Transfer-Encoding");
    } else if ((value = header(line, n, "Connection", &len))) {
        a->says_close = len == 5 && strncasecmp(value, "close", 5) == 0;
    }
}

static void read_head(struct answer *a, const char *bytes, size_t n)
{
    const char *end = memmem(bytes, n, "\r\n\r\n", 4), *line, *next;
    int n_framings = 0;

    if (!end) {
        if (n > HEAD_BYTES_MAX)
            bad(a, "endless head");
        return;
    }
    if (n < 13 || memcmp(bytes, "HTTP/1.1 ", 9) != 0 || (a->status = atoi(bytes + 9)) < 200) {
        bad(a, "no status line");
        return;
    }
    a->phase = ANSWER_UNTIL_END;
    for (line = memmem(bytes, n, "\r\n", 2); line < end && a->phase != ANSWER_BAD; line = next) {
        line += 2;
        next = memmem(line, n - (size_t)(line - bytes), "\r\n", 2);
        read_field(a, line, (size_t)(next - line), &n_framings);
    }
    if (n_framings > 1)
        bad(a, "two framings");
    a->head_end = a->at = (size_t)(end - bytes) + 4;
}

/* ---- the body ---- */

static void read_length(struct answer *a, size_t n)
{
    size_t take = n - a->at < a->rest ? n - a->at : a->rest;

    a->at += take;
    a->rest -= take;
    if (a->rest == 0)
        a->phase = ANSWER_WHOLE;
}

static void read_chunk_size(struct answer *a, const char *bytes, size_t n)
{
    const char *line = bytes + a->at, *end = memmem(line, n - a->at, "\r\n", 2);
    char *after;

    if (!end) {
        if (n - a->at > CHUNK_LINE_MAX)
            bad(a, "malformed chunk size");
        return;
    }
    a->rest = strtoul(line, &after, 16);
    if (!isxdigit((unsigned char)line[0]) || after != end) {
        bad(a, "malformed chunk size");
        return;
    }
    a->at += (size_t)(end - line) + 2;
    a->phase = a->rest ? ANSWER_CHUNK : ANSWER_LAST;
}

/* The chunk's bytes and their CRLF at once. */
static void read_chunk(struct answer *a, const char *bytes, size_t n)
{
    if (n - a->at < a->rest + 2)
        return;
    if (memcmp(bytes + a->at + a->rest, "\r\n", 2) != 0) {
        bad(a, "no line end behind a chunk");
        return;
    }
    a->at += a->rest + 2;
    a->phase = ANSWER_CHUNK_SIZE;
}

static void read_last(struct answer *a, const char *bytes, size_t n)
{
    if (n - a->at < 2)
        return;
    if (memcmp(bytes + a->at, "\r\n", 2) != 0) {
        bad(a, "no line end behind the last chunk");
        return;
    }
    a->at += 2;
    a->phase = ANSWER_WHOLE;
}

static void read_some(struct answer *a, const char *bytes, size_t n)
{
    switch (a->phase) {
    case ANSWER_HEAD:
        read_head(a, bytes, n);
        break;
    case ANSWER_LENGTH:
        read_length(a, n);
        break;
    case ANSWER_CHUNK_SIZE:
        read_chunk_size(a, bytes, n);
        break;
    case ANSWER_CHUNK:
        read_chunk(a, bytes, n);
        break;
    case ANSWER_LAST:
        read_last(a, bytes, n);
        break;
    case ANSWER_UNTIL_END:
        a->at = n;
        break;
    case ANSWER_WHOLE:
    case ANSWER_BAD:
        break;
    }
}

void answer_read(struct answer *a, const char *bytes, size_t n)
{
    enum answer_phase before;
    size_t at;

    do {
        before = a->phase;
        at = a->at;
        read_some(a, bytes, n);
    } while (a->phase != before || a->at != at);
}

void answer_end(struct answer *a)
{
    if (a->phase == ANSWER_UNTIL_END)
        a->phase = ANSWER_WHOLE;
    else if (a->phase != ANSWER_WHOLE && a->phase != ANSWER_BAD)
        bad(a, "the connection ended before the answer did");
}

/* ---- what may be compared ---- */

static bool is_of_its_run(const char *line, size_t n)
{
    static const char *const names[] = {
        "Date",         "Connection",       "x-compute-time",   "x-total-time", "x-validation-time",
        "x-queue-time", "x-inference-time", "x-time-per-token", "X-Request-Id"
    };
    size_t ignored;

    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (header(line, n, names[i], &ignored))
            return true;
    return false;
}

static void put_head(const struct answer *a, const char *bytes, struct buf *out)
{
    const char *line = bytes, *end;

    while (line < bytes + a->head_end) {
        end = memmem(line, a->head_end - (size_t)(line - bytes), "\r\n", 2);
        if (!is_of_its_run(line, (size_t)(end - line)))
            buf_add(out, line, (size_t)(end - line) + 2);
        line = end + 2;
    }
}

/* Overwrite by zeros what stands behind `key` and belongs to `digits`, at most `max` bytes. */
static void blank(char *at, char *end, const char *key, int (*belongs)(int), size_t max)
{
    while ((at = memmem(at, (size_t)(end - at), key, strlen(key)))) {
        at += strlen(key);
        for (size_t i = 0; i < max && at < end && belongs((unsigned char)*at); i++)
            *at++ = '0';
    }
}

/* The body as it was framed, but for the comments that keep a quiet event stream open: they tell of
 * time alone. */
static void put_framed(const char *at, size_t n, struct buf *out)
{
    static const char comment[] = "3\r\n:\n\n\r\n";
    const char *end = at + n, *found;

    while ((found = memmem(at, (size_t)(end - at), comment, sizeof comment - 1))) {
        buf_add(out, at, (size_t)(found - at));
        at = found + sizeof comment - 1;
    }
    buf_add(out, at, (size_t)(end - at));
}

static void put_unchunked(const struct answer *a, const char *bytes, struct buf *out)
{
    const char *at = bytes + a->head_end;
    size_t n;

    while ((n = strtoul(at, NULL, 16)) > 0) {
        at = strchr(at, '\n') + 1;
        buf_add(out, at, n);
        at += n + 2;
    }
}

static bool is_chunked(const struct answer *a, const char *bytes)
{
    return memmem(bytes, a->head_end, "chunked\r\n", 9) != NULL;
}

static int is_of_string(int byte)
{
    return byte != '"';
}

/* What differs from one run to the next in bodies, and nothing a client may build on. */
static const struct {
    const char *key;
    int (*belongs)(int);
    size_t max;
} of_a_run[] = {
    { "\"id\":\"cmpl-", isxdigit, 64 },
    { "\"id\":\"chatcmpl-", isxdigit, 64 },
    { "\"id\":\"embd-", isxdigit, 64 },
    { "\"id\":\"modelperm-", isxdigit, 64 },
    { "\"id\":\"resp_", isxdigit, 64 },
    { "\"id\":\"msg_", isxdigit, 64 },
    { "\"item_id\":\"msg_", isxdigit, 64 },
    { "\"created\":", isdigit, 20 },
    { "\"created_at\":", isdigit, 20 },
    { "\"system_fingerprint\":\"", is_of_string, 64 }, /* names the ranks of a group */
};

void answer_normalise(const struct answer *a, const char *bytes, bool of_peer, struct buf *out)
{
    size_t from;

    if (of_peer)
        buf_printf(out, "%d\n", a->status);
    else
        put_head(a, bytes, out);
    from = out->n;
    if (of_peer && is_chunked(a, bytes))
        put_unchunked(a, bytes, out);
    else
        put_framed(bytes + a->head_end, a->at - a->head_end, out);
    for (size_t i = 0; i < sizeof of_a_run / sizeof *of_a_run; i++)
        blank(out->data + from, out->data + out->n, of_a_run[i].key, of_a_run[i].belongs,
              of_a_run[i].max);
}
