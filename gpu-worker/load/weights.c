/* weights.c - plan, fill, commit and map a weights segment.
 *
 *   EMPTY ---> LOADING ---> COMMITTED     a loader that dies leaves LOADING; the next one starts over
 *
 * After COMMITTED the loader's own writable mapping is dropped and the descriptor sealed against new
 * ones, so a stray write of any worker faults at the culprit instead of damaging what all share. */
#include "gpu-worker/load/weights.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/mem.h"
#include "gpu-worker/ops/half.h"

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010 /* Linux 5.1 */
#endif

static_assert(sizeof(struct weights_hdr) <= WEIGHTS_TENSORS_OFFSET, "the table follows the header");

/* ---- plan ---- */

void weights_plan_fini(struct weights_plan *p)
{
    free(p->tensors);
    *p = (struct weights_plan){ 0 };
}

static bool check_source(const struct safetensors_tensor *t, const struct weights_source *s,
                         uint64_t cols, struct err *e)
{
    uint32_t n_dims = cols > 0 ? 2 : 1;

    if (!t)
        return err_set(e, ERR_MODEL, 0, "tensor '%.80s' is missing", s->name);
    if (t->dtype == DTYPE_NONE)
        return err_set(e, ERR_MODEL, 0, "tensor '%.80s' is %s; wanted F32, F16 or BF16", s->name,
                       t->dtype_text);
    if (t->n_dims != n_dims || t->dims[0] != s->rows || (cols > 0 && t->dims[1] != cols)) {
        char found[64] = "a scalar", wanted[64];
        if (t->n_dims == 1)
            snprintf(found, sizeof found, "[%llu]", (unsigned long long)t->dims[0]);
        else if (t->n_dims > 1)
            snprintf(found, sizeof found, "[%llu, %llu%s]", (unsigned long long)t->dims[0],
                     (unsigned long long)t->dims[1], t->n_dims > 2 ? ", ..." : "");
        if (cols > 0)
            snprintf(wanted, sizeof wanted, "[%llu, %llu]", (unsigned long long)s->rows,
                     (unsigned long long)cols);
        else
            snprintf(wanted, sizeof wanted, "[%llu]", (unsigned long long)s->rows);
        return err_set(e, ERR_MODEL, 0, "tensor '%.80s' has shape %s, the configuration wants %s",
                       s->name, found, wanted);
    }
    return true;
}

bool weights_plan_add(struct weights_plan *p, const struct safetensors *st, const char *name,
                      const struct weights_source *sources, uint32_t n, uint64_t cols,
                      struct err *e)
{
    struct weights_want want = { .n_parts = n };
    struct weights_tensor *t = &want.entry;

    assert(n >= 1 && n <= WEIGHTS_PARTS_MAX && strlen(name) < sizeof t->name);
    snprintf(t->name, sizeof t->name, "%s", name);
    t->cols = cols > 0 ? cols : 1;
    for (uint32_t i = 0; i < n; i++) {
        const struct weights_source *s = &sources[i];
        const struct safetensors_tensor *from = safetensors_find(st, s->name);
        if (!check_source(from, s, cols, e))
            return false;
        assert(s->first <= s->rows && s->count <= s->rows - s->first);
        if (i > 0 && cols > 0 && from->dtype != t->dtype)
            return err_set(
                e, ERR_MODEL, 0, "tensors '%.60s' and '%.60s' are used as one, but are %s and %s",
                sources[0].name, s->name, want.parts[0].from->dtype_text, from->dtype_text);
        t->dtype = cols > 0 ? from->dtype : DTYPE_F32;
        t->rows += s->count;
        want.parts[i] = (struct weights_part){ from, s->first, s->count };
    }
    t->bytes = dtype_bytes(t->dtype, t->rows * t->cols);
    t->offset = p->data_bytes;
    p->data_bytes += (t->bytes + 63) / 64 * 64;
    if (p->n == p->cap) {
        p->cap = p->cap ? p->cap * 2 : 64;
        p->tensors = mem_realloc(p->tensors, p->cap * sizeof *p->tensors);
    }
    p->tensors[p->n++] = want;
    return true;
}

static uint64_t data_offset(const struct weights_plan *p)
{
    uint64_t table_end = WEIGHTS_TENSORS_OFFSET + (uint64_t)p->n * sizeof(struct weights_tensor);

    return (table_end + WEIGHTS_DATA_ALIGN - 1) / WEIGHTS_DATA_ALIGN * WEIGHTS_DATA_ALIGN;
}

