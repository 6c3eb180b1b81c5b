/* test_model_config.c - config.json of real families, and of every way to get one wrong.
 *
 * What would break in production: a field that is misread or ignored computes another model than the one
 * that was trained, without any error. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/buf.h"
#include "gpu-worker/load/model_config.h"

#define LLAMA                                                                                      \
    "\"architectures\":[\"LlamaForCausalLM\"],\"hidden_size\":64,\"intermediate_size\":128,"       \
    "\"num_hidden_layers\":2,\"num_attention_heads\":4,\"vocab_size\":100,"                        \
    "\"max_position_embeddings\":512,\"rms_norm_eps\":1e-5"

static struct model_config read_ok(const char *config, const char *generation)
{
    struct model_config c;
    struct err e = { 0 };

    if (!model_config_parse(&c, config, strlen(config), generation,
                            generation ? strlen(generation) : 0, &e))
        fail_msg("%s: %s", config, e.msg);
    return c;
}

static void refuse(const char *config, const char *why)
{
    struct model_config c;
    struct err e = { 0 };

    if (model_config_parse(&c, config, strlen(config), NULL, 0, &e))
        fail_msg("%s: taken, should fail for %s", config, why);
    assert_int_equal(e.code, ERR_MODEL);
    if (!strstr(e.msg, why) || !strstr(e.msg, "config.json"))
        fail_msg("%s: '%s' should say '%s'", config, e.msg, why);
}

static void llama_has_its_defaults(void **state)
{
    struct model_config c = read_ok("{" LLAMA "}", NULL);

    (void)state;
    assert_string_equal(c.architecture, "LlamaForCausalLM");
    assert_int_equal(c.n_kv_heads, 4);
    assert_int_equal(c.head_dim, 16);
    assert_int_equal(c.positions_max, 512);
    assert_false(c.tied_head || c.qkv_bias || c.o_bias || c.mlp_bias);
    assert_int_equal(c.sliding_window, 0);
    assert_int_equal(c.n_eos, 0);
    assert_true(c.rope_theta == 10000 && c.rope_scaling == ROPE_PLAIN);
    assert_true(c.rms_norm_eps == 1e-5f);
}

static void families_differ_where_they_should(void **state)
{
    struct model_config c;

    (void)state;
    c = read_ok("{" LLAMA ",\"attention_bias\":true,\"mlp_bias\":true,\"head_dim\":24,"
                "\"num_key_value_heads\":2,\"tie_word_embeddings\":true,\"sliding_window\":null}",
                NULL);
    assert_true(c.qkv_bias && c.o_bias && c.mlp_bias && c.tied_head);
    assert_int_equal(c.head_dim, 24);
    assert_int_equal(c.n_kv_heads, 2);
    c = read_ok("{\"architectures\":[\"MistralForCausalLM\"],\"hidden_size\":4096,"
                "\"intermediate_size\":14336,\"num_hidden_layers\":32,\"num_attention_heads\":32,"
                "\"num_key_value_heads\":8,\"vocab_size\":32000,\"max_position_embeddings\":32768,"
                "\"rms_norm_eps\":1e-05,\"rope_theta\":10000.0,\"sliding_window\":4096,"
                "\"eos_token_id\":2,\"hidden_act\":\"silu\",\"torch_dtype\":\"bfloat16\"}",
                NULL);
    assert_int_equal(c.sliding_window, 4096);
    assert_true(c.layers[0].windowed && c.layers[31].windowed);
    assert_int_equal(c.eos[0], 2);
    c = read_ok("{\"architectures\":[\"Qwen2ForCausalLM\"],\"hidden_size\":896,"
                "\"intermediate_size\":4864,\"num_hidden_layers\":24,\"num_attention_heads\":14,"
                "\"num_key_value_heads\":2,\"vocab_size\":151936,\"max_position_embeddings\":32768,"
                "\"rms_norm_eps\":1e-06,\"rope_theta\":1000000.0,\"sliding_window\":32768,"
                "\"use_sliding_window\":false,\"max_window_layers\":21,"
                "\"tie_word_embeddings\":true,\"eos_token_id\":151645}",
                NULL);
    assert_true(c.qkv_bias && !c.o_bias && c.tied_head);
    assert_int_equal(c.sliding_window, 0); /* switched off */
    assert_int_equal(c.head_dim, 64);
}

