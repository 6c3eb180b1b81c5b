/* items_logits.c - G22: the model that is served, on the GPU and on the CPU: the same logits, and so the same tokens.
 *
 * G10 compares kernels one by one; here they are one model: a prompt, then decode steps, of which the last are replays of a
 * graph.  The CPU goes first, and its likeliest token is what both go on from, so that every step can be compared.  Each
 * is a process of its own (engine.h).  The GPU's last steps are run again with the token drawn there, as it is for whoever
 * asks for no logits: that has to be its likeliest.
 *
 * The likeliest token may be another one where the CPU's own logits are so near to each other that an error within the
 * limit turns them about; such tokens are counted, others fail. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "gpu-worker/cuda/ops_cuda.h"
#include "gpu-worker/cuda/verify/child.h"
#include "gpu-worker/cuda/verify/engine.h"
#include "gpu-worker/cuda/verify/items.h"
#include "gpu-worker/cuda/verify/model.h"

enum {
    PROMPT = 40,
    EAGER_STEPS = CUDA_GRAPH_AFTER,
    REPLAYED_STEPS = 8,
    STEPS = 1 + EAGER_STEPS + REPLAYED_STEPS, /* the prompt's first */
    POSITIONS = PROMPT + STEPS
};

/* Of the root mean square of the logits. */
#define LIMIT               0.02
#define LIMIT_DETERMINISTIC 0.001
/* Two logits that are nearer than so many limits may change places: errors of both, four standard deviations of them. */
#define TURNING_LIMITS 6

/* What a process leaves for its parent, in memory that both have. */
struct answers {
    size_t bytes;
    int32_t tokens[STEPS]; /* the likeliest of each step */
    uint32_t n_misdrawn;   /* of the last steps: another token was drawn, or none */
    float logits[];        /* [STEPS, vocab_size] */
};

struct logits_task {
    const struct verify *v;
    struct engine_setup how;
    const struct answers *given; /* whose tokens are gone on from; NULL: its own */
    struct answers *out;
};

/* ---- in a child ---- */

static int32_t likeliest(const float *logits, uint32_t n)
{
    uint32_t best = 0;

    for (uint32_t i = 1; i < n; i++)
        if (logits[i] > logits[best])
            best = i;
    return (int32_t)best;
}

static void keep(const struct logits_task *t, const struct engine *g, uint32_t step)
{
    uint32_t n = g->info.vocab_size;

    memcpy(t->out->logits + (size_t)step * n, g->logits, n * sizeof *g->logits);
    t->out->tokens[step] = likeliest(g->logits, n);
}

static void draw_again(const struct logits_task *t, struct engine *g)
{
    t->out->n_misdrawn = 0;
    for (uint32_t i = STEPS - REPLAYED_STEPS; i < STEPS; i++) {
        g->tokens[0] = t->given->tokens[i - 1];
        t->out->n_misdrawn += engine_draw(g, PROMPT + i - 1, POSITIONS) != t->out->tokens[i];
    }
}

static void answer(int sock, const void *arg)
{
    const struct logits_task *t = arg;
    const struct answers *given = t->given ? t->given : t->out;
    struct child_message m = { 0 };
    struct engine g;

    child_show_gpu(t->v);
    engine_open(&g, sock, &t->how);
    engine_step(&g, 1, PROMPT, 0, POSITIONS);
    keep(t, &g, 0);
    for (uint32_t i = 1; i < STEPS; i++) {
        g.tokens[0] = given->tokens[i - 1];
        engine_step(&g, 1, 1, PROMPT + i - 1, POSITIONS);
        keep(t, &g, i);
        if (i == EAGER_STEPS)
            engine_rest(&g);
    }
    if (t->given)
        draw_again(t, &g);
    child_say(sock, &m, NULL, 0);
    engine_close(&g);
}

/* ---- in the parent ---- */

static struct answers *answers_new(uint32_t vocab_size)
{
    size_t bytes = sizeof(struct answers) + (size_t)STEPS * vocab_size * sizeof(float);
    struct answers *a =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (a == MAP_FAILED)
        return NULL;
    a->bytes = bytes;
    return a;
}

static void answers_free(struct answers *a)
{
    if (a)
        munmap(a, a->bytes);
}

