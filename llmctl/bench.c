/* bench.c - `llmctl bench`: a load generator for any server of these APIs.
 *
 * Closed loop (--concurrency): so many requests are always running.  Open loop (--rate): arrivals are drawn
 * from a Poisson process beforehand, as clients who do not know of each other are; they are due when they are
 * due, whatever the server does, and latencies begin there (bench_report.h). */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/json.h"
#include "common/mem.h"
#include "llmctl/answer.h"
#include "llmctl/bench_prompts.h"
#include "llmctl/bench_report.h"
#include "llmctl/terminal.h"

enum {
    WAIT_MS = 100,
    PROGRESS_MS = 200,
    BAR_COLUMNS = 24,
    REQUESTS_MAX = 10000000,
    MODELS_BYTES_MAX = 1 << 20,
};

struct bench_options {
    struct globals globals;
    struct bench_ask ask;
    const char *url, *prompts, *csv;
    uint64_t concurrency, requests, warmup, input_tokens, random_seed;
    double rate, duration_s;
    unsigned timeout_s;
    bool json, quiet;
};

struct bench {
    const struct bench_options *o;
    char url[512], model[256];
    char post_url[600];
    struct bench_prompts prompts;
    uint64_t arrivals; /* state of the generator */
    struct http_pool *pool;
    int stop_fd;
    bool interrupted;

    /* of the phase that runs */
    uint64_t begin_ns, end_ns;
    struct bench_request **requests; /* [n_requests], in order of their start */
    uint64_t n_requests, cap;
    uint64_t n_running, n_ended, n_failed, n_tokens;
    uint64_t shown_ns;
};

/* ---- one request ---- */

static void on_end(void *arg, const struct http_end *end)
{
    struct bench_request *r = arg;
    struct bench *b = r->owner;

    bench_request_end(r, end);
    bench_request_forget(r);
    b->n_running--;
    b->n_ended++;
    b->n_failed += r->failure != BENCH_FINE;
    b->n_tokens += r->n_generated;
}

static bool start(struct bench *b, uint64_t due_ns, struct err *e)
{
    struct bench_request *r = mem_alloc(sizeof *r);
    struct bench_ask ask = b->o->ask;
    struct buf prompt = { 0 };

    bench_prompts_put(&b->prompts, b->n_requests, &prompt);
    ask.model = b->model[0] ? b->model : NULL;
    ask.seed += b->n_requests;
    bench_request_init(r, &ask, prompt.data);
    buf_fini(&prompt);
    r->owner = b;
    r->post.url = b->post_url;
    r->post.api_key = getenv("LLMD_API_KEY");
    r->post.timeout_s = b->o->timeout_s;
    r->due_ns = due_ns;
    r->sent_ns = clock_mono_ns();
    if (b->n_requests == b->cap) {
        b->cap = b->cap ? 2 * b->cap : 256;
        b->requests = mem_realloc(b->requests, b->cap * sizeof *b->requests);
    }
    b->requests[b->n_requests++] = r;
    b->n_running++;
    return http_pool_start(b->pool, &r->post, on_end, e);
}

/* ---- progress ---- */

struct phase {
    uint64_t requests;    /* at most; 0: any number */
    uint64_t until_ns;    /* none starts later; 0: whenever */
    double rate;          /* 0: closed loop */
    uint64_t concurrency; /* 0: any number */
    const char *name;
};

static double done_share(const struct bench *b, const struct phase *p, uint64_t now)
{
    if (p->requests > 0)
        return (double)b->n_ended / (double)p->requests;
    return now >= p->until_ns ? 1
                              : (double)(now - b->begin_ns) / (double)(p->until_ns - b->begin_ns);
}