static void model_type_is_enough(void **state)
{
    struct model_config c =
        read_ok("{\"model_type\":\"mistral\",\"hidden_size\":64,\"intermediate_size\":128,"
                "\"num_hidden_layers\":2,\"num_attention_heads\":4,\"vocab_size\":100,"
                "\"max_position_embeddings\":512,\"rms_norm_eps\":1e-5}",
                NULL);

    (void)state;
    assert_string_equal(c.architecture, "MistralForCausalLM");
}

static void eos_ids_are_collected(void **state)
{
    struct model_config c =
        read_ok("{" LLAMA ",\"eos_token_id\":[7,9]}", "{\"eos_token_id\":[9,3,-1,100]}");

    (void)state;
    assert_int_equal(c.n_eos, 3); /* -1 and 100 are no tokens */
    assert_int_equal(c.eos[0], 7);
    assert_int_equal(c.eos[1], 9);
    assert_int_equal(c.eos[2], 3);
    refuse("{" LLAMA ",\"eos_token_id\":\"</s>\"}", "eos_token_id");
    refuse("{" LLAMA ",\"eos_token_id\":[0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16]}", "more than");
}

static void sizes_are_checked(void **state)
{
    static const char *const fields[] = { "hidden_size",         "intermediate_size",
                                          "num_hidden_layers",   "num_attention_heads",
                                          "vocab_size",          "max_position_embeddings",
                                          "num_key_value_heads", "head_dim" };
    static const char *const values[] = { "0", "-4", "2.5", "\"4\"", "99999999999", "[4]", "true" };

    (void)state;
    for (size_t f = 0; f < sizeof fields / sizeof *fields; f++)
        for (size_t v = 0; v < sizeof values / sizeof *values; v++) {
            struct buf b = { 0 };
            static const char *const sound[] = { "64", "128", "2", "4", "100", "512", "2", "16" };
            buf_add_str(&b, "{\"model_type\":\"llama\",\"rms_norm_eps\":1e-5");
            for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
                buf_printf(&b, ",\"%s\":%s", fields[i], i == f ? values[v] : sound[i]);
            buf_add_char(&b, '}');
            refuse(b.data, fields[f]);
            buf_fini(&b);
        }
    refuse("{" LLAMA ",\"num_key_value_heads\":3}", "not a multiple");
    refuse("{" LLAMA ",\"head_dim\":15}", "even number");
    refuse("{\"model_type\":\"llama\",\"hidden_size\":65,\"intermediate_size\":128,"
           "\"num_hidden_layers\":2,\"num_attention_heads\":4,\"vocab_size\":100,"
           "\"max_position_embeddings\":512,\"rms_norm_eps\":1e-5}",
           "not a multiple");
}

static void what_we_do_not_compute_is_refused(void **state)
{
    (void)state;
    refuse("{\"architectures\":[\"GemmaForCausalLM\"],\"model_type\":\"llama\"}",
           "GemmaForCausalLM");
    refuse("{\"model_type\":\"bert\"}", "bert");
    refuse("{}", "none");
    refuse("{" LLAMA ",\"hidden_act\":\"gelu\"}", "hidden_act");
    refuse("{" LLAMA ",\"quantization_config\":{\"quant_method\":\"gptq\"}}", "gptq");
    refuse("{" LLAMA ",\"partial_rotary_factor\":0.5}", "partial_rotary_factor");
    refuse("{" LLAMA ",\"rms_norm_eps\":0}", "duplicate");
    refuse("{" LLAMA ",\"tie_word_embeddings\":1}", "tie_word_embeddings");
    refuse("{" LLAMA ",\"rope_theta\":0}", "rope_theta");
    refuse("[]", "object");
    refuse("", "config.json");
}

static void windows_are_understood(void **state)
{
#define QWEN                                                                                       \
    "\"model_type\":\"qwen2\",\"hidden_size\":64,\"intermediate_size\":128,"                       \
    "\"num_hidden_layers\":3,\"num_attention_heads\":4,\"vocab_size\":100,"                        \
    "\"max_position_embeddings\":512,\"rms_norm_eps\":1e-5,\"sliding_window\":64,"                 \
    "\"use_sliding_window\":true"
    struct model_config c = read_ok("{" QWEN ",\"max_window_layers\":2,\"layer_types\":"
                                    "[\"full_attention\",\"full_attention\","
                                    "\"sliding_attention\"]}",
                                    NULL);

    (void)state;
    assert_int_equal(c.sliding_window, 64);
    assert_true(!c.layers[0].windowed && !c.layers[1].windowed && c.layers[2].windowed);
    refuse("{" QWEN "}", "max_window_layers");
    refuse("{" QWEN ",\"max_window_layers\":1,\"layer_types\":"
           "[\"full_attention\",\"full_attention\",\"sliding_attention\"]}",
           "layer_types");
    refuse("{" QWEN ",\"max_window_layers\":1,\"layer_types\":[\"full_attention\"]}",
           "layer_types");
}

