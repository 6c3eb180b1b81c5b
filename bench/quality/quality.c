/* quality.c - bench-quality: what quantising costs, in perplexity and in distance from a reference.
 *
 *   bench-quality [--tokenizer DIR] [--text FILE] [--library DIR] [--csv FILE] NAME=ENGINE:MODEL[:QUANTIZE[:KV]] ...
 *
 * The first run named is the reference, the others are held against it, position by position: ENGINE is
 * llmd or llama.cpp; KV is the setting kv_cache_dtype.  Each paragraph of the text is one sequence that begins with BOS.  Every token is run as a
 * decode step, as it is when it is generated, and the logits then say what would have come next:
 *
 *   perplexity  exp of the mean negative log likelihood of the tokens that do come
 *   KL          mean over positions of sum_v p_ref(v) log(p_ref(v) / p(v)), in nats
 *   top-1       share of positions whose most likely token is the reference's
 *   rms, max    of the differences of the logits, each position's mean difference taken out (a softmax does
 *               not see it), over the standard deviation of the reference's logits */
#include <argp.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/compare/engine.h"
#include "common/file.h"
#include "common/mem.h"
#include "text/tokenizer.h"

enum { RUNS_MAX = 32, SEQS_MAX = 256, TOKENS_MAX = 500 };

struct run {
    char *name, *model;
    const char *quantize, *kv_dtype;
    const struct engine_class *class;
    double nll, kl, n_same, rms, max; /* sums over positions; max is a maximum */
};

struct options {
    const char *tokenizer, *text, *library, *csv, *threads;
    struct run runs[RUNS_MAX];
    uint32_t n_runs;
};

struct sequences {
    int32_t *tokens[SEQS_MAX];
    uint32_t n_tokens[SEQS_MAX];
    uint32_t n;
    uint32_t n_positions; /* that have a next token */
};

static void die(const char *what, const char *why)
{
    fprintf(stderr, "bench-quality: %s: %s\n", what, why);
    exit(1);
}

/* ---- the text ---- */

static void add_sequence(struct sequences *s, const struct tokenizer *t, const char *text, size_t n)
{
    struct token_list ids = { 0 };
    struct err e;
    uint32_t count;

    if (s->n == SEQS_MAX)
        die("text", "too many paragraphs");
    if (!tokenizer_encode(t, text, n, TOKENIZER_ADD_SPECIAL, &ids, &e))
        die("tokenizer", e.msg);
    count = ids.n < TOKENS_MAX ? (uint32_t)ids.n : TOKENS_MAX;
    if (count >= 2) {
        s->tokens[s->n] = mem_alloc(count * sizeof(int32_t));
        memcpy(s->tokens[s->n], ids.ids, count * sizeof(int32_t));
        s->n_tokens[s->n++] = count;
        s->n_positions += count - 1;
    }
    token_list_fini(&ids);
}

static void read_sequences(struct sequences *s, const struct options *o)
{
    struct err e;
    struct tokenizer *t = tokenizer_open(o->tokenizer, &e);
    char *text, *at, *end;
    size_t n;

    if (!t)
        die(o->tokenizer, e.msg);
    if (!file_read(o->text, 64 << 20, &text, &n, &e))
        die(o->text, e.msg);
    for (at = text; at < text + n; at = end + 2) {
        end = strstr(at, "\n\n");
        end = end ? end : text + n;
        add_sequence(s, t, at, (size_t)(end - at));
    }
    free(text);
    tokenizer_close(t);
}

/* ---- one position ---- */

/* log(sum(exp(x))) */
static double log_sum(const float *x, uint32_t n)
{
    double largest = -INFINITY, sum = 0;

    for (uint32_t i = 0; i < n; i++)
        largest = fmax(largest, x[i]);
    for (uint32_t i = 0; i < n; i++)
        sum += exp(x[i] - largest);
    return largest + log(sum);
}

static uint32_t most_likely(const float *x, uint32_t n)
{
    uint32_t best = 0;

    for (uint32_t i = 1; i < n; i++)
        if (x[i] > x[best])
            best = i;
    return best;
}

static double mean(const float *x, uint32_t n)
{
    double sum = 0;

    for (uint32_t i = 0; i < n; i++)
        sum += x[i];
    return sum / n;
}

