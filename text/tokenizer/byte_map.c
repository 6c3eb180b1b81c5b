/* byte_map.c - the printable bytes stand for themselves, the others follow from U+0100 on. */
#include "text/tokenizer/byte_map.h"

#include <stdint.h>

#include "common/utf8.h"

static bool is_itself(uint32_t c)
{
    return (c >= 0x21 && c <= 0x7e) || (c >= 0xa1 && c <= 0xac) || (c >= 0xae && c <= 0xff);
}

/* The byte of code point c, or -1.  From U+0100: 0x00-0x20, then 0x7f-0xa0, then 0xad. */
static int byte_of(uint32_t c)
{
    if (is_itself(c))
        return (int)c;
    if (c < 0x100 || c > 0x143)
        return -1;
    c -= 0x100;
    if (c <= 0x20)
        return (int)c;
    return c == 0x43 ? 0xad : (int)(0x7f + c - 0x21);
}

bool byte_map_undo(const char *piece, size_t n, char *out, size_t *out_n)
{
    size_t made = 0;

    for (size_t i = 0, len; i < n; i += len) {
        int byte = byte_of(utf8_decode(piece + i, &len));
        if (byte < 0)
            return false;
        out[made++] = (char)byte;
    }
    *out_n = made;
    return true;
}
