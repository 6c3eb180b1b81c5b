/* http_body.c - the body of a request: by length, or chunked with its extensions and trailers.
 *
 * It keeps no place in a buffer, because body bytes are gone once decoded.  Framing is looked at byte
 * by byte, data is passed on in place.
 *
 *   BEGIN -> LENGTH -> DONE
 *     |
 *     v                          0                                  empty line
 *   FIRST -> SIZE -> EXT -> SIZE_LF --> TRAILER -> NAME -> VALUE -> ... -> DONE
 *     ^                        |
 *     +-- DATA_LF <- DATA_CR <- DATA
 *
 * Extensions are skipped and trailers dropped, but both must be well-formed and are bounded: without a
 * bound a sender could make us read for ever without a byte of body. */
#include <string.h>

#include "gateway/net/http_bytes.h"
#include "gateway/net/http_parser.h"

enum { CHUNK_DIGITS_MAX = 16 };

enum state {
    B_BEGIN,
    B_LENGTH,
    B_FIRST,
    B_SIZE,
    B_EXT, /* first byte of an extension's name */
    B_EXT_NAME,
    B_EXT_EQUALS, /* first byte of its value */
    B_EXT_TOKEN,
    B_EXT_QUOTED,
    B_EXT_ESCAPED, /* after a backslash in the quotes */
    B_EXT_END,     /* after the quotes */
    B_SIZE_LF,
    B_DATA,
    B_DATA_CR,
    B_DATA_LF,
    B_TRAILER,
    B_TRAILER_NAME,
    B_TRAILER_VALUE,
    B_TRAILER_LF,
    B_END_LF,
    B_DONE,
    B_REFUSED,
};

static void refuse(struct http_parser *p, enum http_refusal why)
{
    p->refused = why;
    p->body_state = B_REFUSED;
}

static void advance(struct http_parser *p, bool is_right, enum state next, enum http_refusal why)
{
    if (is_right)
        p->body_state = (uint8_t)next;
    else
        refuse(p, why);
}

static bool is_over_limit(const struct http_parser *p)
{
    return p->body_bytes > p->body_bytes_max || p->left > p->body_bytes_max - p->body_bytes;
}

static void begin(struct http_parser *p)
{
    p->left = p->content_length;
    if (p->is_chunked)
        p->body_state = B_FIRST;
    else if (is_over_limit(p))
        refuse(p, HTTP_REFUSED_BODY_LONG);
    else
        p->body_state = p->left > 0 ? B_LENGTH : B_DONE;
}

static void size_byte(struct http_parser *p, char c)
{
    int digit = http_hex_digit(c);

    if (digit >= 0 && p->digits < CHUNK_DIGITS_MAX) {
        p->left = p->left << 4 | (uint64_t)digit;
        p->digits++;
        p->body_state = B_SIZE;
    } else if (p->digits == 0 || (c != ';' && c != '\r')) {
        refuse(p, c == '\n' ? HTTP_REFUSED_LINE_END : HTTP_REFUSED_CHUNK);
    } else if (is_over_limit(p)) {
        refuse(p, HTTP_REFUSED_BODY_LONG);
    } else {
        p->body_state = c == ';' ? B_EXT : B_SIZE_LF;
    }
}

/* What may follow a complete name or value. */
static void ext_end(struct http_parser *p, char c)
{
    if (c == ';')
        p->body_state = B_EXT;
    else if (c == '\r')
        p->body_state = B_SIZE_LF;
    else
        refuse(p, c == '\n' ? HTTP_REFUSED_LINE_END : HTTP_REFUSED_CHUNK);
}

static void ext_quoted(struct http_parser *p, char c)
{
    if (!http_is_a(c, HTTP_C_VALUE))
        refuse(p, c == '\n' ? HTTP_REFUSED_LINE_END : HTTP_REFUSED_CHUNK);
    else if (p->body_state == B_EXT_ESCAPED)
        p->body_state = B_EXT_QUOTED;
    else if (c == '"')
        p->body_state = B_EXT_END;
    else if (c == '\\')
        p->body_state = B_EXT_ESCAPED;
}

/* *( ";" token [ "=" ( token / quoted-string ) ] ), without the optional blanks that nobody sends. */
static void ext_byte(struct http_parser *p, char c)
{
    bool is_token = http_is_a(c, HTTP_C_TOKEN);

    if (c != '\r' && ++p->ext_bytes > p->limits->chunk_ext_bytes_max) {
        refuse(p, HTTP_REFUSED_CHUNK_EXT_LONG);
        return;
    }
    switch (p->body_state) {
    case B_EXT_QUOTED:
    case B_EXT_ESCAPED:
        ext_quoted(p, c);
        break;
    case B_EXT_EQUALS:
        if (c == '"')
            p->body_state = B_EXT_QUOTED;
        else
            advance(p, is_token, B_EXT_TOKEN, HTTP_REFUSED_CHUNK);
        break;
    case B_EXT:
        advance(p, is_token, B_EXT_NAME, HTTP_REFUSED_CHUNK);
        break;
    case B_EXT_NAME:
        if (c == '=')
            p->body_state = B_EXT_EQUALS;
        else if (!is_token)
            ext_end(p, c);
        break;
    default: /* B_EXT_TOKEN, B_EXT_END */
        if (!is_token || p->body_state == B_EXT_END)
            ext_end(p, c);
    }
}

