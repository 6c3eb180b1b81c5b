/* gguf_family.c - tables.
 *
 * GGUF names are those of the specification ("blk.3.attn_q.weight"), HuggingFace names those of the families'
 * published checkpoints. */
#include "gpu-worker/load/gguf_family.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "common/gguf_model.h"

/* Without "blk.N." or "model.layers.N.", and without ".weight" or ".bias". */
struct gguf_rename {
    const char *gguf, *hf;
};

static const struct gguf_rename top[] = {
    { "token_embd", "model.embed_tokens" },
    { "output_norm", "model.norm" },
    { "output", "lm_head" },
    { NULL, NULL },
};

static const struct gguf_rename layer[] = {
    { "attn_norm", "input_layernorm" },
    { "attn_q", "self_attn.q_proj" },
    { "attn_k", "self_attn.k_proj" },
    { "attn_v", "self_attn.v_proj" },
    { "attn_qkv", "self_attn.qkv_proj" },
    { "attn_output", "self_attn.o_proj" },
    { "attn_q_norm", "self_attn.q_norm" },
    { "attn_k_norm", "self_attn.k_norm" },
    { "ffn_norm", "post_attention_layernorm" },
    { "ffn_gate", "mlp.gate_proj" },
    { "ffn_up", "mlp.up_proj" },
    { "ffn_down", "mlp.down_proj" },
    { "ffn_gate_inp", "mlp.gate" },
    { "ffn_gate_exps", "mlp.experts.%u.gate_proj" },
    { "ffn_up_exps", "mlp.experts.%u.up_proj" },
    { "ffn_down_exps", "mlp.experts.%u.down_proj" },
    { "ffn_gate_inp_shexp", "mlp.shared_expert_gate" },
    { "ffn_gate_shexp", "mlp.shared_expert.gate_proj" },
    { "ffn_up_shexp", "mlp.shared_expert.up_proj" },
    { "ffn_down_shexp", "mlp.shared_expert.down_proj" },
    { NULL, NULL },
};

static const struct gguf_rename mixtral[] = {
    { "ffn_gate_inp", "block_sparse_moe.gate" },
    { "ffn_gate_exps", "block_sparse_moe.experts.%u.w1" },
    { "ffn_up_exps", "block_sparse_moe.experts.%u.w3" },
    { "ffn_down_exps", "block_sparse_moe.experts.%u.w2" },
    { NULL, NULL },
};

static const struct gguf_rename gemma2[] = {
    { "post_attention_norm", "post_attention_layernorm" },
    { "ffn_norm", "pre_feedforward_layernorm" },
    { "post_ffw_norm", "post_feedforward_layernorm" },
    { NULL, NULL },
};

static const struct gguf_rename phi3[] = {
    { "ffn_up", "mlp.gate_up_proj" },
    { NULL, NULL },
};

static const struct gguf_family families[] = {
    { "llama", false, "LlamaForCausalLM", "llama", "silu", true, NULL },
    { "llama", true, "MixtralForCausalLM", "mixtral", "silu", true, mixtral },
    { "qwen2", false, "Qwen2ForCausalLM", "qwen2", "silu", false, NULL },
    { "qwen2moe", true, "Qwen2MoeForCausalLM", "qwen2_moe", "silu", false, NULL },
    { "qwen3", false, "Qwen3ForCausalLM", "qwen3", "silu", false, NULL },
    { "qwen3moe", true, "Qwen3MoeForCausalLM", "qwen3_moe", "silu", false, NULL },
    { "gemma", false, "GemmaForCausalLM", "gemma", "gelu_pytorch_tanh", false, NULL },
    { "gemma2", false, "Gemma2ForCausalLM", "gemma2", "gelu_pytorch_tanh", false, gemma2 },
    { "phi3", false, "Phi3ForCausalLM", "phi3", "silu", false, phi3 },
};

const struct gguf_family *gguf_family_of(const struct gguf *g, struct err *e)
{
    char key[GGUF_KEY_BYTES];
    struct gguf_string name;
    int64_t experts = 0;

    if (!gguf_string(g, "general.architecture", &name, e) ||
        !gguf_model_key(g, "expert_count", key, e) ||
        (gguf_has(g, key) && !gguf_integer(g, key, &experts, e)))
        return NULL;
    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        if (gguf_string_is(name, families[i].name) && families[i].sparse == (experts > 0))
            return &families[i];
    err_set(
        e, ERR_MODEL, 0,
        "architecture \"%.*s\" with %lld experts is not supported; this build knows llama, qwen2, "
        "qwen2moe, qwen3, qwen3moe, gemma, gemma2 and phi3",
        (int)(name.n > 60 ? 60 : name.n), name.s, (long long)experts);
    return NULL;
}

