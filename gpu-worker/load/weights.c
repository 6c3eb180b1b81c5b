/* weights.c - plan, fill, commit and map a weights segment.
 *
 *   EMPTY ---> LOADING ---> COMMITTED     a loader that dies leaves LOADING; the next one starts over
 *
 * After COMMITTED the loader's own writable mapping is dropped: whoever computes maps the data read-only, so
 * a stray write of any worker faults at the culprit instead of damaging what all share. */
#include "gpu-worker/load/weights.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/fault_point.h"
#include "common/huge.h"
#include "common/mem.h"
#include "gpu-worker/load/huge_pages.h"
#include "gpu-worker/ops/packing.h"

static_assert(sizeof(struct weights_hdr) <= WEIGHTS_TENSORS_OFFSET, "the table follows the header");

/* ---- plan ---- */

void weights_plan_fini(struct weights_plan *p)
{
    free(p->tensors);
    *p = (struct weights_plan){ 0 };
}

static void describe_shape(char out[64], const struct tensor *t)
{
    if (t->n_dims == 0)
        snprintf(out, 64, "a scalar");
    else if (t->n_dims == 1)
        snprintf(out, 64, "[%llu]", (unsigned long long)t->dims[0]);
    else
        snprintf(out, 64, "[%llu, %llu%s]", (unsigned long long)t->dims[0],
                 (unsigned long long)t->dims[1], t->n_dims > 2 ? ", ..." : "");
}

static bool check_source(const struct tensor *t, const struct weights_source *s, struct err *e)
{
    struct tensor wanted = { .n_dims = s->cols > 0 ? 2 : 1, .dims = { s->rows, s->cols } };
    char found_text[64], wanted_text[64];

    if (!t)
        return err_set(e, ERR_MODEL, 0, "tensor '%.80s' is missing", s->name);
    if (t->type == TENSOR_NONE)
        return err_set(e, ERR_MODEL, 0,
                       "tensor '%.80s' is %s, which this build does not compute with", s->name,
                       t->type_text);
    if (t->n_dims == wanted.n_dims && t->dims[0] == s->rows &&
        (s->cols == 0 || t->dims[1] == s->cols))
        return true;
    describe_shape(found_text, t);
    describe_shape(wanted_text, &wanted);
    return err_set(e, ERR_MODEL, 0, "tensor '%.80s' has shape %s, the configuration wants %s",
                   s->name, found_text, wanted_text);
}

static uint64_t bytes_of(const struct weights_tensor *t, uint64_t cols)
{
    return cols > 0 ? packing_bytes((enum dtype)t->dtype, t->rows, (uint32_t)t->cols) : t->rows * 4;
}

bool weights_plan_add(struct weights_plan *p, const struct tensors *ts, const char *name,
                      const struct weights_source *source, struct err *e)
{
    struct weights_want want = { .from = tensors_find(ts, source->name),
                                 .first = source->first,
                                 .plus_one = source->plus_one };
    struct weights_tensor *t = &want.entry;

    assert(strlen(name) < sizeof t->name);
    assert(source->cols > 0 || source->dtype == DTYPE_F32);
    if (!check_source(want.from, source, e))
        return false;
    assert(source->first <= source->rows && source->count <= source->rows - source->first);
    snprintf(t->name, sizeof t->name, "%s", name);
    t->rows = source->count;
    t->cols = source->cols > 0 ? source->cols : 1;
    t->dtype = source->dtype;
    t->bytes = bytes_of(t, source->cols);
    t->offset = p->data_bytes;
    p->data_bytes += (t->bytes + 63) / 64 * 64;
    if (p->n == p->cap) {
        p->cap = p->cap ? p->cap * 2 : 64;
        p->tensors = mem_realloc(p->tensors, p->cap * sizeof *p->tensors);
    }
    p->tensors[p->n++] = want;
    return true;
}

