/* jinja_lex.c - template text to tokens.
 *
 * White space is decided here, as Jinja does with trim_blocks and lstrip_blocks on: a line end right
 * after a block or a comment goes; blanks between the start of a line and a block or a comment go; a
 * minus inside the delimiter strips all white space on its side, a plus keeps it; one line end at the
 * end of the source goes.  Raw blocks become text. */
#include "text/jinja/jinja.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "common/utf8.h"

struct lexer {
    const char *src; /* line ends are \n already */
    size_t n, at;
    int line;
    bool at_line_start; /* the last thing taken ended with a line end, or nothing was */
    int open;           /* brackets open inside the current tag */
    struct arena *mem;
    struct jtok *toks;
    size_t n_toks, cap;
    struct err *e;
};

static bool fail(const struct lexer *l, const char *what)
{
    return err_set(l->e, ERR_MODEL, 0, "chat template line %d: %s", l->line, what);
}

static struct jtok *add(struct lexer *l, enum jtok_type type)
{
    if (l->n_toks == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : 256;
        struct jtok *grown = arena_alloc(l->mem, cap * sizeof *grown);
        if (l->n_toks)
            memcpy(grown, l->toks, l->n_toks * sizeof *grown);
        l->toks = grown;
        l->cap = cap;
    }
    l->toks[l->n_toks] = (struct jtok){ .type = type, .line = l->line };
    return &l->toks[l->n_toks++];
}

static bool looking_at(const struct lexer *l, size_t at, const char *s)
{
    size_t n = strlen(s);

    return l->n - at >= n && memcmp(l->src + at, s, n) == 0;
}

static void advance(struct lexer *l, size_t to)
{
    for (; l->at < to; l->at++)
        l->line += l->src[l->at] == '\n';
}

static size_t skip_space(const struct lexer *l, size_t at)
{
    return at + jutf8_trim_left(l->src + at, l->n - at);
}

/* The next "{{", "{%" or "{#", or the end. */
static size_t find_tag(const struct lexer *l, size_t at)
{
    for (; at + 1 < l->n; at++) {
        const char *brace = memchr(l->src + at, '{', l->n - at - 1);
        if (!brace)
            break;
        at = (size_t)(brace - l->src);
        if (brace[1] == '{' || brace[1] == '%' || brace[1] == '#')
            return at;
    }
    return l->n;
}

/* Text [l->at, end) before a tag whose delimiter carries `sign`; is_print for "{{". */
static void add_text(struct lexer *l, size_t end, char sign, bool is_print)
{
    const char *text = l->src + l->at;
    size_t n = end - l->at;
    struct jtok *t;

    if (sign == '-') {
        n = jutf8_trim_right(text, n);
    } else if (sign != '+' && !is_print && n > 0) {
        const char *eol = memrchr(text, '\n', n);
        size_t from = eol ? (size_t)(eol - text) + 1 : 0;
        if ((from > 0 || l->at_line_start) && jutf8_trim_left(text + from, n - from) == n - from)
            n = from;
    }
    if (n == 0)
        return;
    t = add(l, JT_TEXT);
    t->s = text;
    t->n = n;
}

/* At a block's or comment's closing delimiter (sign and two characters)?  If so, *end is past it and
 * past the white space it takes with it. */
static bool closes(const struct lexer *l, size_t at, const char *delim, bool takes_line_end,
                   size_t *end)
{
    char sign = at < l->n && (l->src[at] == '-' || l->src[at] == '+') ? l->src[at] : '\0';
    size_t past = at + (sign != '\0');

    if (sign == '+' && !takes_line_end)
        return false;
    if (!looking_at(l, past, delim))
        return false;
    past += 2;
    if (sign == '-')
        past = skip_space(l, past);
    else if (sign == '\0' && takes_line_end && past < l->n && l->src[past] == '\n')
        past++;
    *end = past;
    return true;
}

static void finish_tag(struct lexer *l, size_t end)
{
    l->at_line_start = l->src[end - 1] == '\n';
    advance(l, end);
}

