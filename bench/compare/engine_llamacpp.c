/* engine_llamacpp.c - llama.cpp's own shared library, loaded at run time and used as well as it can be.
 *
 * Loaded with dlopen, never linked: nothing of it is part of the build.  Its own loader picks the CPU
 * variant with the highest score for this machine, from the folder of the library.  Set as its own
 * programs set it, where that is the faster choice: a thread pool that outlives the step (its llama-bench
 * and server attach one), flash attention "auto", K and V in f16, weights repacked where it knows how (extra
 * buffer types), the file mapped, n_batch and n_ubatch 512.
 *
 * Two contexts share the model: one for a lone sequence, and one for many.  With shared_kv the second has
 * one buffer for all sequences, as llama.cpp's server has it; without, one for each, which its header
 * recommends for sequences that share no prefix. */
#include <dlfcn.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/compare/engine.h"
#include "bench/compare/llamacpp_api.h"
#include "common/mem.h"

#define LLAMACPP_VERSION "0.5.0"

struct engine {
    struct llamacpp_api api;
    void *model, *alone, *many; /* contexts */
    void *threadpool;
    int32_t seq_ids[ENGINE_ROWS_MAX], *seq_lists[ENGINE_ROWS_MAX];
    int32_t tokens[ENGINE_ROWS_MAX], positions[ENGINE_ROWS_MAX], seq_counts[ENGINE_ROWS_MAX];
    int8_t wanted[ENGINE_ROWS_MAX];
    uint32_t vocab_size;
    char loaded[128]; /* what its loader said of the CPU backend */
};

/* ---- the library ---- */

/* Keep the line about the CPU variant; print warnings and errors. */
static void on_log(int level, const char *text, void *arg)
{
    struct engine *g = arg;
    const char *file = strstr(text, "libggml-cpu-");

    if (file && !g->loaded[0])
        snprintf(g->loaded, sizeof g->loaded, "%.*s", (int)strcspn(file + 12, ".\n"), file + 12);
    if (level == LLAMACPP_LOG_ERROR)
        fprintf(stderr, "llama.cpp: %s", text);
}

static void *open_object(const char *folder, const char *name, struct err *e)
{
    char path[4096];
    void *object;

    snprintf(path, sizeof path, "%s/%s", folder, name);
    object = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
    if (!object)
        err_set(e, ERR_CONFIG, 0, "llama.cpp: %s", dlerror());
    return object;
}

/* ISO C has no cast from an object's address to a function's; POSIX says that the bytes are the same. */
static bool find_call(void *const objects[], uint32_t n, const char *name, void *call,
                      struct err *e)
{
    for (uint32_t i = 0; i < n; i++) {
        void *at = dlsym(objects[i], name);
        if (at) {
            memcpy(call, &at, sizeof at);
            return true;
        }
    }
    return err_set(e, ERR_CONFIG, 0, "llama.cpp: no function '%s' in the library", name);
}

