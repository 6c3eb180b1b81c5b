/* test_config.c - every setting, from every source but the file.
 *
 * What would break in production: a value outside its range gets through and a process trusts it, a
 * word too long runs over its field, or the environment of an existing deployment is ignored. */
#include "common/config.h"

#include <stdio.h>

#include "tests/check.h"

static void config_built_in_values_are_valid_and_read_back(void **state)
{
    static struct config c, again;
    struct err e;

    (void)state;
    config_init(&c);
    config_init(&again);
    for (int i = 0; i < N_CONFIG; i++) {
        char value[CONFIG_TEXT_BYTES], range[256];
        config_value(&c, i, value, sizeof value);
        assert_ok(config_set(&again, config_name(i), value, "test", &e), e);
        assert_string_equal(c.source[i], "built-in");
        assert_string_equal(again.source[i], "test");
        assert_true(strlen(config_help(i)) > 10);
        config_range(i, range, sizeof range);
        assert_true(strlen(range) > 0);
    }
    assert_int_equal(c.port, 8080);
    assert_string_equal(c.host, "0.0.0.0");
    assert_string_equal(c.kv_cache_dtype, "auto");
    assert_string_equal(c.model, "");
}

static void config_names_take_dashes_and_are_whole(void **state)
{
    static struct config c;
    struct err e;

    (void)state;
    config_init(&c);
    assert_ok(config_set(&c, "max-num-seqs", "7", "test", &e), e);
    assert_int_equal(c.max_num_seqs, 7);
    assert_ok(config_set(&c, "max_num-seqs", "8", "test", &e), e);
    assert_int_equal(c.max_num_seqs, 8);
    assert_fails(config_set(&c, "max_num_seq", "9", "test", &e), e, ERR_CONFIG, "'max_num_seq'");
    assert_fails(config_set(&c, "max_num_seqsx", "9", "test", &e), e, ERR_CONFIG, "no setting");
    assert_fails(config_set(&c, "", "9", "test", &e), e, ERR_CONFIG, "no setting");
    assert_fails(config_set(&c, "PORT", "9", "test", &e), e, ERR_CONFIG, "no setting");
    assert_int_equal(c.max_num_seqs, 8);
}

static void config_numbers_keep_to_their_range(void **state)
{
    static const char *const bad[] = { "",      "-1",    "65536", "8080x",       " 8080",
                                       "8 080", "0x50",  "1e3",   "+1",          "k",
                                       "1kk",   "1kib2", "1b",    "99999999999", "1.5" };
    static struct config c;
    struct err e;

    (void)state;
    config_init(&c);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_fails(config_set(&c, "port", bad[i], "test", &e), e, ERR_CONFIG,
                     "not a number from 0 to 65535");
        assert_int_equal(c.port, 8080);
        assert_string_equal(c.source[CONFIG_port], "built-in");
    }
    assert_ok(config_set(&c, "port", "0", "test", &e), e);
    assert_ok(config_set(&c, "port", "65535", "test", &e), e);
    assert_int_equal(c.port, 65535);
    assert_fails(config_set(&c, "groups", "0", "test", &e), e, ERR_CONFIG, "1 to 64");
    assert_fails(config_set(&c, "groups", "65", "test", &e), e, ERR_CONFIG, "'65'");
}

static void config_reals_keep_to_their_range(void **state)
{
    static const char *const bad[] = {
        "", "1.5", "-0.1", "half", "0x1", "nan", "inf", "0.5 ", "1e"
    };
    static struct config c;
    char text[CONFIG_TEXT_BYTES];
    struct err e;

    (void)state;
    config_init(&c);
    assert_true(c.watermark_gamma == 0.5 && c.watermark_delta == 2.0);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_fails(config_set(&c, "watermark_gamma", bad[i], "test", &e), e, ERR_CONFIG,
                     "is not a number from 0 to 1");
    assert_true(c.watermark_gamma == 0.5);
    assert_ok(config_set(&c, "watermark_delta", "-1.25", "test", &e), e);
    assert_ok(config_set(&c, "watermark_gamma", "1e-7", "test", &e), e);
    assert_true(c.watermark_delta == -1.25 && c.watermark_gamma == 1e-7);
    config_value(&c, CONFIG_watermark_gamma, text, sizeof text);
    assert_ok(config_set(&c, "watermark_gamma", text, "test", &e), e);
    config_range(CONFIG_watermark_gamma, text, sizeof text);
    assert_string_equal(text, "0.5 (0..1)");
}