static bool lex_comment(struct lexer *l)
{
    size_t end;

    for (size_t at = l->at; at < l->n; at++) {
        if (closes(l, at, "#}", true, &end)) {
            finish_tag(l, end);
            return true;
        }
    }
    return fail(l, "a comment is not closed with '#}'");
}

/* "{%" [sign] word [sign] "%}" with white space between: past it, or 0. */
static size_t match_word_tag(const struct lexer *l, size_t at, const char *word, bool is_end,
                             char *sign)
{
    size_t end;

    if (!looking_at(l, at, "{%"))
        return 0;
    at += 2;
    *sign = '\0';
    if (at < l->n && (l->src[at] == '-' || l->src[at] == '+'))
        *sign = l->src[at++];
    at = skip_space(l, at);
    if (!looking_at(l, at, word))
        return 0;
    at = skip_space(l, at + strlen(word));
    if (is_end)
        return closes(l, at, "%}", true, &end) ? end : 0;
    /* The line end after {% raw %} belongs to the raw text. */
    if (looking_at(l, at, "-%}"))
        return skip_space(l, at + 3);
    return looking_at(l, at, "%}") ? at + 2 : 0;
}

static bool lex_raw(struct lexer *l)
{
    for (size_t at = l->at; at < l->n; at++) {
        char sign;
        size_t end = l->src[at] == '{' ? match_word_tag(l, at, "endraw", true, &sign) : 0;
        if (end) {
            add_text(l, at, sign, false);
            finish_tag(l, end);
            return true;
        }
    }
    return fail(l, "a raw block is not closed with '{% endraw %}'");
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

/* \xHH, \uHHHH or \UHHHHHHHH, s past the letter.  Returns digits used, 0 when malformed. */
static size_t hex_escape(const char *s, size_t n, char letter, uint32_t *cp)
{
    size_t want = letter == 'x' ? 2 : letter == 'u' ? 4 : 8;

    *cp = 0;
    if (n < want)
        return 0;
    for (size_t i = 0; i < want; i++) {
        int digit = hex_digit(s[i]);
        if (digit < 0 || *cp > 0xfffffff)
            return 0;
        *cp = *cp << 4 | (uint32_t)digit;
    }
    return *cp > 0x10ffff || (*cp >= 0xd800 && *cp <= 0xdfff) ? 0 : want;
}

/* One escape at s[0] (past the backslash) into out.  Returns the bytes taken, 0 when malformed. */
static size_t unescape(const char *s, size_t n, char *out, size_t *n_out)
{
    static const char plain[] = "n\nr\rt\tb\bf\fv\va\a\\\\''\"\"";
    uint32_t cp = 0;
    size_t used = 0;

    for (const char *p = plain; *p; p += 2) {
        if (*p == s[0]) {
            out[(*n_out)++] = p[1];
            return 1;
        }
    }
    if (s[0] == '\n')
        return 1;
    if (s[0] == 'x' || s[0] == 'u' || s[0] == 'U') {
        used = hex_escape(s + 1, n - 1, s[0], &cp);
        if (!used)
            return 0;
        *n_out += utf8_encode(cp, out + *n_out);
        return used + 1;
    }
    while (used < 3 && used < n && s[used] >= '0' && s[used] <= '7')
        cp = cp << 3 | (uint32_t)(s[used++] - '0');
    if (used) {
        *n_out += utf8_encode(cp, out + *n_out);
        return used;
    }
    if (s[0] == 'N')
        return 0;
    out[(*n_out)++] = '\\';
    out[(*n_out)++] = s[0];
    return 1;
}

static bool lex_string(struct lexer *l)
{
    char quote = l->src[l->at];
    size_t start = l->at + 1, end = start;
    struct jtok *t;
    char *text;
    size_t n = 0;

    while (end < l->n && l->src[end] != quote)
        end += l->src[end] == '\\' ? 2 : 1;
    if (end >= l->n)
        return fail(l, "a string is not closed");
    text = arena_alloc(l->mem, end - start + 4);
    for (size_t i = start; i < end;) {
        size_t used;
        if (l->src[i] != '\\') {
            text[n++] = l->src[i++];
            continue;
        }
        used = unescape(l->src + i + 1, end - i - 1, text, &n);
        if (!used)
            return fail(l, "a string has a malformed escape");
        i += used + 1;
    }
    t = add(l, JT_STRING);
    t->s = text;
    t->n = n;
    advance(l, end + 1);
    return true;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_word(char c)
{
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

/* Past the digits of [at..], single underscores between digits allowed; `at` when there are none. */
static size_t skip_digits(const struct lexer *l, size_t at)
{
    size_t end = at;

    while (end < l->n && is_digit(l->src[end])) {
        end++;
        if (end + 1 < l->n && l->src[end] == '_' && is_digit(l->src[end + 1]))
            end++;
    }
    return end;
}

/* The end of a float that starts at `at`, or `at` when an integer stands there. */
static size_t float_end(const struct lexer *l, size_t at)
{
    size_t whole = skip_digits(l, at), end = whole, exponent;

    if (at > 0 && l->src[at - 1] == '.')
        return at;
    if (end + 1 < l->n && l->src[end] == '.' && is_digit(l->src[end + 1]))
        end = skip_digits(l, end + 1);
    exponent = end;
    if (exponent < l->n && (l->src[exponent] == 'e' || l->src[exponent] == 'E')) {
        exponent++;
        if (exponent < l->n && (l->src[exponent] == '+' || l->src[exponent] == '-'))
            exponent++;
        if (skip_digits(l, exponent) > exponent)
            end = skip_digits(l, exponent);
    }
    return end > whole ? end : at;
}

/* Past 0x.., 0o.. or 0b.. at `at`, or `at`. */
static size_t based_end(const struct lexer *l, size_t at, int *base)
{
    char letter = l->src[at] == '0' && at + 1 < l->n ? (char)(l->src[at + 1] | 0x20) : '\0';
    size_t end = at + 2;

    *base = letter == 'x' ? 16 : letter == 'o' ? 8 : letter == 'b' ? 2 : 10;
    if (*base == 10)
        return at;
    while (end < l->n) {
        size_t digit = end + (l->src[end] == '_');
        int value = digit < l->n ? hex_digit(l->src[digit]) : -1;
        if (value < 0 || value >= *base)
            break;
        end = digit + 1;
    }
    return end > at + 2 ? end : at;
}

static bool lex_number(struct lexer *l)
{
    char digits[64];
    size_t n = 0;
    int base = 10;
    size_t end = float_end(l, l->at);
    bool is_float = end > l->at;
    struct jtok *t;

    if (!is_float) {
        end = based_end(l, l->at, &base);
        if (end == l->at)
            end = skip_digits(l, l->at);
        if (base == 10 && l->src[l->at] == '0') /* "007" is the integer 0 and a stray 7 */
            for (end = l->at + 1; end < l->n && l->src[end] == '0';)
                end++;
    }
    for (size_t i = l->at + (base == 10 ? 0 : 2); i < end && n + 1 < sizeof digits; i++)
        if (l->src[i] != '_')
            digits[n++] = l->src[i];
    if (n + 1 == sizeof digits)
        return fail(l, "a number is too long");
    digits[n] = '\0';
    t = add(l, is_float ? JT_FLOAT : JT_INT);
    errno = 0;
    if (is_float)
        t->f = strtod(digits, NULL);
    else
        t->i = strtoll(digits, NULL, base);
    if (!is_float && errno == ERANGE)
        return fail(l, "an integer does not fit in 64 bits");
    advance(l, end);
    return true;
}

static void lex_name(struct lexer *l)
{
    size_t end = l->at;
    struct jtok *t = add(l, JT_NAME);

    while (end < l->n && is_word(l->src[end]))
        end++;
    t->s = l->src + l->at;
    t->n = end - l->at;
    l->at = end;
}

static bool lex_operator(struct lexer *l)
{
    static const struct {
        char text[3];
        int op;
    } pairs[] = { { "==", JT_EQ }, { "!=", JT_NE },  { "<=", JT_LE },
                  { ">=", JT_GE }, { "**", JT_POW }, { "//", JT_FLOORDIV } };
    char c = l->src[l->at];

    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        if (looking_at(l, l->at, pairs[i].text)) {
            add(l, JT_OP)->op = pairs[i].op;
            l->at += 2;
            return true;
        }
    }
    if (!memchr("+-/*%~[](){}><=.:|,;", c, 20))
        return err_set(l->e, ERR_MODEL, 0, "chat template line %d: unexpected character '%c'",
                       l->line, c >= ' ' && c < 0x7f ? c : '?');
    if (c == '(' || c == '[' || c == '{')
        l->open++;
    if ((c == ')' || c == ']' || c == '}') && l->open-- == 0)
        return err_set(l->e, ERR_MODEL, 0, "chat template line %d: unexpected '%c'", l->line, c);
    add(l, JT_OP)->op = (unsigned char)c;
    l->at++;
    return true;
}

static bool lex_item(struct lexer *l)
{
    char c = l->src[l->at];

    if (c == '"' || c == '\'')
        return lex_string(l);
    if (is_digit(c))
        return lex_number(l);
    if (is_word(c)) {
        lex_name(l);
        return true;
    }
    return lex_operator(l);
}

/* The inside of "{{" or "{%", up to and with its end. */
static bool lex_tag(struct lexer *l, bool is_print)
{
    size_t end;

    l->open = 0;
    for (;;) {
        if (l->open == 0 && closes(l, l->at, is_print ? "}}" : "%}", !is_print, &end)) {
            add(l, is_print ? JT_PRINT_END : JT_BLOCK_END);
            finish_tag(l, end);
            return true;
        }
        end = skip_space(l, l->at);
        if (end > l->at) {
            advance(l, end);
            continue;
        }
        if (l->at == l->n)
            return fail(l, is_print ? "'{{' is not closed" : "'{%' is not closed");
        if (!lex_item(l))
            return false;
    }
}

static bool lex_source(struct lexer *l)
{
    while (l->at < l->n) {
        size_t tag = find_tag(l, l->at), past;
        char sign = '\0', kind;
        if (tag == l->n) {
            add_text(l, tag, '+', false);
            return true;
        }
        past = match_word_tag(l, tag, "raw", false, &sign);
        kind = past ? 'r' : l->src[tag + 1];
        if (!past) {
            past = tag + 2;
            if (past < l->n && (l->src[past] == '-' || l->src[past] == '+'))
                sign = l->src[past++];
            else
                sign = '\0';
        }
        add_text(l, tag, sign, kind == '{');
        l->at_line_start = l->src[past - 1] == '\n'; /* only after {% raw -%} */
        advance(l, past);
        if (kind == '{' || kind == '%')
            add(l, kind == '{' ? JT_PRINT_BEGIN : JT_BLOCK_BEGIN);
        if (kind == 'r' ? !lex_raw(l) : kind == '#' ? !lex_comment(l) : !lex_tag(l, kind == '{'))
            return false;
    }
    return true;
}

/* A copy in `mem` with \r\n and \r as \n and one line end at the very end removed. */
static const char *normalize(const char *source, size_t *n, struct arena *mem)
{
    char *copy = arena_alloc(mem, *n + 1);
    size_t out = 0;

    for (size_t i = 0; i < *n; i++) {
        copy[out++] = source[i] == '\r' ? '\n' : source[i];
        if (source[i] == '\r' && i + 1 < *n && source[i + 1] == '\n')
            i++;
    }
    if (out > 0 && copy[out - 1] == '\n')
        out--;
    *n = out;
    return copy;
}

bool jlex(const char *source, size_t n, struct arena *mem, struct jtok **toks, size_t *n_toks,
          struct err *e)
{
    struct lexer l = { .line = 1, .at_line_start = true, .mem = mem, .e = e };
    size_t bad = 0;

    if (n > JINJA_SOURCE_MAX)
        return err_set(e, ERR_MODEL, 0, "chat template has %zu bytes, the limit is %u", n,
                       JINJA_SOURCE_MAX);
    if (!utf8_is_valid(source, n, &bad))
        return err_set(e, ERR_MODEL, 0, "chat template is not UTF-8 at byte %zu", bad);
    l.n = n;
    l.src = normalize(source, &l.n, mem);
    if (!lex_source(&l))
        return false;
    add(&l, JT_EOF);
    *toks = l.toks;
    *n_toks = l.n_toks;
    return true;
}
