/* test_attention.c - KV write and paged attention of every tier against double precision.
 *
 * What would break in production: a mask off by one (a token sees its successor, or not itself), a page
 * read of another layer or head, a window that forgets too early, and bits that change with chunking. */
#include "gpu-worker/ops/cpu_kernels.h"
#include "proto/kvpool_layout.h"
#include "tests/ops/ops_rig.h"

enum { LAYERS = 2, LAYER = 1, TOKENS = 53, LONG = 1201 };

struct shape {
    uint32_t n_heads, n_kv_heads, head_dim, page_tokens, window;
    enum dtype dtype;
    uint32_t first_head, n_heads_model; /* this rank's part of the pages */
    float softcap;
};

static const struct shape shapes[] = {
    { 1, 1, 2, 1, 0, DTYPE_F32, 0, 1, 0 },     { 4, 2, 6, 4, 0, DTYPE_I16, 0, 2, 0.5f },
    { 8, 2, 32, 16, 0, DTYPE_I16, 0, 2, 0 },   { 2, 2, 40, 5, 7, DTYPE_F32, 1, 4, 0 },
    { 6, 2, 64, 16, 16, DTYPE_I16, 2, 4, 0 },  { 3, 1, 80, 256, 1, DTYPE_F32, 0, 1, 0 },
    { 4, 1, 130, 32, 20, DTYPE_I16, 1, 2, 0 }, { 2, 1, 128, 8, 100, DTYPE_F32, 0, 1, 0 },
    { 16, 4, 96, 16, 33, DTYPE_I16, 0, 4, 0 }, { 4, 2, 64, 16, 0, DTYPE_I8, 0, 2, 0 },
    { 7, 1, 34, 5, 9, DTYPE_I8, 1, 2, 3 },     { 2, 2, 2, 1, 0, DTYPE_I8, 0, 2, 0 },
};

/* More than two splits, windows over their borders. */
static const struct shape long_shapes[] = {
    { 8, 1, 16, 16, 0, DTYPE_I16, 0, 1, 0 },
    { 2, 2, 8, 16, 700, DTYPE_F32, 0, 2, 0 },
    { 3, 1, 24, 7, 300, DTYPE_I8, 0, 1, 0 },
};

struct work {
    const struct shape *shape;
    struct ops_setup setup;
    uint32_t n; /* tokens */
    float *qkv; /* [n, (n_heads + 2 n_kv_heads) * head_dim] */
    size_t row;
    uint32_t *pages;
    char *pool;
};

static struct work work_new(struct random *r, const struct shape *s, uint32_t n)
{
    static const double freq[512] = { 0 };
    struct work w = { .shape = s, .n = n };
    size_t page =
        LAYERS * 2 * s->n_heads_model * kv_block_bytes(s->dtype, s->page_tokens, s->head_dim);
    uint32_t n_pages = (n + s->page_tokens - 1) / s->page_tokens;

    n_pages += n_pages % 37 == 0; /* so that steps of 37 visit all */
    w.row = (s->n_heads + 2 * s->n_kv_heads) * s->head_dim;
    w.qkv = random_floats(r, n * w.row);
    w.pool = mem_alloc(n_pages * page);
    memset(w.pool, 0x7e, n_pages * page); /* what is not written is NaN or huge */
    w.pages = mem_alloc(n_pages * sizeof *w.pages);
    for (uint32_t i = 0; i < n_pages; i++)
        w.pages[i] = (i * 37 + 11) % n_pages;
    w.setup = (struct ops_setup){ .rows_max = n,
                                  .n_heads = s->n_heads,
                                  .n_kv_heads = s->n_kv_heads,
                                  .head_dim = s->head_dim,
                                  .rope_dim = s->head_dim,
                                  .positions_max = n,
                                  .rope_freq = freq,
                                  .kv = { .pages = w.pool,
                                          .page_bytes = page,
                                          .n_pages = n_pages,
                                          .page_tokens = s->page_tokens,
                                          .n_heads_model = s->n_heads_model,
                                          .first_head = s->first_head,
                                          .dtype = s->dtype } };
    return w;
}

