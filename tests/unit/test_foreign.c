/* test_foreign.c - command lines and variables made for other servers.
 *
 * What would break in production: the sample's recipes in PARAMS keep the server from starting, or a
 * limit in them is silently not obeyed. */
#include "supervisor/foreign.h"

#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "supervisor/options.h"
#include "tests/check.h"

static struct config c;

static int set_up(void **state)
{
    (void)state;
    config_init(&c);
    return 0;
}

static void the_samples_recipes_are_obeyed(void **state)
{
    struct err e;

    (void)state;
    assert_ok(foreign_read_params(&c, "--max-batch-prefill-tokens 1024", &e), e);
    assert_int_equal(c.max_num_batched_tokens, 1024);
    assert_ok(foreign_read_params(&c,
                                  "  -max-batch-prefill-tokens 2048 --quantize bitsandbytes\t"
                                  "--max-batch-total-tokens 4096 --num-shard=2\n",
                                  &e),
              e);
    assert_int_equal(c.max_num_batched_tokens, 2048);
    assert_string_equal(c.quantize, "int8");
    assert_int_equal(c.tp_size, 2);
    assert_string_equal(c.source[CONFIG_tp_size], "environment PARAMS");
    assert_ok(foreign_read_params(&c,
                                  "--trust-remote-code -p 9000 -tp 4 --json-output --max-best-of 3 "
                                  "--watermark-gamma 0.25 --watermark-delta -1 stray --hostname h",
                                  &e),
              e);
    assert_int_equal(c.port, 9000);
    assert_int_equal(c.tp_size, 4);
    assert_string_equal(c.log_format, "json");
    assert_int_equal(c.max_best_of, 3);
    assert_true(c.watermark_gamma == 0.25 && c.watermark_delta == -1);
    assert_string_equal(c.host, "h");
}

/* What is not known may have a value behind it: that is no option either. */
static void what_is_not_known_is_passed_over(void **state)
{
    struct err e;

    (void)state;
    assert_ok(
        foreign_read_params(&c, "--from-the-future 5 --x=y - -- --enforce-eager --port 9001", &e),
        e);
    assert_int_equal(c.port, 9001);
}

static void a_value_that_is_none_says_so(void **state)
{
    struct err e;

    (void)state;
    assert_fails(foreign_read_params(&c, "--port http", &e), e, ERR_CONFIG, "environment PARAMS: ");
    assert_fails(foreign_read_params(&c, "--num-shard", &e), e, ERR_CONFIG, "has no value");
    assert_fails(foreign_read_params(&c, "--quantize maybe", &e), e, ERR_CONFIG, "'maybe'");
}

static void every_option_is_taken_in_both_places(void **state)
{
    const struct foreign_option *o;
    struct err e;
    size_t n = 0;

    (void)state;
    for (; (o = foreign_at(n)); n++) {
        char params[CONFIG_TEXT_BYTES + 80], name[80], value[CONFIG_TEXT_BYTES] = "2";
        char *argv[] = { "llmd", name, value, NULL };
        struct options options;
        config_init(&c);
        if (o->setting >= 0 && o->setting != CONFIG_model)
            config_value(&c, (enum config_id)o->setting, value, sizeof value);
        snprintf(params, sizeof params, "--%s %s", o->name, o->has_value ? value : "");
        assert_ok(foreign_read_params(&c, params, &e), e);
        assert_true(o->setting < 0 || strcmp(c.source[o->setting], "environment PARAMS") == 0);
        snprintf(name, sizeof name, "--%s", o->name);
        options_parse(&options, o->has_value ? 3 : 2, argv);
        assert_true(o->setting >= 0
                        ? options.value[o->setting] != NULL
                        : options.n_ignored == 1 && strcmp(options.ignored[0]->name, o->name) == 0);
        assert_true(config_find(o->name) < 0);
    }
    assert_true(n > 90);
}

static void letters_stand_for_options(void **state)
{
    char *argv[] = { "llmd", "-p", "9000", "-e", "-g", "7", "-q", "awq", "/m", NULL };
    struct options o;

    (void)state;
    options_parse(&o, 9, argv);
    assert_string_equal(o.value[CONFIG_port], "9000");
    assert_string_equal(o.value[CONFIG_drain_timeout_s], "7");
    assert_string_equal(o.value[CONFIG_quantize], "awq");
    assert_string_equal(o.value[CONFIG_model], "/m");
    assert_int_equal(o.n_ignored, 1);
}

/* vLLM's --api-key takes several; a directory among them is the model. */
static void several_keys_may_follow_their_option(void **state)
{
    char *argv[] = { "llmd", "--api-key", "k1", "k2", "--port", "9000", "/", NULL };
    char *mixed[] = { "llmd", "--api-key", "k1", "/", NULL };
    struct options o;
    struct err e;

    (void)state;
    options_parse(&o, 7, argv);
    assert_string_equal(o.value[CONFIG_api_key], "k1 k2");
    assert_string_equal(o.value[CONFIG_port], "9000");
    assert_string_equal(o.value[CONFIG_model], "/");
    options_parse(&o, 4, mixed);
    assert_string_equal(o.value[CONFIG_api_key], "k1");
    assert_string_equal(o.value[CONFIG_model], "/");
    assert_ok(foreign_read_params(&c, "--api-key k1 k2  k3 --port 9000", &e), e);
    assert_string_equal(c.api_key, "k1 k2 k3");
    assert_int_equal(c.port, 9000);
    assert_ok(foreign_read_params(&c, "--api-key=k4", &e), e);
    assert_string_equal(c.api_key, "k4");
}

