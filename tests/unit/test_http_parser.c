/* test_http_parser.c - a request understood differently here than by the proxy in front of us is a
 * request smuggled past it; so every rule is tried from both sides, and each input whole, cut at every
 * byte, and byte by byte, with the same result. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above */
#include <cmocka.h>

#include "gateway/net/http_route.h"
#include "tests/http_describe.h"

#define H                  "Host: x\r\n"
#define GET(fields)        "GET / HTTP/1.1\r\n" fields "\r\n"
#define POST(fields, body) "POST / HTTP/1.1\r\n" H fields "\r\n" body
#define CHUNKED(body)      POST("Transfer-Encoding: chunked\r\n", body)
#define CHUNKED_OK(body)                                                                           \
    "POST / HTTP/1.1 host=x keep=1 [Host: x|Transfer-Encoding: chunked] \"" body "\"\n"

/* Small limits, so that the inputs are small. */
static const struct http_limits limits = {
    .head_bytes_max = 256,
    .target_bytes_max = 40,
    .fields_max = 4,
    .chunk_ext_bytes_max = 16,
    .trailer_bytes_max = 32,
};
enum { BODY_BYTES_MAX = 20 };

#define DIGITS_10 "0123456789"
#define BYTES_40  DIGITS_10 DIGITS_10 DIGITS_10 DIGITS_10
#define BYTES_200 BYTES_40 BYTES_40 BYTES_40 BYTES_40 BYTES_40

struct parse_case {
    const char *name;
    const char *bytes;
    size_t n;
    const char *want;
};
#define CASE(name, bytes, want)                                                                    \
    {                                                                                              \
        name, bytes, sizeof(bytes) - 1, want                                                       \
    }