static uint64_t checksums_offset(const struct weights_plan *p)
{
    uint64_t end = WEIGHTS_TENSORS_OFFSET + (uint64_t)p->n * sizeof(struct weights_tensor);

    return (end + 63) / 64 * 64;
}

static uint32_t n_chunks(const struct weights_plan *p)
{
    return (uint32_t)((p->data_bytes + WEIGHTS_CHUNK_BYTES - 1) / WEIGHTS_CHUNK_BYTES);
}

static uint64_t data_offset(const struct weights_plan *p)
{
    uint64_t end = checksums_offset(p) + (uint64_t)n_chunks(p) * sizeof(uint64_t);

    return (end + WEIGHTS_DATA_ALIGN - 1) / WEIGHTS_DATA_ALIGN * WEIGHTS_DATA_ALIGN;
}

uint64_t weights_plan_segment_bytes(const struct weights_plan *p)
{
    return data_offset(p) + p->data_bytes;
}

struct hash128 weights_layout_hash(const struct weights_plan *p, const struct tensors *ts,
                                   struct hash128 config, uint32_t rank, uint32_t tp_size,
                                   uint32_t packing)
{
    struct buf text = { 0 };
    struct hash128 h;

    buf_printf(&text, "version %d packing %u rank %u of %u config %llx %llx\n", WEIGHTS_VERSION,
               packing, rank, tp_size, (unsigned long long)config.low,
               (unsigned long long)config.high);
    for (uint32_t i = 0; i < ts->n_files; i++)
        buf_printf(&text, "file %s %llu %lld\n", ts->files[i].name,
                   (unsigned long long)ts->files[i].bytes, (long long)ts->files[i].mtime_ns);
    for (uint32_t i = 0; i < p->n; i++)
        buf_printf(&text, "from %s row %llu\n", p->tensors[i].from->name,
                   (unsigned long long)p->tensors[i].first);
    for (uint32_t i = 0; i < p->n; i++)
        buf_add(&text, &p->tensors[i].entry, sizeof p->tensors[i].entry);
    h = hash128(text.data, text.n, 0);
    buf_fini(&text);
    return h;
}

/* ---- load ---- */

struct weights_range weights_chunk(uint64_t data_bytes, uint32_t chunk)
{
    struct weights_range r = { chunk * WEIGHTS_CHUNK_BYTES, (chunk + 1) * WEIGHTS_CHUNK_BYTES };

    assert(r.begin < data_bytes);
    r.end = r.end < data_bytes ? r.end : data_bytes;
    return r;
}

/* What of `bytes` bytes at `at` lies in the range: copied from the same place of `from`. */
static void copy_overlap(char *data, uint64_t at, const char *from, uint64_t bytes,
                         struct weights_range r)
{
    uint64_t begin = at > r.begin ? at : r.begin;
    uint64_t end = at + bytes < r.end ? at + bytes : r.end;

    if (begin < end)
        memcpy(data + begin, from + (begin - at), end - begin);
}

/* Vectors are small: all of one that begins or ends in the range is written. */
static void fill_vector(const struct weights_want *want, char *data)
{
    float *to = (float *)(data + want->entry.offset);

    for (uint64_t i = 0; i < want->entry.rows; i++) {
        tensor_type_to_float(want->from->type, &to[i], tensor_row(want->from, want->first + i), 1);
        to[i] += want->plus_one ? 1 : 0;
    }
}

struct panel_shape {
    uint32_t rows, cols;
    size_t bytes;
};

static struct panel_shape panel_shape(const struct weights_tensor *t)
{
    enum dtype dtype = (enum dtype)t->dtype;

    return (struct panel_shape){ packing_panel_rows(dtype), (uint32_t)t->cols,
                                 packing_panel_bytes(dtype, (uint32_t)t->cols) };
}

/* How the rows of a matrix come to their panels. */
enum row_way {
    ROWS_COPIED,  /* as the file has them */
    ROWS_CODES,   /* its codes and their numbers */
    ROWS_ROUNDED, /* their values, rounded */
};

