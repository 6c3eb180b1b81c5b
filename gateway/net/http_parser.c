/* http_parser.c - the head of a request.
 *
 * Every state is one function that eats bytes of its own kind and stops at the first other one, which
 * either leads to the next state or is refused.  A decision depends only on bytes before it, never on
 * where a read ended; that is what makes feeding in pieces and feeding whole the same, and what the
 * fuzz target checks.
 *
 *   START -> METHOD -> TARGET -> VERSION -> LINE_LF -> FIELD -> NAME -> LEAD -> VALUE -> LINE_LF
 *                                                       |  ^                               |
 *                                                       |  +-------------------------------+
 *                                                       +-> END_LF -> DONE
 *
 * What fields mean together (lengths, Host, Connection, Expect) is decided once, at the end of the
 * head, so it does not depend on their order.  The body is decoded in http_body.c. */
#include "gateway/net/http_parser.h"

#include <assert.h>
#include <string.h>
#include <strings.h>

#include "gateway/net/http_bytes.h"

enum { METHOD_BYTES_MAX = 16 };

const struct http_limits http_limits_default = {
    .head_bytes_max = 64 << 10,
    .target_bytes_max = 8 << 10,
    .fields_max = 100,
    .chunk_ext_bytes_max = 4 << 10,
    .trailer_bytes_max = 8 << 10,
};

enum state {
    S_START,
    S_START_LF,
    S_METHOD,
    S_TARGET,
    S_VERSION,
    S_LINE_LF,
    S_FIELD,
    S_NAME,
    S_LEAD,
    S_VALUE,
    S_END_LF,
    N_HEAD_STATES,
    S_DONE = N_HEAD_STATES,
    S_REFUSED,
};

static void refuse(struct http_parser *p, enum http_refusal why)
{
    p->refused = why;
    p->state = S_REFUSED;
}

/* ---- the request target ---- */
static bool escapes_are_valid(const char *s, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        if (s[i] != '%')
            continue;
        if (n - i < 3 || http_hex_digit(s[i + 1]) < 0 || http_hex_digit(s[i + 2]) < 0)
            return false;
        if (s[i + 1] == '0' && s[i + 2] == '0')
            return false;
    }
    return true;
}

static bool all_are(const char *s, uint32_t n, int class)
{
    for (uint32_t i = 0; i < n; i++)
        if (!http_is_a(s[i], class))
            return false;
    return true;
}

/* Length of "http://" or "https://" at the start of s, or 0. */
static uint32_t scheme_bytes(const char *s, uint32_t n)
{
    if (n >= 7 && !strncasecmp(s, "http://", 7))
        return 7;
    if (n >= 8 && !strncasecmp(s, "https://", 8))
        return 8;
    return 0;
}

/* Split p->target into host (absolute form only), path and query. */
static bool target_split(struct http_parser *p, const char *bytes)
{
    const char *s = bytes + p->target.at;
    uint32_t n = p->target.n, at = 0, end;

    if (n == 1 && s[0] == '*') {
        p->path = p->target;
        return p->method == HTTP_OPTIONS;
    }
    if (s[0] != '/') {
        uint32_t host = at = scheme_bytes(s, n);
        while (at < n && http_is_a(s[at], HTTP_C_HOST))
            at++;
        if (host == 0 || at == host || (at < n && s[at] != '/' && s[at] != '?'))
            return false;
        p->host = (struct http_span){ p->target.at + host, at - host };
    }
    for (end = at; end < n && s[end] != '?'; end++)
        ;
    p->path = (struct http_span){ p->target.at + at, end - at };
    if (end < n)
        p->query = (struct http_span){ p->target.at + end + 1, n - end - 1 };
    return escapes_are_valid(s + at, end - at);
}

/* ---- what the fields mean ---- */
static bool span_is(const char *bytes, struct http_span span, const char *word)
{
    return span.n == strlen(word) && !strncasecmp(bytes + span.at, word, span.n);
}

/* The next element of a comma-separated list, trimmed; *at moves past it.  False at the end. */
static bool next_element(const char *bytes, struct http_span list, uint32_t *at,
                         struct http_span *element)
{
    uint32_t from = *at, end, next;

