/* test_gpu_memory.c - if this breaks, a worker's death costs its weights and KV pages, a successor computes on half a
 * set or on another layout's bytes, or memory of the GPU stays taken for ever by a descriptor that nobody wants.
 *
 * A chunk is a memfd here: to llmd any descriptor is one. */
#include "supervisor/gpu_memory.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/log.h"
#include "common/mem.h"
#include "common/open_fds.h"
#include "tests/check.h"

enum { N_GROUPS = 2, TP_SIZE = 2, N_CHUNKS = 150 /* three messages */ };

static sd_event *event;
static struct notify notify;
static struct fdstore store;
static struct segment table;
static struct gpu_memory memory;
static int manager;

static void make_table(struct segment *s)
{
    struct err e;

    assert_ok(segment_create(s, SEGMENT_CHUNKS, CHUNKS_VERSION, "llmd-chunks",
                             gpu_memory_table_bytes(N_GROUPS, TP_SIZE), 1, &e),
              e);
}

static int setup(void **state)
{
    struct err e;
    int pair[2];

    (void)state;
    log_set_level((enum log_level) - 1);
    assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
    assert_true(sd_event_new(&event) >= 0);
    notify = (struct notify){ .fd = pair[0] };
    manager = pair[1];
    setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &(int){ 4 << 20 }, sizeof(int));
    fdstore_open(&store, &notify, event);
    make_table(&table);
    assert_ok(gpu_memory_init(&memory, &table, N_GROUPS, TP_SIZE, &store, &e), e);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    gpu_memory_fini(&memory);
    segment_close(&table);
    close(manager);
    fdstore_close(&store);
    close(notify.fd);
    sd_event_unref(event);
    return 0;
}

/* Orders that the manager has been given since the last call; those that begin with `what`. */
static int n_orders(const char *what)
{
    char text[256];
    ssize_t bytes;
    int n = 0;

    for (;;) {
        fdstore_flush(&store);
        bytes = recv(manager, text, sizeof text - 1, MSG_DONTWAIT); /* descriptors are dropped */
        if (bytes <= 0)
            return n;
        text[bytes] = '\0';
        n += strncmp(text, what, strlen(what)) == 0 && strstr(text, "FDNAME=llmd-g-") != NULL;
    }
}

static struct chunk_set make_set(enum chunk_kind kind, uint32_t group, uint32_t rank, uint64_t id,
                                 uint32_t n)
{
    struct chunk_set s = { .kind = kind,
                           .group = group,
                           .rank = rank,
                           .id = id,
                           .layout = { 7, 8 },
                           .device = "0123456789abcde",
                           .bytes = n * 4096,
                           .chunk_bytes = 4096,
                           .n = n };

    chunk_set_init(&s);
    for (uint32_t i = 0; i < n; i++) {
        s.fds[i] = memfd_create("chunk", MFD_CLOEXEC);
        assert_true(s.fds[i] >= 0);
        assert_int_equal(ftruncate(s.fds[i], 1 + (off_t)(id * 1000 + i)), 0); /* tells it apart */
    }
    s.n_there = n;
    return s;
}

/* What the worker of a rank sends: descriptors first .. first + n - 1. */
static void say(const struct chunk_set *s, uint32_t first, uint32_t n)
{
    Llmd__Chunks message;
    struct control_msg m = { .type = MSG_CHUNKS, .body = &message, .n_fds = (int)n };

    chunk_set_batch(s, first, &message);
    for (uint32_t i = 0; i < n; i++)
        m.fds[i] = fcntl(s->fds[first + i], F_DUPFD_CLOEXEC, 3);
    gpu_memory_take(&memory, s->group, s->rank, &m);
    for (uint32_t i = 0; i < n; i++)
        if (m.fds[i] >= 0)
            close(m.fds[i]);
}

static void say_all(const struct chunk_set *s)
{
    for (uint32_t first = 0; first < s->n; first += FDPASS_FDS_MAX)
        say(s, first, s->n - first < FDPASS_FDS_MAX ? s->n - first : FDPASS_FDS_MAX);
}

/* ---- a worker's life ---- */

static const struct child_events no_events;