/* ---- names ---- */

static const char *find(const struct gguf_rename *list, const char *name, size_t n)
{
    for (; list && list->gguf; list++)
        if (strlen(list->gguf) == n && memcmp(list->gguf, name, n) == 0)
            return list->hf;
    return NULL;
}

/* Bytes before ".weight" or ".bias"; 0 when it ends otherwise. */
static size_t stem_bytes(const char *name)
{
    const char *dot = strrchr(name, '.');

    return dot && (strcmp(dot, ".weight") == 0 || strcmp(dot, ".bias") == 0) ? (size_t)(dot - name)
                                                                             : 0;
}

/* "blk.12.attn_q.weight": the digits and what follows them. */
static bool cut_layer(const char *name, const char **digits, size_t *n_digits, const char **rest)
{
    size_t n = 0;

    if (strncmp(name, "blk.", 4) != 0)
        return false;
    while (isdigit((unsigned char)name[4 + n]))
        n++;
    *digits = name + 4;
    *n_digits = n;
    *rest = name + 4 + n + 1;
    return n > 0 && n < 8 && name[4 + n] == '.';
}

bool gguf_family_rename(const struct gguf_family *f, const char *name, char hf[GGUF_HF_NAME_BYTES])
{
    const char *digits, *rest, *to;
    size_t n_digits, n;

    if (cut_layer(name, &digits, &n_digits, &rest)) {
        n = stem_bytes(rest);
        to = find(f->renames, rest, n);
        to = to ? to : find(layer, rest, n);
        if (to)
            snprintf(hf, GGUF_HF_NAME_BYTES, "model.layers.%.*s.%s%s", (int)n_digits, digits, to,
                     rest + n);
        return to != NULL;
    }
    n = stem_bytes(name);
    to = find(top, name, n);
    if (to)
        snprintf(hf, GGUF_HF_NAME_BYTES, "%s%s", to, name + n);
    return to != NULL;
}

/* ---- the way back ---- */

const struct gguf_family *gguf_family_for(const char *architecture)
{
    if (strcmp(architecture, "MistralForCausalLM") == 0)
        architecture = "LlamaForCausalLM";
    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        if (strcmp(families[i].architecture, architecture) == 0)
            return &families[i];
    return NULL;
}

static const char *find_hf(const struct gguf_rename *list, const char *hf)
{
    for (; list && list->gguf; list++)
        if (strcmp(list->hf, hf) == 0)
            return list->gguf;
    return NULL;
}

/* "mlp.experts.12.up_proj" becomes "mlp.experts.%u.up_proj" and 12. */
static void cut_expert(char *stem, int32_t *expert)
{
    char *at = strstr(stem, "experts."), *digits, *end;
    size_t left;

    *expert = -1;
    if (!at || !isdigit((unsigned char)at[8]))
        return;
    digits = end = at + 8;
    while (isdigit((unsigned char)*end))
        end++;
    if (end - digits > 6 || (left = strlen(end)) + 3 > GGUF_HF_NAME_BYTES - (size_t)(digits - stem))
        return;
    *expert = 0;
    for (const char *d = digits; d < end; d++)
        *expert = *expert * 10 + (*d - '0');
    memmove(digits + 2, end, left + 1);
    memcpy(digits, "%u", 2);
}

bool gguf_family_name(const struct gguf_family *f, const char *hf, char name[GGUF_HF_NAME_BYTES],
                      int32_t *expert)
{
    char stem[GGUF_HF_NAME_BYTES + 2];
    size_t n = stem_bytes(hf);
    const char *to;
    unsigned number;
    int at = 0;

    *expert = -1;
    if (n == 0 || strlen(hf) >= GGUF_HF_NAME_BYTES - 32)
        return false;
    if (sscanf(hf, "model.layers.%6u.%n", &number, &at) == 1 && at > 0 && (size_t)at < n) {
        snprintf(stem, sizeof stem, "%.*s", (int)(n - (size_t)at), hf + at);
        cut_expert(stem, expert);
        to = find_hf(f->renames, stem);
        to = to ? to : find_hf(layer, stem);
        if (to)
            snprintf(name, GGUF_HF_NAME_BYTES, "blk.%u.%s%s", number, to, hf + n);
        return to != NULL;
    }
    snprintf(stem, sizeof stem, "%.*s", (int)n, hf);
    to = find_hf(top, stem);
    if (to)
        snprintf(name, GGUF_HF_NAME_BYTES, "%s%s", to, hf + n);
    return to != NULL;
}