    if (from > list.n)
        return false;
    for (next = from; next < list.n && bytes[list.at + next] != ','; next++)
        ;
    end = next;
    while (from < end && http_is_blank(bytes[list.at + from]))
        from++;
    while (end > from && http_is_blank(bytes[list.at + end - 1]))
        end--;
    *element = (struct http_span){ list.at + from, end - from };
    *at = next + 1;
    return true;
}

static enum http_refusal read_length(struct http_parser *p, const char *bytes,
                                     struct http_span value)
{
    uint64_t length = 0;
    bool is_huge = false;

    if (p->has_length)
        return HTTP_REFUSED_LENGTH_TWICE;
    if (value.n == 0)
        return HTTP_REFUSED_LENGTH;
    for (uint32_t i = 0; i < value.n; i++) {
        char c = bytes[value.at + i];
        if (c < '0' || c > '9')
            return HTTP_REFUSED_LENGTH;
        is_huge |= length > (INT64_MAX - 9) / 10;
        length = is_huge ? 0 : length * 10 + (uint64_t)(c - '0');
    }
    if (is_huge)
        return HTTP_REFUSED_BODY_LONG;
    p->has_length = true;
    p->content_length = length;
    return HTTP_REFUSED_NOT;
}

/* Without "chunked" at its end the body has no certain end: 400 (RFC 9112 section 6.3); with another
 * coding before it, it is clear but beyond us: 501. */
static enum http_refusal read_coding(struct http_parser *p, const char *bytes,
                                     struct http_span value)
{
    struct http_span element = { 0 };
    int n_chunked = 0;

    if (p->minor_version == 0 || p->is_chunked)
        return HTTP_REFUSED_CODING;
    for (uint32_t at = 0; next_element(bytes, value, &at, &element);)
        n_chunked += span_is(bytes, element, "chunked");
    if (n_chunked != 1 || !span_is(bytes, element, "chunked"))
        return HTTP_REFUSED_CODING;
    if (!span_is(bytes, value, "chunked"))
        return HTTP_REFUSED_CODING_UNKNOWN;
    p->is_chunked = true;
    return HTTP_REFUSED_NOT;
}

static enum http_refusal read_host(struct http_parser *p, const char *bytes, struct http_span value)
{
    if (p->n_host++ > 0 || !all_are(bytes + value.at, value.n, HTTP_C_HOST))
        return HTTP_REFUSED_HOST;
    if (p->host.n == 0) /* an absolute target has said it already, and wins */
        p->host = value;
    return HTTP_REFUSED_NOT;
}

static enum http_refusal read_expect(struct http_parser *p, const char *bytes,
                                     struct http_span value)
{
    if (p->minor_version == 0)
        return HTTP_REFUSED_NOT;
    if (!span_is(bytes, value, "100-continue"))
        return HTTP_REFUSED_EXPECT;
    p->expects_continue = true;
    return HTTP_REFUSED_NOT;
}

struct connection_words {
    bool close;
    bool keep_alive;
};

static void read_connection(struct connection_words *words, const char *bytes,
                            struct http_span value)
{
    struct http_span element;

    for (uint32_t at = 0; next_element(bytes, value, &at, &element);) {
        words->close |= span_is(bytes, element, "close");
        words->keep_alive |= span_is(bytes, element, "keep-alive");
    }
}

static enum http_refusal read_fields(struct http_parser *p, const char *bytes)
{
    struct connection_words words = { 0 };
    enum http_refusal why = HTTP_REFUSED_NOT;

    for (uint32_t i = 0; i < p->n_fields && !why; i++) {
        struct http_span name = p->fields[i].name, value = p->fields[i].value;
        if (span_is(bytes, name, "Content-Length"))
            why = read_length(p, bytes, value);
        else if (span_is(bytes, name, "Transfer-Encoding"))
            why = read_coding(p, bytes, value);
        else if (span_is(bytes, name, "Host"))
            why = read_host(p, bytes, value);
        else if (span_is(bytes, name, "Expect"))
            why = read_expect(p, bytes, value);
        else if (span_is(bytes, name, "Connection"))
            read_connection(&words, bytes, value);
    }
    if (why)
        return why;
    if (p->is_chunked && p->has_length)
        return HTTP_REFUSED_LENGTH_AND_CODING;
    if (p->minor_version == 1 && p->n_host == 0)
        return HTTP_REFUSED_HOST;
    p->keep_alive = !words.close && (p->minor_version == 1 || words.keep_alive);
    p->expects_continue &= http_parser_has_body(p);
    return HTTP_REFUSED_NOT;
}

