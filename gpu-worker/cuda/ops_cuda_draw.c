/* ops_cuda_draw.c - tokens drawn where their logits are, and the logits of those that are not.
 *
 * A draw that the kernel takes (sampling_rows.h) sends 64 bytes over and 16 for each logit that is changed, and brings
 * back 32, or 288 with alternatives, where its logits would be 4 a token of the vocabulary.  The rows are made on the
 * host while the device computes the logits, and the kernel stands behind them in the stream, outside any graph.
 *
 * Rank 0 draws for its group: the ranks' columns are gathered on the devices, and other ranks bring nothing to the host.
 *
 * Whether a draw is the device's follows from the draw alone, so a sequence is drawn by the same code in any company. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "gpu-worker/cuda/cuda_stream.h"

static cu_ptr address(const void *p)
{
    return (cu_ptr)(uintptr_t)p;
}

/* ---- memory ---- */

bool cuda_draws_open(struct ops_stream *s, struct err *e)
{
    struct step_draws *d = &s->draws;
    uint32_t n = s->setup.logits_max;
    size_t edits = n * sizeof(struct sampling_row);
    size_t choices = edits + (size_t)n * CUDA_EDITS_A_ROW * sizeof(struct sampling_edit);
    size_t tops = choices + n * sizeof(struct sampling_choice);
    char *host;

    if (!device_host_alloc(s->device, &d->host,
                           tops + (size_t)n * SAMPLING_TOP_MAX * sizeof(struct sampling_top), e))
        return false;
    host = d->host;
    sampling_rows_init(&d->rows, s->vocab, (void *)host, n, (void *)(host + edits),
                       CUDA_EDITS_A_ROW);
    d->choices_host = (void *)(host + choices);
    d->tops_host = (void *)(host + tops);
    d->of = mem_zalloc(n, sizeof(struct sampler_row *));
    d->is_drawn = mem_zalloc(n, sizeof *d->is_drawn);
    return true;
}

void cuda_draws_close(struct ops_stream *s)
{
    sampling_rows_fini(&s->draws.rows);
    free(s->draws.of);
    free(s->draws.is_drawn);
    device_host_free(s->device, s->draws.host);
}

void cuda_draws_begin(struct ops_stream *s)
{
    if (!s->can_draw)
        return;
    sampling_rows_begin(&s->draws.rows);
    memset(s->draws.is_drawn, 0, s->setup.logits_max * sizeof *s->draws.is_drawn);
}

/* ---- draws ---- */

static void launch_some(struct ops_stream *s, uint32_t first, uint32_t n)
{
    const struct step_draws *d = &s->draws;
    struct sampling_args a = { .logits = s->logits,
                               .work = d->work,
                               .rows = d->rows_there + first,
                               .edits = d->edits_there,
                               .choices = d->choices + first,
                               .tops = d->tops + (size_t)first * SAMPLING_TOP_MAX,
                               .n_rows = n,
                               .vocab = s->vocab };

    cuda_launch(s, "sampling", n, 1, SAMPLING_THREADS, 0, &a, sizeof a);
}

/* Rows up to the last one that has any. */
static uint32_t n_with_tops(const struct sampling_rows *r)
{
    uint32_t n = r->n_rows;

    while (n > 0 && r->rows[n - 1].n_top == 0)
        n--;
    return n;
}

static void queue(struct ops_stream *s)
{
    const struct step_draws *d = &s->draws;
    uint32_t n = d->rows.n_rows, n_tops = n_with_tops(&d->rows) * SAMPLING_TOP_MAX;

    device_copy_in(&s->stream, address(d->rows_there), d->rows.rows, n * sizeof *d->rows.rows);
    device_copy_in(&s->stream, address(d->edits_there), d->rows.edits,
                   d->rows.n_edits * sizeof *d->rows.edits);
    for (uint32_t first = 0; first < n; first += CUDA_DRAWS_AT_ONCE)
        launch_some(s, first, n - first < CUDA_DRAWS_AT_ONCE ? n - first : CUDA_DRAWS_AT_ONCE);
    device_copy_out(&s->stream, d->choices_host, address(d->choices), n * sizeof *d->choices);
    device_copy_out(&s->stream, d->tops_host, address(d->tops), n_tops * sizeof *d->tops);
}

void cuda_draw(struct ops_stream *s, const struct sampler_rows *draws)
{
    struct step_draws *d = &s->draws;

    if (!s->can_draw)
        return;
    assert(draws->n == 0 || s->output.cols == s->vocab);
    for (uint32_t i = 0; i < draws->n; i++) {
        struct sampler_row *row = &draws->list[i];
        assert(row->logits_row < s->batch->n_logits);
        if (!sampling_rows_add(&d->rows, &row->in, row->logits_row))
            continue;
        d->of[d->rows.n_rows - 1] = row;
        d->is_drawn[row->logits_row] = true;
    }
    if (d->rows.n_rows > 0)
        queue(s);
}

/* ---- logits ---- */

static bool is_drawn(const struct ops_stream *s, uint32_t row)
{
    return s->can_draw && s->draws.is_drawn[row];
}

/* Rows of the batch alone: what is behind them was computed for nobody. */
void cuda_fetch_logits(struct ops_stream *s)
{
    size_t stride = s->vocab;
    uint32_t n = s->output.cols > 0 ? s->batch->n_logits : 0, first = 0;

    while (first < n) {
        uint32_t end = first;
        while (end < n && !is_drawn(s, end))
            end++;
        device_copy_out(&s->stream, s->logits_host + first * stride,
                        address(s->logits + first * stride),
                        (end - first) * stride * sizeof *s->logits);
        first = end + 1;
    }
}

static void hand_over_logits(const struct ops_stream *s)
{
    const struct step_output *o = &s->output;

    for (uint32_t t = 0; o->cols > 0 && t < s->batch->n_logits; t++)
        if (!is_drawn(s, t))
            memcpy(o->to + t * o->stride, s->logits_host + t * (size_t)s->vocab,
                   o->cols * sizeof *o->to);
}

void cuda_hand_over(struct ops_stream *s)
{
    const struct step_draws *d = &s->draws;

    hand_over_logits(s);
    for (uint32_t i = 0; i < d->rows.n_rows; i++) {
        struct sampler_row *row = d->of[i];
        row->result = sampling_rows_read(&row->in, &d->choices_host[i],
                                         d->tops_host + (size_t)i * SAMPLING_TOP_MAX, &row->out);
        row->is_drawn = true;
    }
    cuda_draws_begin(s);
    s->output = (struct step_output){ 0 };
}
