/* llamacpp_api.h - the part of llama.cpp's C interface that the comparison calls, declared by us.
 *
 * The structs must fit one version of the library byte for byte: LLAMACPP_VERSION, the one that npm package
 * node-llama-cpp 3.22.1 carries (its gitRelease.bundle has the documented headers, include/llama.h and
 * ggml/include/ggml.h).  engine_llamacpp.c refuses any other version, and looks whether the default values
 * lie where they must.  Default structs come from the library and are changed field by field.
 *
 * They are passed by value; `reserve` makes ours larger than theirs, so that a library whose structs have
 * grown cannot write past ours before the version is known. */
#ifndef LLMD_BENCH_COMPARE_LLAMACPP_API_H
#define LLMD_BENCH_COMPARE_LLAMACPP_API_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { LLAMACPP_CPUS_MAX = 512, LLAMACPP_RESERVE = 256 };

enum llamacpp_constants {
    LLAMACPP_LOG_WARN = 3,
    LLAMACPP_LOG_ERROR = 4,
    LLAMACPP_FLASH_AUTO = -1,
    LLAMACPP_TYPE_F16 = 1,
    LLAMACPP_LOAD_AUTO = -1,
    LLAMACPP_LOAD_MMAP = 1,
};

struct llamacpp_model_params {
    void *devices;
    const void *tensor_buft_overrides;
    int32_t n_gpu_layers;
    int split_mode, load_mode, lazy_mode;
    int32_t main_gpu;
    const float *tensor_split;
    void *progress_callback, *progress_callback_user_data;
    const void *kv_overrides;
    bool vocab_only, check_tensors, use_extra_bufts, no_host, no_alloc, load_mtp;
    char reserve[LLAMACPP_RESERVE];
};

struct llamacpp_context_params {
    uint32_t n_ctx, n_batch, n_ubatch, n_seq_max, n_rs_seq;
    uint32_t n_outputs_max, n_outputs_max_per_seq;
    int32_t n_threads, n_threads_batch;
    int ctx_type, rope_scaling_type, pooling_type, attention_type, flash_attn_type;
    float rope_freq_base, rope_freq_scale;
    float yarn_ext_factor, yarn_attn_factor, yarn_beta_fast, yarn_beta_slow;
    uint32_t yarn_orig_ctx;
    float defrag_thold;
    void *cb_eval, *cb_eval_user_data;
    int type_k, type_v;
    void *abort_callback, *abort_callback_data;
    bool embeddings, offload_kqv, no_perf, op_offload, swa_full, kv_unified;
    void *samplers;
    size_t n_samplers;
    void *ctx_other;
    char reserve[LLAMACPP_RESERVE];
};

struct llamacpp_batch {
    int32_t n_tokens;
    int32_t *token;
    float *embd;
    int32_t *pos;
    int32_t *n_seq_id;
    int32_t **seq_id;
    int8_t *logits;
};

struct llamacpp_threadpool_params {
    bool cpumask[LLAMACPP_CPUS_MAX];
    int n_threads;
    int prio;
    uint32_t poll; /* 0..100: how long a waiting thread spins */
    bool strict_cpu, paused;
};

typedef void llamacpp_log_fn(int level, const char *text, void *arg);

/* CALL(result, name, arguments): every function, looked up in the library by this name. */
#define LLAMACPP_CALLS(CALL)                                                                       \
    CALL(const char *, llama_version, (void))                                                      \
    CALL(void, llama_log_set, (llamacpp_log_fn *, void *))                                         \
    CALL(void, llama_backend_init, (void))                                                         \
    CALL(struct llamacpp_model_params, llama_model_default_params, (void))                         \
    CALL(struct llamacpp_context_params, llama_context_default_params, (void))                     \
    CALL(void *, llama_model_load_from_file, (const char *, struct llamacpp_model_params))         \
    CALL(void, llama_model_free, (void *))                                                         \
    CALL(void *, llama_init_from_model, (void *, struct llamacpp_context_params))                  \
    CALL(void, llama_free, (void *))                                                               \
    CALL(void *, llama_get_memory, (void *))                                                       \
    CALL(bool, llama_memory_seq_rm, (void *, int32_t, int32_t, int32_t))                           \
    CALL(int32_t, llama_decode, (void *, struct llamacpp_batch))                                   \
    CALL(void, llama_synchronize, (void *))                                                        \
    CALL(float *, llama_get_logits_ith, (void *, int32_t))                                         \
    CALL(void, llama_attach_threadpool, (void *, void *, void *))                                  \
    CALL(void *, llama_model_get_vocab, (const void *))                                            \
    CALL(int32_t, llama_vocab_n_tokens, (const void *))                                            \
    CALL(const char *, llama_print_system_info, (void))                                            \
    CALL(void, ggml_backend_load_all_from_path, (const char *))                                    \
    CALL(void *, ggml_backend_reg_by_name, (const char *))                                         \
    CALL(void *, ggml_backend_reg_get_proc_address, (void *, const char *))                        \
    CALL(struct llamacpp_threadpool_params, ggml_threadpool_params_default, (int))

struct llamacpp_api {
#define CALL(result, name, arguments) result(*name) arguments;
    LLAMACPP_CALLS(CALL)
#undef CALL
    /* of the CPU backend, found through ggml_backend_reg_get_proc_address() */
    void *(*threadpool_new)(struct llamacpp_threadpool_params *);
    void (*threadpool_free)(void *);
};

#endif
