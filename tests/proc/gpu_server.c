/* gpu_server.c - see gpu_server.h. */
#include "tests/proc/gpu_server.h"

#include <signal.h>
#include <stdio.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/file.h"
#include "common/json.h"
#include "common/mem.h"
#include "tests/check.h"

enum { ARGS_MAX = 24, POLL_US = 2000 };

const struct checkpoint_spec gpu_server_small = { .architecture = "LlamaForCausalLM",
                                                  .hidden = 32,
                                                  .inner = 48,
                                                  .layers = 1,
                                                  .heads = 2,
                                                  .kv_heads = 2,
                                                  .head_dim = 16,
                                                  .vocab = 100,
                                                  .dtype = DTYPE_BF16,
                                                  .theta = 10000,
                                                  .n_files = 1 };

/* ---- setting up ---- */

int gpu_server_setup(void **state)
{
    struct gpu_server *g = mem_zalloc(1, sizeof *g);

    g->gpus = "gpus=2,memory=256m";
    g->patience_ms = 120000;
    unsetenv("LLMD_FAKE_NCCL"); /* of the test before */
    assert_true(state_folder_make(g->folder));
    *state = g;
    return 0;
}

int gpu_server_teardown(void **state)
{
    struct gpu_server *g = *state;

    if (g->runs)
        system_stop(&g->system);
    if (g->made.n > 0)
        checkpoint_remove(&g->made);
    assert_true(state_folder_remove(g->folder));
    free(g);
    return 0;
}

/* The tokenizer has more tokens than the model, which never says those. */
void gpu_server_make_model(struct gpu_server *g, const struct checkpoint_spec *spec)
{
    char *bytes;
    size_t n;

    checkpoint_make(&g->made, spec, 5);
    g->model = g->made.dir;
    assert_true(file_read(TEST_SOURCE_DIR "/tests/vectors/tokenizer/llama3/tokenizer.json", 1 << 20,
                          &bytes, &n, NULL));
    test_dir_write(g->model, "tokenizer.json", bytes, n);
    test_dir_write(g->model, "tokenizer_config.json", "{}", 2);
    free(bytes);
}

void gpu_server_set_faults(const struct gpu_server *g, const char *rules)
{
    assert_true(state_folder_set_faults(g->folder, rules));
}

/* ---- life ---- */

static void start(struct gpu_server *g, bool has_init, va_list more)
{
    const char *args[ARGS_MAX] = { "--device=cuda", "--start-timeout-s=120", "--model" };
    char settings[200];
    int n = 3;

    if (!g->model)
        gpu_server_make_model(g, &gpu_server_small);
    args[n++] = g->model;
    do
        assert_true(n < ARGS_MAX);
    while ((args[n++] = va_arg(more, const char *)));
    snprintf(settings, sizeof settings, "%s,state=%s,faults=%s/faults", g->gpus, g->folder,
             g->folder);
    setenv("LLMD_FAKE_CUDA", settings, 1);
    (has_init ? system_start_below_init : system_start)(&g->system, args);
    g->runs = true;
}

void gpu_server_start(struct gpu_server *g, ...)
{
    va_list more;

    va_start(more, g);
    start(g, false, more);
    va_end(more);
}

void gpu_server_start_below_init(struct gpu_server *g, ...)
{
    va_list more;

    va_start(more, g);
    start(g, true, more);
    va_end(more);
}

uint64_t gpu_server_deadline_ns(const struct gpu_server *g)
{
    return clock_mono_ns() + (uint64_t)g->patience_ms * NS_PER_MS;
}

/* Pieces of memory and living processes. */
static int count_left(const struct gpu_server *g)
{
    int n_pieces = state_folder_count_pieces(g->folder);
    int n_processes = state_folder_count_processes(g->folder);

    assert_true(n_pieces >= 0 && n_processes >= 0);
    return n_pieces + n_processes;
}

void gpu_server_stop(struct gpu_server *g)
{
    uint64_t end_ns;

    g->runs = false;
    assert_int_equal(system_stop(&g->system), 0);
    end_ns = gpu_server_deadline_ns(g);
    while (count_left(g) > 0) {
        if (clock_mono_ns() > end_ns)
            fail_msg("%d pieces of GPU memory or processes are left", count_left(g));
        usleep(POLL_US);
    }
}

void gpu_server_kill(const struct gpu_server *g, const char *process)
{
    pid_t pid = system_pid_of(&g->system, process);

    assert_true(pid > 0);
    kill(pid, SIGKILL);
}

/* ---- questions ---- */

