/* model.c - see model.h. */
#include "gpu-worker/cuda/verify/model.h"

#include <stdio.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "bench/random_gguf.h"
#include "common/nvml.h"

enum { SEED = 8, BYTES_A_WEIGHT = 2, LAYERS_LEAST = 4 };

static const struct shape served = { "verify-served", 8, 2048, 5632, 16, 16, 128, 8192, 4096 };
static const struct shape served_dry = { "verify-served-dry", 1, 32, 64, 2, 2, 16, 512, 512 };
/* The positions of the longest context and the steps behind it. */
static const struct shape timed = { "verify-7b", 32, 4096, 11008, 32, 32, 128, 32000, 8192 };
static const struct shape timed_dry = { "verify-7b-dry", 1, 32, 64, 2, 2, 16, 512, 512 };

const struct shape *model_served_shape(const struct verify *v)
{
    return v->is_dry_run ? &served_dry : &served;
}

double model_file_weights(const struct shape *shape)
{
    return shape_matrix_weights(shape) + (double)shape->vocab_size * shape->n_embd;
}

/* Bytes that a model may have: nine tenths of the scratch folder's, half of the GPU's. */
static double room(const struct verify *v)
{
    struct nvml_state s;
    struct statvfs disk;
    struct err e = { 0 };
    double bytes = 0;

    if (statvfs(v->scratch, &disk) == 0)
        bytes = 0.9 * (double)disk.f_bavail * (double)disk.f_frsize;
    if (nvml_read(v->uuid, &s, &e) && 0.5 * (double)s.total_bytes < bytes)
        bytes = 0.5 * (double)s.total_bytes;
    return bytes;
}

struct shape model_timed_shape(const struct verify *v)
{
    struct shape shape = v->is_dry_run ? timed_dry : timed;
    double bytes = room(v);

    while (!v->is_dry_run && shape.n_layers > LAYERS_LEAST &&
           model_file_weights(&shape) * BYTES_A_WEIGHT > bytes)
        shape.n_layers -= LAYERS_LEAST;
    return shape;
}

bool model_make(const struct verify *v, const struct shape *shape, char path[MODEL_PATH_BYTES],
                struct item_report *r)
{
    const struct random_model model = { .shape = shape,
                                        .type = weight_type_find("f16"),
                                        .seed = SEED };
    struct err e = { 0 };
    struct stat there;

    snprintf(path, MODEL_PATH_BYTES, "%s/%s.gguf", v->scratch, shape->name);
    if (stat(path, &there) == 0 || random_gguf_write(&model, path, &e))
        return true;
    report_failure(r, "%s", e.msg);
    return false;
}
