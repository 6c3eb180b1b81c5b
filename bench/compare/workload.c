/* workload.c - the commands of workload.h.
 *
 * Tokens are made up, not sampled: what is chosen does not change what a step costs, and so both engines
 * compute the same rows.  A step ends when its logits can be read. */
#include "bench/compare/workload.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/mem.h"

enum { WARM_STEPS = 2, LOGITS_SPAN = 250, LOGITS_MAX = 1000000 };

#define MEASURE_NS (250 * NS_PER_MS) /* short cases are repeated until they have run so long */

struct tally {
    uint64_t ns, tokens;
};

/* Wall time, or CPU time of all threads of this process. */
static uint64_t now_ns(const struct workload *w)
{
    return w->cpu_clock ? clock_read_ns(CLOCK_PROCESS_CPUTIME_ID) : clock_mono_ns();
}

/* Any tokens but the special ones; the same for both engines. */
static void fill_tokens(const struct workload *w, int32_t *tokens, uint32_t n, uint32_t seq,
                        uint32_t start)
{
    uint32_t from = 259,
             span = w->info.vocab_size > 2 * from ? w->info.vocab_size - from : w->info.vocab_size;

    if (span == w->info.vocab_size)
        from = 0;
    for (uint32_t i = 0; i < n; i++)
        tokens[i] = (int32_t)(from + (seq * 7919 + (start + i) * 104729u) % span);
}

static bool run_parts(struct workload *w, const struct step_part *parts, uint32_t n_parts,
                      struct err *e)
{
    const float *logits[ENGINE_SEQS_MAX];

    return w->class->step(w->engine, parts, n_parts, logits, e);
}

/* Run positions start..end-1 of a sequence, in steps of at most ENGINE_ROWS_MAX rows. */
static bool run_span(struct workload *w, uint32_t seq, uint32_t start, uint32_t end, struct err *e)
{
    int32_t tokens[ENGINE_ROWS_MAX];

    while (start < end) {
        uint32_t n = end - start < ENGINE_ROWS_MAX ? end - start : ENGINE_ROWS_MAX;
        struct step_part part = { seq, start, n, tokens };
        fill_tokens(w, tokens, n, seq, start);
        if (!run_parts(w, &part, 1, e))
            return false;
        start += n;
    }
    return true;
}

/* One row of each of n sequences, at `position`. */
static bool run_decode_step(struct workload *w, const uint32_t *seqs, uint32_t n, uint32_t position,
                            struct err *e)
{
    int32_t tokens[ENGINE_SEQS_MAX];
    struct step_part parts[ENGINE_SEQS_MAX];

    for (uint32_t i = 0; i < n; i++) {
        fill_tokens(w, &tokens[i], 1, seqs[i], position);
        parts[i] = (struct step_part){ seqs[i], position, 1, &tokens[i] };
    }
    return run_parts(w, parts, n, e);
}

static bool prefill(struct workload *w, uint32_t n_tokens, struct tally *t, struct err *e)
{
    do {
        uint64_t begin;
        w->class->rewind(w->engine, SEQ_ALONE, 0);
        begin = now_ns(w);
        if (!run_span(w, SEQ_ALONE, 0, n_tokens, e))
            return false;
        t->ns += now_ns(w) - begin;
        t->tokens += n_tokens;
    } while (t->ns < MEASURE_NS);
    return true;
}

/* How many tokens of its context a sequence has. */
static uint32_t context_of(const struct workload *w, uint32_t seq)
{
    return seq == SEQ_ALONE ? 0 : w->context[seq];
}

/* The missing context of as many sequences as one step has rows for; how many these are. */
static bool fill_contexts(struct workload *w, const uint32_t *seqs, uint32_t n, uint32_t n_tokens,
                          uint32_t *n_filled, struct err *e)
{
    int32_t tokens[ENGINE_ROWS_MAX];
    struct step_part parts[ENGINE_SEQS_MAX];
    uint32_t n_parts = 0, rows = 0, i = 0;

    for (; i < n; i++) {
        uint32_t have = context_of(w, seqs[i]), want = have < n_tokens ? n_tokens - have : 0;
        if (rows + want > ENGINE_ROWS_MAX)
            break;
        if (want == 0)
            continue;
        w->class->rewind(w->engine, seqs[i], have);
        fill_tokens(w, tokens + rows, want, seqs[i], have);
        parts[n_parts++] = (struct step_part){ seqs[i], have, want, tokens + rows };
        rows += want;
    }
    *n_filled = i;
    return n_parts == 0 || run_parts(w, parts, n_parts, e);
}

/* Give each sequence its context, at most ENGINE_ROWS_MAX tokens, unless it has it. */
static bool prepare_context(struct workload *w, const uint32_t *seqs, uint32_t n, uint32_t n_tokens,
                            struct err *e)
{
    for (uint32_t i = 0, filled; i < n; i += filled)
        if (!fill_contexts(w, seqs + i, n - i, n_tokens, &filled, e))
            return false;
    for (uint32_t i = 0; i < n; i++) {
        w->class->rewind(w->engine, seqs[i], n_tokens);
        if (seqs[i] != SEQ_ALONE && w->context[seqs[i]] < n_tokens)
            w->context[seqs[i]] = n_tokens;
    }
    return true;
}