static void the_launchers_variables_are_read(void **state)
{
    char *const env[] = { "MODEL_ID=/m",   "NUM_SHARD=2",       "MAX_INPUT_LENGTH=100",
                          "HOSTNAME=x",    "JSON_OUTPUT=false", "GRACEFUL_TERMINATION_TIMEOUT=90",
                          "DTYPE=float16", "NUM_SHARDS=7",      NULL };
    char *const json[] = { "JSON_OUTPUT=true", NULL };
    char *const bad[] = { "NUM_SHARD=all", NULL };
    struct err e;

    (void)state;
    assert_ok(foreign_read_environment(&c, env, &e), e);
    assert_string_equal(c.model, "/m");
    assert_int_equal(c.tp_size, 2);
    assert_int_equal(c.max_input_tokens, 100);
    assert_int_equal(c.drain_timeout_s, 90);
    assert_string_equal(c.host, "0.0.0.0");
    assert_string_equal(c.log_format, "auto");
    assert_ok(foreign_read_environment(&c, json, &e), e);
    assert_string_equal(c.log_format, "json");
    assert_fails(foreign_read_environment(&c, bad, &e), e, ERR_CONFIG, "environment NUM_SHARD: ");
}

static void other_servers_words_become_ours(void **state)
{
    static const char *const words[][3] = {
        { "quantize", "bitsandbytes-nf4", "int4" },
        { "quantize", "gptq_marlin", "gptq" },
        { "quantize", "AWQ_marlin", "awq" },
        { "quantize", "marlin", "marlin" },
        { "quantize", "fbgemm_fp8", "fp8" },
        { "quantize", "eetq", "int8" },
        { "quantize", "compressed-tensors", "compressed-tensors" },
        { "kv_cache_dtype", "fp8_e5m2", "fp8" },
        { "kv_cache_dtype", "fp8_e4m3", "fp8" },
        { "quantize", "fp8", "fp8" },
        { "quantize", "ptpc_fp8", "fp8" },
        { "kv_cache_dtype", "fp8", "fp8" },
        { "log_level", "INFO", "info" },
        { "log_level", "warn", "warning" },
        { "speculate", "3", "ngram" },
        { "max_logprobs", "-1", "262144" },
        { "quantize", "int8", "int8" },
    };
    char value[CONFIG_TEXT_BYTES];
    struct err e;

    (void)state;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        assert_ok(config_set(&c, words[i][0], words[i][1], "test", &e), e);
        config_value(&c, (enum config_id)config_find(words[i][0]), value, sizeof value);
        assert_string_equal(value, words[i][2]);
    }
    assert_fails(config_set(&c, "quantize", "int7", "test", &e), e, ERR_CONFIG, "'int7'");
}

static void a_model_is_found_where_oci_mounts_it(void **state)
{
    char root[] = "/tmp/test_foreign.XXXXXX", below[64], model[CONFIG_TEXT_BYTES];

    (void)state;
    assert_non_null(mkdtemp(root));
    snprintf(below, sizeof below, "%s/Llama", root);
    assert_int_equal(mkdir(below, 0700), 0);
    strcpy(model, "Llama");
    foreign_find_model(model, root);
    assert_string_equal(model, below);
    foreign_find_model(model, root); /* it exists */
    assert_string_equal(model, below);
    strcpy(model, "org/other");
    foreign_find_model(model, root);
    assert_string_equal(model, "org/other");
    model[0] = '\0';
    foreign_find_model(model, root);
    assert_string_equal(model, root);
    model[0] = '\0';
    foreign_find_model(model, "/nowhere/at/all");
    assert_string_equal(model, "");
    rmdir(below);
    rmdir(root);
}

static void a_hub_id_is_told_from_a_path(void **state)
{
    (void)state;
    assert_true(foreign_is_hub_id("meta-llama/Llama-2-7b-chat-hf"));
    assert_false(foreign_is_hub_id("/models/llama"));
    assert_false(foreign_is_hub_id("./models/llama"));
    assert_false(foreign_is_hub_id("models/a/b"));
    assert_false(foreign_is_hub_id("llama"));
    assert_false(foreign_is_hub_id("models/"));
    assert_int_equal(chdir("/"), 0);
    assert_false(foreign_is_hub_id("etc/passwd")); /* it is here */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(the_samples_recipes_are_obeyed, set_up),
        cmocka_unit_test_setup(what_is_not_known_is_passed_over, set_up),
        cmocka_unit_test_setup(a_value_that_is_none_says_so, set_up),
        cmocka_unit_test_setup(every_option_is_taken_in_both_places, set_up),
        cmocka_unit_test_setup(letters_stand_for_options, set_up),
        cmocka_unit_test_setup(several_keys_may_follow_their_option, set_up),
        cmocka_unit_test_setup(the_launchers_variables_are_read, set_up),
        cmocka_unit_test_setup(other_servers_words_become_ours, set_up),
        cmocka_unit_test_setup(a_model_is_found_where_oci_mounts_it, set_up),
        cmocka_unit_test(a_hub_id_is_told_from_a_path),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
