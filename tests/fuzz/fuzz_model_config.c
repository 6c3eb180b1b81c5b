/* fuzz_model_config.c - any bytes as config.json and, after a NUL, generation_config.json: what is taken
 * keeps the promises of struct model_config. */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "common/log.h"
#include "gpu-worker/load/model_config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check(const struct model_config *c)
{
    static double freq[512];

    assert(c->n_heads > 0 && c->n_kv_heads > 0 && c->n_heads % c->n_kv_heads == 0);
    assert(c->head_dim > 0 && c->head_dim % 2 == 0 && c->head_dim / 2 <= 512);
    assert(c->vocab_size > 0 && c->hidden_size > 0 && c->intermediate_size > 0 && c->n_layers > 0);
    assert(c->positions_max > 0 && c->rms_norm_eps > 0 && c->n_eos <= MODEL_CONFIG_EOS_MAX);
    for (uint32_t i = 0; i < c->n_eos; i++) {
        assert(c->eos[i] >= 0 && (uint32_t)c->eos[i] < c->vocab_size);
        for (uint32_t k = 0; k < i; k++)
            assert(c->eos[i] != c->eos[k]);
    }
    assert(c->rope_dim > 0 && c->rope_dim % 2 == 0 && c->rope_dim <= c->head_dim);
    assert(c->query_scale > 0 && c->embed_scale > 0 && c->rope_amplitude > 0);
    model_config_rope_freq(c, c->positions_max, freq);
    for (uint32_t i = 0; i < c->rope_dim / 2; i++)
        assert(isfinite(freq[i]) && freq[i] > 0 && freq[i] <= 1e6);
    if (c->n_experts > 0) {
        assert(c->n_experts <= MODEL_CONFIG_EXPERTS_MAX && c->expert_inner > 0);
        assert(c->n_experts_used > 0 && c->n_experts_used <= c->n_experts);
    }
    for (uint32_t i = 0; i < c->n_layers; i++) {
        assert(!c->layers[i].sparse || c->n_experts > 0);
        assert(!c->layers[i].windowed || c->sliding_window > 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    const uint8_t *end = n > 0 ? memchr(data, '\0', n) : NULL;
    size_t config_bytes = end ? (size_t)(end - data) : n;
    const char *generation = end ? (const char *)end + 1 : NULL;
    struct model_config c;
    struct err e;

    log_set_level(LOG_ERROR);
    if (model_config_parse(&c, (const char *)data, config_bytes, generation,
                           end ? n - config_bytes - 1 : 0, &e))
        check(&c);
    else
        assert(e.code == ERR_MODEL && memchr(e.msg, '\0', sizeof e.msg));
    return 0;
}