/* ---- the states of the head; each eats at least one byte or refuses ---- */
static void on_start(struct http_parser *p, const char *bytes, uint32_t n)
{
    (void)n;
    if (bytes[p->at] == '\r') {
        p->at++;
        p->state = S_START_LF;
        return;
    }
    p->mark = p->at;
    p->state = S_METHOD;
}

static void on_start_lf(struct http_parser *p, const char *bytes, uint32_t n)
{
    (void)n;
    if (bytes[p->at] != '\n') {
        refuse(p, HTTP_REFUSED_LINE_END);
        return;
    }
    p->mark = ++p->at;
    p->state = S_METHOD;
}

static void on_method(struct http_parser *p, const char *bytes, uint32_t n)
{
    struct http_span word = { .at = p->mark };

    while (p->at < n && http_is_a(bytes[p->at], HTTP_C_TOKEN))
        p->at++;
    word.n = p->at - p->mark;
    if (word.n > METHOD_BYTES_MAX) {
        refuse(p, HTTP_REFUSED_METHOD);
        return;
    }
    if (p->at == n)
        return;
    if (bytes[p->at] != ' ' || word.n == 0) {
        refuse(p, HTTP_REFUSED_REQUEST_LINE);
        return;
    }
    for (int m = 0; m < N_HTTP_METHODS; m++) {
        const char *name = http_method_name((enum http_method)m);
        if (word.n != strlen(name) || memcmp(bytes + word.at, name, word.n) != 0)
            continue;
        p->method = (enum http_method)m;
        p->mark = ++p->at;
        p->state = S_TARGET;
        return;
    }
    refuse(p, HTTP_REFUSED_METHOD);
}

static void on_target(struct http_parser *p, const char *bytes, uint32_t n)
{
    char c;

    while (p->at < n && http_is_a(bytes[p->at], HTTP_C_TARGET))
        p->at++;
    p->target = (struct http_span){ p->mark, p->at - p->mark };
    if (p->target.n > p->limits->target_bytes_max) {
        refuse(p, HTTP_REFUSED_TARGET_LONG);
        return;
    }
    if (p->at == n)
        return;
    c = bytes[p->at];
    if (c == '\r' || c == '\n' || p->target.n == 0)
        refuse(p, HTTP_REFUSED_REQUEST_LINE);
    else if (c != ' ' || !target_split(p, bytes))
        refuse(p, HTTP_REFUSED_TARGET);
    else {
        p->mark = ++p->at;
        p->state = S_VERSION;
    }
}

/* "HTTP/" digit "." digit CR */
static void on_version(struct http_parser *p, const char *bytes, uint32_t n)
{
    static const char form[] = "HTTP/0.0\r";

    for (; p->at < n; p->at++) {
        uint32_t i = p->at - p->mark;
        char c = bytes[p->at];
        if (form[i] == '0' ? c < '0' || c > '9' : c != form[i]) {
            refuse(p, c == '\n' && i == 8 ? HTTP_REFUSED_LINE_END : HTTP_REFUSED_REQUEST_LINE);
            return;
        }
        if (i < 8)
            continue;
        char major = bytes[p->mark + 5], minor = bytes[p->mark + 7];
        if (major != '1' || minor > '1') {
            refuse(p, HTTP_REFUSED_VERSION);
            return;
        }
        p->minor_version = (uint8_t)(minor - '0');
        p->at++;
        p->state = S_LINE_LF;
        return;
    }
}

static void on_line_lf(struct http_parser *p, const char *bytes, uint32_t n)
{
    (void)n;
    if (bytes[p->at] != '\n') {
        refuse(p, HTTP_REFUSED_LINE_END);
        return;
    }
    p->at++;
    p->state = S_FIELD;
}