static void work_free(struct work *w)
{
    free(w->qkv);
    free(w->pool);
    free(w->pages);
}

static size_t out_stride(const struct shape *s)
{
    return (size_t)s->n_heads * s->head_dim + 1;
}

/* Rows start .. start + n - 1 of the sequence, into rows of out. */
static void step(struct work *w, struct ops_rig *rig, uint32_t start, uint32_t n, float *out)
{
    struct attention_shape shape = { .window = w->shape->window,
                                     .scale = 1 / sqrtf((float)w->shape->head_dim),
                                     .softcap = w->shape->softcap };
    uint32_t n_pages = (start + n + w->shape->page_tokens - 1) / w->shape->page_tokens;
    struct batch_seq seq = { 0, n, start, n_pages, w->pages };
    int32_t *tokens = mem_zalloc(n, sizeof *tokens);
    struct batch b = { n, tokens, 1, &seq, 0, NULL, false };

    rig->ops->begin(rig->stream, &b, &(struct ops_step){ 0 });
    rig->ops->rope_kv_write(rig->stream, w->qkv + start * w->row, NULL, LAYER); /* turns by 0 */
    rig->ops->attention(rig->stream, out, out_stride(w->shape), w->qkv + start * w->row, LAYER,
                        &shape);
    free(tokens);
}

/* The whole sequence, `chunk` rows at a time. */
static float *run(struct work *w, struct ops_rig *rig, uint32_t chunk)
{
    size_t stride = out_stride(w->shape);
    float *out = mem_zalloc(w->n * stride, sizeof *out);

    for (uint32_t start = 0; start < w->n; start += chunk)
        step(w, rig, start, w->n - start < chunk ? w->n - start : chunk, out + start * stride);
    return out;
}

/* Element d of K or V (kind 0 and 1) as pages hold x. */
static double stored(const struct shape *s, const float *x, uint32_t kind, uint32_t d)
{
    float largest = 0, sum = 0, scale;

    if (s->dtype == DTYPE_F32)
        return x[d];
    for (uint32_t i = 0; i < s->head_dim; i++) {
        largest = fmaxf(largest, fabsf(x[i]));
        sum += x[i] * x[i];
    }
    if (s->dtype == DTYPE_I8)
        scale = largest / 127;
    else
        scale = kind == 0 ? sqrtf(sum) / KV_K16_LENGTH : largest / KV_V16_MAX;
    return (double)scale * (double)lrintf(x[d] * (1 / scale));
}

static void check_head(const struct work *w, const float *out, uint32_t t, uint32_t h,
                       double tolerance)
{
    const struct shape *s = w->shape;
    uint32_t kv = h / (s->n_heads / s->n_kv_heads);
    uint32_t first = s->window > 0 && t >= s->window ? t - s->window + 1 : 0;
    size_t q_at = (size_t)h * s->head_dim, k_at = (size_t)(s->n_heads + kv) * s->head_dim;
    size_t v_at = k_at + (size_t)s->n_kv_heads * s->head_dim;
    double p[LONG], sum = 0, largest = -INFINITY;

    for (uint32_t i = first; i <= t; i++) {
        p[i] = 0;
        for (uint32_t d = 0; d < s->head_dim; d++)
            p[i] += w->qkv[t * w->row + q_at + d] * stored(s, w->qkv + i * w->row + k_at, 0, d);
        p[i] /= sqrt(s->head_dim);
        if (s->softcap != 0)
            p[i] = s->softcap * tanh(p[i] / s->softcap);
        largest = fmax(largest, p[i]);
    }
    for (uint32_t i = first; i <= t; i++)
        sum += p[i] = exp(p[i] - largest);
    for (uint32_t d = 0; d < s->head_dim; d++) {
        double wanted = 0;
        float got = out[t * ((size_t)s->n_heads * s->head_dim + 1) + q_at + d];
        for (uint32_t i = first; i <= t; i++)
            wanted += p[i] / sum * stored(s, w->qkv + i * w->row + v_at, 1, d);
        if (!(fabs(got - wanted) < tolerance))
            fail_msg("head_dim %u, page %u, window %u: token %u head %u: %.9g, wanted %.9g",
                     s->head_dim, s->page_tokens, s->window, t, h, got, wanted);
    }
}

