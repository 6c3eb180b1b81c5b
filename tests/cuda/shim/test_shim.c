/* test_shim.c - a GPU's words on the CPU mean what NVIDIA's manuals say, and wrong kernels are found.
 *
 * What would break in production: nothing by itself - but a shim that forgives would let a kernel pass that a
 * GPU runs differently, and the first to see it would be a user. */
#include <math.h>
#include <pthread.h>

#include "gpu-worker/ops/half.h"
#include "tests/check.h"
#include "tests/cuda/l1.h"
#include "tests/cuda/shim/kernel_registry.h"
#include "tests/cuda/shim/test_kernels.h"

/* ---- words of a warp and a block ---- */

static uint32_t expected_word(enum test_word word, uint32_t i)
{
    uint32_t lane = i % 32, warp = i - lane;

    switch (word) {
    case WORD_SHFL:
        return i / 8 * 8 + 3;
    case WORD_SHFL_XOR:
        return i ^ 9;
    case WORD_SHFL_UP:
        return i % 16 < 2 ? i : i - 2;
    case WORD_SHFL_DOWN:
        return lane > 26 ? i : i + 5;
    case WORD_SHFL_64:
        return warp + 7 + 1000;
    case WORD_BALLOT:
        return 0x42108421;
    case WORD_ANY:
        return 1;
    case WORD_ALL:
        return 0;
    case WORD_SYNC_OR:
        return 1;
    case WORD_SYNC_COUNT:
        return (TEST_THREADS + 2) / 3;
    case WORD_ATOMIC_ADD:
        return TEST_THREADS;
    case WORD_ATOMIC_MAX:
        return TEST_THREADS - 1;
    case WORD_NEIGHBOUR:
        return 100 + (i + 33) % TEST_THREADS;
    case WORD_LOP3:
        return (i & 0x0f) | 0x100;
    case WORD_BYTES:
        return 0x07000503;
    case WORD_DP4A: /* 1 * -128 + -2 * 1 + 2 * 1 + -1 * 1 + 10 */
        return (uint32_t)-119;
    default:
        return UINT32_MAX;
    }
}

static void run_words(void *ctx)
{
    l1_launch("test_words", 1, 1, 1, TEST_THREADS * sizeof(uint32_t), ctx,
              sizeof(struct test_words_args));
}

static void words_mean_the_same_in_every_order(void **state)
{
    size_t bytes = N_TEST_WORDS * TEST_THREADS * sizeof(uint32_t);
    struct test_words_args a = { l1_alloc(bytes) };

    (void)state;
    l1_run_in_orders(run_words, &a, a.out, bytes);
    for (int word = 0; word < N_TEST_WORDS; word++)
        for (uint32_t i = 0; i < TEST_THREADS; i++)
            if (a.out[word * TEST_THREADS + i] != expected_word((enum test_word)word, i))
                fail_msg("word %d, thread %u: %x", word, i, a.out[word * TEST_THREADS + i]);
    l1_free(a.out);
}

/* ---- numbers ---- */

/* The E4M3 of what is nearest, even when two are, by looking at all of them. */
static uint8_t nearest_e4m3(float x)
{
    uint8_t best = 0;
    double nearest = INFINITY;

    if (isnan(x))
        return 0x7f;
    for (uint8_t code = 0; code <= 0x7e; code++) {
        double v = code >> 3 ? ldexp(8 + (code & 7), (code >> 3) - 10) : ldexp(code, -9);
        double away = fabs(fabs((double)x) - v);
        if (away < nearest || (away == nearest && !(code & 1))) {
            best = code;
            nearest = away;
        }
    }
    if (fabsf(x) >= 448)
        best = 0x7e;
    return signbit(x) ? best | 0x80 : best;
}

static float interesting_float(struct l1_random *r, uint32_t i)
{
    static const float some[] = { 0,          -0.0f,   NAN,     INFINITY, -INFINITY, 448,
                                  464,        480,     -1e9f,   0x1p-6f,  0x1p-9f,   0x1p-10f,
                                  0x1.8p-10f, 65519.f, 65520.f, 0x1p-24f, 0x1p-25f,  3e38f };

    if (i < sizeof some / sizeof some[0])
        return some[i];
    if (i % 3 == 0) /* the middle of two halves, or of two E4M3, or beside it */
        return f16_to_float((uint16_t)(l1_random_u32(r) & 0xbfff)) *
               (1 + (float)(l1_random_u32(r) % 3) * 0x1p-11f);
    if (i % 3 == 1)
        return (float)(l1_random_u32(r) % 512) * ldexpf(1, (int)(l1_random_u32(r) % 24) - 18);
    return float_of_bits(l1_random_u32(r));
}

