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
    refuse("{\"architectures\":[\"FalconForCausalLM\"],\"model_type\":\"llama\"}",
           "FalconForCausalLM");
    refuse("{\"model_type\":\"bert\"}", "bert");
    refuse("{}", "none");
    refuse("{" LLAMA ",\"hidden_act\":\"gelu\"}", "hidden_act");
    refuse("{" LLAMA ",\"quantization_config\":{\"quant_method\":\"exl2\"}}", "exl2");
    refuse("{" LLAMA ",\"quantization_config\":{\"quant_method\":\"gptq\"}}", "bits");
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
    c = read_ok("{" QWEN ",\"max_window_layers\":1,\"layer_types\":[\"full_attention\","
                "\"full_attention\",\"sliding_attention\"]}",
                NULL); /* the list is what counts */
    assert_true(!c.layers[0].windowed && !c.layers[1].windowed && c.layers[2].windowed);
    refuse("{" QWEN ",\"layer_types\":[\"full_attention\",\"chunked_attention\","
           "\"sliding_attention\"]}",
           "chunked_attention");
    refuse("{" LLAMA ",\"sliding_window\":64,\"layer_types\":[\"full_attention\","
           "\"sliding_attention\"]}",
           "no \"sliding_window\" in use");
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

/* Qwen 2.5's recipe for 131,072 tokens: base 1000000, heads of 128, factor 4, 32,768 positions.  Reference
 * numbers: the published formula in 50-digit decimal arithmetic.  Pairs 0..23 keep their frequency, those from
 * 40 on are divided by 4. */
static void yarn_has_the_reference_numbers(void **state)
{
    struct model_config c =
        read_ok("{\"architectures\":[\"Qwen2ForCausalLM\"],\"hidden_size\":3584,"
                "\"intermediate_size\":18944,\"num_hidden_layers\":28,"
                "\"num_attention_heads\":28,\"num_key_value_heads\":4,\"vocab_size\":152064,"
                "\"max_position_embeddings\":32768,\"rms_norm_eps\":1e-06,"
                "\"rope_theta\":1000000.0,\"rope_scaling\":{\"factor\":4.0,"
                "\"original_max_position_embeddings\":32768,\"type\":\"yarn\"}}",
                NULL);
    double freq[64];

    (void)state;
    assert_int_equal(c.positions_max, 131072);
    near(c.rope_amplitude, 1.1386294361119891);
    model_config_rope_freq(&c, c.positions_max, freq);
    near(freq[0], 1);
    near(freq[1], 0.80584218776148187);
    near(freq[23], 0.0069783058485986633);
    near(freq[24], 0.0053753214907901019);
    near(freq[30], 0.0010643609812470017);
    near(freq[35], 0.00024625840690893869);
    near(freq[39], 6.4903943208370293e-05);
    near(freq[40], 4.4456985250973067e-05);
    near(freq[63], 3.1023444018792988e-07);
    refuse("{" LLAMA ",\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4,\"mscale\":1}}", "mscale");
    refuse("{" LLAMA ",\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4,\"beta_fast\":1}}",
           "beta_fast");
}

#define PHI3                                                                                       \
    "\"architectures\":[\"Phi3ForCausalLM\"],\"hidden_size\":64,\"intermediate_size\":128,"        \
    "\"num_hidden_layers\":2,\"num_attention_heads\":4,\"vocab_size\":100,"                        \
    "\"max_position_embeddings\":131072,\"rms_norm_eps\":1e-5"

/* Phi 3 mini 128k: 4,096 positions became 131,072.  One list of divisors for the whole service, so that a
 * token's key does not depend on how long its sequence became. */