static enum row_way row_way(enum tensor_type from, enum dtype to)
{
    if ((from == TENSOR_F32 && to == DTYPE_F32) || (from == TENSOR_F16 && to == DTYPE_F16) ||
        (from == TENSOR_BF16 && to == DTYPE_BF16))
        return ROWS_COPIED;
    return quantize_keeps_codes(from, to) ? ROWS_CODES : ROWS_ROUNDED;
}

/* Room for the rows of a panel on their way. */
struct panel_rows {
    float *values;     /* [rows, cols] */
    int8_t *codes;     /* [rows, cols] */
    uint16_t *numbers; /* [rows, those of a row] */
};

static struct panel_rows panel_rows_new(struct panel_shape s, enum row_way way)
{
    size_t n = (size_t)s.rows * s.cols;

    if (way == ROWS_CODES)
        return (struct panel_rows){ .codes = mem_alloc(n), .numbers = mem_alloc(n) };
    return (struct panel_rows){ .values = way == ROWS_ROUNDED ? mem_alloc(n * 4) : NULL };
}

static void panel_rows_free(struct panel_rows *rows)
{
    free(rows->values);
    free(rows->codes);
    free(rows->numbers);
}

static void pack_panel(const struct weights_want *want, struct panel_shape s, uint64_t panel,
                       struct panel_rows rows, void *to)
{
    uint64_t first = panel * s.rows, left = want->entry.rows - first;
    uint32_t n = left < s.rows ? (uint32_t)left : s.rows;
    const void *from[PACKING_PANEL_ROWS_MAX];
    enum dtype dtype = (enum dtype)want->entry.dtype;
    enum row_way way = row_way(want->from->type, dtype);
    /* of a row: types with codes have whole groups */
    uint32_t numbers = s.cols / TENSOR_TYPE_CODES_GROUP * tensor_type_numbers(want->from->type);

    for (uint32_t r = 0; r < n; r++) {
        from[r] = tensor_row(want->from, want->first + first + r);
        if (way == ROWS_CODES)
            tensor_type_to_codes(want->from->type, rows.codes + (size_t)r * s.cols,
                                 rows.numbers + (size_t)r * numbers, from[r], s.cols);
        else if (way == ROWS_ROUNDED)
            tensor_type_to_float(want->from->type, rows.values + (size_t)r * s.cols, from[r],
                                 s.cols);
    }
    if (way == ROWS_COPIED)
        packing_copy(dtype, to, from, n, s.cols);
    else if (way == ROWS_CODES)
        packing_pack_codes(dtype, to, rows.codes, rows.numbers, n, s.cols);
    else
        packing_pack(dtype, to, rows.values, n, s.cols);
}

/* Panels that lie in the range whole are packed in place, those at its ends beside it. */
static void fill_matrix(const struct weights_want *want, char *data, struct weights_range r)
{
    const struct weights_tensor *t = &want->entry;
    struct panel_shape s = panel_shape(t);
    uint64_t begin = r.begin > t->offset ? (r.begin - t->offset) / s.bytes : 0;
    struct panel_rows rows = panel_rows_new(s, row_way(want->from->type, (enum dtype)t->dtype));
    char *edge = mem_alloc(s.bytes);

    for (uint64_t i = begin, at; (at = t->offset + i * s.bytes) < r.end && i * s.bytes < t->bytes;
         i++) {
        bool inside = at >= r.begin && at + s.bytes <= r.end;
        pack_panel(want, s, i, rows, inside ? data + at : edge);
        if (!inside)
            copy_overlap(data, at, edge, s.bytes, r);
    }
    panel_rows_free(&rows);
    free(edge);
}

static uint64_t padded_end(const struct weights_tensor *t)
{
    return (t->offset + t->bytes + 63) / 64 * 64;
}

/* The zeroes behind a tensor, up to the next one. */
static void fill_gap(const struct weights_tensor *t, char *data, struct weights_range r)
{
    static const char zeroes[64];
    uint64_t end = t->offset + t->bytes;

    copy_overlap(data, end, zeroes, padded_end(t) - end, r);
}