/* Of scores that are no larger than some tens. */
static double tolerance_of(const struct shape *s)
{
    return s->dtype == DTYPE_F32 ? 2e-6 : 1.5e-4;
}

static void every_shape_is_near_double(void **state)
{
    struct random r = random_begin("every_shape_is_near_double");

    (void)state;
    for (enum cpu_tier tier = 0; tier < N_CPU_TIERS; tier++)
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
            struct work w = work_new(&r, &shapes[i], TOKENS);
            struct ops_rig rig;
            float *out;
            if (tier_is_here(tier)) {
                rig = ops_rig_open(tier, 2, &w.setup);
                out = run(&w, &rig, TOKENS);
                for (uint32_t t = 0; t < TOKENS; t++)
                    for (uint32_t h = 0; h < shapes[i].n_heads; h++)
                        check_head(&w, out, t, h, tolerance_of(&shapes[i]));
                free(out);
                ops_rig_close(&rig);
            }
            work_free(&w);
        }
}

static void chunks_and_threads_do_not_change_bits(void **state)
{
    static const uint32_t chunks[] = { 1, 3, 16, 17 };
    struct random r = random_begin("chunks_and_threads_do_not_change_bits");

    (void)state;
    for (enum cpu_tier tier = 0; tier < N_CPU_TIERS; tier++)
        for (size_t i = 0; tier_is_here(tier) && i < sizeof shapes / sizeof *shapes; i++) {
            struct work w = work_new(&r, &shapes[i], TOKENS);
            struct ops_rig one = ops_rig_open(tier, 1, &w.setup);
            struct ops_rig many = ops_rig_open(tier, 4, &w.setup);
            size_t n = TOKENS * ((size_t)shapes[i].n_heads * shapes[i].head_dim + 1);
            float *whole = run(&w, &one, TOKENS);
            for (size_t c = 0; c < sizeof chunks / sizeof *chunks; c++) {
                float *out = run(&w, c % 2 ? &one : &many, chunks[c]);
                assert_memory_equal(out, whole, n * sizeof *out);
                free(out);
            }
            free(whole);
            ops_rig_close(&one);
            ops_rig_close(&many);
            work_free(&w);
        }
}

/* Scores so far apart that all but one weight vanish, the largest one in any page. */
static void huge_scores_pick_one_value(void **state)
{
    struct random r = random_begin("huge_scores_pick_one_value");
    const struct shape s = { 1, 1, 8, 4, 0, DTYPE_F32, 0, 1, 0 };

    (void)state;
    for (enum cpu_tier tier = 0; tier < N_CPU_TIERS; tier++)
        for (uint32_t winner = 0; tier_is_here(tier) && winner < TOKENS; winner++) {
            struct work w = work_new(&r, &s, TOKENS);
            struct ops_rig rig = ops_rig_open(tier, 1, &w.setup);
            float *out;
            for (uint32_t t = 0; t < TOKENS; t++)
                for (uint32_t d = 0; d < s.head_dim; d++) {
                    w.qkv[t * w.row + d] = 1e4f;
                    w.qkv[t * w.row + s.head_dim + d] = t == winner ? 1e4f : -1e4f;
                }
            out = run(&w, &rig, TOKENS);
            for (uint32_t t = winner; t < TOKENS; t++)
                assert_memory_equal(out + t * (s.head_dim + 1),
                                    w.qkv + winner * w.row + 2 * s.head_dim,
                                    s.head_dim * sizeof *out);
            free(out);
            ops_rig_close(&rig);
            work_free(&w);
        }
}