static bool ask(const struct logits_task *t, struct item_report *r)
{
    struct child_message m;
    struct child c;
    bool ok;

    if (!child_start(&c, answer, t, r))
        return false;
    ok = child_hear(&c, &m, NULL, NULL, r);
    child_end(&c);
    return ok;
}

/* Of the steps of one run. */
struct difference {
    double rms;            /* the largest of a step, relative to the step's logits */
    uint32_t n_turned;     /* steps whose likeliest token is another one .. */
    uint32_t n_wrong;      /* .. by more than the limit explains */
    double largest_margin; /* between the two on the CPU, relative as rms is */
};

/* A NaN is no small difference. */
static void compare_step(struct difference *d, const float *got, int32_t token, const float *want,
                         int32_t expected, uint32_t n, double limit)
{
    double off = 0, all = 0, margin;

    for (uint32_t i = 0; i < n; i++) {
        double apart = (double)got[i] - (double)want[i];
        off += apart * apart;
        all += (double)want[i] * (double)want[i];
    }
    if (!(sqrt(off / all) <= d->rms))
        d->rms = isfinite(off / all) ? sqrt(off / all) : INFINITY;
    if (token == expected)
        return;
    margin = ((double)want[expected] - (double)want[token]) / sqrt(all / n);
    d->largest_margin = fmax(d->largest_margin, margin);
    d->n_turned++;
    d->n_wrong += margin > TURNING_LIMITS * limit;
}

static void compare(const struct verify *v, const struct answers *gpu, const struct answers *cpu,
                    double limit, const char *which, struct item_report *r)
{
    uint32_t n = model_served_shape(v)->vocab_size;
    struct difference d = { 0 };

    for (size_t i = 0; i < STEPS; i++)
        compare_step(&d, gpu->logits + i * n, gpu->tokens[i], cpu->logits + i * n, cpu->tokens[i],
                     n, limit);
    report_at_most(r, d.rms, limit, "", "%s: logits off the CPU's, of their rms", which);
    report_at_most(r, d.n_wrong, 0, "", "%s: other likeliest tokens, not by rounding", which);
    report_number(r, d.n_turned, "", "%s: other likeliest tokens, of %d", which, STEPS);
    report_at_most(r, gpu->n_misdrawn, 0, "",
                   "%s: draws on the GPU of other tokens than its likeliest", which);
    if (d.n_turned > 0)
        report_number(r, d.largest_margin, "", "%s: between these on the CPU, of the rms", which);
}

static struct engine_setup setup(const char *model, const char *device, bool deterministic)
{
    return (struct engine_setup){ .model = model,
                                  .device = device,
                                  .deterministic = deterministic,
                                  .rows_max = PROMPT,
                                  .seqs_max = 1 };
}

/* On the GPU, against the CPU's answers. */
static void ask_gpu(const struct verify *v, const char *model, bool deterministic,
                    const struct answers *cpu, struct answers *gpu, struct item_report *r)
{
    const struct logits_task t = {
        .v = v, .how = setup(model, "cuda", deterministic), .given = cpu, .out = gpu
    };

    if (ask(&t, r))
        compare(v, gpu, cpu, deterministic ? LIMIT_DETERMINISTIC : LIMIT,
                deterministic ? "deterministic" : "by default", r);
}

static void ask_both(const struct verify *v, struct answers *cpu, struct answers *gpu,
                     struct item_report *r)
{
    char path[MODEL_PATH_BYTES];
    struct logits_task t = { .v = v, .out = cpu };

    if (!model_make(v, model_served_shape(v), path, r))
        return;
    t.how = setup(path, "cpu", false);
    if (!ask(&t, r))
        return;
    ask_gpu(v, path, false, cpu, gpu, r);
    if (r->verdict != VERDICT_FAIL)
        ask_gpu(v, path, true, cpu, gpu, r);
}

void item_logits(const struct verify *v, struct item_report *r)
{
    uint32_t vocab_size = model_served_shape(v)->vocab_size;
    struct answers *cpu = answers_new(vocab_size), *gpu = answers_new(vocab_size);

    if (cpu && gpu)
        ask_both(v, cpu, gpu, r);
    else
        report_failure(r, "no memory for logits");
    answers_free(cpu);
    answers_free(gpu);
}