/* Start the next worker of a rank; what it is given. */
static uint32_t receive_all(uint32_t group, uint32_t rank, struct chunk_set out[N_KEPT_CHUNK_KINDS])
{
    uint32_t n = gpu_memory_begin_handing(&memory, group, rank), n_got = 0, rounds = 0;
    struct child worker = { 0 };
    struct control_msg m;
    struct err e = { 0 };
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair),
                     0);
    setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &(int){ 1 }, sizeof(int)); /* it is slow */
    assert_true(child_adopt(&worker, event, pair[0], -1, &no_events, NULL, &e));
    memset(out, 0, N_KEPT_CHUNK_KINDS * sizeof *out);
    while (n_got < n) {
        assert_true(rounds++ < 100);
        gpu_memory_hand(&memory, group, rank, &worker);
        while (control_recv(pair[1], &m, &e) == CONTROL_OK) {
            const Llmd__Chunks *c = m.body;
            assert_int_equal(m.type, MSG_CHUNKS);
            assert_ok(chunk_set_check(c, m.n_fds, &e), e);
            if (!out[c->kind].fds)
                chunk_set_begin(&out[c->kind], c);
            assert_true(chunk_set_is_same(&out[c->kind], c));
            assert_int_equal(chunk_set_take(&out[c->kind], &m), m.n_fds);
            n_got += (uint32_t)m.n_fds;
            control_msg_fini(&m);
        }
    }
    child_close(&worker);
    close(pair[1]);
    return n;
}

static void assert_same_chunks(const struct chunk_set *a, const struct chunk_set *b)
{
    struct stat x, y;

    assert_true(chunk_set_is_whole(a));
    assert_int_equal(a->id, b->id);
    assert_int_equal(a->layout.high, b->layout.high);
    assert_int_equal(a->n, b->n);
    for (uint32_t i = 0; i < a->n; i++) {
        assert_int_equal(fstat(a->fds[i], &x), 0);
        assert_int_equal(fstat(b->fds[i], &y), 0);
        assert_int_equal(x.st_ino, y.st_ino);
    }
}

static void free_sets(struct chunk_set got[N_KEPT_CHUNK_KINDS])
{
    for (int kind = 0; kind < N_KEPT_CHUNK_KINDS; kind++)
        chunk_set_fini(&got[kind]);
}

static void a_successor_is_given_the_same_chunks_in_order(void **state)
{
    struct chunk_set weights = make_set(CHUNKS_WEIGHTS, 1, 0, 5, N_CHUNKS);
    struct chunk_set kv = make_set(CHUNKS_KV, 1, 0, 6, 3);
    struct chunk_set peers = make_set(CHUNKS_KV, 1, 1, 7, 2), got[N_KEPT_CHUNK_KINDS];

    (void)state;
    say_all(&weights);
    say_all(&kv);
    say_all(&peers);
    assert_int_equal(n_orders("FDSTORE=1"), N_CHUNKS + 5);
    gpu_memory_ended(&memory, 1, 0, true);
    assert_int_equal(receive_all(1, 0, got), N_CHUNKS + 3);
    assert_same_chunks(&got[CHUNKS_WEIGHTS], &weights);
    assert_same_chunks(&got[CHUNKS_KV], &kv);
    free_sets(got);
    assert_int_equal(receive_all(1, 1, got), 2); /* another rank's GPU */
    assert_same_chunks(&got[CHUNKS_KV], &peers);
    free_sets(got);
    assert_int_equal(receive_all(0, 0, got), 0);
    chunk_set_fini(&weights);
    chunk_set_fini(&kv);
    chunk_set_fini(&peers);
}

/* Half of each page is gone: the other half is no use. */
static void pages_of_a_group_are_handed_on_together_or_not(void **state)
{
    struct chunk_set mine = make_set(CHUNKS_KV, 0, 0, 6, 3),
                     theirs = make_set(CHUNKS_KV, 0, 1, 7, 3);
    struct chunk_set got[N_KEPT_CHUNK_KINDS];

    (void)state;
    say_all(&mine);
    say_all(&theirs);
    gpu_memory_lost(&memory, 0, 1);
    assert_int_equal(receive_all(0, 0, got), 0);
    say_all(&theirs);
    assert_int_equal(receive_all(0, 0, got), 3);
    free_sets(got);
    chunk_set_fini(&mine);
    chunk_set_fini(&theirs);
}

static void told_again_is_kept_once(void **state)
{
    struct chunk_set s = make_set(CHUNKS_KV, 0, 0, 9, 10);
    int before;

    (void)state;
    say(&s, 0, 4);
    before = open_fds_count(getpid());
    say(&s, 0, 4);
    assert_int_equal(open_fds_count(getpid()), before);
    say_all(&s); /* a new llmd asked: it brings what was missing */
    assert_int_equal(open_fds_count(getpid()), before + 6);
    assert_int_equal(n_orders("FDSTORE=1"), 10);
    assert_true(chunk_set_is_whole(&memory.ranks[0].sets[CHUNKS_KV]));
    chunk_set_fini(&s);
}

static void a_set_that_was_not_sent_whole_is_dropped_with_its_worker(void **state)
{
    struct chunk_set s = make_set(CHUNKS_KV, 0, 1, 4, 10), got[N_KEPT_CHUNK_KINDS];
    int before = open_fds_count(getpid());

    (void)state;
    say(&s, 0, 9);
    gpu_memory_ended(&memory, 0, 1, true);
    assert_int_equal(open_fds_count(getpid()), before); /* every open copy would hold the memory */
    assert_int_equal(n_orders("FDSTOREREMOVE=1"), 9);
    assert_int_equal(receive_all(0, 1, got), 0);
    chunk_set_fini(&s);
}