static const struct parse_case accepted[] = {
    CASE("plain", GET(H), "GET / HTTP/1.1 host=x keep=1 [Host: x] \"\"\n"),
    CASE("empty line before", "\r\n" GET(H), "GET / HTTP/1.1 host=x keep=1 [Host: x] \"\"\n"),
    CASE("query", "GET /a%20b?c=d?e HTTP/1.1\r\n" H "\r\n",
         "GET /a%20b?c=d?e HTTP/1.1 host=x keep=1 [Host: x] \"\"\n"),
    CASE("absolute form wins over Host", "GET http://y:80/p?q HTTP/1.1\r\n" H "\r\n",
         "GET /p?q HTTP/1.1 host=y:80 keep=1 [Host: x] \"\"\n"),
    CASE("absolute form without path", "GET HTTPS://y HTTP/1.1\r\n" H "\r\n",
         "GET / HTTP/1.1 host=y keep=1 [Host: x] \"\"\n"),
    CASE("absolute form, query only", "GET http://[::1]?q HTTP/1.1\r\n" H "\r\n",
         "GET /?q HTTP/1.1 host=[::1] keep=1 [Host: x] \"\"\n"),
    CASE("asterisk form", "OPTIONS * HTTP/1.1\r\n" H "\r\n",
         "OPTIONS * HTTP/1.1 host=x keep=1 [Host: x] \"\"\n"),
    CASE("empty Host", GET("Host:\r\n"), "GET / HTTP/1.1 host= keep=1 [Host: ] \"\"\n"),
    CASE("blanks around a value", GET("hOST: \t x \t\r\n"),
         "GET / HTTP/1.1 host=x keep=1 [hOST: x] \"\"\n"),
    CASE("blanks inside a value", GET(H "A: b \t c\r\n"),
         "GET / HTTP/1.1 host=x keep=1 [Host: x|A: b \\x09 c] \"\"\n"),
    CASE("only blanks as a value", GET(H "A:  \t \r\n"),
         "GET / HTTP/1.1 host=x keep=1 [Host: x|A: ] \"\"\n"),
    CASE("bytes from 0x80 in a value", GET(H "A: \xc3\xa9\r\n"),
         "GET / HTTP/1.1 host=x keep=1 [Host: x|A: \\xc3\\xa9] \"\"\n"),
    CASE("every token byte in a name", GET(H "!#$%&'*+-.^_`|~09azAZ: b\r\n"),
         "GET / HTTP/1.1 host=x keep=1 [Host: x|!#$%&'*+-.^_`\\x7c~09azAZ: b] \"\"\n"),
    CASE("1.1 close", GET(H "Connection: close\r\n"),
         "GET / HTTP/1.1 host=x keep=0 [Host: x|Connection: close] \"\"\n"),
    CASE("close in a list", GET(H "Connection: te , CLOSE\r\n"),
         "GET / HTTP/1.1 host=x keep=0 [Host: x|Connection: te , CLOSE] \"\"\n"),
    CASE("close wins", GET(H "Connection: keep-alive\r\nConnection: close\r\n"),
         "GET / HTTP/1.1 host=x keep=0 [Host: x|Connection: keep-alive|Connection: close] \"\"\n"),
    CASE("a word with close inside it", GET(H "Connection: closed, enclose\r\n"),
         "GET / HTTP/1.1 host=x keep=1 [Host: x|Connection: closed, enclose] \"\"\n"),
    CASE("1.0", "GET / HTTP/1.0\r\n\r\n", "GET / HTTP/1.0 host= keep=0 [] \"\"\n"),
    CASE("1.0 keep-alive", "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n",
         "GET / HTTP/1.0 host= keep=1 [Connection: Keep-Alive] \"\"\n"),
    CASE("length", POST("Content-Length: 5\r\n", "hello"),
         "POST / HTTP/1.1 host=x keep=1 [Host: x|Content-Length: 5] \"hello\"\n"),
    CASE("length 0", POST("Content-Length: 0\r\n", ""),
         "POST / HTTP/1.1 host=x keep=1 [Host: x|Content-Length: 0] \"\"\n"),
    CASE("length with zeros before", POST("Content-Length: 0000000000000000000000005\r\n", "hello"),
         "POST / HTTP/1.1 host=x keep=1 [Host: x|Content-Length: 0000000000000000000000005] "
         "\"hello\"\n"),
    CASE("no length is no body", POST("", GET(H)),
         "POST / HTTP/1.1 host=x keep=1 [Host: x] \"\"\n"
         "GET / HTTP/1.1 host=x keep=1 [Host: x] \"\"\n"),
    CASE("length at the limit", POST("Content-Length: 20\r\n", "01234567890123456789"),
         "POST / HTTP/1.1 host=x keep=1 [Host: x|Content-Length: 20] \"01234567890123456789\"\n"),
    CASE("chunks", CHUNKED("3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"), CHUNKED_OK("abcde")),
    CASE("chunk sizes in hex", CHUNKED("a\r\n0123456789\r\nA\r\n0123456789\r\n00\r\n\r\n"),
         CHUNKED_OK("01234567890123456789")),
    CASE("chunk data may look like framing", CHUNKED("5\r\n0\r\n\r\n\r\n0\r\n\r\n"),
         CHUNKED_OK("0\\x0d\\x0a\\x0d\\x0a")),
    CASE("chunk extensions", CHUNKED("1;a\r\nx\r\n0;b=\"c\"\r\n\r\n"), CHUNKED_OK("x")),
    CASE("chunk extensions of every kind", CHUNKED("1;a;b=c\r\nx\r\n0;d=\"\\\" \"\r\n\r\n"),
         CHUNKED_OK("x")),
    CASE("chunk extensions at the limit", CHUNKED("1;2345678\r\nx\r\n0;23456789\r\n\r\n"),
         CHUNKED_OK("x")),
    CASE("trailers", CHUNKED("0\r\nA: b\r\nC:\r\n\r\n"), CHUNKED_OK("")),
    CASE("coding in any case", POST("Transfer-Encoding: CHUNKED\r\n", "0\r\n\r\n"),
         "POST / HTTP/1.1 host=x keep=1 [Host: x|Transfer-Encoding: CHUNKED] \"\"\n"),
    CASE("expect with a body", POST("Expect: 100-Continue\r\nContent-Length: 1\r\n", "a"),
         "POST / HTTP/1.1 host=x keep=1 continue [Host: x|Expect: 100-Continue|Content-Length: 1] "
         "\"a\"\n"),
    CASE("expect without a body", POST("Expect: 100-continue\r\n", ""),
         "POST / HTTP/1.1 host=x keep=1 [Host: x|Expect: 100-continue] \"\"\n"),
    CASE("expect in 1.0 means nothing",
         "POST / HTTP/1.0\r\nExpect: x\r\nContent-Length: 1\r\n\r\na",
         "POST / HTTP/1.0 host= keep=0 [Expect: x|Content-Length: 1] \"a\"\n"),
    CASE("pipelined", GET(H) POST("Content-Length: 1\r\n", "a") GET(H) "GET",
         "GET / HTTP/1.1 host=x keep=1 [Host: x] \"\"\n"
         "POST / HTTP/1.1 host=x keep=1 [Host: x|Content-Length: 1] \"a\"\n"
         "GET / HTTP/1.1 host=x keep=1 [Host: x] \"\"\nmore\n"),
    CASE("target at the limit",
         "GET /" DIGITS_10 DIGITS_10 DIGITS_10 "012345678 HTTP/1.1\r\n" H "\r\n",
         "GET /" DIGITS_10 DIGITS_10 DIGITS_10 "012345678 HTTP/1.1 host=x keep=1 [Host: x] \"\"\n"),
    CASE("fields at the limit", GET(H "A:\r\nB:\r\nC:\r\n"),
         "GET / HTTP/1.1 host=x keep=1 [Host: x|A: |B: |C: ] \"\"\n"),
    /* 16 + 9 + 3 + 4 bytes around the value */
    CASE("head at the limit", GET(H "A: " BYTES_200 "012345678901234567890123\r\n"),
         "GET / HTTP/1.1 host=x keep=1 [Host: x|A: " BYTES_200 "012345678901234567890123] \"\"\n"),
    CASE("nothing", "", ""),
    CASE("head cut", "GET / HTTP/1.1\r\nHost: x\r\n", "more\n"),
    CASE("body cut", POST("Content-Length: 2\r\n", "a"), "more\n"),
    CASE("last chunk cut", CHUNKED("0\r\n"), "more\n"),
};