static void fill_tensor(const struct weights_want *want, char *data, struct weights_range range)
{
    if (want->from->n_dims == 1)
        fill_vector(want, data);
    else
        fill_matrix(want, data, range);
    fill_gap(&want->entry, data, range);
}

void weights_fill(const struct weights_plan *p, char *data, struct weights_range range)
{
    for (uint32_t i = 0; i < p->n; i++) {
        const struct weights_tensor *t = &p->tensors[i].entry;
        if (t->offset < range.end && padded_end(t) > range.begin)
            fill_tensor(&p->tensors[i], data, range);
    }
}

struct load_job {
    const struct weights_plan *plan;
    char *data;
    uint64_t *checksums;
    uint32_t n_chunks;
    _Atomic uint32_t next;
};

/* What a thread fills at a time: some panels of a tensor. */
static struct weights_range piece(const struct weights_tensor *t, uint64_t i)
{
    size_t panel = panel_shape(t).bytes;
    uint64_t step = WEIGHTS_CHUNK_BYTES < panel ? panel : WEIGHTS_CHUNK_BYTES / panel * panel;
    uint64_t begin = i * step, end = begin + step;

    return (struct weights_range){ t->offset + begin,
                                   end < t->bytes ? t->offset + end : padded_end(t) };
}

/* Pieces are numbered through all tensors; each thread counts along and fills the ones it draws. */
static void fill_job(void *arg, uint32_t job)
{
    struct load_job *j = arg;
    uint32_t mine = atomic_fetch_add_explicit(&j->next, 1, memory_order_relaxed), at = 0;

    (void)job;
    for (uint32_t i = 0; i < j->plan->n; i++) {
        const struct weights_tensor *t = &j->plan->tensors[i].entry;
        struct weights_range r = piece(t, 0);
        for (uint64_t k = 0; r.begin < t->offset + t->bytes; r = piece(t, ++k))
            if (at++ == mine) {
                fill_tensor(&j->plan->tensors[i], j->data, r);
                mine = atomic_fetch_add_explicit(&j->next, 1, memory_order_relaxed);
            }
    }
}

static void checksum_job(void *arg, uint32_t job)
{
    struct load_job *j = arg;
    uint32_t i;

    (void)job;
    while ((i = atomic_fetch_add_explicit(&j->next, 1, memory_order_relaxed)) < j->n_chunks) {
        struct weights_range r = weights_chunk(j->plan->data_bytes, i);
        j->checksums[i] = hash64(j->data + r.begin, r.end - r.begin, 0);
    }
}

static void load(struct weights_hdr *h, const struct weights_plan *p, struct hash128 layout,
                 uint32_t packing, uint32_t epoch, struct threads *threads)
{
    struct weights_tensor *table = (struct weights_tensor *)((char *)h + WEIGHTS_TENSORS_OFFSET);
    struct load_job job = { .plan = p,
                            .data = (char *)h + data_offset(p),
                            .checksums = (uint64_t *)((char *)h + checksums_offset(p)),
                            .n_chunks = n_chunks(p) };

    h->loader_epoch = epoch;
    atomic_store_explicit(&h->state, WEIGHTS_LOADING, memory_order_release);
    for (uint32_t i = 0; i < p->n; i++)
        table[i] = p->tensors[i].entry;
    threads_run(threads, fill_job, &job, threads_count(threads));
    atomic_store(&job.next, 0);
    fault_point("worker.load");
    threads_run(threads, checksum_job, &job, threads_count(threads));
    h->n_tensors = p->n;
    h->packing = packing;
    h->layout_hash[0] = layout.low;
    h->layout_hash[1] = layout.high;
    h->data_offset = data_offset(p);
    h->data_bytes = p->data_bytes;
    h->checksums_offset = checksums_offset(p);
    h->n_chunks = job.n_chunks;
    h->checksums_checksum = hash64(job.checksums, job.n_chunks * sizeof(uint64_t), 0);
    h->parameters = p->parameters;
    atomic_store_explicit(&h->doubt, 0, memory_order_relaxed);
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
    if (!huge_pages_take(&s, threads, e)) {
        segment_close(&s);
        return err_wrap(e, "weights");
    }
    load((struct weights_hdr *)s.hdr, p, layout, packing, epoch, threads);
    segment_close(&s);
    return true;
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
        h->data_bytes != p->data_bytes || h->packing != packing ||
        h->checksums_offset != checksums_offset(p) || h->n_chunks != n_chunks(p))
        return err_set(e, ERR_PROTO, 0, "weights: %u tensors, %llu bytes; the plan has %u and %llu",
                       h->n_tensors, (unsigned long long)h->data_bytes, p->n,
                       (unsigned long long)p->data_bytes);
    for (uint32_t i = 0; i < p->n; i++)
        if (memcmp(&table[i], &p->tensors[i].entry, sizeof table[i]) != 0)
            return err_set(e, ERR_PROTO, 0, "weights: entry %u of the table is not '%s' as planned",
                           i, p->tensors[i].entry.name);
    return true;
}

