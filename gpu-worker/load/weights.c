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

static const struct packing *packing_of(const struct weights_plan *p)
{
    return p->packing ? p->packing : &packing_cpu;
}

static uint64_t bytes_of(const struct packing *packing, const struct weights_tensor *t,
                         bool is_matrix)
{
    enum dtype dtype = (enum dtype)t->dtype;
    uint32_t n = packing->panel_rows(dtype);

    if (!is_matrix)
        return t->rows * 4;
    return (t->rows + n - 1) / n * packing->panel_bytes(dtype, (uint32_t)t->cols);
}

bool weights_plan_add(struct weights_plan *p, const struct tensors *ts, const char *name,
                      const struct weights_source *source, struct err *e)
{
    struct weights_want want = { .from = tensors_find(ts, source->name),
                                 .first = source->first,
                                 .first_col = source->first_col,
                                 .plus_one = source->plus_one };
    struct weights_tensor *t = &want.entry;

    assert(strlen(name) < sizeof t->name);
    assert(source->cols > 0 || source->dtype == DTYPE_F32);
    if (!check_source(want.from, source, e))
        return false;
    assert(source->first <= source->rows && source->count <= source->rows - source->first);
    snprintf(t->name, sizeof t->name, "%s", name);
    assert(source->n_cols == 0 || (source->first_col <= source->cols &&
                                   source->n_cols <= source->cols - source->first_col));
    t->rows = source->count;
    t->cols = source->n_cols > 0 ? source->n_cols : source->cols > 0 ? source->cols : 1;
    t->dtype = source->cols > 0 ? packing_of(p)->dtype(source->dtype) : source->dtype;
    t->bytes = bytes_of(packing_of(p), t, source->cols > 0);
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

static uint64_t checksums_end(const struct weights_plan *p)
{
    return checksums_offset(p) + (uint64_t)n_chunks(p) * sizeof(uint64_t);
}

static uint64_t data_offset(const struct weights_plan *p)
{
    if (p->is_apart)
        return 0;
    return (checksums_end(p) + WEIGHTS_DATA_ALIGN - 1) / WEIGHTS_DATA_ALIGN * WEIGHTS_DATA_ALIGN;
}

uint64_t weights_plan_segment_bytes(const struct weights_plan *p)
{
    return p->is_apart ? checksums_end(p) : data_offset(p) + p->data_bytes;
}

struct hash128 weights_layout_hash(const struct weights_plan *p, const struct tensors *ts,
                                   struct hash128 config, uint32_t rank, uint32_t tp_size,
                                   uint32_t packing)
{
    struct buf text = { 0 };
    struct hash128 h;

    buf_printf(&text, "version %d packing %s %u rank %u of %u config %llx %llx\n", WEIGHTS_VERSION,
               packing_of(p)->name, packing, rank, tp_size, (unsigned long long)config.low,
               (unsigned long long)config.high);
    for (uint32_t i = 0; i < ts->n_files; i++)
        buf_printf(&text, "file %s %llu %lld\n", ts->files[i].name,
                   (unsigned long long)ts->files[i].bytes, (long long)ts->files[i].mtime_ns);
    for (uint32_t i = 0; i < p->n; i++)
        buf_printf(&text, "from %s row %llu column %llu\n", p->tensors[i].from->name,
                   (unsigned long long)p->tensors[i].first,
                   (unsigned long long)p->tensors[i].first_col);
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

/* A range of the data and where it is to be written. */
struct window {
    char *to;
    struct weights_range range;
};

/* What of `bytes` bytes at `at` lies in the window: copied from the same place of `from`. */
static void copy_overlap(struct window w, uint64_t at, const void *from, uint64_t bytes)
{
    uint64_t begin = at > w.range.begin ? at : w.range.begin;
    uint64_t end = at + bytes < w.range.end ? at + bytes : w.range.end;

    if (begin < end)
        memcpy(w.to + (begin - w.range.begin), (const char *)from + (begin - at), end - begin);
}

static void fill_vector(const struct weights_want *want, struct window w)
{
    uint64_t offset = want->entry.offset;
    uint64_t first = w.range.begin > offset ? (w.range.begin - offset) / sizeof(float) : 0;

    for (uint64_t i = first, at;
         i < want->entry.rows && (at = offset + i * sizeof(float)) < w.range.end; i++) {
        float value;
        tensor_type_to_float(want->from->type, &value, tensor_row(want->from, want->first + i), 1);
        value += want->plus_one ? 1 : 0;
        copy_overlap(w, at, &value, sizeof value);
    }
}

struct panel_shape {
    uint32_t rows, cols;
    size_t bytes;
};

static struct panel_shape panel_shape(const struct packing *packing, const struct weights_tensor *t)
{
    enum dtype dtype = (enum dtype)t->dtype;

    return (struct panel_shape){ packing->panel_rows(dtype), (uint32_t)t->cols,
                                 packing->panel_bytes(dtype, (uint32_t)t->cols) };
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
        return (struct panel_rows){ .codes = mem_alloc(n),
                                    .numbers = mem_alloc(n * 2 * sizeof(uint16_t)) };
    return (struct panel_rows){ .values = way == ROWS_ROUNDED ? mem_alloc(n * 4) : NULL };
}

static void panel_rows_free(struct panel_rows *rows)
{
    free(rows->values);
    free(rows->codes);
    free(rows->numbers);
}

static void pack_panel(const struct packing *packing, const struct weights_want *want,
                       struct panel_shape s, uint64_t panel, struct panel_rows rows, void *to)
{
    uint64_t first = panel * s.rows, left = want->entry.rows - first;
    uint32_t n = left < s.rows ? (uint32_t)left : s.rows;
    struct tensor_part part = { want->first + first, n, (uint32_t)want->first_col, s.cols };
    size_t skipped =
        tensor_type_bytes(want->from->type, part.col); /* where rows lie in one piece */
    const void *from[PACKING_PANEL_ROWS_MAX];
    enum dtype dtype = (enum dtype)want->entry.dtype;
    enum row_way way = row_way(want->from->type, dtype);

    if (way == ROWS_COPIED) {
        for (uint32_t r = 0; r < n; r++)
            from[r] = (const char *)tensor_row(want->from, part.row + r) + skipped;
        packing->copy(dtype, to, from, n, s.cols);
    } else if (way == ROWS_CODES) {
        tensor_to_codes(want->from, part, rows.codes, rows.numbers);
        packing->pack_codes(dtype, to, rows.codes, rows.numbers, n, s.cols);
    } else {
        tensor_to_float(want->from, part, rows.values);
        packing->pack(dtype, to, rows.values, n, s.cols);
    }
}

/* Panels that lie in the window whole are packed in place, those at its ends beside it. */
static void fill_matrix(const struct packing *packing, const struct weights_want *want,
                        struct window w)
{
    const struct weights_tensor *t = &want->entry;
    struct panel_shape s = panel_shape(packing, t);
    uint64_t begin = w.range.begin > t->offset ? (w.range.begin - t->offset) / s.bytes : 0;
    struct panel_rows rows = panel_rows_new(s, row_way(want->from->type, (enum dtype)t->dtype));
    char *edge = mem_alloc(s.bytes);

    for (uint64_t i = begin, at;
         (at = t->offset + i * s.bytes) < w.range.end && i * s.bytes < t->bytes; i++) {
        bool inside = at >= w.range.begin && at + s.bytes <= w.range.end;
        pack_panel(packing, want, s, i, rows, inside ? w.to + (at - w.range.begin) : edge);
        if (!inside)
            copy_overlap(w, at, edge, s.bytes);
    }
    panel_rows_free(&rows);
    free(edge);
}

static uint64_t padded_end(const struct weights_tensor *t)
{
    return (t->offset + t->bytes + 63) / 64 * 64;
}

/* The zeroes behind a tensor, up to the next one. */
static void fill_gap(const struct weights_tensor *t, struct window w)
{
    static const char zeroes[64];
    uint64_t end = t->offset + t->bytes;

    copy_overlap(w, end, zeroes, padded_end(t) - end);
}

static void fill_tensor(const struct packing *packing, const struct weights_want *want,
                        struct window w)
{
    if (want->from->n_dims == 1)
        fill_vector(want, w);
    else
        fill_matrix(packing, want, w);
    fill_gap(&want->entry, w);
}

void weights_fill(const struct weights_plan *p, char *to, struct weights_range range)
{
    for (uint32_t i = 0; i < p->n; i++) {
        const struct weights_tensor *t = &p->tensors[i].entry;
        if (t->offset < range.end && padded_end(t) > range.begin)
            fill_tensor(packing_of(p), &p->tensors[i], (struct window){ to, range });
    }
}

struct load_job {
    const struct weights_plan *plan;
    char *data; /* in the segment; NULL: the plan's place has it */
    uint64_t *checksums;
    uint32_t n_chunks;
    _Atomic uint32_t next;
    _Atomic bool failed; /* a place gave up: .error is the first reason */
    struct err error;
};

/* What a thread fills at a time: some panels of a tensor. */
static struct weights_range piece(const struct packing *packing, const struct weights_tensor *t,
                                  uint64_t i)
{
    size_t panel = panel_shape(packing, t).bytes;
    uint64_t step = WEIGHTS_CHUNK_BYTES < panel ? panel : WEIGHTS_CHUNK_BYTES / panel * panel;
    uint64_t begin = i * step, end = begin + step;

    return (struct weights_range){ t->offset + begin,
                                   end < t->bytes ? t->offset + end : padded_end(t) };
}

uint64_t weights_plan_piece_bytes(const struct weights_plan *p)
{
    uint64_t most = 0;

    for (uint32_t i = 0; i < p->n; i++) {
        struct weights_range r = piece(packing_of(p), &p->tensors[i].entry, 0);
        most = r.end - r.begin > most ? r.end - r.begin : most;
    }
    return most + 64; /* the last piece of a tensor has the gap behind it */
}

static void note_failure(struct load_job *j, const struct err *e)
{
    if (!atomic_exchange(&j->failed, true))
        j->error = *e;
}

/* Through a staging buffer to the plan's place. */
static void fill_staged(struct load_job *j, const struct weights_want *want, struct weights_range r)
{
    const struct weights_place *place = j->plan->place;
    struct err e;
    char *to;

    if (atomic_load_explicit(&j->failed, memory_order_relaxed))
        return;
    to = place->stage(place->ctx, r.end - r.begin, &e);
    if (to)
        fill_tensor(packing_of(j->plan), want, (struct window){ to, r });
    if (!to || !place->put(place->ctx, to, r.begin, r.end - r.begin, &e))
        note_failure(j, &e);
}

static void fill_piece(struct load_job *j, const struct weights_want *want, struct weights_range r)
{
    if (j->data)
        fill_tensor(packing_of(j->plan), want, (struct window){ j->data + r.begin, r });
    else
        fill_staged(j, want, r);
}

/* Pieces are numbered through all tensors; each thread counts along and fills the ones it draws. */
static void fill_job(void *arg, uint32_t job)
{
    struct load_job *j = arg;
    const struct packing *packing = packing_of(j->plan);
    uint32_t mine = atomic_fetch_add_explicit(&j->next, 1, memory_order_relaxed), at = 0;

    (void)job;
    for (uint32_t i = 0; i < j->plan->n; i++) {
        const struct weights_tensor *t = &j->plan->tensors[i].entry;
        struct weights_range r = piece(packing, t, 0);
        for (uint64_t k = 0; r.begin < t->offset + t->bytes; r = piece(packing, t, ++k))
            if (at++ == mine) {
                fill_piece(j, &j->plan->tensors[i], r);
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

static bool finish_place(struct load_job *j, struct err *e)
{
    const struct weights_place *place = j->plan->place;

    return place->finish(place->ctx, e) &&
           place->checksums(place->ctx, j->plan->data_bytes, 0, j->n_chunks, j->checksums, e);
}

/* Write all data and its checksums. */
static bool fill_all(struct load_job *j, struct threads *threads, struct err *e)
{
    const struct weights_place *place = j->plan->place;

    if (!j->data && !place->open_for_writing(place->ctx, e))
        return false;
    threads_run(threads, fill_job, j, threads_count(threads));
    atomic_store(&j->next, 0);
    fault_point("worker.load");
    if (atomic_load(&j->failed)) {
        *e = j->error;
        return false;
    }
    if (!j->data)
        return finish_place(j, e);
    threads_run(threads, checksum_job, j, threads_count(threads));
    return true;
}

static bool load(struct weights_hdr *h, const struct weights_plan *p, struct hash128 layout,
                 uint32_t packing, uint32_t epoch, struct threads *threads, struct err *e)
{
    struct weights_tensor *table = (struct weights_tensor *)((char *)h + WEIGHTS_TENSORS_OFFSET);
    struct load_job job = { .plan = p,
                            .data = p->is_apart ? NULL : (char *)h + data_offset(p),
                            .checksums = (uint64_t *)((char *)h + checksums_offset(p)),
                            .n_chunks = n_chunks(p) };

    h->loader_epoch = epoch;
    atomic_store_explicit(&h->state, WEIGHTS_LOADING, memory_order_release);
    for (uint32_t i = 0; i < p->n; i++)
        table[i] = p->tensors[i].entry;
    if (!fill_all(&job, threads, e))
        return false;
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
    return true;
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
    bool ok;

    if (!attach_copy(&s, fd, true, e))
        return false;
    ok = (p->is_apart || huge_pages_take(&s, threads, e)) &&
         load((struct weights_hdr *)s.hdr, p, layout, packing, epoch, threads, e);
    segment_close(&s);
    return ok || err_wrap(e, "weights");
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

/* What is there has to be loaded, whatever the header says.  A place is one rank's alone, so weights of another layout
 * may be written over; in a segment that other groups may have mapped they may not. */
static bool is_to_be_loaded(const struct segment *s, const struct weights_plan *p,
                            struct hash128 layout)
{
    const struct weights_hdr *h = (const struct weights_hdr *)s->hdr;

    return !is_committed(s) ||
           (p->is_apart && (p->place->is_fresh || h->layout_hash[0] != layout.low ||
                            h->layout_hash[1] != layout.high));
}

bool weights_open(struct weights *w, int fd, const struct weights_plan *p, struct hash128 layout,
                  uint32_t packing, uint32_t epoch, struct threads *threads, bool *loaded,
                  struct err *e)
{
    struct weights_hdr *shared = NULL;
    struct segment s = { .fd = -1 };
    bool fresh = false, ok = false;

    assert(!p->is_apart || p->place);
    if (!attach_copy(&s, fd, false, e))
        goto out;
    if (s.bytes < weights_plan_segment_bytes(p)) {
        err_set(e, ERR_PROTO, 0, "weights segment has %zu bytes, this shard needs %llu", s.bytes,
                (unsigned long long)weights_plan_segment_bytes(p));
        goto out;
    }
    fresh = is_to_be_loaded(&s, p, layout);
    if (!fresh && !check_committed((const struct weights_hdr *)s.hdr, p, layout, packing, e))
        goto out;
    fresh = fresh || !checksums_are_intact(&s);
    if (fresh && !load_shard(fd, p, layout, packing, epoch, threads, e))
        goto out;
    shared = map_header(&s, e);
    if (!shared)
        goto out;
    *w = (struct weights){ .segment = s,
                           .hdr = (const struct weights_hdr *)s.hdr,
                           .shared = shared,
                           .tensors = segment_at(&s, WEIGHTS_TENSORS_OFFSET),
                           .place = p->is_apart ? p->place : NULL };
    w->checksums = segment_at(&s, w->hdr->checksums_offset);
    w->data = w->place ? w->place->base : segment_at(&s, w->hdr->data_offset);
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
    assert(t->offset + t->bytes <= w->hdr->data_bytes);
    return w->data + t->offset;
}
