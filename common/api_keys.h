/* api_keys.h - the file of API keys: who may ask, and how much.
 *
 * One line for each key, words separated by blanks; '#' begins a comment:
 *
 *   NAME  sha256:HASH [sha256:HASH ...]  [rpm=N] [tpm=N] [concurrency=N] [weight=N] [priority=N]
 *
 * NAME has up to 31 letters, digits, '.', '_' or '-', and stands in logs and metrics; the key itself is nowhere.
 * Several hashes, up to 8, let an old and a new key be good for a while.  What is not given is not limited. */
#ifndef LLMD_COMMON_API_KEYS_H
#define LLMD_COMMON_API_KEYS_H

#include "common/buf.h"
#include "common/err.h"
#include "common/secret.h"

enum {
    API_KEY_NAME_BYTES = 32,
    API_KEY_HASHES_MAX = 8,
    API_KEYS_MAX = 1000,
    API_KEYS_FILE_BYTES_MAX = 1 << 20,
};

struct api_key {
    char name[API_KEY_NAME_BYTES];
    uint8_t hash[API_KEY_HASHES_MAX][SECRET_HASH_BYTES];
    uint32_t n_hashes;
    uint64_t requests_per_minute; /* rpm; 0 = no limit */
    uint64_t tokens_per_minute;   /* tpm, of prompts and answers; 0 = no limit */
    uint32_t concurrency;         /* requests in the house at once; 0 = no limit */
    uint32_t weight;              /* share of the service when there is not enough; default 1 */
    int32_t priority;             /* a smaller one is served first; default 0 */
};

struct api_keys {
    struct api_key *list; /* [n], owned */
    size_t n;
};

/* ERR_CONFIG with the line's number.  *k is written on success only. */
bool api_keys_parse(struct api_keys *k, const char *text, size_t n, struct err *e);
/* The same of a file. ERR_SYS too. */
bool api_keys_read(struct api_keys *k, const char *path, struct err *e);
void api_keys_fini(struct api_keys *k);

/* The parts of a line, for who makes one. */
bool api_key_set_name(struct api_key *key, const char *name, size_t n, struct err *e);
/* "rpm=60", "sha256:..."; ERR_CONFIG. */
bool api_key_set_option(struct api_key *key, const char *word, size_t n, struct err *e);
/* The line, with its newline. */
void api_key_write(const struct api_key *key, struct buf *out);

#endif
