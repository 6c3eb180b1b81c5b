/* tensors.c - see tensors.h.  Called at start-up only. */
#include "gpu-worker/load/tensors.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gpu-worker/load/gguf_tensors.h"
#include "gpu-worker/load/packed_matrix.h"
#include "gpu-worker/load/packed_tensors.h"
#include "gpu-worker/load/safetensors.h"

static int by_name(const void *a, const void *b)
{
    const struct tensor *x = a, *y = b;

    return strcmp(x->name, y->name);
}

bool tensors_sort(struct tensors *ts, struct err *e)
{
    if (ts->n_tensors > 0)
        qsort(ts->tensors, ts->n_tensors, sizeof *ts->tensors, by_name);
    for (uint32_t i = 1; i < ts->n_tensors; i++)
        if (strcmp(ts->tensors[i - 1].name, ts->tensors[i].name) == 0)
            return err_set(e, ERR_MODEL, 0, "tensor '%.80s' is in '%.60s' and in '%.60s'",
                           ts->tensors[i].name, ts->files[ts->tensors[i - 1].file].name,
                           ts->files[ts->tensors[i].file].name);
    return true;
}

bool tensors_map_file(struct tensors *ts, const char *dir, uint32_t file, struct err *e)
{
    struct tensors_file *f = &ts->files[file];
    void *map = MAP_FAILED;
    char path[1400];
    struct stat s;
    int fd;

    snprintf(path, sizeof path, "%s/%s", dir, f->name);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_set(e, ERR_SYS, errno, "open '%s'", path);
    if (fstat(fd, &s) < 0)
        err_set(e, ERR_SYS, errno, "stat '%s'", path);
    else if (!S_ISREG(s.st_mode) || s.st_size == 0)
        err_set(e, ERR_MODEL, 0, "'%s' is empty or not a regular file", path);
    else if ((map = mmap(NULL, (size_t)s.st_size, PROT_READ, MAP_PRIVATE, fd, 0)) == MAP_FAILED)
        err_set(e, ERR_SYS, errno, "map '%s'", path);
    close(fd);
    if (map == MAP_FAILED)
        return false;
    f->map = map;
    f->bytes = (uint64_t)s.st_size;
    f->mtime_ns = (int64_t)s.st_mtim.tv_sec * 1000000000 + s.st_mtim.tv_nsec;
    return true;
}

static struct tensors *open_directory(const char *dir, struct err *e)
{
    struct quantization q;
    struct tensors *ts = quantization_read(&q, dir, e) ? safetensors_open(dir, e) : NULL;

    if (!ts || packed_tensors_join(ts, &q, e))
        return ts;
    err_wrap(e, "model directory '%s'", dir);
    tensors_close(ts);
    return NULL;
}

struct tensors *tensors_open(const char *path, struct err *e)
{
    struct tensors *ts;
    char *gguf;

    if (!gguf_locate(path, &gguf, e))
        return NULL;
    ts = gguf ? gguf_tensors_open(gguf, e) : open_directory(path, e);
    free(gguf);
    return ts;
}

void tensors_close(struct tensors *ts)
{
    if (!ts)
        return;
    for (uint32_t i = 0; i < ts->n_tensors; i++) {
        free(ts->tensors[i].name);
        free(ts->tensors[i].packed);
    }
    for (uint32_t i = 0; i < ts->n_files; i++) {
        if (ts->files[i].map)
            munmap(ts->files[i].map, ts->files[i].bytes);
        free(ts->files[i].name);
    }
    free(ts->tensors);
    free(ts->files);
    free(ts);
}

const struct tensor *tensors_find(const struct tensors *ts, const char *name)
{
    struct tensor key = { .name = (char *)name };

    if (ts->n_tensors == 0)
        return NULL;
    return bsearch(&key, ts->tensors, ts->n_tensors, sizeof key, by_name);
}

const void *tensor_row(const struct tensor *t, uint64_t row)
{
    uint64_t cols = t->n_dims > 1 ? t->dims[1] : 1, head = t->paired_rows;

    if (head > 0) {
        uint64_t i = row % head, half = head / 2;
        row += (i < half ? 2 * i : 2 * (i - half) + 1) - i;
    }
    return (const char *)t->data + row * tensor_type_bytes(t->type, cols);
}

static struct packed_part packed_part(struct tensor_part p)
{
    return (struct packed_part){ (uint32_t)p.row, p.n_rows, p.col, p.n_cols };
}

static const char *row_from(const struct tensor *t, uint64_t row, uint32_t col)
{
    return (const char *)tensor_row(t, row) + tensor_type_bytes(t->type, col);
}

void tensor_to_float(const struct tensor *t, struct tensor_part part, float *y)
{
    if (t->packed)
        packed_matrix_floats(t->packed, packed_part(part), y);
    else
        for (uint32_t r = 0; r < part.n_rows; r++)
            tensor_type_to_float(t->type, y + (size_t)r * part.n_cols,
                                 row_from(t, part.row + r, part.col), part.n_cols);
}

void tensor_to_codes(const struct tensor *t, struct tensor_part part, int8_t *codes,
                     uint16_t *numbers)
{
    /* of a row: types whose blocks lie in the file have whole ones */
    size_t n = (size_t)part.n_cols / TENSOR_TYPE_CODES_GROUP * tensor_type_numbers(t->type);

    if (t->packed)
        packed_matrix_codes(t->packed, packed_part(part), tensor_type_numbers(t->type) == 2, codes,
                            numbers);
    else
        for (uint32_t r = 0; r < part.n_rows; r++)
            tensor_type_to_codes(t->type, codes + (size_t)r * part.n_cols, numbers + r * n,
                                 row_from(t, part.row + r, part.col), part.n_cols);
}
