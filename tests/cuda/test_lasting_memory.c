/* test_lasting_memory.c - GPU memory that outlives workers, on the fake driver: made, handed to a keeper, mapped again.
 *
 * Would break in production: a crash that costs loading gigabytes again; a successor that computes on memory of another
 * layout; memory that stays taken for ever, so that the next model finds no room; weights that a kernel's stray
 * write changes for everybody after.  The keeper is this process, which opens no GPU: as llmd is. */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include "gpu-worker/cuda/fence.h"
#include "gpu-worker/cuda/gpu_watch.h"
#include "gpu-worker/cuda/kernels/pages.h"
#include "gpu-worker/cuda/kv_device.h"
#include "gpu-worker/cuda/lasting.h"
#include "gpu-worker/cuda/rank_chunks.h"
#include "gpu-worker/cuda/weights_device.h"
#include "gpu-worker/gpu_keeper.h"
#include "proto/weights_layout.h"
#include "proto/worker_exit.h"
#include "tests/cuda/child.h"

#define MIB (1ull << 20)

static char folder[STATE_FOLDER_BYTES], with_state[400];

static int make_folder(void **state)
{
    (void)state;
    assert_true(state_folder_make(folder));
    snprintf(with_state, sizeof with_state, "memory=16m,state=%s", folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    assert_true(state_folder_remove(folder));
    return 0;
}

/* ---- the keeper ---- */

static struct chunk_set kept[N_KEPT_CHUNK_KINDS];
static int sockets[2]; /* ours, the worker's */
static uint32_t n_to_come;

static void keep(struct control_msg *m)
{
    const Llmd__Chunks *c = m->body;
    struct err e;

    assert_int_equal(m->type, MSG_CHUNKS);
    assert_ok(chunk_set_check(c, m->n_fds, &e), e);
    if (!chunk_set_is_same(&kept[c->kind], c)) {
        chunk_set_fini(&kept[c->kind]);
        chunk_set_begin(&kept[c->kind], c);
    }
    chunk_set_take(&kept[c->kind], m);
    control_msg_fini(m);
}

/* Hear the worker until it has ended: its exit code, or minus its signal. */
static int keep_until_its_end(pid_t pid)
{
    struct control_msg m;
    struct err e;

    while (control_recv(sockets[0], &m, &e) == CONTROL_OK)
        keep(&m);
    close(sockets[0]);
    return end_child(pid);
}

/* Start a worker that is given what is kept. */
static pid_t start_worker(const char *settings, const char *faults, void (*fn)(void))
{
    struct err e;
    pid_t pid;

    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets), 0);
    n_to_come = 0;
    for (int kind = 0; kind < N_KEPT_CHUNK_KINDS; kind++)
        if (chunk_set_is_whole(&kept[kind])) {
            assert_ok(chunk_set_send(&kept[kind], sockets[0], &e), e);
            n_to_come += kept[kind].n;
        }
    pid = start_child(settings, faults, fn);
    close(sockets[1]);
    return pid;
}

static int run_worker(const char *settings, const char *faults, void (*fn)(void))
{
    return keep_until_its_end(start_worker(settings, faults, fn));
}

static void drop_all(void)
{
    for (int kind = 0; kind < N_KEPT_CHUNK_KINDS; kind++)
        chunk_set_fini(&kept[kind]);
}

/* ---- in a worker ---- */

struct worker {
    struct device *device;
    struct device_stream stream;
    struct chunk_road road;
    struct chunks chunks;
};

static void worker_open(struct worker *w)
{
    struct err e = { 0 };

    for (int kind = 0; kind < N_KEPT_CHUNK_KINDS; kind++)
        chunk_set_fini(&kept[kind]); /* the keeper's, which came with the fork */
    close(sockets[0]);
    CHECK_OK(chunk_road_open(&w->road, sockets[1], n_to_come, &e), e);
    CHECK_OK(device_open(&w->device, 0, NULL, &e), e);
    CHECK_OK(device_stream_open(&w->stream, w->device, 0, &e), e);
}

