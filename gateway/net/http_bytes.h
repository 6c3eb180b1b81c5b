/* http_bytes.h - kinds of bytes in HTTP syntax; for the parser's two files. */
#ifndef LLMD_GATEWAY_NET_HTTP_BYTES_H
#define LLMD_GATEWAY_NET_HTTP_BYTES_H

#include <stdbool.h>
#include <stdint.h>

enum {
    HTTP_C_TOKEN = 1,
    HTTP_C_TARGET = 2,
    HTTP_C_VALUE = 4,
    HTTP_C_HOST = 8,
};

extern const uint8_t http_byte_kinds[256];

static inline bool http_is_a(char c, int kind)
{
    return (http_byte_kinds[(uint8_t)c] & kind) != 0;
}

static inline bool http_is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static inline int http_hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

#endif
