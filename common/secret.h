/* secret.h - the one door to libsodium: hashes of keys, compared so that time tells nothing.
 *
 * A key is 32 random bytes, so a plain hash is enough to keep it: nobody can guess his way back through
 * SHA-256, which passwords chosen by people would need a slow and salted hash for.  SHA-256 and not
 * another, so that sha256sum makes the same line. */
#ifndef LLMD_COMMON_SECRET_H
#define LLMD_COMMON_SECRET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SECRET_HASH_BYTES = 32, SECRET_HEX_BYTES = 65, SECRET_KEY_BYTES = 64 };

/* SHA-256 (FIPS 180-4). */
void secret_hash(const void *bytes, size_t n, uint8_t hash[SECRET_HASH_BYTES]);
/* Takes the same time wherever they differ. */
bool secret_hash_is(const uint8_t a[SECRET_HASH_BYTES], const uint8_t b[SECRET_HASH_BYTES]);

/* 64 lower-case digits and a NUL. */
void secret_hash_hex(const uint8_t hash[SECRET_HASH_BYTES], char out[SECRET_HEX_BYTES]);
/* Exactly 64 digits of either case. */
bool secret_hash_from_hex(const char *hex, size_t n, uint8_t hash[SECRET_HASH_BYTES]);

/* A new key: "sk-" and 43 characters of base64url, 256 random bits. */
void secret_make_key(char out[SECRET_KEY_BYTES]);

#endif
