/* secret.c - hashes and keys, by libsodium. */
#include "common/secret.h"

#include <assert.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

static_assert(SECRET_HASH_BYTES == crypto_hash_sha256_BYTES, "SHA-256");

void secret_hash(const void *bytes, size_t n, uint8_t hash[SECRET_HASH_BYTES])
{
    crypto_hash_sha256(hash, bytes, n);
}

bool secret_hash_is(const uint8_t a[SECRET_HASH_BYTES], const uint8_t b[SECRET_HASH_BYTES])
{
    return sodium_memcmp(a, b, SECRET_HASH_BYTES) == 0;
}

void secret_hash_hex(const uint8_t hash[SECRET_HASH_BYTES], char out[SECRET_HEX_BYTES])
{
    sodium_bin2hex(out, SECRET_HEX_BYTES, hash, SECRET_HASH_BYTES);
}

bool secret_hash_from_hex(const char *hex, size_t n, uint8_t hash[SECRET_HASH_BYTES])
{
    size_t n_bytes = 0;
    const char *end;

    return n == SECRET_HEX_BYTES - 1 &&
           sodium_hex2bin(hash, SECRET_HASH_BYTES, hex, n, NULL, &n_bytes, &end) == 0 &&
           n_bytes == SECRET_HASH_BYTES && end == hex + n;
}

void secret_make_key(char out[SECRET_KEY_BYTES])
{
    uint8_t bytes[32];

    if (sodium_init() < 0)
        abort(); /* no source of random bytes */
    randombytes_buf(bytes, sizeof bytes);
    memcpy(out, "sk-", 3);
    sodium_bin2base64(out + 3, SECRET_KEY_BYTES - 3, bytes, sizeof bytes,
                      sodium_base64_VARIANT_URLSAFE_NO_PADDING);
    sodium_memzero(bytes, sizeof bytes);
}
