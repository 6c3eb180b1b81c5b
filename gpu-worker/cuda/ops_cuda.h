/* ops_cuda.h - the CUDA backend: the table of ops/ops.h on one GPU.
 *
 * Activations are float32.  What a call queues is a kernel or a few on the rank's one stream; begin() sends the step
 * over in one copy, finish() waits for it.  Numbers differ from the CPU's by rounding:
 *
 *   up to 8 rows, or always with `deterministic`   own kernels: float input, float sums, in an order that depends on
 *                                                  the columns alone
 *   more rows                                      cuBLASLt: the input is rounded to the type of the weights
 *                                                  (E4M3 where the GPU multiplies it; integers: f16), sums are float
 *                                                  in the library's order
 *   more than 64 rows, with `int8_products`        weights of int8 but the head: the input in int8 by row, the weights
 *                                                  rounded again to a scale a row where theirs differ, sums exact
 *   experts                                        the same by pairs of row and expert: more than 8 an expert by a kernel
 *                                                  of our own, with f16 input for E4M3
 *   attention                                      decode by splits of 512 positions, in full precision, on tensor cores
 *                                                  where a KV head has 4 queries or more; longer runs of rows by tensor
 *                                                  cores in half precision, not with `deterministic`
 *
 * Decode steps are rounded up to a few numbers of rows and, once a number has come often enough, recorded as
 * a graph, when the worker is idle if it ever is (design of the GPU backend, section 4.4). */
#ifndef LLMD_GPU_WORKER_CUDA_OPS_CUDA_H
#define LLMD_GPU_WORKER_CUDA_OPS_CUDA_H

#include "gpu-worker/cuda/device.h"
#include "gpu-worker/ops/ops.h"

struct exchange;

enum ops_cuda_graphs {
    GRAPHS_AFTER_SOME, /* a shape is recorded when it has come often enough (below) */
    GRAPHS_OFF,
};

struct ops_cuda_setup {
    struct device *device;     /* bound to the calling thread; borrowed until close() */
    struct exchange *exchange; /* what comm/ gathers with, asked by finish(); borrowed; or NULL */
    uint32_t rank,
        tp_size; /* with that; rank r has rows vocab_size * r / tp_size and on of the head */
    bool deterministic;
    bool int8_products; /* not with deterministic */
    enum ops_cuda_graphs graphs;
    uint64_t limit_ns; /* for a step; 0 = CUDA_STEP_LIMIT_NS */
};

/* llmd kills a worker whose step takes too long for what it has to do (board); this is for whoever is not watched. */
#define CUDA_STEP_LIMIT_NS (120 * 1000000000ull)

enum {
    CUDA_GRAPH_AFTER = 8, /* times that a shape comes before it is recorded, when nobody waits .. */
    CUDA_GRAPH_AFTER_BUSY = 96, /* .. or between the steps of a worker that is never idle */
    CUDA_GRAPH_ROWS_MAX = 128,
};

/* Whether the kernels can do it: ERR_CONFIG says what they cannot. */
bool ops_cuda_fits(const struct ops_setup *setup, struct err *e);

/* How a KV page lies in memory (kernels/kv_page.h). */
enum { CUDA_KV_PAGE_VERSION = 1 };
/* Bytes that a KV page of n_layers takes of a rank (kernels/kv_page.h). */
uint64_t ops_cuda_page_bytes(const struct ops_setup *setup, uint32_t n_layers);

/* Bytes of device memory of a stream with such a setup, on a GPU of any size. */
uint64_t ops_cuda_bytes(const struct ops_setup *setup);

/* The stream's own memory is allocated now, and never again.  setup->kv.pages is a device address.  NULL and
 * ERR_DEVICE or ERR_CONFIG. */
const struct ops *ops_cuda_open(const struct ops_cuda_setup *on, const struct ops_setup *setup,
                                struct ops_stream **stream, struct err *e);

/* From the next begin() on the exchange may hand large messages to NCCL, as every rank must do alike.  What is or may
 * be recorded never does: graphs outlive communicators. */
void ops_cuda_allow_nccl(struct ops_stream *s, bool allow);

/* Whether products are made in int8: it was asked for, and the GPU's library can. */
bool ops_cuda_has_int8_products(const struct ops_stream *s);

/* ---- what a stream has done, for tests and counters ---- */

struct ops_cuda_counts {
    uint64_t steps, recorded; /* recorded: graphs made */
    uint64_t replayed;        /* steps that were a graph */
};
struct ops_cuda_counts ops_cuda_counts(const struct ops_stream *s);

/* The stream that everything is queued on: comm/'s exchange and copies of pages go there too. */
struct device_stream *ops_cuda_stream(struct ops_stream *s);

#endif
