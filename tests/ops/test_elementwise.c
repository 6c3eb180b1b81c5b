/* test_elementwise.c - half formats, norm, rope, SwiGLU, embedding rows.
 *
 * What would break in production: a value rounded differently where KV is written than where it is
 * checked; an element at the end of a row treated unlike one in the middle, so that shards differ. */
#include "gpu-worker/ops/cpu_kernels.h"
#include "gpu-worker/ops/rope_table.h"
#include "tests/ops/ops_rig.h"

enum { LENGTH_MAX = 70 };

static const struct cpu_kernels *kernels_of(enum cpu_tier tier)
{
    static const struct cpu_kernels *const all[N_CPU_TIERS] = {
        [CPU_PLAIN] = &cpu_kernels_plain,
#if defined(__x86_64__)
        [CPU_AVX2] = &cpu_kernels_avx2,
        [CPU_AVX512] = &cpu_kernels_avx512,
#endif
    };

    return tier_is_here(tier) ? all[tier] : NULL;
}

/* Every half is exact as a float, and comes back as itself. */
static void halves_survive_the_way_there_and_back(void **state)
{
    (void)state;
    for (uint32_t h = 0; h <= 0xffff; h++) {
        float f = f16_to_float((uint16_t)h);
        uint32_t exponent = h >> 10 & 0x1f, fraction = h & 0x3ff;
        if (exponent == 0x1f && fraction) {
            assert_true(isnan(f));
            assert_true(isnan(f16_to_float(float_to_f16(f))));
            continue;
        }
        assert_int_equal(float_to_f16(f), h);
        if (exponent < 0x1f) {
            double wanted =
                exponent ? ldexp(1024 + fraction, (int)exponent - 25) : ldexp(fraction, -24);
            assert_true(f == (float)(h & 0x8000 ? -wanted : wanted));
        }
    }
}

/* Between two neighbouring halves, at the middle and just beside it. */
static void halves_round_to_nearest_even(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x7bff; h++) {
        float low = f16_to_float((uint16_t)h), high = f16_to_float((uint16_t)(h + 1));
        float middle = (low + high) / 2; /* exact */
        assert_int_equal(float_to_f16(middle), h % 2 ? h + 1 : h);
        assert_int_equal(float_to_f16(nextafterf(middle, 0)), h);
        assert_int_equal(float_to_f16(nextafterf(middle, 1e9f)), h + 1);
        assert_int_equal(float_to_f16(-middle), 0x8000 | (h % 2 ? h + 1 : h));
    }
    assert_int_equal(float_to_f16(65519.996f), 0x7bff);
    assert_int_equal(float_to_f16(65520), 0x7c00);
    assert_int_equal(float_to_f16(-INFINITY), 0xfc00);
}

static void tiers_convert_alike(void **state)
{
    struct random r = random_begin("tiers_convert_alike");

    (void)state;
    for (enum cpu_tier tier = 0; tier < N_CPU_TIERS; tier++) {
        const struct cpu_kernels *k = kernels_of(tier);
        for (uint32_t n = 1; k && n <= LENGTH_MAX; n++) {
            float back[LENGTH_MAX + 1];
            uint16_t half[LENGTH_MAX];
            for (uint32_t i = 0; i < n; i++)
                half[i] = float_to_f16(random_float(&r) * exp2f((float)(random_u64(&r) % 40) - 24));
            back[n] = 7;
            k->widen(back, half, DTYPE_F16, n);
            assert_true(back[n] == 7);
            for (uint32_t i = 0; i < n; i++)
                assert_true(back[i] == f16_to_float(half[i]));
            k->widen(back, half, DTYPE_BF16, n);
            for (uint32_t i = 0; i < n; i++)
                assert_int_equal(bits_of_float(back[i]), (uint32_t)half[i] << 16);
        }
    }
}