static void show_progress(struct bench *b, const struct phase *p)
{
    uint64_t now = clock_mono_ns();
    char bar[BAR_COLUMNS + 1];
    double seconds, share;

    if (b->o->quiet || !isatty(STDERR_FILENO) || now - b->shown_ns < PROGRESS_MS * NS_PER_MS)
        return;
    b->shown_ns = now;
    seconds = (double)(now - b->begin_ns + 1) / 1e9;
    share = done_share(b, p, now);
    for (int i = 0; i < BAR_COLUMNS; i++)
        bar[i] = (double)i < share * BAR_COLUMNS ? '#' : '.';
    bar[BAR_COLUMNS] = '\0';
    fprintf(stderr, "\r%s[%s] %llu done, %llu run, %llu failed, %.1f/s, %.0f tok/s\033[K", p->name,
            bar, (unsigned long long)b->n_ended, (unsigned long long)b->n_running,
            (unsigned long long)b->n_failed, (double)b->n_ended / seconds,
            (double)b->n_tokens / seconds);
}

static void clear_progress(const struct bench *b)
{
    if (b->shown_ns)
        fputs("\r\033[K", stderr);
}

/* ---- a phase ---- */

static bool has_more(const struct bench *b, const struct phase *p, uint64_t due_ns)
{
    return (p->requests == 0 || b->n_requests < p->requests) &&
           (p->until_ns == 0 || due_ns < p->until_ns) && b->n_requests < REQUESTS_MAX;
}

/* Start what is due.  *next_ns is when the next one is; 0: there is none, or it waits for another's end. */
static bool start_due(struct bench *b, const struct phase *p, uint64_t *arrival_ns,
                      uint64_t *next_ns, bool *more, struct err *e)
{
    *next_ns = 0;
    for (;;) {
        uint64_t now = clock_mono_ns(), due = p->rate > 0 ? *arrival_ns : now;
        *more = has_more(b, p, due);
        if (!*more || (p->concurrency > 0 && b->n_running >= p->concurrency))
            return true;
        if (due > now) {
            *next_ns = due;
            return true;
        }
        if (p->rate > 0)
            *arrival_ns += (uint64_t)(bench_interval(&b->arrivals, p->rate) * 1e9);
        if (!start(b, due, e))
            return false;
    }
}

/* The poll below counts in milliseconds; the rest of one is waited for without sleep. */
static int wait_ms(uint64_t next_ns)
{
    uint64_t now = clock_mono_ns(), ms;

    if (next_ns == 0)
        return WAIT_MS;
    ms = next_ns > now ? (next_ns - now) / NS_PER_MS : 0;
    return ms > WAIT_MS ? WAIT_MS : (int)ms;
}

static bool run_phase(struct bench *b, const struct phase *p, struct err *e)
{
    uint64_t arrival_ns, next_ns;
    bool more = true;

    b->begin_ns = arrival_ns = clock_mono_ns();
    while (!b->interrupted) {
        if (!start_due(b, p, &arrival_ns, &next_ns, &more, e))
            return false;
        if (!more && b->n_running == 0)
            break;
        b->interrupted = !http_pool_turn(b->pool, wait_ms(next_ns), b->stop_fd);
        show_progress(b, p);
    }
    b->end_ns = clock_mono_ns();
    clear_progress(b);
    return true;
}

static void forget_phase(struct bench *b)
{
    for (uint64_t i = 0; i < b->n_requests; i++) {
        bench_request_fini(b->requests[i]);
        free(b->requests[i]);
    }
    free(b->requests);
    b->requests = NULL;
    b->n_requests = b->cap = b->n_running = b->n_ended = b->n_failed = b->n_tokens = 0;
}

static bool warm_up(struct bench *b, struct err *e)
{
    const struct bench_options *o = b->o;
    struct phase p = { .requests = o->warmup, .name = "warm-up " };
    bool ok;

    if (o->warmup == 0)
        return true;
    p.concurrency = o->concurrency ? o->concurrency : 1;
    ok = run_phase(b, &p, e);
    if (ok && !b->interrupted && b->n_failed == o->warmup)
        ok = err_set(e, ERR_PROTO, 0, "every request to warm up failed; the first: %s",
                     b->requests[0]->error);
    forget_phase(b);
    return ok;
}

/* Those that have ended come first; the others were broken off and count for nothing. */
static uint64_t drop_unended(struct bench *b)
{
    uint64_t n = 0;

    for (uint64_t i = 0; i < b->n_requests; i++) {
        struct bench_request *r = b->requests[i];
        if (r->end_ns == 0)
            continue;
        b->requests[i] = b->requests[n];
        b->requests[n++] = r;
    }
    return n;
}