static bool is_committed(const struct segment *s)
{
    const struct weights_hdr *h = (const struct weights_hdr *)s->hdr;

    return atomic_load_explicit(&h->state, memory_order_acquire) == WEIGHTS_COMMITTED;
}

/* The list is what the loader wrote; without it nothing can be told or repaired. */
static bool checksums_are_intact(const struct segment *s)
{
    const struct weights_hdr *h = (const struct weights_hdr *)s->hdr;

    return h->checksums_checksum ==
           hash64(segment_at(s, h->checksums_offset), h->n_chunks * sizeof(uint64_t), 0);
}

/* The header lies in one page, whatever the pages are. */
static size_t header_bytes(const struct segment *s)
{
    return s->hdr->pages == SEGMENT_PAGES_RESERVED ? HUGE_BYTES : WEIGHTS_TENSORS_OFFSET;
}

static struct weights_hdr *map_header(const struct segment *s, struct err *e)
{
    void *map = mmap(NULL, header_bytes(s), PROT_READ | PROT_WRITE, MAP_SHARED, s->fd, 0);

    if (map != MAP_FAILED)
        return map;
    err_set(e, ERR_SYS, errno, "map the header of the weights for writing");
    return NULL;
}

bool weights_open(struct weights *w, int fd, const struct weights_plan *p, struct hash128 layout,
                  uint32_t packing, uint32_t epoch, struct threads *threads, bool *loaded,
                  struct err *e)
{
    struct weights_hdr *shared = NULL;
    struct segment s = { .fd = -1 };
    bool fresh = false, ok = false;

    if (!attach_copy(&s, fd, false, e))
        goto out;
    if (s.bytes < weights_plan_segment_bytes(p)) {
        err_set(e, ERR_PROTO, 0, "weights segment has %zu bytes, this shard needs %llu", s.bytes,
                (unsigned long long)weights_plan_segment_bytes(p));
        goto out;
    }
    if (is_committed(&s) &&
        !check_committed((const struct weights_hdr *)s.hdr, p, layout, packing, e))
        goto out;
    fresh = !is_committed(&s) || !checksums_are_intact(&s);
    if (fresh && !load_shard(fd, p, layout, packing, epoch, threads, e))
        goto out;
    shared = map_header(&s, e);
    if (!shared)
        goto out;
    *w = (struct weights){ .segment = s,
                           .hdr = (const struct weights_hdr *)s.hdr,
                           .shared = shared,
                           .tensors = segment_at(&s, WEIGHTS_TENSORS_OFFSET) };
    w->checksums = segment_at(&s, w->hdr->checksums_offset);
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
    if (w->shared)
        munmap(w->shared, header_bytes(&w->segment));
    segment_close(&w->segment);
    *w = (struct weights){ .segment.fd = -1 };
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