/* Every tier the same codes: the largest is 127, ties go to even, zeroes stay zero, and nothing is past n. */
static void codes_are_the_same_everywhere(void **state)
{
    struct random r = random_begin("codes_are_the_same_everywhere");

    (void)state;
    for (uint32_t n = 1; n <= LENGTH_MAX; n++) {
        float x[LENGTH_MAX], largest = 0;
        for (uint32_t i = 0; i < n; i++) {
            x[i] = n % 3 ? random_float(&r) * 1000 : (float)(i % 5) / 2;
            largest = fmaxf(largest, fabsf(x[i]));
        }
        for (enum cpu_tier tier = 0; tier < N_CPU_TIERS; tier++) {
            const struct cpu_kernels *k = kernels_of(tier);
            int8_t codes[LENGTH_MAX + 1];
            float inverse = largest > 0 ? 1 / (largest / 127) : 0;
            codes[n] = 99;
            if (!k)
                continue;
            assert_true(k->narrow_i8(codes, x, n) == largest / 127);
            assert_int_equal(codes[n], 99);
            for (uint32_t i = 0; i < n; i++)
                assert_int_equal(codes[i], lrintf(x[i] * inverse));
        }
    }
}

typedef float (*narrow16_fn)(int16_t *y, const float *x, uint32_t n);

/* Codes are x / scale to the nearest, whatever the tier, and nothing is past n. */
static void check_codes16(narrow16_fn narrow, const float *x, uint32_t n, double scale)
{
    int16_t codes[LENGTH_MAX + 1];
    float got;

    codes[n] = 99;
    got = narrow(codes, x, n);
    assert_int_equal(codes[n], 99);
    assert_true(fabs(got - scale) <= 1e-6 * scale); /* a sum of squares in another order */
    for (uint32_t i = 0; i < n; i++)
        assert_true(fabs(x[i] / scale - codes[i]) <= 0.5 + 0.01);
}

/* What the products' room is counted with (attention_codes.h): K's codes are KV_K16_LENGTH long, V's KV_V16_MAX at most. */
static void codes_of_16_bits_use_the_room_there_is(void **state)
{
    struct random r = random_begin("codes_of_16_bits_use_the_room_there_is");

    (void)state;
    for (enum cpu_tier tier = 0; tier < N_CPU_TIERS; tier++) {
        const struct cpu_kernels *k = kernels_of(tier);
        for (uint32_t n = 1; k && n <= LENGTH_MAX; n++) {
            float x[LENGTH_MAX];
            double sum = 0, largest = 0;
            for (uint32_t i = 0; i < n; i++) {
                x[i] = random_float(&r) * (n % 3 ? 1000 : 1e-6f);
                if (n % 5 == 0 && i == n / 2)
                    x[i] *= 1e6f; /* one that is all there is */
                sum += (double)x[i] * x[i];
                largest = fmax(largest, fabs(x[i]));
            }
            check_codes16(k->narrow_k16, x, n, sqrt(sum) / KV_K16_LENGTH);
            check_codes16(k->narrow_v16, x, n, largest / KV_V16_MAX);
        }
    }
}

/* Nothing, too little for a reciprocal, and what is no number, which the scale shows. */
static void codes_of_16_bits_stand_anything(void **state)
{
    (void)state;
    for (enum cpu_tier tier = 0; tier < N_CPU_TIERS; tier++) {
        const struct cpu_kernels *k = kernels_of(tier);
        const narrow16_fn both[] = { k ? k->narrow_k16 : NULL, k ? k->narrow_v16 : NULL };
        for (int i = 0; k && i < 2; i++) {
            float x[20] = { 0 };
            int16_t codes[20];
            assert_true(both[i](codes, x, 20) == 0);
            x[3] = 1e-40f;
            both[i](codes, x, 20);
            for (int d = 0; d < 20; d++)
                assert_int_equal(codes[d], 0);
            x[19] = NAN;
            assert_true(isnan(both[0](codes, x, 20)));
        }
    }
}

