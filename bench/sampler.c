/* sampler.c - what one draw costs, by vocabulary, distribution and settings: `bench-sampler`.
 *
 * Prints CSV: vocabulary, logits, settings, microseconds a draw (median of 200), one thread. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/mem.h"
#include "gpu-worker/philox.h"
#include "gpu-worker/sampler.h"

enum { DRAWS = 200 };

struct settings {
    const char *name;
    float temperature, top_p, min_p, typical_p, repetition_penalty;
    uint32_t top_k;
    bool logprobs;
};

static const struct settings all[] = {
    { .name = "greedy" },
    { .name = "greedy+logprobs", .logprobs = true },
    { .name = "temperature", .temperature = 0.8f },
    { .name = "top_k=50", .temperature = 0.8f, .top_k = 50 },
    { .name = "top_p=0.9", .temperature = 0.8f, .top_p = 0.9f },
    { .name = "top_k=50+top_p=0.9", .temperature = 0.8f, .top_k = 50, .top_p = 0.9f },
    { .name = "min_p=0.05", .temperature = 0.8f, .min_p = 0.05f },
    { .name = "typical_p=0.9", .temperature = 0.8f, .typical_p = 0.9f },
    { .name = "top_p=0.9+repetition",
      .temperature = 0.8f,
      .top_p = 0.9f,
      .repetition_penalty = 1.1f },
};

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

/* Sum of four uniforms, about normal: `spread` decides how far the best stand out. */
static void fill(float *logits, uint32_t n, double spread)
{
    for (uint32_t i = 0; i < n; i++) {
        double sum = -2;
        for (uint32_t k = 0; k < 4; k++)
            sum += philox_uniform(k, i);
        logits[i] = (float)(sum * spread);
    }
}

static void measure(uint32_t vocab, const char *kind, double spread)
{
    enum { N_TOKENS = 1000 };
    struct sampler *s = sampler_new(vocab);
    float *logits = mem_alloc(vocab * sizeof *logits);
    int32_t tokens[N_TOKENS];

    fill(logits, vocab, spread);
    for (int i = 0; i < N_TOKENS; i++)
        tokens[i] = (int32_t)((uint32_t)i * 7919 % vocab);
    for (size_t k = 0; k < sizeof all / sizeof *all; k++) {
        Llmd__Sampling p = LLMD__SAMPLING__INIT;
        struct ledger_top top[5];
        uint64_t took[DRAWS];
        p.seed = 1;
        p.temperature = all[k].temperature;
        p.top_k = all[k].top_k;
        p.top_p = all[k].top_p;
        p.min_p = all[k].min_p;
        p.typical_p = all[k].typical_p;
        p.repetition_penalty = all[k].repetition_penalty;
        p.want_logprobs = all[k].logprobs;
        p.top_logprobs = all[k].logprobs ? 5 : 0;
        for (uint32_t i = 0; i < DRAWS; i++) {
            struct sampler_input in = { .logits = logits,
                                        .sampling = &p,
                                        .tokens = tokens,
                                        .n_prompt = N_TOKENS / 2,
                                        .n_generated = N_TOKENS / 2 };
            struct sampler_output out = { .top = top };
            uint64_t start = clock_mono_ns();
            if (sampler_draw(s, &in, &out) != SAMPLER_OK)
                abort();
            took[i] = clock_mono_ns() - start;
        }
        qsort(took, DRAWS, sizeof *took, by_value);
        printf("%u,%s,%s,%.1f\n", vocab, kind, all[k].name, (double)took[DRAWS / 2] / 1000);
    }
    free(logits);
    sampler_free(s);
}

int main(void)
{
    static const uint32_t vocabs[] = { 2048, 32000, 128256 };

    printf("vocab,logits,settings,us_per_draw\n");
    for (size_t v = 0; v < sizeof vocabs / sizeof *vocabs; v++) {
        measure(vocabs[v], "peaked", 9);
        measure(vocabs[v], "flat", 1);
    }
    return 0;
}
