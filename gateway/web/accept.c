/* accept.c - lists in header fields, element by element. */
#include "gateway/web/accept.h"

#include <string.h>
#include <strings.h>

#define BLANKS " \t"

/* The end of an element: a comma outside quotes, or the end of the list. */
static const char *element_end(const char *at)
{
    bool is_quoted = false;

    for (; *at && (is_quoted || *at != ','); at++) {
        if (*at == '"')
            is_quoted = !is_quoted;
        else if (*at == '\\' && is_quoted && at[1])
            at++;
    }
    return at;
}

/* The element after `at`, without blanks around it; NULL past the last. */
static const char *next_element(const char **at, const char **end)
{
    const char *from = *at + strspn(*at, BLANKS ","), *stop;

    if (!*from)
        return NULL;
    stop = element_end(from);
    *at = stop;
    while (stop > from && strchr(BLANKS, stop[-1]))
        stop--;
    *end = stop;
    return from;
}

/* q=0, q=0.0 and so on, among the parameters from..end. */
static bool is_refused(const char *from, const char *end)
{
    while ((from = memchr(from, ';', (size_t)(end - from)))) {
        from++;
        from += strspn(from, BLANKS);
        if (end - from >= 3 && strncasecmp(from, "q=0", 3) == 0) {
            size_t n = strspn(from + 3, ".0");
            n += strspn(from + 3 + n, BLANKS);
            return from + 3 + n >= end || from[3 + n] == ';';
        }
        if (from >= end)
            break;
    }
    return false;
}

bool accept_names(const char *list, const char *word)
{
    size_t n = strlen(word);
    const char *from, *end;

    while (list && (from = next_element(&list, &end))) {
        size_t n_name = strcspn(from, ";," BLANKS);
        if (n_name == n && strncasecmp(from, word, n) == 0)
            return !is_refused(from, end);
    }
    return false;
}

static const char *opaque(const char *etag)
{
    return strncmp(etag, "W/", 2) == 0 ? etag + 2 : etag;
}

bool accept_has_etag(const char *list, const char *etag)
{
    const char *from, *end;

    etag = opaque(etag);
    while (list && (from = next_element(&list, &end))) {
        if (end - from == 1 && *from == '*')
            return true;
        from = opaque(from);
        if (end > from && (size_t)(end - from) == strlen(etag) &&
            memcmp(from, etag, strlen(etag)) == 0)
            return true;
    }
    return false;
}