static void compare(struct run *r, const float *ref, const float *x, uint32_t n)
{
    double z_ref = log_sum(ref, n), z = log_sum(x, n), m_ref = mean(ref, n), m = mean(x, n);
    double squares = 0, spread = 0, largest = 0;

    for (uint32_t i = 0; i < n; i++) {
        double d = (x[i] - m) - (ref[i] - m_ref);
        r->kl += exp(ref[i] - z_ref) * ((ref[i] - z_ref) - (x[i] - z));
        squares += d * d;
        spread += (ref[i] - m_ref) * (ref[i] - m_ref);
        largest = fmax(largest, fabs(d));
    }
    r->rms += sqrt(squares / spread);
    r->max = fmax(r->max, largest / sqrt(spread / n));
    r->n_same += most_likely(ref, n) == most_likely(x, n);
}

/* ---- one run ---- */

struct pass {
    const struct sequences *s;
    struct run *run;
    float *reference; /* [n_positions, vocab], written by the first run */
    bool is_reference;
    uint32_t vocab;
};

static size_t position_index(const struct sequences *s, uint32_t seq, uint32_t t)
{
    size_t at = t;

    for (uint32_t i = 0; i < seq; i++)
        at += s->n_tokens[i] - 1;
    return at;
}

static void take_logits(struct pass *p, uint32_t seq, uint32_t t, const float *logits)
{
    float *ref = p->reference + position_index(p->s, seq, t) * p->vocab;

    p->run->nll += log_sum(logits, p->vocab) - logits[p->s->tokens[seq][t + 1]];
    if (p->is_reference)
        memcpy(ref, logits, p->vocab * sizeof *ref);
    else
        compare(p->run, ref, logits, p->vocab);
}

/* Sequences first .. first + n - 1 side by side, a token of each in a step. */
static void run_group(struct pass *p, struct engine *g, uint32_t first, uint32_t n)
{
    struct step_part parts[ENGINE_SEQS_MAX];
    const float *logits[ENGINE_SEQS_MAX];
    struct err e;

    for (uint32_t i = 0; i < n; i++)
        p->run->class->rewind(g, i, 0);
    for (uint32_t t = 0, n_parts = 1; n_parts > 0; t++) {
        n_parts = 0;
        for (uint32_t i = 0; i < n; i++)
            if (t + 1 < p->s->n_tokens[first + i])
                parts[n_parts++] = (struct step_part){ i, t, 1, &p->s->tokens[first + i][t] };
        if (n_parts > 0 && !p->run->class->step(g, parts, n_parts, logits, &e))
            die(p->run->name, e.msg);
        for (uint32_t k = 0; k < n_parts; k++)
            take_logits(p, first + parts[k].seq, t, logits[k]);
    }
}

static void run_one(struct pass *p, const struct options *o)
{
    struct engine_options options = { .model = p->run->model,
                                      .library = o->library,
                                      .n_threads = (uint32_t)strtoul(o->threads, NULL, 10),
                                      .seqs_max = ENGINE_SEQS_MAX,
                                      .tokens_alone = TOKENS_MAX,
                                      .tokens_a_seq = TOKENS_MAX,
                                      .quantize = p->run->quantize,
                                      .kv_dtype = p->run->kv_dtype };
    struct engine_info info;
    struct err e;
    struct engine *g = p->run->class->open(&options, &info, &e);

    if (!g)
        die(p->run->name, e.msg);
    if (p->is_reference) {
        p->vocab = info.vocab_size;
        p->reference = mem_alloc((size_t)p->s->n_positions * p->vocab * sizeof *p->reference);
    } else if (p->vocab != info.vocab_size) {
        die(p->run->name, "its vocabulary is not the reference's");
    }
    for (uint32_t first = 0; first < p->s->n; first += ENGINE_SEQS_MAX)
        run_group(p, g, first,
                  p->s->n - first < ENGINE_SEQS_MAX ? p->s->n - first : ENGINE_SEQS_MAX);
    p->run->class->close(g);
}

/* ---- the table ---- */

