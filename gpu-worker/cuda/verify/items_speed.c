/* items_speed.c - G12: tokens per second of a model of the shape of Llama 2 7B, by the worker's own compute half.
 *
 * A decode step is one token of each sequence behind a context, logits in host memory included, sampling not.  The first
 * steps of a number of rows are eager; once it has come often enough and the engine rests they are a graph (ops_cuda.h), so
 * both are measured in the order in which they come.  A prompt is one step. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "gpu-worker/cuda/ops_cuda.h"
#include "gpu-worker/cuda/verify/child.h"
#include "gpu-worker/cuda/verify/engine.h"
#include "gpu-worker/cuda/verify/items.h"
#include "gpu-worker/cuda/verify/model.h"
#include "gpu-worker/cuda/verify/roofline.h"

enum {
    STEPS_EAGER = CUDA_GRAPH_AFTER - 2, /* timed; the first loads kernels, the last is recorded */
    STEPS_TIMED = 40,
    STEPS_TIMED_DRY = 3,
    PROMPTS_TIMED = 3,
    CASES_MAX = 8
};

struct sizes {
    uint32_t rows_max, seqs_max;
    uint32_t batches[CASES_MAX], contexts[CASES_MAX], prompts[CASES_MAX]; /* 0: the end */
};

static const struct sizes real_sizes = {
    4096, 64, { 1, 2, 4, 8, 16, 32, 64 }, { 128, 2048, 4096 }, { 128, 256, 512, 1024, 2048, 4096 }
};
static const struct sizes dry_sizes = { 64, 9, { 1, 9 }, { 20 }, { 16, 64 } };

/* Targets of the design, section 3.2: parts of the memory's bandwidth for one sequence. */
#define DECODE_TARGET    0.85
#define DECODE_TARGET_90 0.75

struct speed_task {
    const struct verify *v;
    const char *path;
    const struct shape *shape;
};

struct speed {
    int sock;
    const struct speed_task *task;
    const struct sizes *sizes;
    struct engine engine;
    struct device_info gpu;
    uint32_t wrong_logits;
    double first_step_s;
};

/* ---- in the child ---- */

enum { VALUE_RATE, VALUE_FRACTION, VALUE_TARGET };

/* target 0: there is none.  The rest is its name. */
__attribute__((format(printf, 5, 6))) static void
say_rate(const struct speed *s, double rate, double fraction, double target, const char *fmt, ...)
{
    struct child_message m = { .values = { rate, fraction, target } };
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(m.text, sizeof m.text, fmt, ap);
    va_end(ap);
    child_say(s->sock, &m, NULL, 0);
}

/* Of the bandwidth: matrices once, and K and V of the context. */
static double decode_fraction(const struct speed *s, double seconds, uint32_t context)
{
    double bytes =
        2 * shape_matrix_weights(s->task->shape) + shape_kv_bytes(s->task->shape) * context;

    return s->gpu.memory_bytes_per_s > 0 ? bytes / seconds / (double)s->gpu.memory_bytes_per_s : 0;
}

/* Seconds of a step of n steps in a row. */
static double time_steps(struct speed *s, uint32_t n, uint32_t batch, uint32_t at, uint32_t tokens)
{
    double seconds = 0;

    for (uint32_t i = 0; i < n; i++)
        seconds += engine_step(&s->engine, batch, 1, at + i, tokens);
    return seconds / n;
}

static void time_decode(struct speed *s, uint32_t batch, uint32_t context, bool is_first)
{
    bool is_dry = s->task->v->is_dry_run;
    uint32_t timed = is_dry ? STEPS_TIMED_DRY : STEPS_TIMED;
    uint32_t tokens = context + CUDA_GRAPH_AFTER + timed + 1;
    double target = s->gpu.sm >= 90 ? DECODE_TARGET_90 : DECODE_TARGET, seconds, first;

    if (!engine_fits(&s->engine, batch, tokens))
        return;
    first = engine_step(&s->engine, batch, 1, context, tokens);
    seconds = time_steps(s, STEPS_EAGER, batch, context + 1, tokens);
    if (is_first)
        say_rate(s, batch / seconds, 0, 0, "decode, %u sequences after %u tokens, no graph", batch,
                 context);
    if (is_first && batch == 1)
        s->first_step_s = first;
    time_steps(s, CUDA_GRAPH_AFTER - STEPS_EAGER - 1, batch, context + 1 + STEPS_EAGER, tokens);
    engine_rest(&s->engine);
    seconds = time_steps(s, timed, batch, context + CUDA_GRAPH_AFTER, tokens);
    s->wrong_logits += engine_wrong_logits(&s->engine, batch);
    say_rate(s, batch / seconds, batch == 1 ? decode_fraction(s, seconds, context) : 0,
             batch == 1 && !is_dry ? target : 0, "decode, %u sequences after %u tokens", batch,
             context);
}