static void longrope_is_chosen_by_the_length_of_service(void **state)
{
    struct model_config c =
        read_ok("{" PHI3 ",\"partial_rotary_factor\":0.5,\"original_max_position_embeddings\":4096,"
                "\"rope_scaling\":{\"type\":\"longrope\",\"short_factor\":[1,1.5,2,4],"
                "\"long_factor\":[2,4,8,16]}}",
                NULL);
    double freq[4];

    (void)state;
    assert_int_equal(c.rope_dim, 8);
    assert_int_equal(c.positions_max, 131072);
    near(c.rope_amplitude, 1.1902380714238083); /* sqrt(1 + ln 32 / ln 4096) */
    model_config_rope_freq(&c, 4096, freq);
    near(freq[0], 1);
    near(freq[1], 0.1 / 1.5);
    near(freq[2], 0.01 / 2);
    model_config_rope_freq(&c, 4097, freq);
    near(freq[0], 0.5);
    near(freq[1], 0.1 / 4);
    near(freq[3], 0.001 / 16);
    refuse("{" PHI3 ",\"rope_scaling\":{\"type\":\"su\",\"short_factor\":[1],"
           "\"long_factor\":[1]}}",
           "8 numbers");
    refuse("{" PHI3 ",\"partial_rotary_factor\":0.5,\"rope_scaling\":{\"type\":\"longrope\","
           "\"short_factor\":[1,1,1,1],\"long_factor\":[1,1,0,1]}}",
           "long_factor");
    refuse("{" PHI3 ",\"partial_rotary_factor\":0.2}", "even number");
    refuse("{" LLAMA ",\"rope_scaling\":{\"type\":\"longrope\",\"short_factor\":[1,1,1,1,1,1,1,1],"
           "\"long_factor\":[1,1,1,1,1,1,1,1]}}",
           "original_max_position_embeddings");
}

static void qwen3_normalises_heads(void **state)
{
    struct model_config c =
        read_ok("{\"architectures\":[\"Qwen3ForCausalLM\"],\"hidden_size\":1024,"
                "\"intermediate_size\":3072,\"num_hidden_layers\":28,\"num_attention_heads\":16,"
                "\"num_key_value_heads\":8,\"vocab_size\":151936,\"attention_bias\":false,"
                "\"max_position_embeddings\":40960,\"rms_norm_eps\":1e-06,"
                "\"rope_theta\":1000000,\"max_window_layers\":28,\"sliding_window\":null,"
                "\"use_sliding_window\":false,\"tie_word_embeddings\":true}",
                NULL);

    (void)state;
    assert_true(c.qk_norm && c.tied_head && !c.qkv_bias && !c.o_bias);
    assert_int_equal(c.head_dim, 128); /* not 1024 / 16 */
    assert_int_equal(c.rope_dim, 128);
}

/* gemma-2-9b-it, and gemma-7b as it was first published. */
static void gemmas_have_what_their_files_leave_out(void **state)
{
#define GEMMA2                                                                                     \
    "\"architectures\":[\"Gemma2ForCausalLM\"],\"hidden_size\":3584,"                              \
    "\"intermediate_size\":14336,\"num_hidden_layers\":42,\"num_attention_heads\":16,"             \
    "\"num_key_value_heads\":8,\"vocab_size\":256000,\"max_position_embeddings\":8192,"            \
    "\"rms_norm_eps\":1e-06,\"sliding_window\":4096"
    struct model_config c =
        read_ok("{" GEMMA2
                ",\"head_dim\":256,\"hidden_act\":\"gelu_pytorch_tanh\",\"query_pre_attn_scalar\":"
                "256,\"attn_logit_softcapping\":50.0,\"final_logit_softcapping\":30.0}",
                NULL);

    (void)state;
    assert_true(c.tied_head && c.norm_plus_one && c.post_norms && c.activation == ACT_GELU_TANH);
    assert_true(c.attn_softcap == 50 && c.final_softcap == 30 && c.query_scale == 1 / 16.0f);
    near(c.embed_scale, sqrtf(3584));
    assert_true(c.layers[0].windowed && !c.layers[1].windowed && c.layers[40].windowed);
    c = read_ok("{" GEMMA2 ",\"attn_logit_softcapping\":null,\"query_pre_attn_scalar\":144}", NULL);
    assert_true(c.attn_softcap == 0 && c.final_softcap == 30 && c.query_scale == 1 / 12.0f);
    assert_int_equal(c.head_dim, 256);
    refuse("{" GEMMA2 ",\"use_bidirectional_attention\":true}", "use_bidirectional_attention");
    refuse("{" GEMMA2 ",\"final_logit_softcapping\":0}", "final_logit_softcapping");
    refuse("{" GEMMA2 ",\"hidden_activation\":\"relu\"}", "relu");
    c = read_ok("{\"architectures\":[\"GemmaForCausalLM\"],\"hidden_size\":3072,"
                "\"intermediate_size\":24576,\"num_hidden_layers\":28,\"num_attention_heads\":16,"
                "\"num_key_value_heads\":16,\"vocab_size\":256000,\"head_dim\":256,"
                "\"max_position_embeddings\":8192,\"rms_norm_eps\":1e-06,"
                "\"hidden_act\":\"gelu\",\"hidden_activation\":null}",
                NULL);
    assert_true(c.tied_head && c.norm_plus_one && !c.post_norms && c.activation == ACT_GELU_TANH);
    assert_true(c.attn_softcap == 0 && c.final_softcap == 0 && !c.layers[0].windowed);
}