/* ---- the server ---- */

static bool add_to(void *arg, const char *bytes, size_t n)
{
    struct buf *out = arg;

    buf_add(out, bytes, n);
    return out->n <= MODELS_BYTES_MAX;
}

/* The first that /v1/models names; a server without that route is asked without a name. */
static void ask_model(struct bench *b)
{
    struct buf body = { 0 }, refusal = { 0 };
    char url[600];
    long status;
    struct http_post get = { .url = url,
                             .api_key = getenv("LLMD_API_KEY"),
                             .stop_fd = b->stop_fd,
                             .timeout_s = 10,
                             .on_body = add_to,
                             .arg = &body };
    const json_t *id;
    json_t *v = NULL;

    snprintf(url, sizeof url, "%s/v1/models", b->url);
    if (http_post(&get, &refusal, &status, NULL) == HTTP_OK && body.n > 0)
        v = json_parse(body.data, body.n, NULL);
    id = json_object_get(json_array_get(json_object_get(v, "data"), 0), "id");
    if (json_is_string(id))
        snprintf(b->model, sizeof b->model, "%s", json_string_value(id));
    json_decref(v);
    buf_fini(&body);
    buf_fini(&refusal);
}

static int find_server(struct bench *b)
{
    const struct bench_options *o = b->o;
    struct server local;
    size_t n;
    int code;

    if (o->url)
        snprintf(b->url, sizeof b->url, "%s", o->url);
    else {
        code = answer_find_server(&o->globals, &local);
        if (code != CTL_EXIT_OK)
            return code;
        snprintf(b->url, sizeof b->url, "%s", local.url);
        snprintf(b->model, sizeof b->model, "%s", local.model);
    }
    n = strlen(b->url);
    if (n > 0 && b->url[n - 1] == '/')
        b->url[n - 1] = '\0';
    snprintf(b->post_url, sizeof b->post_url, "%s%s", b->url, bench_apis[o->ask.api].path);
    if (o->ask.model)
        snprintf(b->model, sizeof b->model, "%s", o->ask.model);
    else if (!b->model[0] && o->ask.api != BENCH_TGI)
        ask_model(b);
    return CTL_EXIT_OK;
}

/* A connection each. */
static void raise_file_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

/* ---- results ---- */

static bool write_csv(const struct bench *b, uint64_t n, struct err *e)
{
    struct buf out = { 0 };
    FILE *f = fopen(b->o->csv, "we");
    bool ok;

    if (!f)
        return err_set(e, ERR_SYS, errno, "open '%s'", b->o->csv);
    bench_report_put_csv(&out, b->requests, n, b->begin_ns);
    ok = fwrite(out.data, 1, out.n, f) == out.n;
    ok = fclose(f) == 0 && ok;
    buf_fini(&out);
    return ok || err_set(e, ERR_SYS, errno, "write '%s'", b->o->csv);
}

static const char *first_error(const struct bench *b, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        if (b->requests[i]->failure != BENCH_FINE)
            return b->requests[i]->error;
    return "";
}

static int tell(struct bench *b, struct err *e)
{
    struct bench_report report = { .api = bench_apis[b->o->ask.api].name,
                                   .url = b->url,
                                   .model = b->model,
                                   .rate = b->o->rate,
                                   .concurrency = b->o->concurrency,
                                   .interrupted = b->interrupted };
    uint64_t n = drop_unended(b);
    struct buf out = { 0 };
    struct err first;

    bench_report_fill(&report, b->requests, n, b->begin_ns, b->end_ns);
    if (b->o->json)
        bench_report_put_json(&out, &report);
    else
        bench_report_put_table(&out, &report, terminal_has_colours(STDOUT_FILENO));
    fwrite(out.data, 1, out.n, stdout);
    buf_fini(&out);
    if (b->o->csv && !write_csv(b, n, e))
        return CTL_EXIT_REFUSED;
    if (report.failed > 0) {
        err_set(&first, ERR_PROTO, 0, "%llu requests failed; the first: %s",
                (unsigned long long)report.failed, first_error(b, n));
        command_complain(&first);
    }
    if (b->interrupted)
        return CTL_EXIT_INTERRUPTED;
    return report.failed > 0 || report.completed == 0 ? CTL_EXIT_REFUSED : CTL_EXIT_OK;
}