#define R(why, status) "refused " why " " #status "\n"

static const struct parse_case refused[] = {
    CASE("two empty lines", "\r\n\r\n" GET(H), R("REQUEST_LINE", 400)),
    CASE("CR before the request", "\rGET / HTTP/1.1\r\n" H "\r\n", R("LINE_END", 400)),
    CASE("LF before the request", "\n" GET(H), R("REQUEST_LINE", 400)),
    CASE("blank before the method", " GET / HTTP/1.1\r\n" H "\r\n", R("REQUEST_LINE", 400)),
    CASE("no method", " / HTTP/1.1\r\n" H "\r\n", R("REQUEST_LINE", 400)),
    CASE("unknown method", "BREW / HTTP/1.1\r\n" H "\r\n", R("METHOD", 501)),
    CASE("method in small letters", "get / HTTP/1.1\r\n" H "\r\n", R("METHOD", 501)),
    CASE("CONNECT", "CONNECT x:1 HTTP/1.1\r\n" H "\r\n", R("METHOD", 501)),
    CASE("HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", R("METHOD", 501)),
    CASE("method without end", BYTES_40, R("METHOD", 501)),
    CASE("TLS", "\x16\x03\x01\x02", R("REQUEST_LINE", 400)),
    CASE("HTTP/0.9", "GET /\r\n", R("REQUEST_LINE", 400)),
    CASE("two blanks before the target", "GET  / HTTP/1.1\r\n" H "\r\n", R("REQUEST_LINE", 400)),
    CASE("two blanks after the target", "GET /  HTTP/1.1\r\n" H "\r\n", R("REQUEST_LINE", 400)),
    CASE("tab before the target", "GET\t/ HTTP/1.1\r\n" H "\r\n", R("REQUEST_LINE", 400)),
    CASE("fragment", "GET /#a HTTP/1.1\r\n" H "\r\n", R("TARGET", 400)),
    CASE("control byte in the target", "GET /\x01 HTTP/1.1\r\n" H "\r\n", R("TARGET", 400)),
    CASE("byte from 0x80 in the target", "GET /\xc3\xa9 HTTP/1.1\r\n" H "\r\n", R("TARGET", 400)),
    CASE("NUL in the target", "GET /\0 HTTP/1.1\r\n" H "\r\n", R("TARGET", 400)),
    CASE("bad escape", "GET /%4g HTTP/1.1\r\n" H "\r\n", R("TARGET", 400)),
    CASE("short escape", "GET /%4 HTTP/1.1\r\n" H "\r\n", R("TARGET", 400)),
    CASE("escaped NUL", "GET /%00 HTTP/1.1\r\n" H "\r\n", R("TARGET", 400)),
    CASE("relative target", "GET a HTTP/1.1\r\n" H "\r\n", R("TARGET", 400)),
    CASE("asterisk with GET", "GET * HTTP/1.1\r\n" H "\r\n", R("TARGET", 400)),
    CASE("longer than an asterisk", "OPTIONS *a HTTP/1.1\r\n" H "\r\n", R("TARGET", 400)),
    CASE("unknown scheme", "GET ftp://x/ HTTP/1.1\r\n" H "\r\n", R("TARGET", 400)),
    CASE("absolute form without host", "GET http:///a HTTP/1.1\r\n" H "\r\n", R("TARGET", 400)),
    CASE("user in the target", "GET http://u@x/ HTTP/1.1\r\n" H "\r\n", R("TARGET", 400)),
    CASE("long target", "GET /" BYTES_40 " HTTP/1.1\r\n" H "\r\n", R("TARGET_LONG", 414)),
    CASE("long target with a bad byte after it", "GET /" BYTES_40 "\x01", R("TARGET_LONG", 414)),
    CASE("HTTP/2.0", "GET / HTTP/2.0\r\n" H "\r\n", R("VERSION", 505)),
    CASE("HTTP/1.2", "GET / HTTP/1.2\r\n" H "\r\n", R("VERSION", 505)),
    CASE("HTTP/0.9 said", "GET / HTTP/0.9\r\n" H "\r\n", R("VERSION", 505)),
    CASE("version with more digits", "GET / HTTP/1.10\r\n" H "\r\n", R("REQUEST_LINE", 400)),
    CASE("version in small letters", "GET / http/1.1\r\n" H "\r\n", R("REQUEST_LINE", 400)),
    CASE("version without a dot", "GET / HTTP/11\r\n" H "\r\n", R("REQUEST_LINE", 400)),
    CASE("blank after the version", "GET / HTTP/1.1 \r\n" H "\r\n", R("REQUEST_LINE", 400)),
    CASE("LF after the version", "GET / HTTP/1.1\n" H "\r\n", R("LINE_END", 400)),
    CASE("CR CR after the version", "GET / HTTP/1.1\r\r\n" H "\r\n", R("LINE_END", 400)),
    CASE("LF after a value", "GET / HTTP/1.1\r\nHost: x\n\r\n", R("LINE_END", 400)),
    CASE("CR in a value", GET(H "A: b\rc\r\n"), R("LINE_END", 400)),
    CASE("LF ends the head", "GET / HTTP/1.1\r\n" H "\n", R("LINE_END", 400)),
    CASE("CR without LF ends the head", "GET / HTTP/1.1\r\n" H "\rx", R("LINE_END", 400)),
    CASE("NUL in a value", GET(H "A: b\0c\r\n"), R("FIELD_VALUE", 400)),
    CASE("control byte in a value", GET(H "A: \x1f\r\n"), R("FIELD_VALUE", 400)),
    CASE("DEL in a value", GET(H "A: \x7f\r\n"), R("FIELD_VALUE", 400)),
    CASE("blank before the colon", GET(H "A : b\r\n"), R("FIELD_NAME", 400)),
    CASE("tab before the colon", GET(H "A\t: b\r\n"), R("FIELD_NAME", 400)),
    CASE("no name", GET(H ": b\r\n"), R("FIELD_NAME", 400)),
    CASE("no colon", GET(H "A\r\n"), R("FIELD_NAME", 400)),
    CASE("name with a byte from 0x80", GET(H "\xc3\xa9: b\r\n"), R("FIELD_NAME", 400)),
    CASE("name with a slash", GET(H "A/b: c\r\n"), R("FIELD_NAME", 400)),
    CASE("folded", GET(H "A: b\r\n c\r\n"), R("FIELD_FOLDED", 400)),
    CASE("folded by a tab", GET(H "A: b\r\n\tc\r\n"), R("FIELD_FOLDED", 400)),
    CASE("blank before the first field", GET(" Host: x\r\n"), R("FIELD_FOLDED", 400)),
    CASE("no Host", GET(""), R("HOST", 400)),
    CASE("two Hosts", GET(H H), R("HOST", 400)),
    CASE("two Hosts in 1.0", "GET / HTTP/1.0\r\n" H H "\r\n", R("HOST", 400)),
    CASE("two names in Host", GET("Host: a b\r\n"), R("HOST", 400)),
    CASE("user in Host", GET("Host: u@x\r\n"), R("HOST", 400)),
    CASE("path in Host", GET("Host: x/y\r\n"), R("HOST", 400)),
    CASE("absolute form does not replace Host", "GET http://y/ HTTP/1.1\r\n\r\n", R("HOST", 400)),
    CASE("too many fields", GET(H "A:\r\nB:\r\nC:\r\nD:\r\n"), R("FIELDS_MANY", 431)),
    CASE("long head", GET(H "A: " BYTES_200 "0123456789012345678901234\r\n"), R("HEAD_LONG", 431)),
    CASE("long name", GET(H BYTES_200 BYTES_40), R("HEAD_LONG", 431)),
    CASE("empty length", POST("Content-Length:\r\n", ""), R("LENGTH", 400)),
    CASE("length with a plus", POST("Content-Length: +7\r\n", "1234567"), R("LENGTH", 400)),
    CASE("negative length", POST("Content-Length: -7\r\n", ""), R("LENGTH", 400)),
    CASE("hex length", POST("Content-Length: 0x7\r\n", ""), R("LENGTH", 400)),
    CASE("length with a fraction", POST("Content-Length: 7.0\r\n", ""), R("LENGTH", 400)),
    CASE("length with a blank", POST("Content-Length: 1 2\r\n", ""), R("LENGTH", 400)),
    CASE("list of lengths", POST("Content-Length: 7, 7\r\n", "1234567"), R("LENGTH", 400)),
    CASE("two different lengths", POST("Content-Length: 1\r\nContent-Length: 2\r\n", "ab"),
         R("LENGTH_TWICE", 400)),
    CASE("two equal lengths", POST("Content-Length: 1\r\ncontent-length: 1\r\n", "a"),
         R("LENGTH_TWICE", 400)),
    CASE("length of 2^63", POST("Content-Length: 9223372036854775808\r\n", ""),
         R("BODY_LONG", 413)),
    CASE("length of 2^64 + 5", POST("Content-Length: 18446744073709551621\r\n", "hello"),
         R("BODY_LONG", 413)),
    CASE("length over the limit", POST("Content-Length: 21\r\n", ""), R("BODY_LONG", 413)),
    CASE("length and coding",
         POST("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
         R("LENGTH_AND_CODING", 400)),
    CASE("coding and length",
         POST("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n"),
         R("LENGTH_AND_CODING", 400)),
    CASE("coding xchunked", POST("Transfer-Encoding: xchunked\r\n", ""), R("CODING", 400)),
    CASE("coding identity", POST("Transfer-Encoding: identity\r\n", ""), R("CODING", 400)),
    CASE("empty coding", POST("Transfer-Encoding:\r\n", ""), R("CODING", 400)),
    CASE("chunked twice", POST("Transfer-Encoding: chunked, chunked\r\n", ""), R("CODING", 400)),
    CASE("chunked in two fields",
         POST("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", ""),
         R("CODING", 400)),
    CASE("chunked is not last", POST("Transfer-Encoding: chunked, gzip\r\n", ""), R("CODING", 400)),
    CASE("chunked after a comma", POST("Transfer-Encoding: , chunked\r\n", ""),
         R("CODING_UNKNOWN", 501)),
    CASE("chunked with a parameter", POST("Transfer-Encoding: chunked;a=b\r\n", ""),
         R("CODING", 400)),
    CASE("gzip before chunked", POST("Transfer-Encoding: gzip, chunked\r\n", ""),
         R("CODING_UNKNOWN", 501)),
    CASE("coding in 1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
         R("CODING", 400)),
    CASE("unknown expectation", POST("Expect: 200-ok\r\nContent-Length: 1\r\n", "a"),
         R("EXPECT", 417)),
    CASE("chunk size 0x3", CHUNKED("0x3\r\nabc\r\n0\r\n\r\n"), R("CHUNK", 400)),
    CASE("chunk size +3", CHUNKED("+3\r\nabc\r\n0\r\n\r\n"), R("CHUNK", 400)),
    CASE("chunk size -3", CHUNKED("-3\r\nabc\r\n0\r\n\r\n"), R("CHUNK", 400)),
    CASE("no chunk size", CHUNKED("\r\n"), R("CHUNK", 400)),
    CASE("no chunk size but an extension", CHUNKED(";a\r\n"), R("CHUNK", 400)),
    CASE("blank before the chunk size", CHUNKED(" 3\r\nabc\r\n"), R("CHUNK", 400)),
    CASE("blank after the chunk size", CHUNKED("3 \r\nabc\r\n"), R("CHUNK", 400)),
    CASE("chunk size of 17 digits", CHUNKED("00000000000000003\r\nabc\r\n"), R("CHUNK", 400)),
    CASE("chunk size of 2^64 - 1", CHUNKED("ffffffffffffffff\r\n"), R("BODY_LONG", 413)),
    CASE("chunk size that wraps with those before", CHUNKED("1\r\na\r\nffffffffffffffff\r\n"),
         R("BODY_LONG", 413)),
    CASE("LF after the chunk size", CHUNKED("3\nabc\r\n"), R("LINE_END", 400)),
    CASE("CR without LF after the chunk size", CHUNKED("3\rabc"), R("LINE_END", 400)),
    CASE("chunk longer than its size", CHUNKED("3\r\nabcd\r\n"), R("CHUNK", 400)),
    CASE("LF after chunk data", CHUNKED("3\r\nabc\n0\r\n\r\n"), R("CHUNK", 400)),
    CASE("CR without LF after chunk data", CHUNKED("3\r\nabc\rx"), R("CHUNK", 400)),
    CASE("LF in an extension", CHUNKED("3;a\nabc\r\n"), R("LINE_END", 400)),
    CASE("control byte in an extension", CHUNKED("3;\x01\r\nabc\r\n"), R("CHUNK", 400)),
    CASE("extension without a name", CHUNKED("1;\r\nx\r\n"), R("CHUNK", 400)),
    CASE("extension with a blank", CHUNKED("1; a\r\nx\r\n"), R("CHUNK", 400)),
    CASE("extension without a value", CHUNKED("1;a=\r\nx\r\n"), R("CHUNK", 400)),
    CASE("extension with open quotes", CHUNKED("1;a=\"\r\nx\r\n"), R("CHUNK", 400)),
    CASE("extension with bytes after the quotes", CHUNKED("1;a=\"\"b\r\nx\r\n"), R("CHUNK", 400)),
    CASE("LF in a quoted extension", CHUNKED("1;a=\"\n\"\r\nx\r\n"), R("LINE_END", 400)),
    CASE("length in the trailers", CHUNKED("0\r\nA: b\r\nCONTENT-length: 5\r\n\r\n"),
         R("TRAILER", 400)),
    CASE("coding in the trailers", CHUNKED("0\r\nTransfer-Encoding:"), R("TRAILER", 400)),
    CASE("Host in the trailers", CHUNKED("0\r\nhost: y\r\n\r\n"), R("TRAILER", 400)),
    CASE("long extension", CHUNKED("1;23456789012345678\r\n"), R("CHUNK_EXT_LONG", 400)),
    CASE("long extensions together", CHUNKED("1;23456789\r\na\r\n1;234567890\r\na\r\n"),
         R("CHUNK_EXT_LONG", 400)),
    CASE("chunks over the limit", CHUNKED("14\r\n01234567890123456789\r\n1\r\n"),
         R("BODY_LONG", 413)),
    CASE("long trailers", CHUNKED("0\r\nA: " BYTES_40), R("TRAILER_LONG", 431)),
    CASE("folded trailer", CHUNKED("0\r\nA: b\r\n c\r\n\r\n"), R("FIELD_FOLDED", 400)),
    CASE("trailer without a colon", CHUNKED("0\r\nA\r\n\r\n"), R("FIELD_NAME", 400)),
    CASE("trailer without a name", CHUNKED("0\r\n: a\r\n\r\n"), R("FIELD_NAME", 400)),
    CASE("NUL in a trailer", CHUNKED("0\r\nA: \0\r\n\r\n"), R("FIELD_VALUE", 400)),
    CASE("LF after a trailer", CHUNKED("0\r\nA: b\n\r\n"), R("LINE_END", 400)),
    CASE("LF ends the trailers", CHUNKED("0\r\n\n"), R("LINE_END", 400)),
    CASE("CR without LF ends the trailers", CHUNKED("0\r\n\rx"), R("LINE_END", 400)),
};

static void check(const struct parse_case *c, struct describe_pieces pieces)
{
    struct buf got = { 0 };

    http_describe(&got, c->bytes, c->n, &limits, BODY_BYTES_MAX, pieces);
    if (strcmp(got.data, c->want) != 0)
        fail_msg("%s (first piece %zu, then %zu):\n  got  %s  want %s", c->name, pieces.first,
                 pieces.each, got.data, c->want);
    buf_fini(&got);
}

static void check_all(const struct parse_case *cases, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        check(&cases[i], (struct describe_pieces){ 0 });
        check(&cases[i], (struct describe_pieces){ .each = 1 });
        for (size_t first = 1; first < cases[i].n; first++)
            check(&cases[i], (struct describe_pieces){ .first = first });
    }
}

