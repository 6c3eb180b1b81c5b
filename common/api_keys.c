/* api_keys.c - read and write lines of the file of API keys. */
#include "common/api_keys.h"

#include <ctype.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "common/file.h"
#include "common/mem.h"

#define BLANKS      " \t\r"
#define HASH_PREFIX "sha256:"

enum { HASH_PREFIX_BYTES = sizeof HASH_PREFIX - 1 };

/* ---- one word ---- */

static bool is_name(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!isalnum((unsigned char)s[i]) && !(s[i] && strchr("._-", s[i])))
            return false;
    return n > 0 && n < API_KEY_NAME_BYTES;
}

bool api_key_set_name(struct api_key *key, const char *name, size_t n, struct err *e)
{
    if (!is_name(name, n))
        return err_set(e, ERR_CONFIG, 0,
                       "'%.*s' is no name: 1 to %d letters, digits, '.', '_' or '-'",
                       n < 64 ? (int)n : 64, name, API_KEY_NAME_BYTES - 1);
    memset(key->name, 0, sizeof key->name);
    memcpy(key->name, name, n);
    return true;
}

static bool set_hash(struct api_key *key, const char *hex, size_t n, struct err *e)
{
    uint8_t hash[SECRET_HASH_BYTES];

    if (key->n_hashes == API_KEY_HASHES_MAX)
        return err_set(e, ERR_CONFIG, 0, "more than %d hashes", API_KEY_HASHES_MAX);
    if (!secret_hash_from_hex(hex, n, hash))
        return err_set(e, ERR_CONFIG, 0, "the hash has not 64 hexadecimal digits");
    memcpy(key->hash[key->n_hashes++], hash, sizeof hash);
    return true;
}

static bool parse_number(const char *s, size_t n, int64_t min, int64_t max, int64_t *out)
{
    bool is_negative = n > 0 && s[0] == '-';
    int64_t v = 0;

    if (n == is_negative || n > 16)
        return false;
    for (size_t i = is_negative; i < n; i++) {
        if (s[i] < '0' || s[i] > '9')
            return false;
        v = v * 10 + (s[i] - '0');
    }
    *out = is_negative ? -v : v;
    return *out >= min && *out <= max;
}

/* Where each option goes; sizes tell the types apart. */
static const struct option {
    const char *name;
    size_t offset, bytes;
    int64_t min, max;
} options[] = {
#define OPTION(name, member, min, max)                                                             \
    {                                                                                              \
        name, offsetof(struct api_key, member), sizeof(((struct api_key *)0)->member), min, max    \
    }
    OPTION("rpm", requests_per_minute, 0, 1000000000),
    OPTION("tpm", tokens_per_minute, 0, 1000000000000),
    OPTION("concurrency", concurrency, 0, 65536),
    OPTION("weight", weight, 1, 1000),
    OPTION("priority", priority, -100, 100),
#undef OPTION
};
enum { N_OPTIONS = sizeof options / sizeof *options };

static bool set_number(struct api_key *key, const struct option *o, const char *s, size_t n,
                       struct err *e)
{
    char *to = (char *)key + o->offset;
    int64_t v;

    if (!parse_number(s, n, o->min, o->max, &v))
        return err_set(e, ERR_CONFIG, 0, "%s='%.*s' is not a number from %lld to %lld", o->name,
                       n < 64 ? (int)n : 64, s, (long long)o->min, (long long)o->max);
    if (o->bytes == sizeof(uint64_t))
        memcpy(to, &(uint64_t){ (uint64_t)v }, sizeof(uint64_t));
    else
        memcpy(to, &(int32_t){ (int32_t)v }, sizeof(int32_t)); /* small: its bits as unsigned too */
    return true;
}

bool api_key_set_option(struct api_key *key, const char *word, size_t n, struct err *e)
{
    const char *equals = memchr(word, '=', n);
    size_t n_name = equals ? (size_t)(equals - word) : 0;

    if (n > HASH_PREFIX_BYTES && memcmp(word, HASH_PREFIX, HASH_PREFIX_BYTES) == 0)
        return set_hash(key, word + HASH_PREFIX_BYTES, n - HASH_PREFIX_BYTES, e);
    for (int i = 0; equals && i < N_OPTIONS; i++)
        if (strlen(options[i].name) == n_name && memcmp(options[i].name, word, n_name) == 0)
            return set_number(key, &options[i], equals + 1, n - n_name - 1, e);
    return err_set(e, ERR_CONFIG, 0,
                   "'%.*s' is none of sha256:HASH, rpm=, tpm=, concurrency=, weight=, priority=",
                   n < 64 ? (int)n : 64, word);
}