static void worker_close(struct worker *w)
{
    chunks_unmap(&w->chunks);
    device_stream_close(&w->stream);
    device_close(w->device);
    chunk_road_close(&w->road);
}

static struct rank_chunks_want want_kv(uint64_t layout, uint64_t bytes)
{
    return (struct rank_chunks_want){
        .kind = CHUNKS_KV, .layout = { layout, 2 }, .bytes = bytes, .is_writable = true
    };
}

static bool open_kv(struct worker *w, uint64_t layout, uint64_t bytes)
{
    struct rank_chunks_want want = want_kv(layout, bytes);
    struct err e = { 0 };
    bool is_fresh;

    CHECK_OK(rank_chunks_open(&w->chunks, w->device, &w->road, &want, &is_fresh, &e), e);
    return is_fresh;
}

static void fill(struct worker *w, cu_ptr at, uint8_t value, uint64_t bytes)
{
    struct err e = { 0 };

    CHECK(device_fill(&w->stream, at, value, bytes));
    CHECK_OK(device_stream_finish(&w->stream, 10 * (uint64_t)1e9, &e), e);
}

static void expect_bytes(struct worker *w, cu_ptr at, uint8_t value, uint64_t bytes)
{
    struct err e = { 0 };
    uint8_t *got;

    CHECK_OK(device_host_alloc(w->device, (void **)&got, bytes, &e), e);
    CHECK(device_copy_out(&w->stream, got, at, bytes));
    CHECK_OK(device_stream_finish(&w->stream, 10 * (uint64_t)1e9, &e), e);
    for (uint64_t i = 0; i < bytes; i++)
        CHECK(got[i] == value);
    device_host_free(w->device, got);
}

/* ---- it outlives its worker ---- */

static void make_and_die(void)
{
    struct worker w = { 0 };

    worker_open(&w);
    CHECK(open_kv(&w, 1, 12 * MIB));
    CHECK(w.chunks.bytes == 12 * MIB);
    fill(&w, w.chunks.base, 0x5a, 12 * MIB);
    kill(getpid(), SIGKILL);
}

static void find_it_and_end(void)
{
    struct worker w = { 0 };

    worker_open(&w);
    CHECK(!open_kv(&w, 1, 12 * MIB));
    expect_bytes(&w, w.chunks.base, 0x5a, 12 * MIB);
    worker_close(&w);
}

static void a_killed_worker_leaves_its_memory_to_the_next(void **state)
{
    (void)state;
    assert_int_equal(run_worker(with_state, NULL, make_and_die), -SIGKILL);
    assert_true(chunk_set_is_whole(&kept[CHUNKS_KV]));
    assert_int_equal(run_worker(with_state, NULL, find_it_and_end), 0);
    assert_int_equal(run_worker(with_state, NULL, find_it_and_end), 0); /* and to the one after */
    drop_all();
}

static void make_other_layout(void)
{
    struct worker w = { 0 };

    worker_open(&w);
    CHECK(open_kv(&w, 7, 14 * MIB)); /* of 16, of which 12 were taken */
    fill(&w, w.chunks.base, 1, 14 * MIB);
    worker_close(&w);
}

/* There is no room for both: the old one must be gone before the new one is made. */
static void another_layout_takes_the_place_of_the_old_one(void **state)
{
    uint64_t old;

    (void)state;
    assert_int_equal(run_worker(with_state, NULL, make_and_die), -SIGKILL);
    old = kept[CHUNKS_KV].id;
    assert_int_equal(run_worker(with_state, NULL, make_other_layout), 0);
    assert_true(chunk_set_is_whole(&kept[CHUNKS_KV]));
    assert_true(kept[CHUNKS_KV].id != old);
    assert_int_equal(kept[CHUNKS_KV].layout.low, 7);
    assert_int_equal(kept[CHUNKS_KV].bytes, 14 * MIB);
    drop_all();
}