static void config_bytes_take_units(void **state)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {
        { "512M", 512ull << 20 },     { "4G", 4ull << 30 },    { "4g", 4ull << 30 },
        { "64KiB", 64ull << 10 },     { "64kb", 64ull << 10 }, { "1T", 1ull << 40 },
        { "4294967296", 1ull << 32 },
    };
    static struct config c;
    struct err e;

    (void)state;
    config_init(&c);
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_ok(config_set(&c, "kv_cache_bytes", good[i].text, "test", &e), e);
        assert_int_equal(c.kv_cache_bytes, good[i].bytes);
    }
    /* would be small again if the shift wrapped */
    assert_fails(config_set(&c, "kv_cache_bytes", "16777217T", "test", &e), e, ERR_CONFIG,
                 "16777217T");
    assert_fails(config_set(&c, "kv_cache_bytes", "18446744073709551616", "test", &e), e,
                 ERR_CONFIG, "not a number");
}

static void config_choices_are_whole_words(void **state)
{
    static const char *const bad[] = { "",           "aut",        "autox",
                                       "auto|plain", "plain|avx2", "auto|plain|avx2|avx512",
                                       "|",          "auto|",      "|avx2",
                                       "AUTO" };
    static const char *const good[] = { "auto", "plain", "avxvnni", "avx2", "amxint8", "avx512" };
    static struct config c;
    struct err e;

    (void)state;
    config_init(&c);
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_ok(config_set(&c, "cpu_tier", good[i], "test", &e), e);
        assert_string_equal(c.cpu_tier, good[i]);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_fails(config_set(&c, "cpu_tier", bad[i], "test", &e), e, ERR_CONFIG,
                     "none of auto|plain|avx2|avxvnni|avx512|avx512vnni|amxint8|avx512bf16");
        assert_string_equal(c.cpu_tier, "avx512");
    }
}

static void config_text_has_a_longest_length(void **state)
{
    static char text[CONFIG_TEXT_BYTES + 1];
    static struct config c;
    struct err e;

    (void)state;
    config_init(&c);
    memset(text, 'm', CONFIG_TEXT_BYTES);
    assert_fails(config_set(&c, "model", text, "test", &e), e, ERR_CONFIG, "longer than 2047");
    assert_string_equal(c.model, "");
    text[CONFIG_TEXT_BYTES - 1] = '\0';
    assert_ok(config_set(&c, "model", text, "test", &e), e);
    assert_string_equal(c.model, text);
    assert_string_equal(c.served_model_name, "");
}

static void config_environment_own_name_wins_over_alias(void **state)
{
    char *const env[] = { "PATH=/bin",      "PORT=1000",  "LLMD_PORT=2000",
                          "MODEL=/m",       "LLMD_HOST=", "LLMD_MAX_NUM_SEQS=5",
                          "LLMD_NO_SUCH=1", "HOSTNAME=x", NULL };
    static struct config c;
    struct err e;

    (void)state;
    config_init(&c);
    assert_ok(config_read_environment(&c, env, &e), e);
    assert_int_equal(c.port, 2000);
    assert_string_equal(c.source[CONFIG_port], "environment LLMD_PORT");
    assert_string_equal(c.model, "/m");
    assert_string_equal(c.source[CONFIG_model], "environment MODEL");
    assert_int_equal(c.max_num_seqs, 5);
    assert_string_equal(c.host, "0.0.0.0"); /* empty is not set */
    assert_string_equal(c.source[CONFIG_host], "built-in");
    assert_ok(config_read_environment(&c, NULL, &e), e);
}