#define MOE                                                                                        \
    "\"hidden_size\":64,\"intermediate_size\":128,\"num_hidden_layers\":6,"                        \
    "\"num_attention_heads\":4,\"vocab_size\":100,\"max_position_embeddings\":512,"                \
    "\"rms_norm_eps\":1e-5,\"num_experts_per_tok\":2"

static void mixtures_are_read_layer_by_layer(void **state)
{
    struct model_config c =
        read_ok("{\"model_type\":\"mixtral\"," MOE ",\"num_local_experts\":8}", NULL);

    (void)state;
    assert_true(c.n_experts == 8 && c.n_experts_used == 2 && c.expert_inner == 128);
    assert_true(c.norm_topk_prob && c.block_sparse_moe && c.shared_expert_inner == 0);
    assert_true(c.layers[0].sparse && c.layers[5].sparse && c.rope_theta == 1e6);
    c = read_ok("{\"model_type\":\"qwen2_moe\"," MOE ",\"num_experts\":60,"
                "\"moe_intermediate_size\":24,\"shared_expert_intermediate_size\":48,"
                "\"mlp_only_layers\":[1,4]}",
                NULL);
    assert_true(c.n_experts == 60 && c.expert_inner == 24 && c.shared_expert_inner == 48);
    assert_true(c.qkv_bias && !c.norm_topk_prob && !c.block_sparse_moe && !c.qk_norm);
    assert_true(c.layers[0].sparse && !c.layers[1].sparse && !c.layers[4].sparse);
    c = read_ok("{\"model_type\":\"qwen3_moe\"," MOE ",\"num_experts\":128,"
                "\"moe_intermediate_size\":24,\"norm_topk_prob\":true,\"decoder_sparse_step\":3,"
                "\"mlp_only_layers\":[2]}",
                NULL);
    assert_true(c.qk_norm && c.norm_topk_prob && c.shared_expert_inner == 0 && !c.qkv_bias);
    assert_true(!c.layers[0].sparse && !c.layers[2].sparse && c.layers[5].sparse);
}

static void mixtures_that_cannot_be_are_refused(void **state)
{
    (void)state;
    refuse("{\"model_type\":\"mixtral\"," MOE "}", "num_local_experts");
    refuse("{\"model_type\":\"mixtral\"," MOE ",\"num_local_experts\":1}", "num_experts_per_tok");
    refuse("{\"model_type\":\"mixtral\"," MOE ",\"num_local_experts\":1025}", "num_local_experts");
    refuse("{\"model_type\":\"qwen3_moe\"," MOE ",\"num_experts\":8}", "moe_intermediate_size");
    refuse("{\"model_type\":\"qwen2_moe\"," MOE ",\"num_experts\":8,\"moe_intermediate_size\":24}",
           "shared_expert_intermediate_size");
    refuse("{\"model_type\":\"qwen3_moe\"," MOE ",\"num_experts\":8,\"moe_intermediate_size\":24,"
           "\"mlp_only_layers\":[6]}",
           "mlp_only_layers");
    refuse("{\"model_type\":\"qwen3_moe\"," MOE ",\"num_experts\":8,\"moe_intermediate_size\":24,"
           "\"use_sliding_window\":true,\"sliding_window\":32}",
           "layer_types");
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
        cmocka_unit_test(yarn_has_the_reference_numbers),
        cmocka_unit_test(longrope_is_chosen_by_the_length_of_service),
        cmocka_unit_test(qwen3_normalises_heads),
        cmocka_unit_test(gemmas_have_what_their_files_leave_out),
        cmocka_unit_test(mixtures_are_read_layer_by_layer),
        cmocka_unit_test(mixtures_that_cannot_be_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
