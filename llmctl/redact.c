/* redact.c - one pass, a rule after the other at each place. */
#include "llmctl/redact.h"

#include <ctype.h>
#include <stdbool.h>
#include <string.h>
#include <strings.h>

static const char mark[] = "(redacted)";

enum { KEY_LETTERS_MIN = 12 };

static bool is_key_letter(char c)
{
    return isalnum((unsigned char)c) || c == '_' || c == '-' || c == '.' || c == '+' || c == '/' ||
           c == '=';
}

static size_t key_letters(const char *at, size_t left)
{
    size_t n = 0;

    while (n < left && is_key_letter(at[n]))
        n++;
    return n;
}

static bool begins(const char *at, size_t left, const char *word)
{
    size_t n = strlen(word);

    return left >= n && strncasecmp(at, word, n) == 0;
}

/* Bytes at `at` that are a key by their look. */
static size_t looks_like_key(const char *text, size_t i, size_t n)
{
    static const char *const beginnings[] = { "sk-",  "sk_", "hf_",    "nvapi-", "ghp_",
                                              "gho_", "xox", "AKIA",   "AIza",   "glpat-",
                                              "eyJ",  "pk-", "api_org" };
    size_t letters;

    if (i > 0 && (isalnum((unsigned char)text[i - 1]) || text[i - 1] == '_'))
        return 0;
    for (size_t k = 0; k < sizeof beginnings / sizeof *beginnings; k++) {
        size_t length = strlen(beginnings[k]);
        if (n - i < length || strncmp(text + i, beginnings[k], length) != 0)
            continue;
        letters = key_letters(text + i, n - i);
        if (letters >= KEY_LETTERS_MIN)
            return letters;
    }
    return 0;
}

/* Of names that stand for counts as well, numbers are none: "kv_bytes_per_token": 2560. */
static bool is_secret_value(const char *value, size_t n, size_t name)
{
    enum { KEY, TOKEN, PASSWORDS };

    if (n == 0 || value[0] == '{' || value[0] == '[' || begins(value, n, "(secret)"))
        return false;
    if (name >= PASSWORDS)
        return true;
    for (size_t i = 0; i < n; i++)
        if (isalpha((unsigned char)value[i]))
            return n >= 4 && strncmp(value, "null", 4) != 0 && strncmp(value, "true", 4) != 0;
    return false;
}

/* "Bearer X", "api_key=X", "password: X", "\"token\":\"X\"": *skip bytes stay, the result goes. */
static size_t is_named_secret(const char *text, size_t i, size_t n, size_t *skip)
{
    static const char *const names[] = { "key", "token", "password", "passwd", "secret" };
    size_t at;

    if (begins(text + i, n - i, "bearer ") || begins(text + i, n - i, "basic ")) {
        *skip = strcspn(text + i, " ") + 1;
        at = key_letters(text + i + *skip, n - i - *skip);
        return at >= 6 ? at : 0;
    }
    for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
        if (!begins(text + i, n - i, names[k]))
            continue;
        at = i + strlen(names[k]);
        while (at < n && (text[at] == '"' || text[at] == '\'' || text[at] == '\\'))
            at++;
        if (at >= n || (text[at] != '=' && text[at] != ':'))
            continue;
        at++;
        while (at < n &&
               (text[at] == ' ' || text[at] == '"' || text[at] == '\'' || text[at] == '\\'))
            at++;
        *skip = at - i;
        while (at < n && !isspace((unsigned char)text[at]) && !strchr("\"',;}\\", text[at]))
            at++;
        return is_secret_value(text + i + *skip, at - i - *skip, k) ? at - i - *skip : 0;
    }
    return 0;
}

/* "://user:password@": the part between colon and at sign. */
static size_t is_url_password(const char *text, size_t i, size_t n, size_t *skip)
{
    size_t at = i + 3, colon = 0;

    if (!begins(text + i, n - i, "://"))
        return 0;
    for (; at < n && !isspace((unsigned char)text[at]) && !strchr("/?#\"'", text[at]); at++) {
        if (text[at] == ':' && !colon)
            colon = at + 1;
        if (text[at] == '@' && colon) {
            *skip = colon - i;
            return at - colon;
        }
    }
    return 0;
}

void redact_add(struct buf *out, const char *text, size_t n)
{
    for (size_t i = 0; i < n;) {
        size_t skip = 0, gone = looks_like_key(text, i, n);
        if (!gone)
            gone = is_named_secret(text, i, n, &skip);
        if (!gone) {
            skip = 0;
            gone = is_url_password(text, i, n, &skip);
        }
        if (!gone) {
            buf_add_char(out, text[i++]);
            continue;
        }
        buf_add(out, text + i, skip);
        buf_add_str(out, mark);
        i += skip + gone;
    }
}