/* Trailers are dropped, so nobody must take one of these for part of the request's meaning. */
static bool is_forbidden_trailer(const struct http_parser *p)
{
    static const char *const names[] = { "content-length", "transfer-encoding", "host" };

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (p->name_n == strlen(names[i]) && !memcmp(p->name, names[i], p->name_n))
            return true;
    return false;
}

static void trailer_name_byte(struct http_parser *p, char c)
{
    if (p->name_n < sizeof p->name)
        p->name[p->name_n++] = (char)(c >= 'A' && c <= 'Z' ? c | 0x20 : c);
    p->body_state = B_TRAILER_NAME;
}

/* A line of trailers, read by the rules of header fields. */
static void trailer_byte(struct http_parser *p, char c)
{
    if (++p->trailer_bytes > p->limits->trailer_bytes_max) {
        refuse(p, HTTP_REFUSED_TRAILER_LONG);
        return;
    }
    switch (p->body_state) {
    case B_TRAILER:
        p->name_n = 0;
        if (c == '\r')
            p->body_state = B_END_LF;
        else if (c == '\n')
            refuse(p, HTTP_REFUSED_LINE_END);
        else if (http_is_a(c, HTTP_C_TOKEN))
            trailer_name_byte(p, c);
        else
            refuse(p, http_is_blank(c) ? HTTP_REFUSED_FIELD_FOLDED : HTTP_REFUSED_FIELD_NAME);
        break;
    case B_TRAILER_NAME:
        if (http_is_a(c, HTTP_C_TOKEN))
            trailer_name_byte(p, c);
        else if (c != ':')
            refuse(p, HTTP_REFUSED_FIELD_NAME);
        else if (is_forbidden_trailer(p))
            refuse(p, HTTP_REFUSED_TRAILER);
        else
            p->body_state = B_TRAILER_VALUE;
        break;
    default:
        if (c == '\r')
            p->body_state = B_TRAILER_LF;
        else if (!http_is_a(c, HTTP_C_VALUE))
            refuse(p, c == '\n' ? HTTP_REFUSED_LINE_END : HTTP_REFUSED_FIELD_VALUE);
    }
}

static void framing_byte(struct http_parser *p, char c)
{
    switch (p->body_state) {
    case B_FIRST:
        p->left = 0;
        p->digits = 0;
        size_byte(p, c);
        break;
    case B_SIZE:
        size_byte(p, c);
        break;
    case B_EXT:
    case B_EXT_NAME:
    case B_EXT_EQUALS:
    case B_EXT_TOKEN:
    case B_EXT_QUOTED:
    case B_EXT_ESCAPED:
    case B_EXT_END:
        ext_byte(p, c);
        break;
    case B_SIZE_LF:
        advance(p, c == '\n', p->left > 0 ? B_DATA : B_TRAILER, HTTP_REFUSED_LINE_END);
        break;
    case B_DATA_CR:
        advance(p, c == '\r', B_DATA_LF, HTTP_REFUSED_CHUNK);
        break;
    case B_DATA_LF:
        advance(p, c == '\n', B_FIRST, HTTP_REFUSED_CHUNK);
        break;
    case B_TRAILER_LF:
        advance(p, c == '\n', B_TRAILER, HTTP_REFUSED_LINE_END);
        break;
    case B_END_LF:
        advance(p, c == '\n', B_DONE, HTTP_REFUSED_LINE_END);
        break;
    default:
        trailer_byte(p, c);
    }
}

static enum http_parse take_data(struct http_parser *p, const char *bytes, size_t n,
                                 struct http_piece *piece)
{
    size_t take = n - piece->used < p->left ? n - piece->used : (size_t)p->left;

    piece->data = bytes + piece->used;
    piece->n = take;
    piece->used += take;
    p->left -= take;
    p->body_bytes += take;
    if (p->left == 0)
        p->body_state = p->is_chunked ? B_DATA_CR : B_DONE;
    return HTTP_PARSE_DATA;
}

enum http_parse http_parse_body(struct http_parser *p, const char *bytes, size_t n,
                                struct http_piece *piece)
{
    *piece = (struct http_piece){ 0 };
    if (p->body_state == B_BEGIN)
        begin(p);
    while (p->body_state < B_DONE && piece->used < n) {
        if (p->body_state == B_LENGTH || p->body_state == B_DATA)
            return take_data(p, bytes, n, piece);
        framing_byte(p, bytes[piece->used++]);
    }
    if (p->body_state == B_REFUSED)
        return HTTP_PARSE_REFUSED;
    return p->body_state == B_DONE ? HTTP_PARSE_DONE : HTTP_PARSE_MORE;
}
