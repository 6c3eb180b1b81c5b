/* sp_normalizer.c - charsmap and spaces.
 *
 * The charsmap is u32 trie_bytes (little endian), a double-array trie of that size, then NUL-terminated
 * replacements; the trie maps a source string to the offset of its replacement.  At each place of the
 * text the longest source string wins.
 *
 * One unit of the double array is 32 bits (the format of the darts-clone library):
 *   bits 0-7 label, 8 the node has a value, 9 shift the offset by 8 more, 10-30 offset,
 *   31 set in the unit that holds the value itself (bits 0-30). */
#include "text/tokenizer/sp_normalizer.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "common/utf8.h"

static const char MARK[] = "\xe2\x96\x81"; /* U+2581 */
enum { MARK_BYTES = 3 };

struct sp_normalizer {
    struct sp_normalizer_options options;
    const struct trie *verbatim; /* borrowed; may be NULL */
    uint32_t *units;             /* [n_units] the double array */
    size_t n_units;
    char *strings; /* [strings_bytes], the last one a NUL */
    size_t strings_bytes;
};

static uint32_t little_endian(const char *s)
{
    const unsigned char *b = (const unsigned char *)s;

    return (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

static bool load_charsmap(struct sp_normalizer *nz, const char *s, size_t n, struct err *e)
{
    size_t trie_bytes, bad_at;

    if (n == 0)
        return true;
    trie_bytes = n >= 4 ? little_endian(s) : 0;
    if (trie_bytes == 0 || trie_bytes % 4 != 0 || trie_bytes >= n - 4)
        return err_set(e, ERR_MODEL, 0, "precompiled_charsmap: trie of %zu bytes in %zu",
                       trie_bytes, n);
    nz->n_units = trie_bytes / 4;
    nz->units = mem_alloc(trie_bytes);
    for (size_t i = 0; i < nz->n_units; i++)
        nz->units[i] = little_endian(s + 4 + 4 * i);
    nz->strings_bytes = n - 4 - trie_bytes;
    nz->strings = mem_strndup(s + 4 + trie_bytes, nz->strings_bytes);
    if (nz->strings[nz->strings_bytes - 1] != '\0')
        return err_set(e, ERR_MODEL, 0, "precompiled_charsmap: the last string does not end");
    if (!utf8_is_valid(nz->strings, nz->strings_bytes, &bad_at))
        return err_set(e, ERR_MODEL, 0, "precompiled_charsmap: not UTF-8 at byte %zu", bad_at);
    return true;
}

struct sp_normalizer *sp_normalizer_new(struct sp_normalizer_options options, const char *charsmap,
                                        size_t n, const struct trie *verbatim, struct err *e)
{
    struct sp_normalizer *nz = mem_zalloc(1, sizeof *nz);

    nz->options = options;
    nz->verbatim = verbatim;
    if (load_charsmap(nz, charsmap, n, e))
        return nz;
    sp_normalizer_free(nz);
    return NULL;
}

void sp_normalizer_free(struct sp_normalizer *nz)
{
    if (!nz)
        return;
    free(nz->units);
    free(nz->strings);
    free(nz);
}

static uint32_t offset_of(uint32_t unit)
{
    return (unit >> 10) << ((unit & (1u << 9)) >> 6);
}

/* The longest source string that s begins with: its bytes, and its replacement.  0: none. */
static size_t find_source(const struct sp_normalizer *nz, const char *s, size_t n, const char **to)
{
    size_t node = 0, longest = 0;

    if (nz->n_units == 0)
        return 0;
    node ^= offset_of(nz->units[0]);
    for (size_t i = 0; i < n; i++) {
        uint32_t unit, value_at;

        node ^= (unsigned char)s[i];
        if (node >= nz->n_units)
            break;
        unit = nz->units[node];
        if ((unit & (1u << 31 | 0xff)) != (unsigned char)s[i])
            break;
        node ^= offset_of(unit);
        if (!(unit & 1u << 8))
            continue;
        if (node >= nz->n_units)
            break;
        value_at = nz->units[node] & 0x7fffffff;
        if (value_at >= nz->strings_bytes)
            break;
        longest = i + 1;
        *to = nz->strings + value_at;
    }
    return longest;
}

/* What the text at v->s[at..] begins with becomes `to`, n_to bytes; returns the bytes it takes. */
static size_t next_part(const struct sp_normalizer *nz, const struct text_view *v, size_t at,
                        const char **to, size_t *n_to)
{
    const char *s = v->s + at;
    int32_t id;
    size_t n = nz->verbatim ? trie_longest(nz->verbatim, s, v->n - at, &id) : 0;

    *to = s;
    if (n == 0) {
        n = find_source(nz, s, v->n - at, to);
        if (n > 0) {
            /* A broken charsmap may split a character; its rest then goes with it. */
            while (at + n < v->n && utf8_is_continuation(s[n]))
                n++;
            *n_to = strlen(*to);
            return n;
        }
        n = utf8_length(s[0]);
    }
    *n_to = n;
    return n;
}

static void put_part(const struct sp_normalizer *nz, const char *s, size_t n, uint32_t origin,
                     struct text_rewrite *out)
{
    size_t done = 0;

    for (size_t i = 0; nz->options.escape_whitespaces && i < n; i++)
        if (s[i] == ' ') {
            text_rewrite_put(out, s + done, i - done, origin);
            text_rewrite_put(out, MARK, MARK_BYTES, origin);
            done = i + 1;
        }
    text_rewrite_put(out, s + done, n - done, origin);
}

/* How many bytes of v, from the front, are nothing but spaces once normalized. */
static size_t leading_spaces(const struct sp_normalizer *nz, const struct text_view *v)
{
    size_t at = 0, n_to;
    const char *to;

    while (at < v->n) {
        size_t n = next_part(nz, v, at, &to, &n_to);
        if (n_to != 1 || to[0] != ' ')
            break;
        at += n;
    }
    return at;
}

static void drop_trailing_spaces(const struct sp_normalizer *nz, struct text_rewrite *out)
{
    const char *space = nz->options.escape_whitespaces ? MARK : " ";
    size_t n = strlen(space);

    while (out->bytes.n >= n && memcmp(out->bytes.data + out->bytes.n - n, space, n) == 0)
        out->bytes.n -= n;
}

void sp_normalizer_run(const struct sp_normalizer *nz, const struct text_view *v,
                       struct text_rewrite *out)
{
    bool squeeze = nz->options.remove_extra_whitespaces, after_space = squeeze;
    size_t at = squeeze ? leading_spaces(nz, v) : 0;

    if (at == v->n)
        return;
    if (nz->options.add_dummy_prefix)
        put_part(nz, " ", 1, text_view_origin(v, at), out);
    while (at < v->n) {
        const char *to;
        size_t n_to, n = next_part(nz, v, at, &to, &n_to);

        while (after_space && n_to > 0 && to[0] == ' ') {
            to++;
            n_to--;
        }
        put_part(nz, to, n_to, text_view_origin(v, at), out);
        if (n_to > 0)
            after_space = squeeze && to[n_to - 1] == ' ';
        at += n;
    }
    if (squeeze)
        drop_trailing_spaces(nz, out);
}