static void begin(const struct gpu_server *g, struct exchange *x, const struct question *q)
{
    struct buf body = { 0 };

    buf_add_str(&body, "{\"prompt\":[");
    for (uint32_t i = 0; i < q->n_prompt; i++)
        buf_printf(&body, "%s%d", i ? "," : "", (int)q->prompt[i]);
    buf_printf(&body,
               "],\"max_tokens\":%u,\"temperature\":0,\"ignore_eos\":true,\"stream\":%s,"
               "\"return_token_ids\":true}",
               q->n_answer, q->is_streamed ? "true" : "false");
    *x = (struct exchange){ 0 };
    exchange_start(x, g->system.port, "/v1/completions", "Content-Type: application/json\r\n",
                   body.data);
    buf_fini(&body);
}

void gpu_server_begin(const struct gpu_server *g, struct exchange *x, const struct question *q,
                      size_t n)
{
    for (size_t i = 0; i < n; i++)
        begin(g, &x[i], &q[i]);
}

struct answer {
    struct buf ids, text;
    size_t n_tokens;
};

/* A whole answer, or one event of a stream. */
static void add_piece(struct answer *a, const char *json, size_t n)
{
    json_t *piece = json_loadb(json, n, JSON_ALLOW_NUL, NULL), *choice, *ids, *id;
    size_t i;

    if (!piece)
        fail_msg("no JSON in an answer: %.*s", (int)n, json);
    choice = json_array_get(json_object_get(piece, "choices"), 0);
    ids = json_object_get(choice, "token_ids");
    if (json_is_string(json_object_get(choice, "text")))
        buf_add(&a->text, json_string_value(json_object_get(choice, "text")),
                json_string_length(json_object_get(choice, "text")));
    json_array_foreach (ids, i, id)
        buf_printf(&a->ids, " %d", (int)json_integer_value(id));
    a->n_tokens += json_array_size(ids);
    json_decref(piece);
}

static void add_stream(struct answer *a, const char *body)
{
    bool ended = false;

    for (const char *at = strstr(body, "data: "); at; at = strstr(at, "data: ")) {
        size_t n = strcspn(at += 6, "\r\n");
        ended = strncmp(at, "[DONE]", 6) == 0;
        if (!ended)
            add_piece(a, at, n);
        at += n;
    }
    assert_true(ended);
}

static char *take_answer(struct exchange *x, const struct question *q)
{
    struct answer a = { .n_tokens = 0 };

    assert_true(exchange_finish(x));
    if (x->status != 200)
        fail_msg("status %d: %s", x->status, x->body.data ? x->body.data : "");
    if (q->is_streamed)
        add_stream(&a, x->body.data);
    else
        add_piece(&a, x->body.data, x->body.n);
    if (a.n_tokens != q->n_answer)
        fail_msg("%zu tokens in '%s'", a.n_tokens, x->body.data);
    http_exchange_close(x);
    buf_add_str(&a.ids, ": ");
    buf_add(&a.ids, a.text.data, a.text.n);
    buf_fini(&a.text);
    return buf_take(&a.ids);
}

void gpu_server_finish(const struct gpu_server *g, struct exchange *x, const struct question *q,
                       char **answers, size_t n)
{
    assert_true(exchanges_run(x, n, g->patience_ms));
    for (size_t i = 0; i < n; i++)
        answers[i] = take_answer(&x[i], &q[i]);
}

void gpu_server_ask_all(const struct gpu_server *g, const struct question *q, char **answers,
                        size_t n)
{
    struct exchange *x = mem_zalloc(n, sizeof *x);

    gpu_server_begin(g, x, q, n);
    gpu_server_finish(g, x, q, answers, n);
    free(x);
}

char *gpu_server_ask(const struct gpu_server *g, const struct question *q)
{
    char *answer;

    gpu_server_ask_all(g, q, &answer, 1);
    return answer;
}

void gpu_server_expect(const struct gpu_server *g, const struct question *q, const char *expected)
{
    char *answer = gpu_server_ask(g, q);

    assert_string_equal(answer, expected);
    free(answer);
}

/* ---- counters ---- */

double gpu_server_metric(const struct gpu_server *g, const char *name)
{
    return system_metric(&g->system, name, "");
}

void gpu_server_wait_metric(const struct gpu_server *g, const char *name, double at_least)
{
    uint64_t end_ns = gpu_server_deadline_ns(g);

    while (gpu_server_metric(g, name) < at_least) {
        if (clock_mono_ns() > end_ns)
            fail_msg("%s is %g, waiting for %g", name, gpu_server_metric(g, name), at_least);
        usleep(POLL_US);
    }
}