static void rmsnorm_is_near_double(void **state)
{
    struct random r = random_begin("rmsnorm_is_near_double");

    (void)state;
    for (enum cpu_tier tier = 0; tier < N_CPU_TIERS; tier++) {
        const struct cpu_kernels *k = kernels_of(tier);
        for (uint32_t n = 1; k && n <= LENGTH_MAX; n++) {
            float x[LENGTH_MAX], w[LENGTH_MAX], y[LENGTH_MAX + 1] = { 0 };
            double sum = 0;
            for (uint32_t i = 0; i < n; i++) {
                x[i] = random_float(&r) * 100;
                w[i] = random_float(&r);
                sum += (double)x[i] * x[i];
            }
            y[n] = 7;
            k->rmsnorm(y, x, w, n, 1e-5f);
            assert_true(y[n] == 7);
            for (uint32_t i = 0; i < n; i++) {
                double wanted = w[i] * (x[i] / sqrt(sum / n + 1e-5));
                assert_true(fabs(y[i] - wanted) <= 1e-5 * fabs(wanted));
            }
            memcpy(y, x, n * sizeof *x); /* in place is the same */
            k->rmsnorm(x, x, w, n, 1e-5f);
            k->rmsnorm(y, y, w, n, 1e-5f);
            assert_memory_equal(x, y, n * sizeof *x);
        }
    }
}

static void rmsnorm_of_zeros_is_zero(void **state)
{
    float x[20] = { 0 }, w[20], y[20];

    (void)state;
    for (int i = 0; i < 20; i++)
        w[i] = 3;
    for (enum cpu_tier tier = 0; tier < N_CPU_TIERS; tier++)
        if (kernels_of(tier)) {
            kernels_of(tier)->rmsnorm(y, x, w, 20, 1e-6f);
            for (int i = 0; i < 20; i++)
                assert_true(y[i] == 0);
        }
}

static double activated(enum activation act, double x)
{
    return act == ACT_SILU ? x / (1 + exp(-x))
                           : 0.5 * x * (1 + tanh(0.79788456080286536 * (x + 0.044715 * x * x * x)));
}

static void activations_are_near_double_everywhere(void **state)
{
    (void)state;
    for (enum cpu_tier tier = 0; tier < N_CPU_TIERS; tier++)
        for (enum activation act = 0; kernels_of(tier) && act < N_ACTIVATIONS; act++) {
            const struct cpu_kernels *k = kernels_of(tier);
            float odd[2] = { NAN, INFINITY }, up[2] = { 1, 1 }, y[2];
            for (float x = -110; x < 110; x += 0.0371f) {
                /* far below zero the exact value is tiny, and its exponent carries x's rounding */
                double wanted = activated(act, x), slack = act == ACT_SILU ? 1e-36 : 1e-7;
                k->gate(y, &x, up, 1, act);
                if (!(fabs(y[0] - wanted) <= 5e-7 * fabs(wanted) + slack))
                    fail_msg("%s: activation %d of %g = %.9g, wanted %.9g", cpu_tier_name(tier),
                             (int)act, x, y[0], wanted);
            }
            k->gate(y, odd, up, 2, act);
            assert_true(isnan(y[0]));
            assert_true(isinf(y[1]));
        }
}

/* The element's place in the row does not matter. */
static void activations_of_a_tail_have_the_same_bits(void **state)
{
    struct random r = random_begin("activations_of_a_tail_have_the_same_bits");
    float gate[LENGTH_MAX], up[LENGTH_MAX];

    (void)state;
    for (int i = 0; i < LENGTH_MAX; i++) {
        gate[i] = random_float(&r) * 20;
        up[i] = random_float(&r);
    }
    for (enum cpu_tier tier = 0; tier < N_CPU_TIERS; tier++)
        for (enum activation act = 0; kernels_of(tier) && act < N_ACTIVATIONS; act++) {
            const struct cpu_kernels *k = kernels_of(tier);
            float whole[LENGTH_MAX], part[LENGTH_MAX];
            k->gate(whole, gate, up, LENGTH_MAX, act);
            for (uint32_t first = 0; first < LENGTH_MAX; first++)
                for (uint32_t n = 1; first + n <= LENGTH_MAX; n++) {
                    k->gate(part, gate + first, up + first, n, act);
                    assert_memory_equal(part, whole + first, n * sizeof *part);
                }
        }
}

/* cos and sin are right to the last bit or its neighbour, near and far. */
static void rope_table_is_exact(void **state)
{
    static const uint32_t positions[] = { 0, 1, 255, 256, 257, 4095, 65536, 131071 };
    double freq[4] = { 1, 0.31622776601683794, 0.01, 1e-4 };
    struct rope_table table;
    float c[4], s[4];

    (void)state;
    rope_table_init(&table, freq, 4, 131072, 1);
    for (size_t p = 0; p < sizeof positions / sizeof *positions; p++) {
        rope_table_at(&table, positions[p], c, s);
        for (int i = 0; i < 4; i++) {
            assert_true(fabs(c[i] - cos(positions[p] * freq[i])) < 6.1e-8);
            assert_true(fabs(s[i] - sin(positions[p] * freq[i])) < 6.1e-8);
        }
    }
    rope_table_fini(&table);
}