enum { N_NUMBERS = 20000 };

static void floats_round_to_nearest_even(void **state)
{
    struct l1_random r = { 7 };
    struct test_numbers_args a = { .n = N_NUMBERS };
    float *x = l1_alloc(N_NUMBERS * sizeof *x);

    (void)state;
    for (uint32_t i = 0; i < N_NUMBERS; i++)
        x[i] = interesting_float(&r, i);
    a.x = x;
    a.f16 = l1_alloc(N_NUMBERS * sizeof *a.f16);
    a.bf16 = l1_alloc(N_NUMBERS * sizeof *a.bf16);
    a.e4m3 = l1_alloc(N_NUMBERS);
    l1_launch("test_numbers", (N_NUMBERS + TEST_THREADS - 1) / TEST_THREADS, 1, 1, 0, &a, sizeof a);
    for (uint32_t i = 0; i < N_NUMBERS; i++) {
        assert_int_equal(a.f16[i], isnan(x[i]) ? 0x7fff : float_to_f16(x[i]));
        assert_int_equal(a.bf16[i], isnan(x[i]) ? 0x7fff : float_to_bf16(x[i]));
        if (a.e4m3[i] != nearest_e4m3(x[i]))
            fail_msg("%a became E4M3 %02x, not %02x", (double)x[i], a.e4m3[i], nearest_e4m3(x[i]));
    }
    l1_free(x);
    l1_free(a.f16);
    l1_free(a.bf16);
    l1_free(a.e4m3);
}

static void every_e4m3_is_exact_as_a_float_and_a_half(void **state)
{
    struct test_e4m3_args a = { l1_alloc(256 * sizeof(float)), l1_alloc(256 * sizeof(uint16_t)) };

    (void)state;
    l1_launch("test_e4m3", 1, 1, 1, 0, &a, sizeof a);
    for (int i = 0; i < 256; i++) {
        if ((i & 0x7f) == 0x7f) {
            assert_true(isnan(a.wide[i]) && isnan(f16_to_float(a.halves[i])));
            continue;
        }
        assert_int_equal(nearest_e4m3(a.wide[i]), i);
        assert_true(f16_to_float(a.halves[i]) == a.wide[i]);
    }
    l1_free(a.wide);
    l1_free(a.halves);
}

/* An integer n with x = n * 2^-48, of any f16 but infinities and NaNs. */
static __int128 fixed_of(uint16_t half)
{
    uint32_t exponent = half >> 10 & 31, fraction = half & 1023;
    __int128 n = exponent ? (__int128)(1024 + fraction) << (exponent - 1) : fraction; /* 2^-24 */

    n <<= 24;
    return half & 0x8000 ? -n : n;
}

/* The f16 nearest to n * 2^-48, n exact. */
static uint16_t half_of_fixed(__int128 n)
{
    uint16_t sign = n < 0 ? 0x8000 : 0;
    unsigned __int128 m = (unsigned __int128)(n < 0 ? -n : n);
    int shift = 24; /* to units of the last place: 2^-24 at least */

    while (m >> shift >= 2048)
        shift++;
    unsigned __int128 rest = m & (((unsigned __int128)1 << shift) - 1);
    unsigned __int128 half = (unsigned __int128)1 << (shift - 1);
    uint32_t units = (uint32_t)(m >> shift);

    units += rest > half || (rest == half && (units & 1));
    /* units of 2^(shift - 48); a carry to 2048 is the next exponent's 1024 */
    uint32_t bits = ((uint32_t)(shift - 24) << 10) + units;
    return (uint16_t)(sign | (bits > 0x7c00 ? 0x7c00 : bits));
}

static void check_half(uint32_t got, __int128 exact)
{
    uint16_t want = half_of_fixed(exact);

    if ((got & 0x7fff) == 0 && (want & 0x7fff) == 0)
        return; /* signs of zero */
    assert_int_equal(got, want);
}

static uint16_t finite_half(struct l1_random *r)
{
    uint32_t bits = l1_random_u32(r);

    return (uint16_t)((bits & 0x7c00) == 0x7c00 ? bits & 0xbfff : bits);
}

enum { N_PAIRS = 20000 };