static void weights_go_with_a_loader_that_dies_and_pages_stay(void **state)
{
    struct chunk_set weights = make_set(CHUNKS_WEIGHTS, 0, 0, 4, 2);
    struct chunk_set kv = make_set(CHUNKS_KV, 0, 0, 5, 2), peers = make_set(CHUNKS_KV, 0, 1, 6, 2);
    struct chunk_set got[N_KEPT_CHUNK_KINDS];

    (void)state;
    say_all(&weights);
    say_all(&kv);
    say_all(&peers);
    gpu_memory_ended(&memory, 0, 0, false); /* the header does not say COMMITTED */
    assert_int_equal(receive_all(0, 0, got), 2);
    assert_null(got[CHUNKS_WEIGHTS].fds);
    assert_same_chunks(&got[CHUNKS_KV], &kv);
    free_sets(got);
    chunk_set_fini(&weights);
    chunk_set_fini(&kv);
    chunk_set_fini(&peers);
}

/* Another layout: the worker says so before it makes new memory, since there is no room for both. */
static void an_announced_set_frees_the_one_before_it_at_once(void **state)
{
    struct chunk_set old = make_set(CHUNKS_WEIGHTS, 0, 0, 4, 5), new, got[N_KEPT_CHUNK_KINDS];
    int before = open_fds_count(getpid());

    (void)state;
    say_all(&old);
    new = old;
    new.id = 77;
    new.layout.high = 99;
    say(&new, 0, 0);
    assert_int_equal(open_fds_count(getpid()), before);
    assert_int_equal(n_orders("FDSTOREREMOVE=1"), 5);
    assert_int_equal(gpu_memory_bytes(&memory, CHUNKS_WEIGHTS), 0);
    say_all(&new);
    gpu_memory_ended(&memory, 0, 0, true);
    assert_int_equal(receive_all(0, 0, got), 5);
    assert_int_equal(got[CHUNKS_WEIGHTS].layout.high, 99);
    free_sets(got);
    chunk_set_fini(&old);
}

static void memory_that_the_gpu_has_lost_is_forgotten(void **state)
{
    struct chunk_set s = make_set(CHUNKS_KV, 0, 0, 4, 2), got[N_KEPT_CHUNK_KINDS];
    int before = open_fds_count(getpid());

    (void)state;
    say_all(&s);
    gpu_memory_lost(&memory, 0, 0);
    assert_int_equal(open_fds_count(getpid()), before);
    assert_int_equal(receive_all(0, 0, got), 0);
    chunk_set_fini(&s);
}

static void what_a_worker_may_not_say_is_ignored(void **state)
{
    struct chunk_set s = make_set(CHUNKS_KV, 0, 0, 4, 2);
    int before = open_fds_count(getpid());

    (void)state;
    s.group = 1; /* another's memory */
    Llmd__Chunks message;
    struct control_msg m = { .type = MSG_CHUNKS, .body = &message };
    chunk_set_batch(&s, 0, &message);
    gpu_memory_take(&memory, 0, 0, &m);
    message.group = 0;
    message.kind = CHUNKS_EXCHANGE; /* not kept */
    gpu_memory_take(&memory, 0, 0, &m);
    message.kind = CHUNKS_KV;
    message.n_chunks = CHUNK_SET_CHUNKS_MAX + 1;
    gpu_memory_take(&memory, 0, 0, &m);
    assert_null(memory.ranks[0].sets[CHUNKS_KV].fds);
    assert_int_equal(open_fds_count(getpid()), before);
    chunk_set_fini(&s);
}

/* ---- the next llmd ---- */

static void add_passed(void *arg, const char *name, int fd)
{
    struct passed *from = arg;

    from->list = mem_realloc(from->list, (from->n + 1) * sizeof *from->list);
    from->list[from->n].fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    snprintf(from->list[from->n++].name, FDSTORE_NAME_BYTES, "%s", name);
}

/* llmd is killed: nothing is said to anybody; the store has what it was given. */
static void die_and_adopt(struct passed *from)
{
    struct err e;

    gpu_memory_each(&memory, add_passed, from);
    gpu_memory_fini(&memory);
    assert_ok(gpu_memory_init(&memory, &table, N_GROUPS, TP_SIZE, &store, &e), e);
    gpu_memory_adopt(&memory, from);
    for (uint32_t i = 0; i < from->n; i++)
        if (strncmp(from->list[i].name, "llmd-g-", 7) == 0)
            assert_int_equal(from->list[i].fd, -1);
    passed_fini(from);
}