static int run_all(struct bench *b, struct err *e)
{
    const struct bench_options *o = b->o;
    struct phase p = {
        .requests = o->requests, .rate = o->rate, .concurrency = o->concurrency, .name = ""
    };
    int code = find_server(b);

    if (code != CTL_EXIT_OK)
        return code;
    b->pool = http_pool_new(e);
    if (!b->pool || !warm_up(b, e))
        goto failed;
    if (o->duration_s > 0)
        p.until_ns = clock_mono_ns() + (uint64_t)(o->duration_s * 1e9);
    if (!b->interrupted && !run_phase(b, &p, e))
        goto failed;
    code = tell(b, e);
    if (!e->msg[0])
        return code;
failed:
    command_complain(e);
    return CTL_EXIT_REFUSED;
}

/* ---- the command line ---- */

enum {
    KEY_API = 256,
    KEY_URL,
    KEY_DURATION,
    KEY_PROMPTS,
    KEY_INPUT,
    KEY_WARMUP,
    KEY_CSV,
    KEY_TIMEOUT,
    KEY_IGNORE_EOS,
};

static double positive(struct argp_state *state, const char *what, const char *arg, double max)
{
    char *end;
    double v = strtod(arg, &end);

    if (end == arg || *end || !(v > 0 && v <= max))
        argp_error(state, "%s: '%s' is not a number above 0, up to %g", what, arg, max);
    return v;
}

static enum bench_api api_of(struct argp_state *state, const char *arg)
{
    for (int i = 0; i < N_BENCH_APIS; i++)
        if (strcmp(arg, bench_apis[i].name) == 0)
            return (enum bench_api)i;
    argp_error(state, "--api: '%s' is not openai, chat or tgi", arg);
    return BENCH_OPENAI;
}

static void settle(struct bench_options *o, struct argp_state *state)
{
    if (o->requests == 0 && o->duration_s == 0)
        o->requests = 100;
    if (o->concurrency == 0 && o->rate == 0)
        o->concurrency = 8;
    if (o->url && strncmp(o->url, "http://", 7) != 0 && strncmp(o->url, "https://", 8) != 0)
        argp_error(state, "--url: '%s' does not begin with http:// or https://", o->url);
}

static error_t parse_asked(int key, char *arg, struct argp_state *state)
{
    struct bench_options *o = state->input;

    switch (key) {
    case KEY_API:
        o->ask.api = api_of(state, arg);
        return 0;
    case 'm':
        o->ask.model = arg;
        return 0;
    case 't':
        o->ask.temperature = strcmp(arg, "0") == 0 ? 0 : positive(state, "--temperature", arg, 100);
        return 0;
    case 's':
        o->random_seed = o->ask.seed = command_number(state, "--seed", arg, 0, INT64_MAX / 2);
        o->ask.has_seed = true;
        return 0;
    case KEY_INPUT:
        o->input_tokens = command_number(state, "--input-tokens", arg, 1, 1 << 20);
        return 0;
    case 'o':
        o->ask.max_tokens = command_number(state, "--output-tokens", arg, 1, 1 << 20);
        return 0;
    case KEY_IGNORE_EOS:
        o->ask.ignore_eos = true;
        return 0;
    case KEY_PROMPTS:
        o->prompts = arg;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct bench_options *o = state->input;

    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->globals;
        return 0;
    case KEY_URL:
        o->url = arg;
        return 0;
    case 'c':
        o->concurrency = command_number(state, "--concurrency", arg, 1, 65536);
        return 0;
    case 'r':
        o->rate = positive(state, "--rate", arg, 1e6);
        return 0;
    case 'n':
        o->requests = command_number(state, "--requests", arg, 1, REQUESTS_MAX);
        return 0;
    case KEY_DURATION:
        o->duration_s = positive(state, "--duration", arg, 1e6);
        return 0;
    case KEY_WARMUP:
        o->warmup = command_number(state, "--warmup", arg, 0, 100000);
        return 0;
    case KEY_TIMEOUT:
        o->timeout_s = (unsigned)command_number(state, "--timeout", arg, 1, 86400);
        return 0;
    case KEY_CSV:
        o->csv = arg;
        return 0;
    case 'j':
        o->json = true;
        return 0;
    case 'q':
        o->quiet = true;
        return 0;
    case ARGP_KEY_END:
        settle(o, state);
        return 0;
    default:
        return parse_asked(key, arg, state);
    }
}