static void ask_for_too_much(void)
{
    struct chunk_set set = { .kind = CHUNKS_KV };
    struct worker w = { 0 };
    struct err e = { 0 };

    worker_open(&w);
    CHECK_OK(chunks_plan(w.device, &set, 20 * MIB, &e), e);
    CHECK(!chunks_create(w.device, &set, 0, &e));
    CHECK(e.code == ERR_DEVICE && e.sys == CU_OUT_OF_MEMORY);
    CHECK(!set.fds);
    CHECK(!device_fault(w.device));  /* the worker may say so and go on */
    CHECK(open_kv(&w, 1, 16 * MIB)); /* nothing is left of the attempt */
    worker_close(&w);
}

static void too_little_memory_is_an_error_that_leaves_nothing(void **state)
{
    (void)state;
    assert_int_equal(run_worker(with_state, NULL, ask_for_too_much), 0);
    drop_all();
}

static void find_it_gone(void)
{
    struct worker w = { 0 };

    worker_open(&w);
    CHECK(open_kv(&w, 1, 12 * MIB)); /* fresh */
    worker_close(&w);
}

/* Chunk descriptors that cannot be imported any more: the GPU was reset. */
static void a_set_that_cannot_be_mapped_is_made_anew(void **state)
{
    uint64_t old;

    (void)state;
    assert_int_equal(run_worker(with_state, NULL, make_and_die), -SIGKILL);
    old = kept[CHUNKS_KV].id;
    assert_int_equal(
        run_worker(with_state, "call cuMemImportFromShareableHandle 1: return 1", find_it_gone), 0);
    assert_true(kept[CHUNKS_KV].id != old);
    drop_all();
}

/* ---- a keeper that makes and holds it ---- */

static bool open_kv_by_keeper(struct worker *w, uint64_t layout, uint64_t bytes, struct err *e)
{
    struct rank_chunks_want want = want_kv(layout, bytes);
    bool is_fresh;

    want.by_keeper = true;
    if (!rank_chunks_open(&w->chunks, w->device, &w->road, &want, &is_fresh, e))
        return false;
    CHECK(is_fresh);
    return true;
}

static void have_it_made_and_die(void)
{
    struct worker w = { 0 };
    struct fake_cuda_counts counts;
    struct fake_cuda fake;
    struct err e = { 0 };

    worker_open(&w);
    CHECK_OK(open_kv_by_keeper(&w, 1, 12 * MIB, &e), e);
    fill(&w, w.chunks.base, 0x5a, 12 * MIB);
    CHECK(fake_cuda_find(&fake));
    fake.counts(&counts);
    CHECK(counts.exports == 0 && counts.imports == 1); /* another process made it */
    kill(getpid(), SIGKILL);
}

static void have_another_made(void)
{
    struct worker w = { 0 };
    struct err e = { 0 };

    worker_open(&w);
    CHECK(!open_kv_by_keeper(&w, 2, 20 * MIB, &e)); /* of 16 */
    CHECK(e.code == ERR_DEVICE && e.sys == CU_OUT_OF_MEMORY);
    CHECK_OK(open_kv_by_keeper(&w, 3, 14 * MIB, &e), e); /* it has let go of the 12 before */
    worker_close(&w);
}