static void what_is_clear_is_accepted(void **state)
{
    (void)state;
    check_all(accepted, sizeof accepted / sizeof accepted[0]);
}

static void what_is_not_is_refused(void **state)
{
    (void)state;
    check_all(refused, sizeof refused / sizeof refused[0]);
}

/* A refusal that comes after one complete request must not take that request back. */
static void a_request_before_a_refused_one_stands(void **state)
{
    static const struct parse_case c =
        CASE("second is bad", GET(H) "GET / HTTP/9.9\r\n",
             "GET / HTTP/1.1 host=x keep=1 [Host: x] \"\"\n" R("VERSION", 505));

    (void)state;
    check_all(&c, 1);
}

/* Every single byte in the place of one: refused, or kept as it is.  No byte may vanish. */
static void no_byte_is_dropped_from_a_value(void **state)
{
    char bytes[] = GET(H "A: b?c\r\n");
    char *at = strchr(bytes, '?');
    struct buf got = { 0 }, want = { 0 };

    (void)state;
    for (int byte = 0; byte < 256; byte++) {
        bool is_fine = byte == '\t' || (byte >= ' ' && byte != 0x7f);
        *at = (char)byte;
        buf_clear(&got);
        buf_clear(&want);
        http_describe(&got, bytes, sizeof bytes - 1, &limits, 0, (struct describe_pieces){ 0 });
        describe_bytes(&want, at, 1);
        if (is_fine)
            assert_non_null(strstr(got.data, want.data));
        else
            assert_memory_equal(got.data, "refused ", 8);
    }
    buf_fini(&got);
    buf_fini(&want);
}