static const struct argp_option bench_option_list[] = {
    { 0, 0, 0, 0, "The load:", 1 },
    { "concurrency", 'c', "N", 0,
      "So many requests run at once (default 8); with --rate: at most so many, others wait", 1 },
    { "rate", 'r', "R", 0, "R requests a second, at the times of a Poisson process", 1 },
    { "requests", 'n', "N", 0, "So many in all (default 100)", 1 },
    { "duration", KEY_DURATION, "S", 0, "None is sent after S seconds", 1 },
    { "warmup", KEY_WARMUP, "N", 0, "N requests before, which do not count", 1 },
    { "timeout", KEY_TIMEOUT, "S", 0, "A request that takes longer has failed (default 600)", 1 },
    { 0, 0, 0, 0, "The requests:", 2 },
    { "url", KEY_URL, "URL", 0, "Of the server (default: that of the local llmd)", 2 },
    { "api", KEY_API, "openai|chat|tgi", 0,
      "/v1/completions (default), /v1/chat/completions or /generate_stream", 2 },
    { "model", 'm', "NAME", 0, "Model to ask for (default: the first the server names)", 2 },
    { "prompts", KEY_PROMPTS, "FILE", 0,
      "Prompts in turn: a JSON object a line with prompt, inputs, text or messages; or lines of "
      "text",
      2 },
    { "input-tokens", KEY_INPUT, "N", 0, "Without a file: N random words each (default 128)", 2 },
    { "output-tokens", 'o', "N", 0, "Tokens of an answer at most (default 128)", 2 },
    { "ignore-eos", KEY_IGNORE_EOS, 0, 0, "Answers have exactly that many (llmd, vLLM)", 2 },
    { "temperature", 't', "T", 0, "0 (default): always the likeliest token", 2 },
    { "seed", 's', "S", 0, "Of arrivals, words and the server's sampler", 2 },
    { 0, 0, 0, 0, "The results:", 3 },
    { "json", 'j', 0, 0, "One JSON object; names as those of vLLM's bench serve", 3 },
    { "csv", KEY_CSV, "FILE", 0, "Write a row for each request to this file", 3 },
    { "quiet", 'q', 0, 0, "No progress bar", 3 },
    { 0 },
};
const struct argp bench_argp = {
    .options = bench_option_list,
    .parser = parse,
    .doc =
        "Put a server under load and measure it: time to the first token (TTFT), per token "
        "(TPOT), between tokens (ITL), to the end (E2EL), throughput, errors."
        "\vThe key in LLMD_API_KEY is sent when it is set. Ctrl-C ends the test and reports what "
        "has ended. Exit code 1 when any request failed. Latencies begin when a request was "
        "due, not when it could be sent. Proxies are not used.",
    .children = global_options,
};

int bench_command(int argc, char **argv, struct globals g)
{
    struct bench_options o = { .globals = g,
                               .ask = { .max_tokens = 128 },
                               .input_tokens = 128,
                               .random_seed = 1,
                               .timeout_s = 600 };
    struct bench b = { .o = &o, .stop_fd = -1 };
    struct err e = { 0 };
    int code;

    command_parse(&bench_argp, argc, argv, &o);
    b.prompts = (struct bench_prompts){ .words = o.input_tokens, .random = o.random_seed };
    b.arrivals = o.random_seed ^ 0x5851f42d4c957f2du;
    if (o.prompts && !bench_prompts_read(&b.prompts, o.prompts, &e)) {
        command_complain(&e);
        bench_prompts_fini(&b.prompts);
        return CTL_EXIT_USAGE;
    }
    raise_file_limit();
    b.stop_fd = terminal_catch_interrupt();
    code = run_all(&b, &e);
    http_pool_free(b.pool);
    forget_phase(&b);
    bench_prompts_fini(&b.prompts);
    close(b.stop_fd);
    return code;
}
