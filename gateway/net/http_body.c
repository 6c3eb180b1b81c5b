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
#include "gateway/net/http_bytes.h"
#include "gateway/net/http_parser.h"

enum { CHUNK_DIGITS_MAX = 16 };

enum state {
    B_BEGIN,
    B_LENGTH,
    B_FIRST,
    B_SIZE,
    B_EXT,
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

static void ext_byte(struct http_parser *p, char c)
{
    if (c == '\r')
        p->body_state = B_SIZE_LF;
    else if (c == '\n')
        refuse(p, HTTP_REFUSED_LINE_END);
    else if (!http_is_a(c, HTTP_C_VALUE))
        refuse(p, HTTP_REFUSED_CHUNK);
    else if (++p->ext_bytes > p->limits->chunk_ext_bytes_max)
        refuse(p, HTTP_REFUSED_CHUNK_EXT_LONG);
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
        if (c == '\r')
            p->body_state = B_END_LF;
        else if (c == '\n')
            refuse(p, HTTP_REFUSED_LINE_END);
        else if (http_is_a(c, HTTP_C_TOKEN))
            p->body_state = B_TRAILER_NAME;
        else
            refuse(p, http_is_blank(c) ? HTTP_REFUSED_FIELD_FOLDED : HTTP_REFUSED_FIELD_NAME);
        break;
    case B_TRAILER_NAME:
        if (c == ':')
            p->body_state = B_TRAILER_VALUE;
        else if (!http_is_a(c, HTTP_C_TOKEN))
            refuse(p, HTTP_REFUSED_FIELD_NAME);
        break;
    default:
        if (c == '\r')
            p->body_state = B_TRAILER_LF;
        else if (!http_is_a(c, HTTP_C_VALUE))
            refuse(p, c == '\n' ? HTTP_REFUSED_LINE_END : HTTP_REFUSED_FIELD_VALUE);
    }
}

/* A byte of which only one value is right. */
static void fixed_byte(struct http_parser *p, char c, char want, enum state next,
                       enum http_refusal why)
{
    if (c == want)
        p->body_state = (uint8_t)next;
    else
        refuse(p, why);
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
        ext_byte(p, c);
        break;
    case B_SIZE_LF:
        fixed_byte(p, c, '\n', p->left > 0 ? B_DATA : B_TRAILER, HTTP_REFUSED_LINE_END);
        break;
    case B_DATA_CR:
        fixed_byte(p, c, '\r', B_DATA_LF, HTTP_REFUSED_CHUNK);
        break;
    case B_DATA_LF:
        fixed_byte(p, c, '\n', B_FIRST, HTTP_REFUSED_CHUNK);
        break;
    case B_TRAILER_LF:
        fixed_byte(p, c, '\n', B_TRAILER, HTTP_REFUSED_LINE_END);
        break;
    case B_END_LF:
        fixed_byte(p, c, '\n', B_DONE, HTTP_REFUSED_LINE_END);
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