static void escapes_are_decoded_or_refused(void **state)
{
    char out[32];
    size_t n;

    (void)state;
    assert_true(http_percent_decode(out, &n, "a%2Fb%41+", 9, false));
    assert_memory_equal(out, "a/bA+", n);
    assert_int_equal(n, 5);
    assert_true(http_percent_decode(out, &n, "a+b", 3, true));
    assert_memory_equal(out, "a b", n);
    assert_false(http_percent_decode(out, &n, "%", 1, false));
    assert_false(http_percent_decode(out, &n, "%4", 2, false));
    assert_false(http_percent_decode(out, &n, "%zz", 3, false));
    assert_false(http_percent_decode(out, &n, "%00", 3, false));
}

static void a_query_is_split_and_decoded(void **state)
{
    char out[9];

    (void)state;
    assert_true(http_query_get("a=1&b=two+w%21&c&d=", "a", out, sizeof out));
    assert_string_equal(out, "1");
    assert_true(http_query_get("a=1&b=two+w%21&c&d=", "b", out, sizeof out));
    assert_string_equal(out, "two w!");
    assert_true(http_query_get("a=1&b=two+w%21&c&d=", "c", out, sizeof out));
    assert_string_equal(out, "");
    assert_true(http_query_get("a=1&%62=2", "b", out, sizeof out));
    assert_string_equal(out, "2");
    assert_false(http_query_get("aa=1&b=aa", "a", out, sizeof out));
    assert_false(http_query_get("", "a", out, sizeof out));
    assert_false(http_query_get("a=123456789", "a", out, sizeof out)); /* no room for the NUL */
    assert_false(http_query_get("a=%zz", "a", out, sizeof out));
}