static bool find_calls(struct llamacpp_api *api, const char *folder, struct err *e)
{
    static const char *const names[] = { "libggml-base.so", "libggml.v" LLAMACPP_VERSION ".so",
                                         "libllama.v" LLAMACPP_VERSION ".so" };
    void *objects[3];

    for (int i = 0; i < 3; i++) {
        objects[i] = open_object(folder, names[i], e);
        if (!objects[i])
            return false;
    }
#define CALL(result, name, arguments)                                                              \
    if (!find_call(objects, 3, #name, &api->name, e))                                              \
        return false;
    LLAMACPP_CALLS(CALL)
#undef CALL
    return true;
}

/* Do our structs fit?  Fields from the first to the last have the documented defaults. */
static bool structs_fit(const struct llamacpp_api *api, struct err *e)
{
    struct llamacpp_model_params m = api->llama_model_default_params();
    struct llamacpp_context_params c = api->llama_context_default_params();
    struct llamacpp_threadpool_params t = api->ggml_threadpool_params_default(3);

    if (!strstr(api->llama_version(), LLAMACPP_VERSION))
        return err_set(e, ERR_CONFIG, 0, "llama.cpp: version '%s', wanted %s", api->llama_version(),
                       LLAMACPP_VERSION);
    if (m.n_gpu_layers != -1 || m.load_mode != LLAMACPP_LOAD_AUTO || m.vocab_only ||
        !m.use_extra_bufts || m.no_alloc || c.n_ctx != 512 || c.n_batch != 2048 ||
        c.n_ubatch != 512 || c.n_seq_max != 1 || c.flash_attn_type != LLAMACPP_FLASH_AUTO ||
        c.type_k != LLAMACPP_TYPE_F16 || c.type_v != LLAMACPP_TYPE_F16 || c.embeddings ||
        !c.offload_kqv || !c.swa_full || c.samplers || c.n_samplers || c.ctx_other ||
        t.n_threads != 3 || t.poll != 50 || t.strict_cpu || t.paused)
        return err_set(e, ERR_CONFIG, 0, "llama.cpp: its parameters do not lie where they must");
    return true;
}

static void find_cpu_call(const struct llamacpp_api *api, void *cpu, const char *name, void *call)
{
    void *at = api->ggml_backend_reg_get_proc_address(cpu, name);

    memcpy(call, &at, sizeof at);
}

static bool load_library(struct engine *g, const char *folder, struct err *e)
{
    void *cpu;

    if (!find_calls(&g->api, folder, e) || !structs_fit(&g->api, e))
        return false;
    g->api.llama_log_set(on_log, g);
    g->api.ggml_backend_load_all_from_path(folder);
    g->api.llama_backend_init();
    cpu = g->api.ggml_backend_reg_by_name("CPU");
    if (!cpu)
        return err_set(e, ERR_CONFIG, 0, "llama.cpp: no CPU backend in '%s'", folder);
    find_cpu_call(&g->api, cpu, "ggml_threadpool_new", &g->api.threadpool_new);
    find_cpu_call(&g->api, cpu, "ggml_threadpool_free", &g->api.threadpool_free);
    if (!g->api.threadpool_new || !g->api.threadpool_free)
        return err_set(e, ERR_CONFIG, 0, "llama.cpp: its CPU backend has no thread pool");
    return true;
}

/* ---- model and contexts ---- */

static void *new_threadpool(const struct engine *g, const struct engine_options *o)
{
    struct llamacpp_threadpool_params p = g->api.ggml_threadpool_params_default((int)o->n_threads);
    cpu_set_t allowed;

    if (o->pinned && sched_getaffinity(0, sizeof allowed, &allowed) == 0) {
        uint32_t n = 0;
        for (int i = 0; i < LLAMACPP_CPUS_MAX && i < CPU_SETSIZE && n < o->n_threads; i++)
            if (CPU_ISSET(i, &allowed)) {
                p.cpumask[i] = true;
                n++;
            }
        p.strict_cpu = true;
    }
    return g->api.threadpool_new(&p);
}

static void *new_context(struct engine *g, const struct engine_options *o, uint32_t n_seqs,
                         uint32_t tokens, bool shared_kv)
{
    struct llamacpp_context_params p = g->api.llama_context_default_params();
    void *context;

    p.n_ctx = n_seqs * ((tokens + 255) / 256 * 256); /* it rounds up to 256 a sequence itself */
    if (shared_kv)
        p.n_ctx = n_seqs * tokens;
    p.n_batch = ENGINE_ROWS_MAX;
    p.n_ubatch = ENGINE_ROWS_MAX;
    p.n_seq_max = n_seqs;
    p.n_threads = p.n_threads_batch = (int32_t)o->n_threads;
    p.kv_unified = shared_kv;
    context = g->api.llama_init_from_model(g->model, p);
    if (context)
        g->api.llama_attach_threadpool(context, g->threadpool, NULL);
    return context;
}

static bool load_model(struct engine *g, const struct engine_options *o, struct err *e)
{
    struct llamacpp_model_params p = g->api.llama_model_default_params();

    p.load_mode = LLAMACPP_LOAD_MMAP;
    p.n_gpu_layers = 0;
    g->model = g->api.llama_model_load_from_file(o->model, p);
    if (!g->model)
        return err_set(e, ERR_MODEL, 0, "llama.cpp cannot load '%s'", o->model);
    g->threadpool = new_threadpool(g, o);
    g->alone = new_context(g, o, 1, o->tokens_alone, false);
    g->many = new_context(g, o, o->seqs_max, o->tokens_a_seq, o->shared_kv);
    if (!g->threadpool || !g->alone || !g->many)
        return err_set(e, ERR_MODEL, 0, "llama.cpp cannot make a context for '%s'", o->model);
    g->vocab_size = (uint32_t)g->api.llama_vocab_n_tokens(g->api.llama_model_get_vocab(g->model));
    return true;
}

static void describe(const struct engine *g, const struct engine_options *o,
                     struct engine_info *info)
{
    snprintf(info->version, sizeof info->version, "llama.cpp %s", g->api.llama_version());
    snprintf(info->variant, sizeof info->variant,
             "%s, repacked weights, flash attention auto, KV f16 %s, n_batch 512, %s",
             g->loaded[0] ? g->loaded : "cpu", o->shared_kv ? "shared" : "a buffer a sequence",
             o->pinned ? "pinned" : "not pinned");
    info->vocab_size = g->vocab_size;
}

static void llamacpp_close(struct engine *g)
{
    if (!g)
        return;
    if (g->alone)
        g->api.llama_free(g->alone);
    if (g->many)
        g->api.llama_free(g->many);
    if (g->model)
        g->api.llama_model_free(g->model);
    if (g->threadpool)
        g->api.threadpool_free(g->threadpool);
    free(g);
}

static struct engine *llamacpp_open(const struct engine_options *o, struct engine_info *info,
                                    struct err *e)
{
    struct engine *g = mem_zalloc(1, sizeof *g);

    for (int i = 0; i < ENGINE_ROWS_MAX; i++) {
        g->seq_lists[i] = &g->seq_ids[i];
        g->seq_counts[i] = 1;
    }
    if (!load_library(g, o->library, e) || !load_model(g, o, e)) {
        llamacpp_close(g);
        return NULL;
    }
    describe(g, o, info);
    return g;
}

/* ---- steps ---- */

static void llamacpp_rewind(struct engine *g, uint32_t seq, uint32_t start)
{
    void *context = seq == SEQ_ALONE ? g->alone : g->many;

    g->api.llama_memory_seq_rm(g->api.llama_get_memory(context),
                               seq == SEQ_ALONE ? 0 : (int32_t)seq, (int32_t)start, -1);
}

static int32_t add_rows(struct engine *g, const struct step_part *p, int32_t n)
{
    for (uint32_t i = 0; i < p->n_rows; i++, n++) {
        g->tokens[n] = p->tokens[i];
        g->positions[n] = (int32_t)(p->start + i);
        g->seq_ids[n] = p->seq == SEQ_ALONE ? 0 : (int32_t)p->seq;
        g->wanted[n] = i + 1 == p->n_rows;
    }
    return n;
}

static bool llamacpp_step(struct engine *g, const struct step_part *parts, uint32_t n_parts,
                          const float *logits[], struct err *e)
{
    void *context = parts[0].seq == SEQ_ALONE ? g->alone : g->many;
    struct llamacpp_batch b = { .token = g->tokens,
                                .pos = g->positions,
                                .n_seq_id = g->seq_counts,
                                .seq_id = g->seq_lists,
                                .logits = g->wanted };
    int32_t status;

    for (uint32_t i = 0; i < n_parts; i++)
        b.n_tokens = add_rows(g, &parts[i], b.n_tokens);
    status = g->api.llama_decode(context, b);
    if (status)
        return err_set(e, ERR_DEVICE, 0, "llama_decode() gives %d", status);
    g->api.llama_synchronize(context);
    for (uint32_t i = 0, row = 0; i < n_parts; i++) {
        row += parts[i].n_rows;
        logits[i] = g->api.llama_get_logits_ith(context, (int32_t)row - 1);
    }
    return true;
}

const struct engine_class engine_llamacpp = { "llama.cpp", llamacpp_open, llamacpp_close,
                                              llamacpp_rewind, llamacpp_step };