/* Over the borders of splits: a token of a long prompt, also alone with all threads on its splits. */
static void long_contexts_are_near_double_and_the_same_alone(void **state)
{
    struct random r = random_begin("long_contexts_are_near_double_and_the_same_alone");
    static const uint32_t rows[] = { 0, 63, 64, 127, 128, 511, 512, 700, 1023, 1024, LONG - 1 };

    (void)state;
    for (enum cpu_tier tier = 0; tier < N_CPU_TIERS; tier++)
        for (size_t i = 0; tier_is_here(tier) && i < sizeof long_shapes / sizeof *long_shapes;
             i++) {
            const struct shape *s = &long_shapes[i];
            struct work w = work_new(&r, s, LONG);
            struct ops_rig one = ops_rig_open(tier, 1, &w.setup);
            struct ops_rig many = ops_rig_open(tier, 4, &w.setup);
            size_t stride = out_stride(s);
            float *whole = run(&w, &many, LONG), *chunks = run(&w, &one, 333);
            assert_memory_equal(chunks, whole, LONG * stride * sizeof *whole);
            for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
                float alone[8 * 64];
                for (uint32_t h = 0; h < s->n_heads; h++)
                    check_head(&w, whole, rows[k], h, tolerance_of(s));
                step(&w, k % 2 ? &one : &many, rows[k], 1, alone);
                assert_memory_equal(alone, whole + rows[k] * stride, (stride - 1) * sizeof *whole);
            }
            free(whole);
            free(chunks);
            ops_rig_close(&one);
            ops_rig_close(&many);
            work_free(&w);
        }
}

enum { CLIMB = 660 };

/* Scores rise by 0.6 a token for 300 tokens, then begin anew. */
static void make_climb(struct work *w)
{
    const struct shape *s = w->shape;

    for (uint32_t t = 0; t < CLIMB; t++)
        for (uint32_t d = 0; d < w->row - s->n_kv_heads * s->head_dim; d++) {
            float *x = &w->qkv[t * w->row + d];
            bool is_q = d < s->n_heads * s->head_dim;
            *x = is_q ? 4 + *x : 0.1f * *x + 0.0375f * (float)(t % 300);
        }
}

/* Hundreds above those of the positions before, many times in a split, then far below: what was summed up shrinks to
 * nothing, and the next counts as little. */
static void scores_that_climb_and_fall_are_near_double(void **state)
{
    static const struct shape some[] = {
        { 8, 1, 16, 16, 0, DTYPE_I16, 0, 1, 0 },
        { 2, 2, 16, 7, 0, DTYPE_I8, 0, 2, 0 },
        { 4, 2, 16, 16, 200, DTYPE_I16, 0, 2, 0 },
        { 3, 1, 16, 16, 0, DTYPE_F32, 0, 1, 0 },
    };
    struct random r = random_begin("scores_that_climb_and_fall_are_near_double");

    (void)state;
    for (enum cpu_tier tier = 0; tier < N_CPU_TIERS; tier++)
        for (size_t i = 0; tier_is_here(tier) && i < sizeof some / sizeof *some; i++) {
            const struct shape *s = &some[i];
            struct work w = work_new(&r, s, CLIMB);
            struct ops_rig rig = ops_rig_open(tier, 2, &w.setup);
            float *whole, *chunks;
            make_climb(&w);
            whole = run(&w, &rig, CLIMB);
            chunks = run(&w, &rig, 37);
            assert_memory_equal(chunks, whole, CLIMB * out_stride(s) * sizeof *whole);
            for (uint32_t t = 0; t < CLIMB; t += 41) /* a score of 200 errs by some thousandths */
                for (uint32_t h = 0; h < s->n_heads; h++)
                    check_head(&w, whole, t, h, s->dtype == DTYPE_I8 ? 0.05 : 0.01);
            free(whole);
            free(chunks);
            ops_rig_close(&rig);
            work_free(&w);
        }
}