static void rewind_all(struct workload *w, const uint32_t *seqs, uint32_t n, uint32_t start)
{
    for (uint32_t i = 0; i < n; i++)
        w->class->rewind(w->engine, seqs[i], start);
}

static bool decode(struct workload *w, uint32_t n_streams, uint32_t n_tokens, uint32_t context,
                   struct tally *t, struct err *e)
{
    uint32_t seqs[ENGINE_SEQS_MAX] = { SEQ_ALONE };

    for (uint32_t i = 0; n_streams > 1 && i < n_streams; i++)
        seqs[i] = i;
    if (!prepare_context(w, seqs, n_streams, context, e))
        return false;
    for (uint32_t i = 0; i < WARM_STEPS; i++)
        if (!run_decode_step(w, seqs, n_streams, context + i, e))
            return false;
    do {
        uint64_t begin;
        rewind_all(w, seqs, n_streams, context);
        begin = now_ns(w);
        for (uint32_t i = 0; i < n_tokens; i++)
            if (!run_decode_step(w, seqs, n_streams, context + i, e))
                return false;
        t->ns += now_ns(w) - begin;
        t->tokens += (uint64_t)n_tokens * n_streams;
    } while (t->ns < MEASURE_NS);
    rewind_all(w, seqs, n_streams, context);
    return true;
}

/* ---- streams that run on while prompts are read ---- */

struct mix {
    uint32_t n_streams, n_prompts, prompt_tokens, chunk;
    uint32_t position;  /* of the streams */
    uint32_t prompt_at; /* rows of the current prompt that have run */
    uint64_t *samples;  /* ns of each step: what every stream waits for its next token */
    uint32_t n_samples;
};

enum { MIX_CONTEXT = 64, MIX_QUIET_STEPS = 16 };

static uint32_t mix_chunks(const struct mix *m)
{
    return m->n_prompts * ((m->prompt_tokens + m->chunk - 1) / m->chunk);
}

/* One row of each stream, and the next chunk of the prompt behind them, all in one step. */
static bool mix_step(struct workload *w, struct mix *m, uint32_t prompt_rows, struct err *e)
{
    int32_t tokens[ENGINE_ROWS_MAX];
    struct step_part parts[ENGINE_SEQS_MAX];
    uint32_t n = m->n_streams;
    uint64_t begin;

    for (uint32_t i = 0; i < n; i++) {
        fill_tokens(w, &tokens[i], 1, i, m->position);
        parts[i] = (struct step_part){ i, m->position, 1, &tokens[i] };
    }
    if (prompt_rows) {
        fill_tokens(w, tokens + n, prompt_rows, n, m->prompt_at);
        parts[n] = (struct step_part){ n, m->prompt_at, prompt_rows, tokens + n };
    }
    begin = now_ns(w);
    if (!run_parts(w, parts, n + (prompt_rows > 0), e))
        return false;
    m->samples[m->n_samples++] = now_ns(w) - begin;
    m->position++;
    return true;
}

static bool mix_prompt(struct workload *w, struct mix *m, struct err *e)
{
    w->class->rewind(w->engine, m->n_streams, 0);
    for (m->prompt_at = 0; m->prompt_at < m->prompt_tokens;) {
        uint32_t left = m->prompt_tokens - m->prompt_at, n = left < m->chunk ? left : m->chunk;
        if (!mix_step(w, m, n, e))
            return false;
        m->prompt_at += n;
    }
    return true;
}

