/* stop_match.c - search, not an automaton: at most a few short strings, over the bytes of one token. */
#include "gateway/answer/stop_match.h"

#include <string.h>

static bool is_char_start(char c)
{
    return ((unsigned char)c & 0xc0) != 0x80;
}

static size_t count_chars(const char *s, size_t n)
{
    size_t count = 0;

    for (size_t i = 0; i < n; i++)
        count += is_char_start(s[i]);
    return count;
}

void stop_set_init(struct stop_set *set, const struct stop_string *strings, size_t n)
{
    *set = (struct stop_set){ .strings = strings, .n = n };
    for (size_t i = 0; i < n; i++) {
        size_t chars = count_chars(strings[i].s, strings[i].n);
        if (strings[i].n > set->bytes_max)
            set->bytes_max = strings[i].n;
        if (chars > set->hold_chars + 1)
            set->hold_chars = chars - 1;
    }
}

bool stop_find(const struct stop_set *set, const char *text, size_t n, size_t seen,
               struct stop_hit *hit)
{
    bool found = false;

    for (size_t i = 0; i < set->n; i++) {
        const struct stop_string *stop = &set->strings[i];
        size_t from =
            seen + 1 > stop->n ? seen + 1 - stop->n : 0; /* first start that ends past seen */
        const char *at = from < n ? memmem(text + from, n - from, stop->s, stop->n) : NULL;
        size_t end = at ? (size_t)(at - text) + stop->n : 0;

        if (!at || (found && end >= hit->end))
            continue;
        *hit = (struct stop_hit){ .which = i, .start = end - stop->n, .end = end };
        found = true;
    }
    return found;
}

static bool ends_with(const char *text, size_t n, const struct stop_string *stop)
{
    return n >= stop->n && memcmp(text + n - stop->n, stop->s, stop->n) == 0;
}

bool stop_ends(const struct stop_set *set, const char *text, size_t n, size_t *which)
{
    for (size_t i = 0; i < set->n; i++) {
        if (!ends_with(text, n, &set->strings[i]) &&
            !(n > 0 && text[n - 1] == '\n' && ends_with(text, n - 1, &set->strings[i])))
            continue;
        *which = i;
        return true;
    }
    return false;
}

size_t stop_shown(const struct stop_set *set, const char *text, size_t n)
{
    for (size_t held = 0; n > 0 && held < set->hold_chars; held++)
        do
            n--;
        while (n > 0 && !is_char_start(text[n]));
    return n;
}
