/* test_models.c - the whole path with other models than the demo's: what `make run MODEL=<dir>` promises.
 *
 * A small random checkpoint of each family, sharded or not, with a tokenizer of its kind; what the server
 * answers is compared with a forward pass in double precision that shares no line with ours. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/file.h"
#include "common/json.h"
#include "tests/proc/http_client.h"
#include "tests/proc/system.h"
#include "tests/unit/checkpoint.h"

enum { N_PROMPT = 11, N_NEW = 12 };

/* Put the tokenizer of a kind from tests/vectors beside the weights. */
static void add_tokenizer(const char *dir, const char *kind)
{
    char path[256];
    char *bytes;
    size_t n;

    snprintf(path, sizeof path, TEST_SOURCE_DIR "/tests/vectors/tokenizer/%s/tokenizer.json", kind);
    assert_true(file_read(path, 1 << 20, &bytes, &n, NULL));
    test_dir_write(dir, "tokenizer.json", bytes, n);
    test_dir_write(dir, "tokenizer_config.json", "{}", 2);
    free(bytes);
}

/* Greedy continuation by the double-precision reference; false when two logits are too close to call. */
static bool reference_greedy(const struct checkpoint *c, int32_t *tokens)
{
    double *logits = calloc(c->spec.vocab, sizeof *logits);
    bool clear = true;

    for (uint32_t n = N_PROMPT; n < N_PROMPT + N_NEW; n++) {
        uint32_t best = 0;
        double second = -1e300;
        checkpoint_logits(c, tokens, n, logits);
        for (uint32_t i = 1; i < c->spec.vocab; i++)
            best = logits[i] > logits[best] ? i : best;
        for (uint32_t i = 0; i < c->spec.vocab; i++)
            second = i != best && logits[i] > second ? logits[i] : second;
        clear = clear && logits[best] - second > 1e-3;
        tokens[n] = (int32_t)best;
    }
    free(logits);
    return clear;
}

static json_t *ask(const struct system *s, json_t *request)
{
    char *text = json_dumps(request, 0);
    struct buf out = { 0 };
    json_t *answer;
    json_error_t e;
    int status = http_ask(s->port, "/v1/completions", text, &out);

    if (status != 200)
        fail_msg("%s gave %d %s", text, status, out.data ? out.data : "");
    answer =
        json_loadb(out.data, out.n, JSON_ALLOW_NUL, &e); /* a byte that a random model may say */
    if (!answer)
        fail_msg("%s gave %s: %s", text, out.data ? out.data : "", e.text);
    buf_fini(&out);
    free(text);
    json_decref(request);
    return answer;
}

static void expect_reference_tokens(const struct system *s, const int32_t *tokens)
{
    json_t *prompt = json_array(), *answer, *ids;

    for (int i = 0; i < N_PROMPT; i++)
        json_array_append_new(prompt, json_integer(tokens[i]));
    answer = ask(s, json_pack("{s:o, s:i, s:i, s:b, s:b}", "prompt", prompt, "max_tokens", N_NEW,
                              "temperature", 0, "ignore_eos", 1, "return_token_ids", 1));
    ids = json_object_get(json_array_get(json_object_get(answer, "choices"), 0), "token_ids");
    assert_int_equal(json_array_size(ids), N_NEW);
    for (int i = 0; i < N_NEW; i++)
        assert_int_equal(json_integer_value(json_array_get(ids, (size_t)i)), tokens[N_PROMPT + i]);
    json_decref(answer);
}

static void serve(const struct checkpoint_spec *spec, const char *tokenizer, const char *tp_size)
{
    int32_t tokens[N_PROMPT + N_NEW];
    struct checkpoint c;
    struct system s;
    uint64_t seed = 1;

    for (;; seed++) { /* a model whose choices no rounding can change */
        checkpoint_make(&c, spec, seed);
        for (int i = 0; i < N_PROMPT; i++)
            tokens[i] = (int32_t)((seed * 131 + (uint64_t)i * 37) % spec->vocab);
        if (reference_greedy(&c, tokens))
            break;
        checkpoint_remove(&c);
        assert_true(seed < 20);
    }
    add_tokenizer(c.dir, tokenizer);
    const char *const args[] = { "--model",     c.dir,     "--tp-size", tp_size,
                                 "--log-level", "warning", NULL };
    system_start(&s, args);
    expect_reference_tokens(&s, tokens);
    json_decref(ask(&s, json_pack("{s:s, s:i}", "prompt",
                                  "Hello, w\xc3\xb6rld \xf0\x9f\x98\x80 123!", "max_tokens", 8)));
    assert_int_equal(system_stop(&s), 0);
    checkpoint_remove(&c);
}