static int by_time(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

static bool mix_run(struct workload *w, struct mix *m, char *answer, size_t n, struct err *e)
{
    uint32_t seqs[ENGINE_SEQS_MAX], k;
    uint64_t quiet, begin;

    for (uint32_t i = 0; i < m->n_streams; i++)
        seqs[i] = i;
    rewind_all(w, seqs, m->n_streams, MIX_CONTEXT);
    if (!prepare_context(w, seqs, m->n_streams, MIX_CONTEXT, e))
        return false;
    m->position = MIX_CONTEXT;
    for (uint32_t i = 0; i < MIX_QUIET_STEPS; i++)
        if (!mix_step(w, m, 0, e))
            return false;
    qsort(m->samples, m->n_samples, sizeof *m->samples, by_time);
    quiet = m->samples[m->n_samples / 2];
    m->n_samples = 0;
    begin = now_ns(w);
    for (uint32_t i = 0; i < m->n_prompts; i++)
        if (!mix_prompt(w, m, e))
            return false;
    begin = now_ns(w) - begin;
    qsort(m->samples, m->n_samples, sizeof *m->samples, by_time);
    k = (m->n_samples * 99 + 99) / 100 - 1;
    snprintf(answer, n, "ok %" PRIu64 " %" PRIu64 " %" PRIu64 " %u %" PRIu64 " %" PRIu64,
             m->samples[m->n_samples / 2], m->samples[k], m->samples[m->n_samples - 1],
             m->n_samples, quiet, begin);
    w->class->rewind(w->engine, m->n_streams, 0);
    w->context[m->n_streams] = 0;
    rewind_all(w, seqs, m->n_streams, MIX_CONTEXT);
    for (uint32_t i = 0; i < m->n_streams; i++)
        w->context[i] = MIX_CONTEXT;
    return true;
}

static bool mixed(struct workload *w, struct mix *m, char *answer, size_t n, struct err *e)
{
    bool ok;

    if (m->n_streams < 1 || m->n_streams >= w->seqs_max || m->chunk < 1 ||
        m->chunk > ENGINE_ROWS_MAX - m->n_streams || m->prompt_tokens < 1 ||
        m->prompt_tokens > w->tokens_a_seq ||
        MIX_CONTEXT + MIX_QUIET_STEPS + mix_chunks(m) > w->tokens_a_seq)
        return err_set(e, ERR_CONFIG, 0, "mixed: does not fit the engine's sequences");
    m->samples = mem_alloc((mix_chunks(m) + MIX_QUIET_STEPS) * sizeof *m->samples);
    ok = mix_run(w, m, answer, n, e);
    free(m->samples);
    return ok;
}

/* ---- logits ---- */

/* One position a step, as a stream has it; a fresh sequence every LOGITS_SPAN. */
static bool write_logits(struct workload *w, uint32_t n_tokens, FILE *out, struct err *e)
{
    for (uint32_t i = 0; i < n_tokens; i++) {
        int32_t token;
        struct step_part part = { SEQ_ALONE, i % LOGITS_SPAN, 1, &token };
        const float *row[1];
        if (part.start == 0)
            w->class->rewind(w->engine, SEQ_ALONE, 0);
        fill_tokens(w, &token, 1, i / LOGITS_SPAN, part.start);
        if (!w->class->step(w->engine, &part, 1, row, e))
            return false;
        fwrite(row[0], sizeof(float), w->info.vocab_size, out);
    }
    return true;
}

static bool logits(struct workload *w, uint32_t n_tokens, const char *path, struct err *e)
{
    FILE *out = fopen(path, "wb");
    bool ok;

    if (!out)
        return err_set(e, ERR_SYS, errno, "create '%s'", path);
    ok = write_logits(w, n_tokens, out, e);
    if (fclose(out) != 0 && ok)
        ok = err_set(e, ERR_SYS, errno, "write '%s'", path);
    return ok;
}

/* ---- commands ---- */

static bool answer_tally(bool ok, const struct tally *t, const struct err *e, char *answer,
                         size_t n)
{
    if (ok)
        snprintf(answer, n, "ok %" PRIu64 " %" PRIu64, t->ns, t->tokens);
    else
        snprintf(answer, n, "error %s", e->msg);
    return true;
}

static bool decode_fits(const struct workload *w, uint32_t n_streams, uint32_t n_tokens,
                        uint32_t context)
{
    uint32_t longest = n_streams == 1 ? w->tokens_alone : w->tokens_a_seq;

    return n_streams >= 1 && n_streams <= w->seqs_max && n_tokens >= 1 &&
           context <= ENGINE_ROWS_MAX &&
           context + (n_tokens > WARM_STEPS ? n_tokens : WARM_STEPS) <= longest;
}

bool workload_run(struct workload *w, const char *command, char *answer, size_t n)
{
    uint32_t a, b, c;
    char path[512];
    struct mix m = { 0 };
    struct tally t = { 0 };
    struct err e = { 0 };

    if (strncmp(command, "quit", 4) == 0)
        return false;
    if (sscanf(command, "prefill %u", &a) == 1 && a >= 1 && a <= w->tokens_alone)
        return answer_tally(prefill(w, a, &t, &e), &t, &e, answer, n);
    if (sscanf(command, "decode %u %u %u", &a, &b, &c) == 3 && decode_fits(w, a, b, c))
        return answer_tally(decode(w, a, b, c, &t, &e), &t, &e, answer, n);
    if (sscanf(command, "mixed %u %u %u %u", &m.n_streams, &m.n_prompts, &m.prompt_tokens,
               &m.chunk) == 4) {
        if (!mixed(w, &m, answer, n, &e))
            snprintf(answer, n, "error %s", e.msg);
        return true;
    }
    if (sscanf(command, "logits %u %511s", &a, path) == 2 && a <= LOGITS_MAX &&
        w->tokens_alone >= LOGITS_SPAN) {
        if (logits(w, a, path, &e))
            snprintf(answer, n, "ok");
        else
            snprintf(answer, n, "error %s", e.msg);
        return true;
    }
    snprintf(answer, n, "error no such command, or beyond the engine's limits: %.80s", command);
    return true;
}