/* Matrices but the head's for each row, attention for the half of all pairs. */
static double prompt_tflop(const struct shape *shape, double rows)
{
    double matrices = shape_matrix_weights(shape) - (double)shape->vocab_size * shape->n_embd;
    double attention = 2.0 * shape->n_layers * shape->n_heads * shape->head_dim * rows * rows;

    return (2 * matrices * rows + attention) / 1e12;
}

static void time_prompt(struct speed *s, uint32_t rows)
{
    const struct data_sheet *sheet = data_sheet_of(s->gpu.name, s->gpu.sm);
    double best = 0, fraction = 0;

    if (!engine_fits(&s->engine, 1, rows))
        return;
    for (int i = 0; i < PROMPTS_TIMED; i++) {
        double rate = rows / engine_step(&s->engine, 1, rows, 0, rows);
        best = rate > best ? rate : best;
    }
    s->wrong_logits += engine_wrong_logits(&s->engine, 1);
    if (sheet)
        fraction = prompt_tflop(s->task->shape, rows) * best / rows / sheet->tflops;
    say_rate(s, best, fraction, sheet && rows == 2048 ? sheet->prefill_target : 0,
             "a prompt of %u tokens", rows);
}

static void time_all(struct speed *s)
{
    for (uint32_t c = 0; s->sizes->contexts[c]; c++)
        for (uint32_t b = 0; s->sizes->batches[b]; b++)
            time_decode(s, s->sizes->batches[b], s->sizes->contexts[c], c == 0);
    for (uint32_t p = 0; s->sizes->prompts[p]; p++)
        time_prompt(s, s->sizes->prompts[p]);
}

static void measure(int sock, const void *arg)
{
    const struct speed_task *t = arg;
    struct speed s = { .sock = sock,
                       .task = t,
                       .sizes = t->v->is_dry_run ? &dry_sizes : &real_sizes };
    const struct engine_setup how = { .model = t->path,
                                      .device = "cuda",
                                      .rows_max = s.sizes->rows_max,
                                      .seqs_max = s.sizes->seqs_max };
    struct child_message last = { 0 };
    struct child_device d;

    child_show_gpu(t->v);
    child_open(sock, &d, t->v->is_dry_run ? t->v->gpu : 0);
    s.gpu = *device_info(d.device);
    engine_open(&s.engine, sock, &how);
    time_all(&s);
    last.values[0] = s.wrong_logits;
    last.values[1] = 1000 * s.first_step_s;
    last.values[2] = s.engine.plan.kv_pages * (double)s.engine.plan.kv_page_tokens;
    child_say(sock, &last, NULL, 0);
    engine_close(&s.engine);
    child_close(&d);
}

/* ---- in the parent ---- */

static void report_rate(const struct child_message *m, struct item_report *r)
{
    report_number(r, m->values[VALUE_RATE], "tok/s", "%s", m->text);
    if (m->values[VALUE_TARGET] > 0 && m->values[VALUE_FRACTION] > 0)
        report_at_least(r, m->values[VALUE_FRACTION], m->values[VALUE_TARGET], "", "%s: %s",
                        m->text, strstr(m->text, "decode") ? "of the bandwidth" : "of the peak");
}

void item_speed(const struct verify *v, struct item_report *r)
{
    struct shape shape = model_timed_shape(v);
    char path[MODEL_PATH_BYTES];
    struct speed_task t = { v, path, &shape };
    struct child_message m;
    struct child c;

    if (!model_make(v, &shape, path, r) || !child_start(&c, measure, &t, r))
        return;
    report_number(r, shape.n_layers, "", "layers of the model");
    while (child_hear(&c, &m, NULL, NULL, r)) {
        if (m.text[0]) {
            report_rate(&m, r);
            continue;
        }
        report_number(r, m.values[2], "", "tokens that the KV pages have room for");
        report_number(r, m.values[1], "ms", "the very first step");
        report_at_most(r, m.values[0], 0, "", "logits that are no finite numbers");
        break;
    }
    child_end(&c);
    remove(path);
}