static void a_llama3_folder_of_several_files_is_served(void **state)
{
    const struct checkpoint_spec spec = { .architecture = "LlamaForCausalLM",
                                          .hidden = 64,
                                          .inner = 96,
                                          .layers = 3,
                                          .heads = 8,
                                          .kv_heads = 2,
                                          .head_dim = 8,
                                          .vocab = 679,
                                          .dtype = DTYPE_BF16,
                                          .theta = 500000,
                                          .llama3_factor = 8,
                                          .n_files = 3 };

    (void)state;
    serve(&spec, "llama3", "1");
    serve(&spec, "llama3", "2");
}

static void a_qwen2_folder_with_biases_is_served(void **state)
{
    const struct checkpoint_spec spec = { .architecture = "Qwen2ForCausalLM",
                                          .hidden = 48,
                                          .inner = 80,
                                          .layers = 2,
                                          .heads = 6,
                                          .kv_heads = 2,
                                          .head_dim = 8,
                                          .vocab = 682,
                                          .dtype = DTYPE_F16,
                                          .tied = true,
                                          .qkv_bias = true,
                                          .theta = 1000000,
                                          .n_files = 1 };

    (void)state;
    serve(&spec, "qwen2", "1");
}

static void a_mistral_folder_with_a_sliding_window_is_served(void **state)
{
    const struct checkpoint_spec spec = { .architecture = "MistralForCausalLM",
                                          .hidden = 64,
                                          .inner = 96,
                                          .layers = 2,
                                          .heads = 4,
                                          .kv_heads = 2,
                                          .head_dim = 16,
                                          .vocab = 864,
                                          .dtype = DTYPE_F32,
                                          .window = 7,
                                          .theta = 10000,
                                          .n_files = 1 };

    (void)state;
    serve(&spec, "llama2", "1");
}

static void a_gemma2_folder_is_served(void **state)
{
    const struct checkpoint_spec spec = { .architecture = "Gemma2ForCausalLM",
                                          .hidden = 48,
                                          .inner = 80,
                                          .layers = 3,
                                          .heads = 4,
                                          .kv_heads = 2,
                                          .head_dim = 16,
                                          .vocab = 863,
                                          .dtype = DTYPE_BF16,
                                          .tied = true,
                                          .window = 6,
                                          .theta = 10000,
                                          .query_scalar = 20,
                                          .attn_cap = 5,
                                          .final_cap = 8,
                                          .n_files = 1 };

    (void)state;
    serve(&spec, "gemma", "1");
}

static void a_phi3_folder_with_longrope_is_served(void **state)
{
    const struct checkpoint_spec spec = { .architecture = "Phi3ForCausalLM",
                                          .hidden = 48,
                                          .inner = 80,
                                          .layers = 2,
                                          .heads = 4,
                                          .kv_heads = 2,
                                          .head_dim = 16,
                                          .vocab = 862,
                                          .dtype = DTYPE_BF16,
                                          .theta = 10000,
                                          .longrope_original = 16,
                                          .n_files = 1 };

    (void)state;
    serve(&spec, "phi3", "1");
}

static void a_qwen3_moe_folder_is_served_by_two_ranks(void **state)
{
    const struct checkpoint_spec spec = { .architecture = "Qwen3MoeForCausalLM",
                                          .hidden = 48,
                                          .inner = 80,
                                          .layers = 3,
                                          .heads = 4,
                                          .kv_heads = 2,
                                          .head_dim = 16,
                                          .vocab = 682,
                                          .dtype = DTYPE_BF16,
                                          .theta = 1000000,
                                          .experts = 8,
                                          .experts_used = 2,
                                          .expert_inner = 24,
                                          .norm_topk = true,
                                          .n_files = 2 };

    (void)state;
    serve(&spec, "qwen2", "2");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_llama3_folder_of_several_files_is_served),
        cmocka_unit_test(a_qwen2_folder_with_biases_is_served),
        cmocka_unit_test(a_mistral_folder_with_a_sliding_window_is_served),
        cmocka_unit_test(a_gemma2_folder_is_served),
        cmocka_unit_test(a_phi3_folder_with_longrope_is_served),
        cmocka_unit_test(a_qwen3_moe_folder_is_served_by_two_ranks),
    };

    return cmocka_run_group_tests_name("models", tests, NULL, NULL);
}