uint64_t weights_plan_segment_bytes(const struct weights_plan *p)
{
    return data_offset(p) + p->data_bytes;
}

struct hash128 weights_layout_hash(const struct weights_plan *p, const struct safetensors *st,
                                   struct hash128 config, uint32_t rank, uint32_t tp_size,
                                   uint32_t packing)
{
    struct buf text = { 0 };
    struct hash128 h;

    buf_printf(&text, "version %d packing %u rank %u of %u config %llx %llx\n", WEIGHTS_VERSION,
               packing, rank, tp_size, (unsigned long long)config.low,
               (unsigned long long)config.high);
    for (uint32_t i = 0; i < st->n_files; i++)
        buf_printf(&text, "file %s %llu %lld\n", st->files[i].name,
                   (unsigned long long)st->files[i].bytes, (long long)st->files[i].mtime_ns);
    for (uint32_t i = 0; i < p->n; i++)
        buf_add(&text, &p->tensors[i].entry, sizeof p->tensors[i].entry);
    h = hash128(text.data, text.n, 0);
    buf_fini(&text);
    return h;
}

/* ---- load ---- */

static void widen_vector(float *to, const struct weights_part *part)
{
    const char *from = (const char *)part->from->data + dtype_bytes(part->from->dtype, part->first);

    for (uint64_t i = 0; i < part->count; i++) {
        uint16_t half;
        if (part->from->dtype == DTYPE_F32) {
            memcpy(&to[i], from + i * 4, 4);
            continue;
        }
        memcpy(&half, from + i * 2, 2);
        to[i] = part->from->dtype == DTYPE_F16 ? f16_to_float(half) : bf16_to_float(half);
    }
}

struct fill_job {
    const struct weights_plan *plan;
    char *data;
};

static void fill_tensor(void *arg, uint32_t i)
{
    const struct fill_job *j = arg;
    const struct weights_want *want = &j->plan->tensors[i];
    char *to = j->data + want->entry.offset;

    for (uint32_t k = 0; k < want->n_parts; k++) {
        const struct weights_part *part = &want->parts[k];
        size_t row = dtype_bytes(want->entry.dtype, want->entry.cols);
        if (part->from->n_dims == 1)
            widen_vector((float *)to, part);
        else
            memcpy(to, (const char *)part->from->data + part->first * row, part->count * row);
        to += part->count * row;
    }
}

static void load(struct weights_hdr *h, const struct weights_plan *p, struct hash128 layout,
                 uint32_t packing, uint32_t epoch, struct threads *threads)
{
    struct weights_tensor *table = (struct weights_tensor *)((char *)h + WEIGHTS_TENSORS_OFFSET);
    struct fill_job job = { p, (char *)h + data_offset(p) };

    h->loader_epoch = epoch;
    atomic_store_explicit(&h->state, WEIGHTS_LOADING, memory_order_release);
    for (uint32_t i = 0; i < p->n; i++)
        table[i] = p->tensors[i].entry;
    threads_run(threads, fill_tensor, &job, p->n);
    h->n_tensors = p->n;
    h->packing = packing;
    h->layout_hash[0] = layout.low;
    h->layout_hash[1] = layout.high;
    h->data_offset = data_offset(p);
    h->data_bytes = p->data_bytes;
    h->checksum = hash64(job.data, p->data_bytes, 0);
    h->parameters = p->parameters;
    atomic_store_explicit(&h->state, WEIGHTS_COMMITTED, memory_order_release);
}

/* Map fd (borrowed) and map it again, as often as needed. */
static bool attach_copy(struct segment *s, int fd, bool writable, struct err *e)
{
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);

    if (copy < 0)
        return err_set(e, ERR_SYS, errno, "duplicate descriptor %d", fd);
    return segment_attach(s, copy, SEGMENT_WEIGHTS, WEIGHTS_VERSION, writable, e);
}

static bool load_shard(int fd, const struct weights_plan *p, struct hash128 layout,
                       uint32_t packing, uint32_t epoch, struct threads *threads, struct err *e)
{
    struct segment s;

    if (!attach_copy(&s, fd, true, e))
        return false;
    load((struct weights_hdr *)s.hdr, p, layout, packing, epoch, threads);
    segment_close(&s);
    return true;
}

static bool is_sealed(int fd)
{
    int seals = fcntl(fd, F_GET_SEALS);

    return seals >= 0 && (seals & F_SEAL_FUTURE_WRITE);
}