static void halves_are_computed_as_if_exactly_and_rounded_once(void **state)
{
    struct l1_random r = { 8 };
    uint32_t *in[3], *out[4];

    (void)state;
    for (int i = 0; i < 3; i++)
        in[i] = l1_alloc(N_PAIRS * sizeof(uint32_t));
    for (int i = 0; i < 4; i++)
        out[i] = l1_alloc(N_PAIRS * sizeof(uint32_t));
    for (uint32_t i = 0; i < 3 * N_PAIRS; i++)
        in[i % 3][i / 3] = finite_half(&r) | (uint32_t)finite_half(&r) << 16;
    struct test_halves_args a = { in[0], in[1], in[2], out[0], out[1], out[2], out[3], N_PAIRS };
    l1_launch("test_halves", (N_PAIRS + TEST_THREADS - 1) / TEST_THREADS, 1, 1, 0, &a, sizeof a);
    for (uint32_t i = 0; i < 2 * N_PAIRS; i++) {
        uint32_t at = i / 2, shift = i % 2 * 16;
        __int128 x = fixed_of((uint16_t)(in[0][at] >> shift)),
                 y = fixed_of((uint16_t)(in[1][at] >> shift)),
                 z = fixed_of((uint16_t)(in[2][at] >> shift));
        __int128 product = (x >> 24) * (y >> 24); /* both were multiples of 2^24 */
        check_half(out[0][at] >> shift & 0xffff, product + z);
        check_half(out[1][at] >> shift & 0xffff, x + y);
        check_half(out[2][at] >> shift & 0xffff, x - y);
        check_half(out[3][at] >> shift & 0xffff, product);
    }
    for (int i = 0; i < 3; i++)
        l1_free(in[i]);
    for (int i = 0; i < 4; i++)
        l1_free(out[i]);
}

/* ---- tensor cores ---- */

static float wide(uint16_t bits, bool is_bf16)
{
    return is_bf16 ? bf16_to_float(bits) : f16_to_float(bits);
}

static void check_mma(bool is_bf16, bool b_is_transposed)
{
    struct l1_random r = { 9 };
    struct l1_error error = { 0 };
    uint16_t *a = l1_alloc(256 * sizeof *a), *b = l1_alloc(128 * sizeof *b);
    float *d = l1_alloc(128 * sizeof *d);
    double want[128];
    struct test_mma_args args = { a, b, d, is_bf16, b_is_transposed };

    for (int i = 0; i < 256; i++)
        a[i] = is_bf16 ? float_to_bf16(l1_uniform(&r, -2, 2)) : float_to_f16(l1_uniform(&r, -2, 2));
    for (int i = 0; i < 128; i++)
        b[i] = is_bf16 ? float_to_bf16(l1_uniform(&r, -2, 2)) : float_to_f16(l1_uniform(&r, -2, 2));
    for (int i = 0; i < 128; i++)
        want[i] = d[i] = l1_uniform(&r, -1, 1);
    for (int i = 0; i < 128; i++)
        for (int k = 0; k < 16; k++)
            want[i] += (double)wide(a[i / 8 * 16 + k], is_bf16) *
                       (double)wide(b[b_is_transposed ? i % 8 * 16 + k : k * 8 + i % 8], is_bf16);
    l1_launch("test_mma", 1, 1, 1, 0, &args, sizeof args);
    l1_compare(&error, d, want, 128, 1);
    assert_true(error.largest < 2e-6);
    l1_free(a);
    l1_free(b);
    l1_free(d);
}

static void tensor_cores_multiply_what_ldmatrix_has_loaded(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++)
        check_mma(i & 1, i & 2);
}

/* ---- wrong kernels ---- */

static void run_fault(void *arg)
{
    const struct test_fault_args *a = arg;

    l1_launch("test_fault", 1, 1, 1, 0, a, sizeof *a);
}

/* Orders in which the kernel gives the right sums. */
static int orders_right(enum test_fault fault)
{
    struct l1_random r = { 10 };
    float *x = l1_floats(&r, TEST_THREADS, 1), *y = l1_alloc(TEST_THREADS * sizeof *y);
    struct test_fault_args a = { x, y, fault };
    int n = 0;

    for (int order = 0; order < N_SHIM_ORDERS; order++) {
        bool right = true;
        shim_set_order((enum shim_order)order, 1);
        run_fault(&a);
        for (int i = 0; i < TEST_THREADS; i++)
            right &= y[i] == x[(i + 1) % TEST_THREADS] + x[(i + 2) % TEST_THREADS];
        n += right;
    }
    shim_set_order(SHIM_FORWARD, 1);
    l1_free(x);
    l1_free(y);
    return n;
}

/* Whether a process that runs it in every order ends as if nothing were wrong; a sanitizer sees to it that it
 * does not. */
