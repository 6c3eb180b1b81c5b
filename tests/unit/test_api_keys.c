/* test_api_keys.c - the file of API keys, and hashes.
 *
 * What would break in production: a line that means less than its author thinks (a limit that is none), a key
 * that opens for two names, or a hash that sha256sum does not make. */
#include "common/api_keys.h"

#include "tests/check.h"

/* sha256sum of "abc": FIPS 180-4, example of one block. */
#define ABC "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
#define TWO "1111111111111111111111111111111111111111111111111111111111111111"

static bool parse(struct api_keys *k, const char *text, struct err *e)
{
    return api_keys_parse(k, text, strlen(text), e);
}

static void lines_become_keys(void **state)
{
    struct api_keys k;
    struct err e;
    uint8_t abc[SECRET_HASH_BYTES];

    (void)state;
    secret_hash("abc", 3, abc);
    assert_ok(parse(&k,
                    "# name and key\n\n  \t\r\n"
                    "alice sha256:" ABC " rpm=60 tpm=1000000000000 concurrency=4 weight=3 "
                    "priority=-2 # the first\r\n"
                    "b.o_b-2\tsha256:" TWO,
                    &e),
              e);
    assert_int_equal(k.n, 2);
    assert_string_equal(k.list[0].name, "alice");
    assert_true(secret_hash_is(k.list[0].hash[0], abc));
    assert_int_equal(k.list[0].requests_per_minute, 60);
    assert_int_equal(k.list[0].tokens_per_minute, 1000000000000);
    assert_int_equal(k.list[0].concurrency, 4);
    assert_int_equal(k.list[0].weight, 3);
    assert_int_equal(k.list[0].priority, -2);
    assert_string_equal(k.list[1].name, "b.o_b-2");
    assert_int_equal(k.list[1].weight, 1);
    assert_int_equal(k.list[1].requests_per_minute, 0);
    api_keys_fini(&k);
    assert_ok(parse(&k, "", &e), e);
    assert_int_equal(k.n, 0);
    api_keys_fini(&k);
}

static void what_is_wrong_is_named_with_its_line(void **state)
{
    static const struct {
        const char *text, *words;
    } cases[] = {
        { "alice", "line 1: 'alice' has no sha256" },
        { "#\na/b sha256:" ABC, "line 2: 'a/b' is no name" },
        { "12345678901234567890123456789012 sha256:" ABC, "is no name" },
        { "a sha256:" ABC "0", "64 hexadecimal digits" },
        { "a sha256:xy", "64 hexadecimal digits" },
        { "a sha256:" ABC " sha256:" ABC " sha256:" ABC " sha256:" ABC " sha256:" ABC " sha256:" ABC
          " sha256:" ABC " sha256:" ABC " sha256:" ABC,
          "more than 8 hashes" },
        { "a sha256:" ABC " rpm=", "rpm='' is not a number" },
        { "a sha256:" ABC " rpm=-1", "rpm='-1' is not a number from 0" },
        { "a sha256:" ABC " rpm=1e3", "is not a number" },
        { "a sha256:" ABC " weight=0", "weight='0'" },
        { "a sha256:" ABC " weight=1001", "from 1 to 1000" },
        { "a sha256:" ABC " priority=101", "from -100 to 100" },
        { "a sha256:" ABC " tpm=99999999999999999999", "is not a number" },
        { "a sha256:" ABC " rps=1", "'rps=1' is none of" },
        { "a sha256:" ABC " limit", "'limit' is none of" },
        { "a sha256:" ABC "\na sha256:" TWO, "line 2: there is another 'a'" },
        { "a sha256:" ABC "\nb sha256:" TWO " sha256:" ABC, "'a' and 'b' have the same key" },
    };
    struct api_keys k = { 0 };
    struct err e;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_fails(parse(&k, cases[i].text, &e), e, ERR_CONFIG, cases[i].words);
    assert_null(k.list);
    assert_fails(api_keys_parse(&k, "a\0b sha256:", 11, &e), e, ERR_CONFIG, "is no name");
    assert_fails(api_keys_read(&k, "/nonexistent/keys", &e), e, ERR_SYS, "API keys");
}

static void a_line_reads_back_as_it_was_written(void **state)
{
    const char *line = "alice sha256:" ABC " sha256:" TWO " rpm=1 tpm=2 concurrency=3 weight=4 "
                       "priority=-5\n";
    struct buf out = { 0 };
    struct api_keys k;
    struct err e;

    (void)state;
    assert_ok(parse(&k, line, &e), e);
    api_key_write(&k.list[0], &out);
    assert_string_equal(out.data, line);
    api_keys_fini(&k);
    buf_fini(&out);
}

static void made_keys_differ_and_hash_as_sha256sum_does(void **state)
{
    char one[SECRET_KEY_BYTES], two[SECRET_KEY_BYTES], hex[SECRET_HEX_BYTES];
    uint8_t hash[SECRET_HASH_BYTES], back[SECRET_HASH_BYTES];

    (void)state;
    secret_make_key(one);
    secret_make_key(two);
    assert_string_not_equal(one, two);
    assert_int_equal(strlen(one), 3 + 43);
    assert_int_equal(strncmp(one, "sk-", 3), 0);
    secret_hash("abc", 3, hash);
    secret_hash_hex(hash, hex);
    assert_string_equal(hex, ABC);
    assert_true(secret_hash_from_hex(hex, strlen(hex), back));
    assert_true(secret_hash_is(hash, back));
    back[31] ^= 1;
    assert_false(secret_hash_is(hash, back));
    assert_false(secret_hash_from_hex(hex, 63, back));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_become_keys),
        cmocka_unit_test(what_is_wrong_is_named_with_its_line),
        cmocka_unit_test(a_line_reads_back_as_it_was_written),
        cmocka_unit_test(made_keys_differ_and_hash_as_sha256sum_does),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