static void on_field(struct http_parser *p, const char *bytes, uint32_t n)
{
    char c = bytes[p->at];

    (void)n;
    if (c == '\r') {
        p->at++;
        p->state = S_END_LF;
    } else if (c == '\n') {
        refuse(p, HTTP_REFUSED_LINE_END);
    } else if (http_is_blank(c)) {
        refuse(p, HTTP_REFUSED_FIELD_FOLDED);
    } else if (p->n_fields == p->limits->fields_max) {
        refuse(p, HTTP_REFUSED_FIELDS_MANY);
    } else {
        p->mark = p->at;
        p->state = S_NAME;
    }
}

static void on_name(struct http_parser *p, const char *bytes, uint32_t n)
{
    while (p->at < n && http_is_a(bytes[p->at], HTTP_C_TOKEN))
        p->at++;
    if (p->at == n)
        return;
    if (bytes[p->at] != ':' || p->at == p->mark) {
        refuse(p, HTTP_REFUSED_FIELD_NAME);
        return;
    }
    p->fields[p->n_fields].name = (struct http_span){ p->mark, p->at - p->mark };
    p->at++;
    p->state = S_LEAD;
}

static void on_lead(struct http_parser *p, const char *bytes, uint32_t n)
{
    while (p->at < n && http_is_blank(bytes[p->at]))
        p->at++;
    if (p->at == n)
        return;
    p->mark = p->at;
    p->state = S_VALUE;
}

static void on_value(struct http_parser *p, const char *bytes, uint32_t n)
{
    uint32_t end;

    while (p->at < n && http_is_a(bytes[p->at], HTTP_C_VALUE))
        p->at++;
    if (p->at == n)
        return;
    if (bytes[p->at] != '\r') {
        refuse(p, bytes[p->at] == '\n' ? HTTP_REFUSED_LINE_END : HTTP_REFUSED_FIELD_VALUE);
        return;
    }
    for (end = p->at; end > p->mark && http_is_blank(bytes[end - 1]); end--)
        ;
    p->fields[p->n_fields++].value = (struct http_span){ p->mark, end - p->mark };
    p->at++;
    p->state = S_LINE_LF;
}

static void on_end_lf(struct http_parser *p, const char *bytes, uint32_t n)
{
    enum http_refusal why;

    (void)n;
    why = bytes[p->at] == '\n' ? read_fields(p, bytes) : HTTP_REFUSED_LINE_END;
    if (why) {
        refuse(p, why);
        return;
    }
    p->head_bytes = ++p->at;
    p->state = S_DONE;
}

static void (*const head_states[N_HEAD_STATES])(struct http_parser *, const char *, uint32_t) = {
    [S_START] = on_start,   [S_START_LF] = on_start_lf, [S_METHOD] = on_method,
    [S_TARGET] = on_target, [S_VERSION] = on_version,   [S_LINE_LF] = on_line_lf,
    [S_FIELD] = on_field,   [S_NAME] = on_name,         [S_LEAD] = on_lead,
    [S_VALUE] = on_value,   [S_END_LF] = on_end_lf,
};

void http_parser_init(struct http_parser *p, const struct http_limits *limits,
                      struct http_field *fields)
{
    *p = (struct http_parser){ .limits = limits,
                               .fields = fields,
                               .body_bytes_max = HTTP_BODY_BYTES_MAX_DEFAULT };
}

enum http_parse http_parse_head(struct http_parser *p, const char *bytes, size_t n)
{
    uint32_t max = p->limits->head_bytes_max;
    uint32_t end = n < max ? (uint32_t)n : max;

    while (p->state < N_HEAD_STATES && p->at < end)
        head_states[p->state](p, bytes, end);
    if (p->state < N_HEAD_STATES && p->at == max)
        refuse(p, p->state == S_TARGET ? HTTP_REFUSED_TARGET_LONG : HTTP_REFUSED_HEAD_LONG);
    if (p->state == S_REFUSED)
        return HTTP_PARSE_REFUSED;
    return p->state < N_HEAD_STATES ? HTTP_PARSE_MORE : HTTP_PARSE_DONE;
}

bool http_parser_has_body(const struct http_parser *p)
{
    return p->is_chunked || p->content_length > 0;
}