static bool ends_well(enum test_fault fault)
{
    int status = 0;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        close(STDERR_FILENO);
        orders_right(fault);
        exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static void what_a_kernel_lacks_shows_in_its_results(void **state)
{
    (void)state;
    assert_int_equal(orders_right(FAULT_NONE), N_SHIM_ORDERS);
    assert_int_equal(ends_well(FAULT_NO_WAIT) ? orders_right(FAULT_NO_WAIT) : 0, 0);
    for (int fault = FAULT_NO_BARRIER; fault <= FAULT_EARLY_COPY; fault++) {
#ifdef __SANITIZE_THREAD__
        assert_false(ends_well((enum test_fault)fault));
#else /* a thread that comes first reads what is not there yet */
        assert_true(orders_right((enum test_fault)fault) < N_SHIM_ORDERS);
#endif
    }
}

static void a_kernel_that_a_gpu_would_not_run_ends_the_process(void **state)
{
    struct l1_random r = { 11 };
    struct test_fault_args a = { l1_floats(&r, TEST_THREADS, 1),
                                 l1_alloc(TEST_THREADS * sizeof(float)), FAULT_NONE };

    (void)state;
    for (int fault = FAULT_BARRIER_APART; fault <= FAULT_NO_DYNAMIC; fault++) {
        a.fault = (uint32_t)fault;
        assert_aborts(run_fault, &a);
    }
    l1_free((void *)a.x);
    l1_free(a.y);
}

static void a_byte_beyond_shared_memory_is_seen(void **state)
{
    (void)state;
#ifdef __SANITIZE_ADDRESS__
    assert_false(ends_well(FAULT_BEYOND_SHARED));
#else
    skip(); /* it is AddressSanitizer that sees it */
#endif
}

/* ---- blocks and threads of the system ---- */

static void launch_ring(const struct test_ring_args *a, uint32_t n_blocks)
{
    l1_launch("test_ring", n_blocks, 1, 1, 0, a, sizeof *a);
}

static void blocks_of_a_launch_may_wait_for_each_other(void **state)
{
    uint32_t flags[9], order;
    struct test_ring_args a = { flags, &order, 0 };

    (void)state;
    for (uint32_t backwards = 0; backwards < 2; backwards++) {
        memset(flags, 0, sizeof flags);
        flags[0] = 1;
        order = 0;
        a.backwards = backwards;
        launch_ring(&a, 8);
        assert_int_equal(order, 12345678);
    }
}

#ifdef __SANITIZE_THREAD__
enum { MANY_BLOCKS = 32 }; /* fibers are few there */
#else
enum { MANY_BLOCKS = 128 };
#endif

/* The last one is the first that can go on, and all others are there when it does. */
static void as_many_blocks_may_wait_as_a_gpu_runs_at_a_time(void **state)
{
    uint32_t flags[MANY_BLOCKS + 1] = { 1 }, order = 0;
    struct test_ring_args a = { flags, &order, 1 };

    (void)state;
    launch_ring(&a, MANY_BLOCKS);
    assert_int_equal(flags[MANY_BLOCKS], 1);
}

static void *other_gpu(void *arg)
{
    launch_ring(arg, 4);
    return NULL;
}

/* Two launches, each block of the one between two of the other. */
static void launches_on_two_threads_may_wait_for_each_other(void **state)
{
    uint32_t flags[9] = { 1 }, order = 0, other_order = 0;
    struct test_ring_args first = { flags, &order, 1 }, second = { flags + 4, &other_order, 1 };
    pthread_t thread;

    (void)state;
    assert_int_equal(pthread_create(&thread, NULL, other_gpu, &second), 0);
    launch_ring(&first, 4);
    pthread_join(thread, NULL);
    assert_int_equal(order, 1234);
    assert_int_equal(other_order, 1234);
    assert_int_equal(flags[8], 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words_mean_the_same_in_every_order),
        cmocka_unit_test(floats_round_to_nearest_even),
        cmocka_unit_test(every_e4m3_is_exact_as_a_float_and_a_half),
        cmocka_unit_test(halves_are_computed_as_if_exactly_and_rounded_once),
        cmocka_unit_test(tensor_cores_multiply_what_ldmatrix_has_loaded),
        cmocka_unit_test(what_a_kernel_lacks_shows_in_its_results),
        cmocka_unit_test(a_kernel_that_a_gpu_would_not_run_ends_the_process),
        cmocka_unit_test(a_byte_beyond_shared_memory_is_seen),
        cmocka_unit_test(blocks_of_a_launch_may_wait_for_each_other),
        cmocka_unit_test(as_many_blocks_may_wait_as_a_gpu_runs_at_a_time),
        cmocka_unit_test(launches_on_two_threads_may_wait_for_each_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