void api_key_write(const struct api_key *key, struct buf *out)
{
    char hex[SECRET_HEX_BYTES];

    buf_add_str(out, key->name);
    for (uint32_t i = 0; i < key->n_hashes; i++) {
        secret_hash_hex(key->hash[i], hex);
        buf_printf(out, " " HASH_PREFIX "%s", hex);
    }
    if (key->requests_per_minute)
        buf_printf(out, " rpm=%llu", (unsigned long long)key->requests_per_minute);
    if (key->tokens_per_minute)
        buf_printf(out, " tpm=%llu", (unsigned long long)key->tokens_per_minute);
    if (key->concurrency)
        buf_printf(out, " concurrency=%u", key->concurrency);
    if (key->weight != 1)
        buf_printf(out, " weight=%u", key->weight);
    if (key->priority)
        buf_printf(out, " priority=%d", key->priority);
    buf_add_char(out, '\n');
}

/* ---- the file ---- */

/* The next word of a line, or NULL. */
static const char *next_word(const char **at, const char *end, size_t *n)
{
    const char *s = *at;

    while (s < end && strchr(BLANKS, *s) && *s)
        s++;
    if (s == end || *s == '#')
        return NULL;
    *at = s;
    while (*at < end && !(**at && strchr(BLANKS, **at)))
        (*at)++;
    *n = (size_t)(*at - s);
    return s;
}

/* False in *is_key: the line is empty. */
static bool parse_line(const char *at, const char *end, struct api_key *key, bool *is_key,
                       struct err *e)
{
    size_t n;
    const char *word = next_word(&at, end, &n);

    *key = (struct api_key){ .weight = 1 };
    *is_key = word != NULL;
    if (!word)
        return true;
    if (!api_key_set_name(key, word, n, e))
        return false;
    while ((word = next_word(&at, end, &n)))
        if (!api_key_set_option(key, word, n, e))
            return false;
    return key->n_hashes > 0 || err_set(e, ERR_CONFIG, 0, "'%s' has no sha256:HASH", key->name);
}

static bool has_hash_of(const struct api_key *a, const struct api_key *b)
{
    for (uint32_t i = 0; i < a->n_hashes; i++)
        for (uint32_t k = 0; k < b->n_hashes; k++)
            if (secret_hash_is(a->hash[i], b->hash[k]))
                return true;
    return false;
}

static bool add(struct api_keys *k, const struct api_key *key, struct err *e)
{
    if (k->n == API_KEYS_MAX)
        return err_set(e, ERR_CONFIG, 0, "more than %d keys", API_KEYS_MAX);
    for (size_t i = 0; i < k->n; i++) {
        if (strcmp(k->list[i].name, key->name) == 0)
            return err_set(e, ERR_CONFIG, 0, "there is another '%s'", key->name);
        if (has_hash_of(&k->list[i], key))
            return err_set(e, ERR_CONFIG, 0, "'%s' and '%s' have the same key", k->list[i].name,
                           key->name);
    }
    k->list[k->n++] = *key;
    return true;
}

bool api_keys_parse(struct api_keys *k, const char *text, size_t n, struct err *e)
{
    struct api_keys fresh = { .list = mem_alloc(API_KEYS_MAX * sizeof *fresh.list) };
    const char *end = text + n;
    unsigned line = 1;

    for (const char *at = text; at < end; line++) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        struct api_key key;
        bool is_key;
        if (!stop)
            stop = end;
        if (!parse_line(at, stop, &key, &is_key, e) || (is_key && !add(&fresh, &key, e))) {
            api_keys_fini(&fresh);
            return err_wrap(e, "line %u", line);
        }
        at = stop + 1;
    }
    *k = fresh;
    return true;
}

bool api_keys_read(struct api_keys *k, const char *path, struct err *e)
{
    char *bytes;
    size_t n;
    bool ok;

    if (!file_read(path, API_KEYS_FILE_BYTES_MAX, &bytes, &n, e))
        return err_wrap(e, "API keys");
    ok = api_keys_parse(k, bytes, n, e) || err_wrap(e, "API keys in '%s'", path);
    free(bytes);
    return ok;
}

void api_keys_fini(struct api_keys *k)
{
    free(k->list);
    *k = (struct api_keys){ 0 };
}