/* Pairs are (i, i + half), each turned counter-clockwise; twice half a turn is a whole one. */
static void rope_turns_pairs_of_halves(void **state)
{
    (void)state;
    for (enum cpu_tier tier = 0; tier < N_CPU_TIERS; tier++) {
        const struct cpu_kernels *k = kernels_of(tier);
        for (uint32_t half = 1; k && half <= LENGTH_MAX / 2; half++) {
            float x[LENGTH_MAX], c[LENGTH_MAX / 2], s[LENGTH_MAX / 2];
            for (uint32_t i = 0; i < half; i++) {
                c[i] = (float)cos(i * 0.1);
                s[i] = (float)sin(i * 0.1);
                x[i] = (float)i + 1;
                x[half + i] = -2;
            }
            k->rope(x, c, s, half);
            for (uint32_t i = 0; i < half; i++) {
                assert_true(fabs(x[i] - ((i + 1) * cos(i * 0.1) + 2 * sin(i * 0.1))) < 1e-5);
                assert_true(fabs(x[half + i] - (-2 * cos(i * 0.1) + (i + 1) * sin(i * 0.1))) <
                            1e-5);
            }
        }
    }
}

/* A rank fills the rows of its own tokens and leaves the others' alone. */
static void embed_leaves_foreign_tokens_alone(void **state)
{
    static const double freq[1] = { 1 };
    float table[3][2] = { { 1, 2 }, { 3, 4 }, { 5, 6 } };
    struct ops_setup setup = { .rows_max = 4,
                               .n_heads = 1,
                               .n_kv_heads = 1,
                               .head_dim = 2,
                               .positions_max = 8,
                               .rope_freq = freq,
                               .kv = { .n_pages = 1, .page_tokens = 8, .dtype = DTYPE_F32 } };
    int32_t tokens[4] = { 9, 10, 12, 13 };
    uint32_t page = 0;
    struct batch_seq seq = { 0, 4, 0, 1, &page };
    struct batch b = { 4, tokens, 1, &seq, 0, NULL, false };
    struct weight w = { pack_matrix(table[0], 3, 2, DTYPE_BF16), DTYPE_BF16, 3, 2, NULL };

    (void)state;
    for (enum cpu_tier tier = 0; tier < N_CPU_TIERS; tier++) {
        float x[8] = { 7, 7, 7, 7, 7, 7, 7, 7 };
        static const float wanted[8] = { 7, 7, 1, 2, 5, 6, 7, 7 };
        struct ops_rig rig;
        if (!tier_is_here(tier))
            continue;
        rig = ops_rig_open(tier, 1, &setup);
        rig.ops->begin(rig.stream, &b, &(struct ops_step){ 0 });
        rig.ops->embed(rig.stream, x, &w, 10, 1);
        assert_memory_equal(x, wanted, sizeof x);
        ops_rig_close(&rig);
    }
    free((void *)(uintptr_t)w.data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(halves_survive_the_way_there_and_back),
        cmocka_unit_test(halves_round_to_nearest_even),
        cmocka_unit_test(tiers_convert_alike),
        cmocka_unit_test(codes_are_the_same_everywhere),
        cmocka_unit_test(codes_of_16_bits_use_the_room_there_is),
        cmocka_unit_test(codes_of_16_bits_stand_anything),
        cmocka_unit_test(rmsnorm_is_near_double),
        cmocka_unit_test(rmsnorm_of_zeros_is_zero),
        cmocka_unit_test(activations_are_near_double_everywhere),
        cmocka_unit_test(activations_of_a_tail_have_the_same_bits),
        cmocka_unit_test(rope_table_is_exact),
        cmocka_unit_test(rope_turns_pairs_of_halves),
        cmocka_unit_test(embed_leaves_foreign_tokens_alone),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