static void routes_know_404_from_405(void **state)
{
    static const int one, two;
    static const struct http_route routes[] = {
        { "/", HTTP_METHOD_BIT(HTTP_GET), &one },
        { "/both", HTTP_METHOD_BIT(HTTP_GET), &one },
        { "/both", HTTP_METHOD_BIT(HTTP_POST), &two },
    };
    char allow[HTTP_ALLOW_BYTES];
    const void *serve = NULL;

    (void)state;
    assert_int_equal(http_route_find(routes, 3, HTTP_POST, "/both", &serve, allow),
                     HTTP_ROUTE_FOUND);
    assert_ptr_equal(serve, &two);
    assert_int_equal(http_route_find(routes, 3, HTTP_HEAD, "/both", &serve, allow),
                     HTTP_ROUTE_FOUND);
    assert_ptr_equal(serve, &one);
    assert_int_equal(http_route_find(routes, 3, HTTP_PUT, "/both", &serve, allow),
                     HTTP_ROUTE_NO_METHOD);
    assert_string_equal(allow, "GET,HEAD,POST");
    assert_int_equal(http_route_find(routes, 3, HTTP_GET, "/both/", &serve, allow),
                     HTTP_ROUTE_NO_PATH);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_clear_is_accepted),
        cmocka_unit_test(what_is_not_is_refused),
        cmocka_unit_test(a_request_before_a_refused_one_stands),
        cmocka_unit_test(no_byte_is_dropped_from_a_value),
        cmocka_unit_test(escapes_are_decoded_or_refused),
        cmocka_unit_test(a_query_is_split_and_decoded),
        cmocka_unit_test(routes_know_404_from_405),
    };

    return cmocka_run_group_tests_name("http_parser", tests, NULL, NULL);
}