/* Of heads that are computed together, one has a query that is no number while the scores of all climb. */
static void a_query_that_is_no_number_spoils_no_other(void **state)
{
    static const struct shape some[] = { { 8, 1, 16, 16, 0, DTYPE_I16, 0, 1, 0 },
                                         { 6, 1, 16, 16, 0, DTYPE_I8, 0, 1, 0 } };
    struct random r = random_begin("a_query_that_is_no_number_spoils_no_other");

    (void)state;
    for (enum cpu_tier tier = 0; tier < N_CPU_TIERS; tier++)
        for (size_t i = 0; tier_is_here(tier) && i < sizeof some / sizeof *some; i++) {
            const struct shape *s = &some[i];
            struct work w = work_new(&r, s, CLIMB);
            struct ops_rig rig = ops_rig_open(tier, 1, &w.setup);
            float *sound, *spoilt;
            make_climb(&w);
            sound = run(&w, &rig, CLIMB);
            for (uint32_t t = 0; t < CLIMB; t++)
                w.qkv[t * w.row + 1 * s->head_dim] = NAN;
            spoilt = run(&w, &rig, CLIMB);
            for (uint32_t t = 0; t < CLIMB; t++)
                for (uint32_t h = 0; h < s->n_heads; h++)
                    if (h != 1)
                        assert_memory_equal(spoilt + t * out_stride(s) + h * s->head_dim,
                                            sound + t * out_stride(s) + h * s->head_dim,
                                            s->head_dim * sizeof *sound);
            free(sound);
            free(spoilt);
            ops_rig_close(&rig);
            work_free(&w);
        }
}

enum { SHARERS = 4, OWN_TOKENS = 21 };

/* Sequences that have their first `shared` tokens in the same pages; row i of the work is token i of the first one, the others'
 * own tokens come behind. */
struct sharers {
    uint32_t n_rows[SHARERS];
    uint32_t *pages[SHARERS];
    struct batch_seq seqs[SHARERS];
    int32_t *tokens;
    uint32_t n_batch_rows;
};

/* Whole pages are shared, so `shared` is some of them; n_pages in all for each. */
static void share(struct sharers *s, struct work *w, uint32_t shared)
{
    uint32_t page_tokens = w->shape->page_tokens, n_shared = shared / page_tokens, next = 0;
    uint32_t n_own = (OWN_TOKENS + page_tokens - 1) / page_tokens;

    *s = (struct sharers){ .tokens = mem_zalloc(w->n, sizeof *s->tokens) };
    for (uint32_t i = 0; i < SHARERS; i++) {
        s->pages[i] = mem_zalloc(n_shared + n_own, sizeof **s->pages);
        memcpy(s->pages[i], w->pages, n_shared * sizeof *w->pages);
        for (uint32_t k = 0; k < n_own; k++)
            s->pages[i][n_shared + k] = w->pages[n_shared + next++];
        s->n_rows[i] = i % 2 ? 1 : OWN_TOKENS - i; /* prompts and streams */
        s->seqs[i] = (struct batch_seq){ s->n_batch_rows, s->n_rows[i], shared, n_shared + n_own,
                                         s->pages[i] };
        s->n_batch_rows += s->n_rows[i];
    }
}

static void attend(struct work *w, struct ops_rig *rig, const struct sharers *s, const float *qkv,
                   const struct batch_seq *seqs, uint32_t n_seqs, uint32_t n_rows, float *out)
{
    struct attention_shape shape = { .window = w->shape->window, .scale = 0.3f };
    struct batch b = { n_rows, s->tokens, n_seqs, seqs, 0, NULL, false };

    rig->ops->begin(rig->stream, &b, &(struct ops_step){ 0 });
    rig->ops->rope_kv_write(rig->stream, (float *)(uintptr_t)qkv, NULL, LAYER);
    rig->ops->attention(rig->stream, out, out_stride(w->shape), qkv, LAYER, &shape);
}

static void check_sharers(struct work *w, enum cpu_tier tier, uint32_t shared)
{
    size_t stride = out_stride(w->shape);
    struct ops_rig one = ops_rig_open(tier, 1, &w->setup), many = ops_rig_open(tier, 3, &w->setup);
    float *prefix = mem_zalloc(shared * stride, sizeof *prefix), *own = w->qkv + shared * w->row;
    float *together = mem_zalloc(SHARERS * OWN_TOKENS * stride, sizeof *together);
    float *alone = mem_zalloc(OWN_TOKENS * stride, sizeof *alone);
    struct sharers s;

    step(w, &one, 0, shared, prefix);
    share(&s, w, shared);
    for (int k = 0; k < 2; k++) {
        attend(w, k ? &many : &one, &s, own, s.seqs, SHARERS, s.n_batch_rows, together);
        for (uint32_t i = 0; i < SHARERS; i++) {
            struct batch_seq q = s.seqs[i];
            q.first_row = 0;
            attend(w, &one, &s, own + s.seqs[i].first_row * w->row, &q, 1, q.n_rows, alone);
            for (uint32_t t = 0; t < q.n_rows; t++)
                assert_memory_equal(together + (s.seqs[i].first_row + t) * stride,
                                    alone + t * stride, (stride - 1) * sizeof *alone);
        }
    }
    for (uint32_t i = 0; i < SHARERS; i++)
        free(s.pages[i]);
    free(s.tokens);
    free(prefix);
    free(together);
    free(alone);
    ops_rig_close(&one);
    ops_rig_close(&many);
}