static void the_next_llmd_hands_on_what_its_predecessor_kept(void **state)
{
    struct chunk_set weights = make_set(CHUNKS_WEIGHTS, 1, 1, 4, 70);
    struct chunk_set kv = make_set(CHUNKS_KV, 0, 1, 5, 1), peers = make_set(CHUNKS_KV, 0, 0, 6, 1);
    struct chunk_set got[N_KEPT_CHUNK_KINDS];
    struct passed from = { 0 };

    (void)state;
    say_all(&weights);
    say_all(&kv);
    say_all(&peers);
    n_orders("");
    die_and_adopt(&from);
    assert_int_equal(n_orders("FDSTOREREMOVE=1"), 0);
    assert_int_equal(receive_all(1, 1, got), 70);
    assert_same_chunks(&got[CHUNKS_WEIGHTS], &weights);
    free_sets(got);
    assert_int_equal(receive_all(0, 1, got), 1);
    assert_same_chunks(&got[CHUNKS_KV], &kv);
    free_sets(got);
    chunk_set_fini(&weights);
    chunk_set_fini(&kv);
    chunk_set_fini(&peers);
}

/* It died between dropping a set and taking it out of the store; and one chunk came twice. */
static void chunks_of_no_set_are_taken_out_of_the_store(void **state)
{
    struct chunk_set s = make_set(CHUNKS_KV, 0, 0, 0xabcd, 2),
                     gone = make_set(CHUNKS_KV, 0, 0, 3, 2);
    struct passed from = { 0 };
    int before = open_fds_count(getpid());

    (void)state;
    say_all(&s);
    add_passed(&from, "llmd-g-00000003-0", gone.fds[0]);
    add_passed(&from, "llmd-g-00000003-1", gone.fds[1]);
    add_passed(&from, "llmd-g-0000abcd-1", s.fds[1]);
    add_passed(&from, "llmd-g-0000abcd-2", s.fds[1]); /* it has two */
    n_orders("");
    die_and_adopt(&from);
    assert_int_equal(n_orders("FDSTOREREMOVE=1"), 3);
    assert_int_equal(open_fds_count(getpid()), before + 2);
    assert_true(chunk_set_is_whole(&memory.ranks[0].sets[CHUNKS_KV]));
    chunk_set_fini(&s);
    chunk_set_fini(&gone);
}

/* It died with descriptors that the manager had not read: the worker says all again, or is dead. */
static void a_set_with_a_gap_is_filled_by_its_worker_or_dropped(void **state)
{
    struct chunk_set s = make_set(CHUNKS_WEIGHTS, 0, 0, 4, 4), got[N_KEPT_CHUNK_KINDS];
    struct passed from = { 0 };

    (void)state;
    say(&s, 0, 3);
    die_and_adopt(&from);
    assert_int_equal(receive_all(0, 0, got), 0); /* not whole: not handed on */
    say_all(&s);
    assert_int_equal(receive_all(0, 0, got), 4);
    free_sets(got);
    chunk_set_fini(&s);
}

static void without_gpus_nothing_is_kept(void **state)
{
    const struct segment none = { .fd = -1 };
    struct gpu_memory m;
    struct passed from = { 0 };
    struct err e;

    (void)state;
    assert_ok(gpu_memory_init(&m, &none, 2, 2, &store, &e), e);
    gpu_memory_adopt(&m, &from);
    gpu_memory_ended(&m, 0, 0, false);
    gpu_memory_lost(&m, 0, 0);
    assert_int_equal(gpu_memory_begin_handing(&m, 1, 1), 0);
    gpu_memory_each(&m, add_passed, &from);
    assert_int_equal(from.n, 0);
    gpu_memory_fini(&m);
}

static void a_table_of_another_size_is_refused(void **state)
{
    struct gpu_memory m;
    struct err e;

    (void)state;
    assert_fails(gpu_memory_init(&m, &table, 64, 8, &store, &e), e, ERR_PROTO, "512 ranks");
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_successor_is_given_the_same_chunks_in_order),
        TEST(pages_of_a_group_are_handed_on_together_or_not),
        TEST(told_again_is_kept_once),
        TEST(a_set_that_was_not_sent_whole_is_dropped_with_its_worker),
        TEST(weights_go_with_a_loader_that_dies_and_pages_stay),
        TEST(an_announced_set_frees_the_one_before_it_at_once),
        TEST(memory_that_the_gpu_has_lost_is_forgotten),
        TEST(what_a_worker_may_not_say_is_ignored),
        TEST(the_next_llmd_hands_on_what_its_predecessor_kept),
        TEST(chunks_of_no_set_are_taken_out_of_the_store),
        TEST(a_set_with_a_gap_is_filled_by_its_worker_or_dropped),
        TEST(without_gpus_nothing_is_kept),
        TEST(a_table_of_another_size_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