static void report(const struct run *r, const struct sequences *s, bool is_reference, FILE *csv)
{
    double n = s->n_positions, perplexity = exp(r->nll / n);

    printf("%-24s perplexity %8.4f", r->name, perplexity);
    if (!is_reference)
        printf("  KL %.6f  top-1 %6.2f %%  rms %.5f  max %.4f", r->kl / n, 100 * r->n_same / n,
               r->rms / n, r->max);
    printf("\n");
    if (csv)
        fprintf(csv, "%s,%u,%.5f,%.7f,%.5f,%.6f,%.5f\n", r->name, s->n_positions, perplexity,
                r->kl / n, is_reference ? 1 : r->n_same / n, r->rms / n, r->max);
}

/* ---- main ---- */

static const struct argp_option argp_options[] = {
    { "tokenizer", 't', "DIR", 0,
      "model directory with the tokenizer (default models/stories-demo)", 0 },
    { "text", 'f', "FILE", 0,
      "paragraphs with empty lines between (default bench/quality/heldout.txt)", 0 },
    { "library", 'l', "DIR", 0, "folder of llama.cpp's shared objects", 0 },
    { "threads", 'n', "N", 0, "compute threads (default 2)", 0 },
    { "csv", 'c', "FILE", 0, "write the table there too", 0 },
    { 0 },
};

/* NAME=ENGINE:MODEL[:QUANTIZE[:KV]] */
static bool parse_run(struct run *r, char *arg)
{
    char *engine = strchr(arg, '='), *model, *quantize, *kv = NULL;

    if (!engine)
        return false;
    *engine++ = '\0';
    model = strchr(engine, ':');
    if (!model)
        return false;
    *model++ = '\0';
    quantize = strchr(model, ':');
    if (quantize)
        *quantize++ = '\0';
    if (quantize && (kv = strchr(quantize, ':')))
        *kv++ = '\0';
    *r = (struct run){
        .name = arg, .model = model, .quantize = quantize ? quantize : "", .kv_dtype = kv
    };
    r->class = strcmp(engine, engine_llmd.name) == 0       ? &engine_llmd
               : strcmp(engine, engine_llamacpp.name) == 0 ? &engine_llamacpp
                                                           : NULL;
    return r->class != NULL;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct options *o = state->input;

    switch (key) {
    case 't':
        o->tokenizer = arg;
        return 0;
    case 'f':
        o->text = arg;
        return 0;
    case 'l':
        o->library = arg;
        return 0;
    case 'n':
        o->threads = arg;
        return 0;
    case 'c':
        o->csv = arg;
        return 0;
    case ARGP_KEY_ARG:
        if (o->n_runs == RUNS_MAX || !parse_run(&o->runs[o->n_runs++], arg))
            argp_error(state, "'%s': wanted NAME=llmd|llama.cpp:MODEL[:QUANTIZE[:KV]], at most %d",
                       arg, RUNS_MAX);
        return 0;
    case ARGP_KEY_END:
        if (o->n_runs == 0)
            argp_usage(state);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

int main(int argc, char **argv)
{
    static const struct argp argp = {
        .options = argp_options,
        .parser = parse,
        .args_doc = "NAME=ENGINE:MODEL[:QUANTIZE[:KV]] ...",
        .doc = "What quantising costs: perplexity, and distance from the first run named.",
    };
    struct options o = { .tokenizer = "models/stories-demo",
                         .text = "bench/quality/heldout.txt",
                         .library = "",
                         .threads = "2" };
    struct sequences s = { 0 };
    struct pass p = { .s = &s };
    FILE *csv = NULL;

    argp_parse(&argp, argc, argv, 0, NULL, &o);
    read_sequences(&s, &o);
    printf("%u positions of %u sequences\n", s.n_positions, s.n);
    if (o.csv && !(csv = fopen(o.csv, "we")))
        die(o.csv, "cannot be written");
    if (csv)
        fprintf(
            csv,
            "run,positions,perplexity,kl_nats,top1_agreement,rms_logit_error,max_logit_error\n");
    for (uint32_t i = 0; i < o.n_runs; i++) {
        p.run = &o.runs[i];
        p.is_reference = i == 0;
        run_one(&p, &o);
        report(p.run, &s, i == 0, csv);
    }
    if (csv)
        fclose(csv);
    for (uint32_t i = 0; i < s.n; i++)
        free(s.tokens[i]);
    free(p.reference);
    return 0;
}