/* Rows of several sequences go together where these share pages, over the borders of spans and splits. */
static void sequences_that_share_pages_have_the_bits_they_have_alone(void **state)
{
    static const struct shape some[] = {
        { 8, 1, 16, 16, 0, DTYPE_I16, 0, 1, 0 }, { 4, 2, 24, 7, 300, DTYPE_I16, 0, 2, 0 },
        { 2, 2, 40, 8, 0, DTYPE_F32, 0, 2, 0 },  { 6, 1, 32, 16, 100, DTYPE_I8, 0, 1, 0 },
        { 16, 2, 34, 1, 0, DTYPE_I16, 0, 2, 2 }, { 3, 3, 8, 32, 0, DTYPE_I8, 0, 3, 0 },
    };
    static const uint32_t pages[] = { 1, 8, 20, 33, 40 };
    struct random r = random_begin("sequences_that_share_pages_have_the_bits_they_have_alone");

    (void)state;
    for (enum cpu_tier tier = 0; tier < N_CPU_TIERS; tier++)
        for (size_t i = 0; tier_is_here(tier) && i < sizeof some / sizeof *some; i++)
            for (size_t k = 0; k < sizeof pages / sizeof *pages; k++) {
                uint32_t shared = pages[k] * some[i].page_tokens;
                uint32_t n_own = SHARERS * (OWN_TOKENS + some[i].page_tokens);
                struct work w = work_new(&r, &some[i], shared + n_own);
                check_sharers(&w, tier, shared);
                work_free(&w);
            }
}

/* What eight bits cost, on numbers without outliers. */
static void int8_pages_are_near_float_pages(void **state)
{
    struct random r = random_begin("int8_pages_are_near_float_pages");
    const struct shape eight = { 8, 2, 64, 16, 0, DTYPE_I8, 0, 2, 0 };
    struct shape full = eight;
    size_t n = TOKENS * out_stride(&eight);

    (void)state;
    full.dtype = DTYPE_F32;
    for (enum cpu_tier tier = 0; tier < N_CPU_TIERS; tier++) {
        struct work w, v;
        struct ops_rig a, b;
        float *x, *y;
        if (!tier_is_here(tier))
            continue;
        w = work_new(&r, &eight, TOKENS);
        v = work_new(&r, &full, TOKENS);
        memcpy(v.qkv, w.qkv, TOKENS * w.row * sizeof *w.qkv);
        a = ops_rig_open(tier, 1, &w.setup);
        b = ops_rig_open(tier, 1, &v.setup);
        x = run(&w, &a, TOKENS);
        y = run(&v, &b, TOKENS);
        for (size_t i = 0; i < n; i++)
            assert_true(fabsf(x[i] - y[i]) < 0.008f); /* a step is 1 / 127 */
        free(x);
        free(y);
        ops_rig_close(&a);
        ops_rig_close(&b);
        work_free(&w);
        work_free(&v);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_shape_is_near_double),
        cmocka_unit_test(chunks_and_threads_do_not_change_bits),
        cmocka_unit_test(huge_scores_pick_one_value),
        cmocka_unit_test(long_contexts_are_near_double_and_the_same_alone),
        cmocka_unit_test(scores_that_climb_and_fall_are_near_double),
        cmocka_unit_test(a_query_that_is_no_number_spoils_no_other),
        cmocka_unit_test(sequences_that_share_pages_have_the_bits_they_have_alone),
        cmocka_unit_test(int8_pages_are_near_float_pages),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