/* The end of a process that was orphaned to us: its exit code. */
static int end_of_orphan(void)
{
    int status;

    assert_true(waitpid(-1, &status, 0) > 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static void a_keeper_outlives_the_worker_that_started_it(void **state)
{
    (void)state;
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    assert_int_equal(run_worker(with_state, NULL, have_it_made_and_die), -SIGKILL);
    assert_true(chunk_set_is_whole(&kept[CHUNKS_KV]));
    assert_true(chunk_set_is_whole(&kept[CHUNKS_KEEPER]));
    assert_int_equal(run_worker(with_state, NULL, find_it_and_end), 0);
    assert_int_equal(run_worker(with_state, NULL, have_another_made), 0);
    assert_int_equal(kept[CHUNKS_KV].layout.low, 3);
    assert_int_equal(waitpid(-1, NULL, WNOHANG),
                     0); /* it lives as long as anybody has its socket */
    drop_all();
    assert_int_equal(end_of_orphan(), 0);
}

static void have_another_made_by_another(void)
{
    struct worker w = { 0 };
    struct err e = { 0 };

    worker_open(&w);
    CHECK_OK(open_kv_by_keeper(&w, 3, 14 * MIB, &e), e);
    worker_close(&w);
}

static void a_dead_keeper_is_replaced(void **state)
{
    const struct timeval soon = { .tv_sec = 30 };
    uint64_t first;
    char byte;

    (void)state;
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    assert_int_equal(run_worker(with_state, NULL, have_it_made_and_die), -SIGKILL);
    first = kept[CHUNKS_KEEPER].id;
    shutdown(kept[CHUNKS_KEEPER].fds[0], SHUT_RDWR); /* it takes us for gone */
    setsockopt(kept[CHUNKS_KEEPER].fds[0], SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof soon);
    assert_int_equal(recv(kept[CHUNKS_KEEPER].fds[0], &byte, 1, 0), 0);
    assert_int_equal(end_of_orphan(), 0);
    assert_int_equal(run_worker(with_state, NULL, have_another_made_by_another), 0);
    assert_true(kept[CHUNKS_KEEPER].id != first);
    drop_all();
    assert_int_equal(end_of_orphan(), 0);
}

/* ---- weights ---- */

enum { WEIGHTS_BYTES = 3 * (1 << 20) + 4096, N_LOADERS = 3 };

struct loading {
    const struct weights_place *place;
    _Atomic uint32_t next;
};

static uint64_t word_at(uint64_t i)
{
    return i * 0x9e3779b97f4a7c15u ^ i >> 7;
}

static void *load_some(void *arg)
{
    struct loading *l = arg;
    const uint64_t piece = 24 * 1024;
    uint64_t at;

    while ((at = atomic_fetch_add(&l->next, 1) * piece) < WEIGHTS_BYTES) {
        uint64_t n = WEIGHTS_BYTES - at < piece ? WEIGHTS_BYTES - at : piece;
        struct err e = { 0 };
        char *to = l->place->stage(l->place->ctx, n, &e);
        CHECK(to);
        for (uint64_t i = 0; i < n / 8; i++)
            ((uint64_t *)(void *)to)[i] = word_at(at / 8 + i);
        CHECK_OK(l->place->put(l->place->ctx, to, at, n, &e), e);
    }
    return NULL;
}

static void load_all(const struct weights_place *place)
{
    struct loading l = { .place = place };
    pthread_t threads[N_LOADERS];
    struct err e = { 0 };

    CHECK_OK(place->open_for_writing(place->ctx, &e), e);
    for (int i = 0; i < N_LOADERS; i++)
        CHECK(pthread_create(&threads[i], NULL, load_some, &l) == 0);
    for (int i = 0; i < N_LOADERS; i++)
        pthread_join(threads[i], NULL);
    CHECK_OK(place->finish(place->ctx, &e), e);
}

static struct weights_device *open_weights(struct worker *w, bool *is_fresh)
{
    const struct rank_chunks_want want = { .kind = CHUNKS_WEIGHTS,
                                           .layout = { 1, 1 },
                                           .bytes = WEIGHTS_BYTES };
    struct weights_device *weights;
    struct err e = { 0 };

    CHECK_OK(rank_chunks_open(&w->chunks, w->device, &w->road, &want, is_fresh, &e), e);
    weights = weights_device_new(w->device, &w->chunks, 64 * 1024, *is_fresh, &e);
    CHECK_OK(weights != NULL, e);
    return weights;
}

/* The sums that the loaded words must have. */
static void expect_sums(const struct weights_place *place)
{
    static uint64_t words[WEIGHTS_BYTES / 8];
    const uint64_t chunk = WEIGHTS_CHUNK_BYTES / 8;
    uint64_t sums[4];
    struct err e = { 0 };

    for (uint64_t i = 0; i < WEIGHTS_BYTES / 8; i++)
        words[i] = word_at(i);
    CHECK_OK(place->checksums(place->ctx, WEIGHTS_BYTES, 0, 4, sums, &e), e);
    for (uint64_t i = 0; i < 3; i++)
        CHECK(sums[i] == page_sum(words + i * chunk, chunk));
    CHECK(sums[3] == page_sum(words + 3 * chunk, 4096 / 8));
    CHECK_OK(place->checksums(place->ctx, WEIGHTS_BYTES, 2, 1, sums, &e), e);
    CHECK(sums[0] == page_sum(words + 2 * chunk, chunk));
}

static void load_and_die(void)
{
    struct worker w = { 0 };
    struct weights_device *weights;
    bool is_fresh;

    worker_open(&w);
    weights = open_weights(&w, &is_fresh);
    CHECK(is_fresh && weights_device_place(weights)->is_fresh);
    load_all(weights_device_place(weights));
    expect_sums(weights_device_place(weights));
    kill(getpid(), SIGKILL);
}

static void map_weights(void)
{
    struct worker w = { 0 };
    struct weights_device *weights;
    struct fake_cuda_counts counts;
    struct fake_cuda fake;
    bool is_fresh;

    worker_open(&w);
    weights = open_weights(&w, &is_fresh);
    CHECK(!is_fresh && !weights_device_place(weights)->is_fresh);
    expect_sums(weights_device_place(weights));
    CHECK(fake_cuda_find(&fake));
    fake.counts(&counts);
    CHECK(counts.bytes_in == 0); /* not a byte was loaded */
    weights_device_free(weights);
    worker_close(&w);
}

static void weights_are_loaded_once_and_mapped_ever_after(void **state)
{
    (void)state;
    assert_int_equal(run_worker(with_state, NULL, load_and_die), -SIGKILL);
    assert_int_equal(run_worker(with_state, NULL, map_weights), 0);
    drop_all();
}

/* Nothing but a repair writes there. */
static void scribble_on_weights(void)
{
    struct worker w = { 0 };
    struct add_args args;
    struct fake_cuda fake;
    struct err e = { 0 };
    bool is_fresh;

    worker_open(&w);
    CHECK(fake_cuda_find(&fake));
    fake.add_kernel("add", add_kernel, sizeof(struct add_args), 32);
    open_weights(&w, &is_fresh);
    CHECK(!is_fresh && !w.chunks.is_writable);
    args = (struct add_args){ device_floats(w.chunks.base + 4096), device_floats(w.chunks.base), 1,
                              4 };
    device_launch(&w.stream, device_kernel(w.device, "add"),
                  &(struct device_grid){ .grid = { 1 }, .block = 32 }, &args, sizeof args);
    CHECK(!device_stream_finish(&w.stream, 10 * (uint64_t)1e9, &e));
    CHECK(device_fault(w.device) && device_fault(w.device)->severity >= CUDA_STICKY);
    _exit(9); /* a dead context: as the worker does it */
}

static void a_stray_write_to_weights_is_the_culprits_fault(void **state)
{
    (void)state;
    assert_int_equal(run_worker(with_state, NULL, load_and_die), -SIGKILL);
    assert_int_equal(run_worker(with_state, NULL, scribble_on_weights), 9);
    assert_int_equal(run_worker(with_state, NULL, map_weights), 0); /* they are what they were */
    drop_all();
}

static void repair_one_piece(void)
{
    struct worker w = { 0 };
    const struct weights_place *place;
    struct weights_device *weights;
    struct err e = { 0 };
    bool is_fresh;
    char *to;

    worker_open(&w);
    weights = open_weights(&w, &is_fresh);
    place = weights_device_place(weights);
    CHECK_OK(chunks_allow(&w.chunks, true, &e), e);
    fill(&w, w.chunks.base + WEIGHTS_CHUNK_BYTES, 0xee, 4096); /* the damage */
    CHECK_OK(chunks_allow(&w.chunks, false, &e), e);
    CHECK_OK(place->open_for_writing(place->ctx, &e), e);
    to = place->stage(place->ctx, 4096, &e);
    CHECK(to);
    for (uint64_t i = 0; i < 512; i++)
        ((uint64_t *)(void *)to)[i] = word_at(WEIGHTS_CHUNK_BYTES / 8 + i);
    CHECK_OK(place->put(place->ctx, to, WEIGHTS_CHUNK_BYTES, 4096, &e), e);
    CHECK_OK(place->finish(place->ctx, &e), e);
    CHECK(!w.chunks.is_writable);
    expect_sums(place);
    weights_device_free(weights);
    worker_close(&w);
}

static void a_damaged_piece_is_written_again(void **state)
{
    (void)state;
    assert_int_equal(run_worker(with_state, NULL, load_and_die), -SIGKILL);
    assert_int_equal(run_worker(with_state, NULL, repair_one_piece), 0);
    drop_all();
}

/* The device fails while threads load: each is told, none hangs, and the process can end. */
static void load_on_a_failing_device(void)
{
    struct worker w = { 0 };
    const struct weights_place *place;
    struct err e = { 0 };
    bool is_fresh, ok = true;

    worker_open(&w);
    place = weights_device_place(open_weights(&w, &is_fresh));
    CHECK_OK(place->open_for_writing(place->ctx, &e), e);
    for (int i = 0; ok && i < 1000; i++) {
        char *to = place->stage(place->ctx, 4096, &e);
        ok = to && place->put(place->ctx, to, 0, 4096, &e);
    }
    CHECK(!ok && e.code == ERR_DEVICE);
    _exit(9);
}

static void loading_on_a_failing_device_is_an_error(void **state)
{
    (void)state;
    assert_int_equal(
        run_worker(with_state, "call cuMemcpyHtoDAsync_v2 5: sticky 719", load_on_a_failing_device),
        9);
    drop_all();
}

/* ---- KV pages ---- */

enum { PAGE_BYTES = 8192, FIRST_PAGE = 100, N_PAGES = 256 };

struct peers {
    struct kv_device *device; /* of another rank, which has other bytes */
    int n_orders;
};

static bool order_peers(void *ctx, const struct kv_order *o, uint64_t *sums, struct err *e)
{
    struct peers *p = ctx;

    p->n_orders++;
    return kv_device_obey(p->device, o, sums, e);
}

static uint64_t sum_of(uint8_t value)
{
    uint64_t words[PAGE_BYTES / 8];

    memset(words, value, sizeof words);
    return page_sum(words, PAGE_BYTES / 8);
}

static void sum_and_copy_pages(void)
{
    struct kv_device_setup setup = { .page_bytes = PAGE_BYTES,
                                     .first_page = FIRST_PAGE,
                                     .n_pages = N_PAGES,
                                     .tp_size = 1,
                                     .quarantine_ns = 77 };
    const uint32_t pages[] = { FIRST_PAGE + 3, FIRST_PAGE + 255, FIRST_PAGE };
    uint32_t many[200];
    uint64_t sums[200];
    struct worker w = { 0 };
    struct kv_device *k;
    struct kv_data table;
    struct err e = { 0 };
    cu_ptr base;

    worker_open(&w);
    open_kv(&w, 1, N_PAGES * PAGE_BYTES);
    base = w.chunks.base - FIRST_PAGE * (uint64_t)PAGE_BYTES; /* pages have the pool's numbers */
    setup.device = w.device;
    setup.base = base;
    fill(&w, w.chunks.base, 0, N_PAGES * PAGE_BYTES);
    fill(&w, base + pages[0] * (uint64_t)PAGE_BYTES, 3, PAGE_BYTES);
    fill(&w, base + pages[1] * (uint64_t)PAGE_BYTES, 9, PAGE_BYTES);
    k = kv_device_new(&setup, &e);
    CHECK_OK(k != NULL, e);
    table = kv_device_table(k);
    CHECK(table.quarantine_ns == 77 && table.is_quiet(table.ctx));
    CHECK(table.checksums(table.ctx, pages, 3, sums));
    CHECK(sums[0] == sum_of(3) && sums[1] == sum_of(9) && sums[2] == sum_of(0));
    CHECK(table.copy(table.ctx, pages[2], pages[1], 5));
    expect_bytes(&w, base + pages[2] * (uint64_t)PAGE_BYTES, 9, PAGE_BYTES);
    expect_bytes(&w, base + (pages[2] + 1) * (uint64_t)PAGE_BYTES, 0, PAGE_BYTES);
    for (uint32_t i = 0; i < 200; i++)
        many[i] = FIRST_PAGE + (i % 2 ? 3 : 255);
    CHECK(table.checksums(table.ctx, many, 200, sums)); /* more than one order's */
    for (uint32_t i = 0; i < 200; i++)
        CHECK(sums[i] == sum_of(i % 2 ? 3 : 9));
    kv_device_free(k);
    worker_close(&w);
}

static void pages_are_summed_and_copied_where_they_are(void **state)
{
    (void)state;
    assert_int_equal(run_worker(with_state, NULL, sum_and_copy_pages), 0);
    drop_all();
}

/* Two ranks: a bit that one of them has wrong is in the sum of the page. */
static void sum_with_a_peer(void)
{
    struct kv_device_setup setup = { .page_bytes = PAGE_BYTES, .n_pages = 8, .tp_size = 1 };
    const uint32_t pages[] = { 1, 6 };
    uint64_t before[2], after[2];
    struct peers peers = { 0 };
    struct worker w = { 0 };
    struct kv_device *k;
    struct kv_data table;
    struct err e = { 0 };

    worker_open(&w);
    open_kv(&w, 1, 16 * PAGE_BYTES);
    fill(&w, w.chunks.base, 1, 16 * PAGE_BYTES);
    setup.device = w.device;
    setup.base = w.chunks.base + 8 * PAGE_BYTES;
    peers.device = kv_device_new(&setup, &e);
    setup.base = w.chunks.base;
    setup.tp_size = 2;
    setup.peers = (struct kv_peers){ &peers, order_peers };
    k = kv_device_new(&setup, &e);
    CHECK(peers.device && k);
    table = kv_device_table(k);
    CHECK(table.checksums(table.ctx, pages, 2, before));
    CHECK(before[0] == before[1] && before[0] != sum_of(1));
    fill(&w, w.chunks.base + (8 + 6) * PAGE_BYTES + 100, 7, 1); /* the peer's part of page 6 */
    CHECK(table.checksums(table.ctx, pages, 2, after));
    CHECK(after[0] == before[0] && after[1] != before[1]);
    CHECK(table.copy(table.ctx, 2, 6, 16));
    expect_bytes(&w, w.chunks.base + (8 + 2) * PAGE_BYTES + 100, 7, 1); /* it copied its own */
    CHECK(peers.n_orders == 3);
    kv_device_free(k);
    kv_device_free(peers.device);
    worker_close(&w);
}

static void a_page_of_several_ranks_has_one_sum(void **state)
{
    (void)state;
    assert_int_equal(run_worker(with_state, NULL, sum_with_a_peer), 0);
    drop_all();
}

static void sum_on_a_failing_device(void)
{
    struct kv_device_setup setup = { .page_bytes = PAGE_BYTES, .n_pages = 8, .tp_size = 1 };
    const uint32_t page = 1;
    struct worker w = { 0 };
    struct kv_device *k;
    struct kv_data table;
    struct err e = { 0 };
    uint64_t sum;

    worker_open(&w);
    open_kv(&w, 1, 8 * PAGE_BYTES);
    setup.device = w.device;
    setup.base = w.chunks.base;
    k = kv_device_new(&setup, &e);
    CHECK_OK(k != NULL, e);
    table = kv_device_table(k);
    CHECK(!table.checksums(table.ctx, &page, 1, &sum));
    CHECK(device_fault(w.device)); /* the next step says so */
    CHECK(!table.copy(table.ctx, 2, 1, 1));
    _exit(9);
}

static void a_failing_device_tells_no_sum(void **state)
{
    (void)state;
    assert_int_equal(
        run_worker(with_state, "kernel page_checksum 1: sticky 700", sum_on_a_failing_device), 9);
    drop_all();
}

/* ---- the dead and the GPU ---- */

static void report_xid(int xid)
{
    char path[400];
    FILE *f;

    snprintf(path, sizeof path, "%s/xid-0", folder);
    f = fopen(path, "a");
    CHECK(f && fprintf(f, "%d\n", xid) > 0 && fclose(f) == 0);
}

static void check_fence(void)
{
    const char *uuids[2] = { NULL, "GPU-00000000-0000-0000-0000-00000000ffff" };
    struct worker w = { 0 };
    struct fence f;

    worker_open(&w);
    uuids[0] = device_info(w.device)->uuid;
    fence_open(&f, uuids, 2);
    CHECK(f.sees_us);
    CHECK(fence_wait_ns(&f) == 200 * 1000000ull);
    CHECK(fence_is_quiet(&f));
    worker_close(&w);
    fence_open(&f, uuids + 1, 1);
    CHECK(!f.sees_us);
    CHECK(fence_wait_ns(&f) == 2000 * 1000000ull);
    CHECK(fence_is_quiet(&f)); /* time must do */
}

static void the_fence_believes_nvml_only_when_it_sees_us(void **state)
{
    (void)state;
    assert_int_equal(run_worker(with_state, NULL, check_fence), 0);
    drop_all();
}

static void watch_and_wait(void)
{
    struct worker w = { 0 };

    worker_open(&w);
    gpu_watch_start(device_info(w.device)->uuid, getenv("HAS_PEERS") != NULL);
    report_xid(13); /* somebody's kernel: not for us */
    report_xid(74);
    report_xid(79);
    for (;;)
        pause();
}

/* Whatever the main thread waits for. */
static void a_worker_leaves_when_the_driver_reports_its_gpu_lost(void **state)
{
    (void)state;
    unsetenv("HAS_PEERS");
    assert_int_equal(run_worker(with_state, NULL, watch_and_wait), WORKER_EXIT_DEVICE_LOST);
    drop_all();
    setenv("HAS_PEERS", "1", 1); /* NVLink means something to them */
    assert_int_equal(run_worker(with_state, NULL, watch_and_wait), WORKER_EXIT_DEVICE_STICKY);
    drop_all();
    unsetenv("HAS_PEERS");
}

static void check_persistence(void)
{
    struct worker w = { 0 };

    worker_open(&w);
    CHECK(lasting_check(device_info(w.device), false) == (getenv("EXPECT_LASTING") != NULL));
    CHECK(lasting_check(device_info(w.device), true));
    worker_close(&w);
}

static void memory_of_a_gpu_without_persistence_does_not_last(void **state)
{
    char off[500];

    (void)state;
    snprintf(off, sizeof off, "%s,persistence=off", with_state);
    unsetenv("EXPECT_LASTING");
    assert_int_equal(run_worker(off, NULL, check_persistence), 0);
    setenv("EXPECT_LASTING", "1", 1);
    assert_int_equal(run_worker(with_state, NULL, check_persistence), 0);
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "gpu-keeper") == 0) /* as llm-worker's main() */
        return gpu_keeper_main(argc - 1, argv + 1);
#define TEST(f) cmocka_unit_test_setup_teardown(f, make_folder, remove_folder)
    const struct CMUnitTest tests[] = {
        TEST(a_killed_worker_leaves_its_memory_to_the_next),
        TEST(another_layout_takes_the_place_of_the_old_one),
        TEST(too_little_memory_is_an_error_that_leaves_nothing),
        TEST(a_set_that_cannot_be_mapped_is_made_anew),
        TEST(a_keeper_outlives_the_worker_that_started_it),
        TEST(a_dead_keeper_is_replaced),
        TEST(weights_are_loaded_once_and_mapped_ever_after),
        TEST(a_stray_write_to_weights_is_the_culprits_fault),
        TEST(a_damaged_piece_is_written_again),
        TEST(loading_on_a_failing_device_is_an_error),
        TEST(pages_are_summed_and_copied_where_they_are),
        TEST(a_page_of_several_ranks_has_one_sum),
        TEST(a_failing_device_tells_no_sum),
        TEST(the_fence_believes_nvml_only_when_it_sees_us),
        TEST(a_worker_leaves_when_the_driver_reports_its_gpu_lost),
        TEST(memory_of_a_gpu_without_persistence_does_not_last),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