static void config_environment_empty_own_name_leaves_the_alias(void **state)
{
    char *const env[] = { "LLMD_PORT=", "PORT=1000", NULL };
    static struct config c;
    struct err e;

    (void)state;
    config_init(&c);
    assert_ok(config_read_environment(&c, env, &e), e);
    assert_int_equal(c.port, 1000);
    assert_string_equal(c.source[CONFIG_port], "environment PORT");
}

static void config_environment_knows_several_aliases(void **state)
{
    char *env[] = { "VLLM_API_KEY=second", NULL };
    char *both[] = { "VLLM_API_KEY=second", "API_KEY=first", NULL };
    char shown[CONFIG_TEXT_BYTES];
    struct config c;
    struct err e;

    (void)state;
    config_init(&c);
    config_shown_value(&c, CONFIG_api_key, shown, sizeof shown);
    assert_string_equal(shown, "");
    assert_ok(config_read_environment(&c, env, &e), e);
    assert_string_equal(c.api_key, "second");
    assert_string_equal(c.source[CONFIG_api_key], "environment VLLM_API_KEY");
    assert_ok(config_read_environment(&c, both, &e), e);
    assert_string_equal(c.api_key, "first");
    config_shown_value(&c, CONFIG_api_key, shown, sizeof shown);
    assert_string_equal(shown, "(secret)");
}

static void config_environment_error_names_the_variable(void **state)
{
    char *const env[] = { "PORT=http", NULL };
    static struct config c;
    struct err e;

    (void)state;
    config_init(&c);
    assert_fails(config_read_environment(&c, env, &e), e, ERR_CONFIG, "environment PORT: ");
    assert_non_null(strstr(e.msg, "'http'"));
}

static void config_served_name_is_the_last_component(void **state)
{
    static const char *const cases[][2] = {
        { "models/stories-demo", "stories-demo" },
        { "/a/b//", "b" },
        { "b", "b" },
        { "/", "" },
        { "", "" },
    };
    static struct config c;
    struct err e;
    char name[64];

    (void)state;
    config_init(&c);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_ok(config_set(&c, "model", cases[i][0], "test", &e), e);
        config_served_name(&c, name, sizeof name);
        assert_string_equal(name, cases[i][1]);
    }
    assert_ok(config_set(&c, "served_model_name", "my/name", "test", &e), e);
    config_served_name(&c, name, sizeof name);
    assert_string_equal(name, "my/name");
}

static void config_log_words_become_levels(void **state)
{
    static struct config c;
    struct err e;

    (void)state;
    config_init(&c);
    assert_int_equal(config_log_level(&c), LOG_INFO);
    assert_int_equal(config_log_format(&c), LOG_AUTO);
    assert_ok(config_set(&c, "log-level", "debug", "test", &e), e);
    assert_ok(config_set(&c, "log-format", "json", "test", &e), e);
    assert_int_equal(config_log_level(&c), LOG_DEBUG);
    assert_int_equal(config_log_format(&c), LOG_JSON);
    assert_ok(config_set(&c, "log-format", "text", "test", &e), e);
    assert_int_equal(config_log_format(&c), LOG_TEXT);
    assert_true(config_is_live(CONFIG_log_level));
    assert_false(config_is_live(CONFIG_port));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(config_built_in_values_are_valid_and_read_back),
        cmocka_unit_test(config_names_take_dashes_and_are_whole),
        cmocka_unit_test(config_numbers_keep_to_their_range),
        cmocka_unit_test(config_reals_keep_to_their_range),
        cmocka_unit_test(config_bytes_take_units),
        cmocka_unit_test(config_choices_are_whole_words),
        cmocka_unit_test(config_text_has_a_longest_length),
        cmocka_unit_test(config_environment_own_name_wins_over_alias),
        cmocka_unit_test(config_environment_empty_own_name_leaves_the_alias),
        cmocka_unit_test(config_environment_knows_several_aliases),
        cmocka_unit_test(config_environment_error_names_the_variable),
        cmocka_unit_test(config_served_name_is_the_last_component),
        cmocka_unit_test(config_log_words_become_levels),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
