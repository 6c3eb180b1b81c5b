/* test_redact.c - secrets are taken out of text, and the rest stays.
 *
 * What would break in production: a support bundle on a public tracker with somebody's key in it. */
#include "llmctl/redact.h"

#include "tests/check.h"

static void expect(const char *text, const char *wanted)
{
    struct buf out = { 0 };

    redact_add(&out, text, strlen(text));
    assert_string_equal(out.data ? out.data : "", wanted);
    buf_fini(&out);
}

static void keys_go_by_their_look(void **state)
{
    (void)state;
    expect("key sk-abcDEF0123456789_- end", "key (redacted) end");
    expect("sk-abcDEF0123456789", "(redacted)");
    expect("(hf_AbCdEfGhIjKlMnOp)", "((redacted))");
    expect("nvapi-1234567890abcdef,next", "(redacted),next");
    expect("eyJhbGciOiJIUzI1NiJ9.e30.abc", "(redacted)");
    expect("task-abcDEF0123456789", "task-abcDEF0123456789"); /* within a word */
    expect("sk-short", "sk-short");
}

static void secrets_go_by_their_names(void **state)
{
    (void)state;
    expect("Authorization: Bearer abcdef123456", "Authorization: Bearer (redacted)");
    expect("api_key=hunter22 x", "api_key=(redacted) x");
    expect("{\"password\":\"1234\",\"a\":1}", "{\"password\":\"(redacted)\",\"a\":1}");
    expect("{\\\"token\\\": \\\"abcd1234\\\"}", "{\\\"token\\\": \\\"(redacted)\\\"}");
    expect("HF_TOKEN=abcd1234\nPORT=80", "HF_TOKEN=(redacted)\nPORT=80");
    expect("Secret: a", "Secret: (redacted)");
    expect("https://user:pass@host/path", "https://user:(redacted)@host/path");
}

static void all_else_stays(void **state)
{
    static const char *const texts[] = {
        "",
        "{\"kv_bytes_per_token\":{\"float16\":2560},\"tokens\":12,\"prompt_tokens\":5}",
        "{\"name\":\"api_key\",\"value\":\"(secret)\"}",
        "{\"name\":\"api_keys_file\",\"value\":\"/etc/llmd/keys\"}",
        "max_tokens=128 token=5 key=17",
        "2026-01-02T03:04:05.678Z info    llm-gateway: upstream group=0 event=hello",
        "http://127.0.0.1:8080/v1/models at x@y",
        "\"token\":null",
        "the bearer of news",
    };

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        expect(texts[i], texts[i]);
}

static void the_ends_of_text_are_no_trap(void **state)
{
    static const char *const texts[] = { "key",   "key=",        "token\"", "Bearer ", "://",
                                         "://a:", "password:\\", "sk-",     "basic" };
    struct buf out = { 0 };

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        size_t n = strlen(texts[i]);
        char *exact = malloc(n); /* no NUL behind it */
        memcpy(exact, texts[i], n);
        buf_clear(&out);
        redact_add(&out, exact, n);
        assert_memory_equal(out.data, texts[i], n);
        free(exact);
    }
    buf_fini(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_go_by_their_look),
        cmocka_unit_test(secrets_go_by_their_names),
        cmocka_unit_test(all_else_stays),
        cmocka_unit_test(the_ends_of_text_are_no_trap),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
