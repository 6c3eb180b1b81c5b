/* unicode.c - utf8proc behind a small face.
 *
 * Normalization goes segment by segment: a segment is a character and the marks (or Hangul vowels
 * and finals) that follow it, and no normal form ever moves or joins anything across its border.
 * So each segment knows which bytes of the text it came from, and a text in which little changes is
 * mostly copied.
 *
 * Marks are put in order here and not by utf8proc_decompose(), whose sort takes quadratic time: a
 * few hundred kilobytes of stacked accents from one client would stop an event loop for a minute. */
#include "text/tokenizer/unicode.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "common/mem.h"
#include "common/utf8.h"

enum {
    DECOMPOSED_MAX = 32, /* code points of one character; U+FDFA has 18, the longest */
    LOCAL_POINTS = 64,   /* segments of up to this many code points need no allocation */
    FIRST_MARK = 0x300,  /* no character before it is a mark or has one in its second place */
};

bool unicode_is_space(uint32_t c)
{
    if (c < 0x80)
        return c == ' ' || (c >= '\t' && c <= '\r');
    return c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 ||
           c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

bool unicode_is_word(uint32_t c)
{
    switch (utf8proc_category((utf8proc_int32_t)c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
        return true;
    default:
        /* Circled and squared letters are alphabetic symbols; then the two joiners. */
        return (c >= 0x24b6 && c <= 0x24e9) || (c >= 0x1f130 && c <= 0x1f149) ||
               (c >= 0x1f150 && c <= 0x1f169) || (c >= 0x1f170 && c <= 0x1f189) || c == 0x200c ||
               c == 0x200d;
    }
}

bool unicode_is_number(uint32_t c)
{
    utf8proc_category_t kind = utf8proc_category((utf8proc_int32_t)c);

    return kind == UTF8PROC_CATEGORY_ND || kind == UTF8PROC_CATEGORY_NL ||
           kind == UTF8PROC_CATEGORY_NO;
}

size_t unicode_lower(uint32_t c, uint32_t out[2])
{
    if (c == 0x130) { /* I with a dot: "i" and a dot above */
        out[0] = 'i';
        out[1] = 0x307;
        return 2;
    }
    out[0] = (uint32_t)utf8proc_tolower((utf8proc_int32_t)c);
    return 1;
}

static utf8proc_option_t options_of(enum unicode_form form)
{
    utf8proc_option_t compat = UTF8PROC_STABLE | UTF8PROC_COMPAT;

    switch (form) {
    case UNICODE_NFC:
        return UTF8PROC_STABLE | UTF8PROC_COMPOSE;
    case UNICODE_NFD:
        return UTF8PROC_STABLE | UTF8PROC_DECOMPOSE;
    case UNICODE_NFKC:
        return compat | UTF8PROC_COMPOSE;
    default:
        return compat | UTF8PROC_DECOMPOSE;
    }
}

static size_t decompose(uint32_t c, utf8proc_option_t options, int32_t out[DECOMPOSED_MAX])
{
    int boundclass = UTF8PROC_BOUNDCLASS_START;
    utf8proc_ssize_t n =
        utf8proc_decompose_char((utf8proc_int32_t)c, out, DECOMPOSED_MAX, options, &boundclass);

    if (n < 0 || n > DECOMPOSED_MAX) { /* not a character: stands for itself */
        out[0] = (int32_t)c;
        n = 1;
    }
    return (size_t)n;
}

/* Can c join, or be put in order with, what stands before it? */
static bool clings(uint32_t c)
{
    if (c < FIRST_MARK)
        return false;
    if ((c >= 0x1160 && c <= 0x11ff) || (c >= 0xd7b0 && c <= 0xd7fb)) /* Hangul vowels, finals */
        return true;
    switch (utf8proc_category((utf8proc_int32_t)c)) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
        return true;
    default:
        return false;
    }
}

/* Does a segment begin with c? */
static bool begins_segment(uint32_t c, utf8proc_option_t options)
{
    int32_t parts[DECOMPOSED_MAX];

    if (c < FIRST_MARK)
        return true;
    if (clings(c))
        return false;
    decompose(c, options, parts);
    return !clings((uint32_t)parts[0]);
}

/* Canonical ordering: within each run of marks, a stable sort by combining class. */
static void order_marks(int32_t *points, size_t n, int32_t *spare)
{
    size_t at = 0;

    while (at < n) {
        size_t starts[256] = { 0 }, end = at, sum = 0;

        while (end < n && utf8proc_get_property(points[end])->combining_class != 0)
            starts[utf8proc_get_property(points[end++])->combining_class]++;
        if (end - at > 1) {
            for (int class = 0; class < 256; class ++) {
                size_t count = starts[class];
                starts[class] = sum;
                sum += count;
            }
            for (size_t i = at; i < end; i++)
                spare[starts[utf8proc_get_property(points[i])->combining_class]++] = points[i];
            memcpy(points + at, spare, (end - at) * sizeof *points);
        }
        at = end + 1;
    }
}

/* Write the normal form points[0..n) of the segment that begins at `from` and has n_chars characters.
 * The k-th point is said to come from the character as far along as it is: exact for a single character
 * and for what becomes one, and it keeps a token's span short in a pile of a million marks. */
static void put_points(const struct text_view *v, size_t from, size_t n_chars,
                       const int32_t *points, size_t n, struct text_rewrite *out)
{
    size_t source = from, n_passed = 0;

    for (size_t k = 0; k < n; k++) {
        char bytes[4];

        for (; n_passed < k * n_chars / n; n_passed++)
            source += utf8_length(v->s[source]);
        text_rewrite_put(out, bytes, utf8_encode((uint32_t)points[k], bytes),
                         text_view_origin(v, source));
    }
}

/* Write the segment [from, to) of v, of n_chars characters, in its normal form. */
static void put_segment(const struct text_view *v, size_t from, size_t to, size_t n_chars,
                        utf8proc_option_t options, struct text_rewrite *out)
{
    int32_t local[2 * LOCAL_POINTS], *points = local;
    size_t cap = LOCAL_POINTS, n = 0;
    utf8proc_ssize_t joined;

    if (n_chars > LOCAL_POINTS / DECOMPOSED_MAX) {
        cap = (n_chars + 1) * DECOMPOSED_MAX;
        points = mem_alloc(2 * cap * sizeof *points);
    }
    for (size_t i = from, len; i < to; i += len) {
        int32_t parts[DECOMPOSED_MAX];
        size_t n_parts = decompose(utf8_decode(v->s + i, &len), options, parts);

        assert(n + n_parts <= cap);
        memcpy(points + n, parts, n_parts * sizeof *parts);
        n += n_parts;
    }
    order_marks(points, n, points + cap);
    joined = utf8proc_normalize_utf32(points, (utf8proc_ssize_t)n, options);
    assert(joined >= 0);
    put_points(v, from, n_chars, points, (size_t)joined, out);
    if (points != local)
        free(points);
}

/* Is a segment of this one character already normal? */
static bool is_normal_alone(uint32_t c, utf8proc_option_t options)
{
    int32_t parts[DECOMPOSED_MAX];

    return decompose(c, options, parts) == 1 && parts[0] == (int32_t)c;
}

void unicode_normalize(enum unicode_form form, const struct text_view *v, struct text_rewrite *out)
{
    utf8proc_option_t options = options_of(form);
    size_t copied = 0; /* v up to here has been written */
    size_t at = 0;

    while (at < v->n) {
        size_t n_chars = 1, len, end;
        uint32_t c = utf8_decode(v->s + at, &len);

        for (end = at + len; end < v->n; end += len, n_chars++)
            if (begins_segment(utf8_decode(v->s + end, &len), options))
                break;
        if (n_chars > 1 || (c >= 0x80 && !is_normal_alone(c, options))) {
            text_rewrite_copy(out, v, copied, at);
            put_segment(v, at, end, n_chars, options, out);
            copied = end;
        }
        at = end;
    }
    text_rewrite_copy(out, v, copied, v->n);
}