static void rope_kinds_are_read_or_refused(void **state)
{
    struct model_config c;

    (void)state;
    c = read_ok("{" LLAMA ",\"rope_scaling\":{\"type\":\"linear\",\"factor\":4}}", NULL);
    assert_true(c.rope_scaling == ROPE_LINEAR && c.rope_factor == 4);
    c = read_ok("{" LLAMA ",\"rope_scaling\":{\"rope_type\":\"default\"}}", NULL);
    assert_true(c.rope_scaling == ROPE_PLAIN);
    c = read_ok("{" LLAMA ",\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":5e5}}",
                NULL);
    assert_true(c.rope_theta == 5e5);
    refuse("{" LLAMA ",\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4}}", "yarn");
    refuse("{" LLAMA ",\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":4}}", "dynamic");
    refuse("{" LLAMA ",\"rope_scaling\":{\"type\":\"linear\"}}", "factor");
    refuse("{" LLAMA ",\"rope_scaling\":{}}", "rope_type");
    refuse("{" LLAMA ",\"rope_scaling\":\"linear\"}", "rope_scaling");
    refuse("{" LLAMA ",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8,"
           "\"low_freq_factor\":4,\"high_freq_factor\":1,"
           "\"original_max_position_embeddings\":8192}}",
           "high_freq_factor");
}

static void near(double got, double wanted)
{
    if (!(fabs(got - wanted) <= 1e-9 * fabs(wanted)))
        fail_msg("%.17g, wanted %.17g", got, wanted);
}

/* Llama 3.1 8B: base 500000, heads of 128, factor 8, low 1, high 4, 8192 positions.  Reference numbers:
 * the published formula in 50-digit decimal arithmetic.  Pairs 0..28 keep their frequency, 29..34 are
 * blended, the rest is divided by 8. */
static void llama3_rope_has_the_reference_numbers(void **state)
{
    struct model_config c =
        read_ok("{\"architectures\":[\"LlamaForCausalLM\"],\"hidden_size\":4096,"
                "\"intermediate_size\":14336,\"num_hidden_layers\":32,\"num_attention_heads\":32,"
                "\"num_key_value_heads\":8,\"vocab_size\":128256,"
                "\"max_position_embeddings\":131072,\"rms_norm_eps\":1e-05,"
                "\"rope_theta\":500000.0,\"eos_token_id\":[128001,128008,128009],"
                "\"rope_scaling\":{\"factor\":8.0,\"low_freq_factor\":1.0,"
                "\"high_freq_factor\":4.0,\"original_max_position_embeddings\":8192,"
                "\"rope_type\":\"llama3\"}}",
                NULL);
    double freq[64];

    (void)state;
    assert_int_equal(c.n_eos, 3);
    model_config_rope_freq(&c, c.positions_max, freq);
    near(freq[0], 1);
    near(freq[1], 0.81461723385654472);
    near(freq[16], 0.037606030930863933);
    near(freq[28], 0.0032114459947525909);
    near(freq[29], 0.0021665707635033587);
    near(freq[30], 0.0013718935677611381);
    near(freq[32], 0.00052484616099295468);
    near(freq[34], 0.00017850781276799641);
    near(freq[35], 9.5562123539646833e-05);
    near(freq[36], 7.7846552739324498e-05);
    near(freq[50], 4.4115346745584042e-06);
    near(freq[63], 3.0689259889145111e-07);
}

static void linear_rope_divides(void **state)
{
    struct model_config c =
        read_ok("{" LLAMA ",\"rope_scaling\":{\"type\":\"linear\",\"factor\":4}}", NULL);
    double freq[8];

    (void)state;
    model_config_rope_freq(&c, c.positions_max, freq);
    near(freq[0], 0.25);
    near(freq[4], 0.0025); /* 10000^(-8/16) / 4 */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(llama_has_its_defaults),
        cmocka_unit_test(families_differ_where_they_should),
        cmocka_unit_test(model_type_is_enough),
        cmocka_unit_test(eos_ids_are_collected),
        cmocka_unit_test(sizes_are_checked),
        cmocka_unit_test(what_we_do_not_compute_is_refused),
        cmocka_unit_test(windows_are_understood),
        cmocka_unit_test(rope_kinds_are_read_or_refused),
        cmocka_unit_test(llama3_rope_has_the_reference_numbers),
        cmocka_unit_test(linear_rope_divides),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