static bool seal(int fd, struct err *e)
{
    return fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE) == 0 ||
           err_set(e, ERR_SYS, errno, "seal weights against writing");
}

/* ---- open ---- */

static bool check_committed(const struct weights_hdr *h, const struct weights_plan *p,
                            struct hash128 layout, uint32_t packing, struct err *e)
{
    const struct weights_tensor *table =
        (const struct weights_tensor *)((const char *)h + WEIGHTS_TENSORS_OFFSET);

    if (h->layout_hash[0] != layout.low || h->layout_hash[1] != layout.high)
        return err_set(
            e, ERR_MODEL, 0,
            "the weights in memory were loaded from other files, another configuration or "
            "for another shard; stop and start llmd to load these");
    if (h->n_tensors != p->n || h->data_offset != data_offset(p) ||
        h->data_bytes != p->data_bytes || h->packing != packing)
        return err_set(e, ERR_PROTO, 0, "weights: %u tensors, %llu bytes; the plan has %u and %llu",
                       h->n_tensors, (unsigned long long)h->data_bytes, p->n,
                       (unsigned long long)p->data_bytes);
    for (uint32_t i = 0; i < p->n; i++)
        if (memcmp(&table[i], &p->tensors[i].entry, sizeof table[i]) != 0)
            return err_set(e, ERR_PROTO, 0, "weights: entry %u of the table is not '%s' as planned",
                           i, p->tensors[i].entry.name);
    return true;
}

static uint32_t state_of(const struct segment *s)
{
    return atomic_load_explicit(&((struct weights_hdr *)s->hdr)->state, memory_order_acquire);
}

bool weights_open(struct weights *w, int fd, const struct weights_plan *p, struct hash128 layout,
                  uint32_t packing, uint32_t epoch, struct threads *threads, bool *loaded,
                  struct err *e)
{
    struct segment s = { .fd = -1 };
    bool fresh = false, ok = false;

    if (!attach_copy(&s, fd, false, e))
        goto out;
    if (s.bytes < weights_plan_segment_bytes(p)) {
        err_set(e, ERR_PROTO, 0, "weights segment has %zu bytes, this shard needs %llu", s.bytes,
                (unsigned long long)weights_plan_segment_bytes(p));
        goto out;
    }
    fresh = state_of(&s) != WEIGHTS_COMMITTED;
    if (fresh || !is_sealed(fd)) { /* not loaded, or its loader died before it could seal */
        segment_close(&s);
        if (fresh && !load_shard(fd, p, layout, packing, epoch, threads, e))
            goto out;
        /* Mapped anew: only a mapping made after the seal can never be turned writable. */
        if (!seal(fd, e) || !attach_copy(&s, fd, false, e))
            goto out;
    }
    if (!check_committed((const struct weights_hdr *)s.hdr, p, layout, packing, e))
        goto out;
    *w = (struct weights){ .segment = s, .hdr = (const struct weights_hdr *)s.hdr };
    w->tensors = segment_at(&s, WEIGHTS_TENSORS_OFFSET);
    *loaded = fresh;
    ok = true;
out:
    if (!ok)
        segment_close(&s);
    close(fd);
    return ok;
}

void weights_close(struct weights *w)
{
    segment_close(&w->segment);
    w->hdr = NULL;
    w->tensors = NULL;
}

const struct weights_tensor *weights_find(const struct weights *w, const char *name,
                                          uint32_t *cursor)
{
    uint32_t n = w->hdr->n_tensors;

    for (uint32_t i = 0; i < n; i++) {
        uint32_t at = (*cursor + i) % n;
        if (strcmp(w->tensors[at].name, name) == 0) {
            *cursor = at + 1;
            return &w->tensors[at];
        }
    }
    assert(!"the plan has every tensor that the model binds");
    return NULL;
}

const void *weights_data(const struct weights *w, const struct weights_tensor *t)
{
    return segment_at(&w->segment, w->hdr->data_offset + t->offset);
}

bool weights_verify(const struct weights *w, struct err *e)
{
    uint64_t sum = hash64(segment_at(&w->segment, w->hdr->data_offset), w->hdr->data_bytes, 0);

    if (sum != w->hdr->checksum)
        return err_set(e, ERR_PROTO, 0, "weights: checksum %llx, at load it was %llx",
                       (unsigned long long)sum, (unsigned long long)w->hdr->checksum);
    return true;
}
