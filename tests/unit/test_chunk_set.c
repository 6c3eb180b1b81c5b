/* test_chunk_set.c - if this breaks, a worker maps chunks in the wrong order or of the wrong size, or a message of the
 * other side makes this one write past its arrays. */
#include "proto/chunk_set.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "gpu-worker/chunk_road.h"
#include "tests/check.h"

static struct chunk_set make_set(enum chunk_kind kind, uint32_t n)
{
    struct chunk_set s = { .kind = kind,
                           .group = 3,
                           .rank = 1,
                           .id = 11,
                           .layout = { 7, 8 },
                           .device = "0123456789abcde",
                           .bytes = n * 4096 - 1024,
                           .chunk_bytes = 4096,
                           .n = n };

    chunk_set_init(&s);
    for (uint32_t i = 0; i < n; i++)
        s.fds[i] = memfd_create("chunk", MFD_CLOEXEC);
    s.n_there = n;
    return s;
}

static void assert_same(const struct chunk_set *a, const struct chunk_set *b)
{
    struct stat x, y;

    assert_true(chunk_set_is_whole(a));
    assert_int_equal(a->n, b->n);
    assert_int_equal(a->id, b->id);
    assert_int_equal(a->bytes, b->bytes);
    assert_memory_equal(a->device, b->device, sizeof a->device);
    for (uint32_t i = 0; i < a->n; i++) {
        fstat(a->fds[i], &x);
        fstat(b->fds[i], &y);
        assert_int_equal(x.st_ino, y.st_ino);
    }
}

static void the_last_chunk_may_be_shorter(void **state)
{
    struct chunk_set s = make_set(CHUNKS_KV, 3);

    (void)state;
    assert_int_equal(chunk_set_chunk_bytes(&s, 0), 4096);
    assert_int_equal(chunk_set_chunk_bytes(&s, 1), 4096);
    assert_int_equal(chunk_set_chunk_bytes(&s, 2), 3072);
    chunk_set_fini(&s);
}

/* ---- over a socket, to the worker's end ---- */

struct ends {
    int llmd, worker;
};

static struct ends connect_ends(void)
{
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    return (struct ends){ pair[0], pair[1] };
}

static void close_ends(struct ends *s)
{
    close(s->llmd);
    close(s->worker);
}

static void sets_of_several_messages_arrive_whole(void **state)
{
    struct chunk_set weights = make_set(CHUNKS_WEIGHTS, 2 * FDPASS_FDS_MAX + 5);
    struct chunk_set kv = make_set(CHUNKS_KV, 1);
    struct ends s = connect_ends();
    struct chunk_road road;
    struct err e;

    (void)state;
    assert_ok(chunk_set_send(&weights, s.llmd, &e), e);
    assert_ok(chunk_set_send(&kv, s.llmd, &e), e);
    assert_ok(chunk_road_open(&road, s.worker, weights.n + kv.n, &e), e);
    assert_same(chunk_road_find(&road, CHUNKS_WEIGHTS), &weights);
    assert_same(chunk_road_find(&road, CHUNKS_KV), &kv);
    chunk_road_close(&road);
    chunk_set_fini(&weights);
    chunk_set_fini(&kv);
    close_ends(&s);
}

/* What llmd hears of a set that a worker makes: its name first, then what it is made of, and all of it again. */
static void a_new_set_is_announced_then_sent_and_told_again(void **state)
{
    struct chunk_set made = make_set(CHUNKS_KV, 2);
    struct ends s = connect_ends();
    const int n_fds[] = { 0, 2, 2 };
    const struct chunk_set *kept;
    struct chunk_road road;
    struct err e;

    (void)state;
    assert_ok(chunk_road_open(&road, s.worker, 0, &e), e);
    assert_null(chunk_road_find(&road, CHUNKS_KV));
    chunk_road_announce(&road, &made);
    kept = chunk_road_keep(&road, &made);
    assert_ptr_equal(kept, chunk_road_find(&road, CHUNKS_KV));
    assert_null(made.fds); /* taken */
    chunk_road_tell_again(&road);
    for (int i = 0; i < 3; i++) {
        struct control_msg m;
        assert_int_equal(control_recv(s.llmd, &m, &e), CONTROL_OK);
        assert_int_equal(m.type, MSG_CHUNKS);
        assert_ok(chunk_set_check(m.body, m.n_fds, &e), e);
        assert_int_equal(m.n_fds, n_fds[i]);
        assert_true(chunk_set_is_same(chunk_road_find(&road, CHUNKS_KV), m.body));
        control_msg_fini(&m);
    }
    chunk_road_close(&road);
    close_ends(&s);
}

/* It serves on: the memory ends with it, unless a new llmd asks. */
static void a_worker_without_llmd_keeps_its_sets(void **state)
{
    struct chunk_set made = make_set(CHUNKS_KV, 2);
    struct ends s = connect_ends();
    struct chunk_road road;
    struct err e;

    (void)state;
    signal(SIGPIPE, SIG_IGN);
    assert_ok(chunk_road_open(&road, s.worker, 0, &e), e);
    close(s.llmd);
    chunk_road_announce(&road, &made);
    assert_true(chunk_set_is_whole(chunk_road_keep(&road, &made)));
    chunk_road_close(&road);
    close(s.worker);
}

static void a_road_that_ends_early_is_an_error(void **state)
{
    struct chunk_set s = make_set(CHUNKS_KV, 2);
    struct ends ends = connect_ends();
    struct chunk_road road;
    struct err e;

    (void)state;
    assert_ok(chunk_set_send(&s, ends.llmd, &e), e);
    close(ends.llmd);
    assert_fails(chunk_road_open(&road, ends.worker, 3, &e), e, ERR_PROTO, "stopped handing over");
    chunk_road_close(&road);
    chunk_set_fini(&s);
    close(ends.worker);
}

/* ---- what the other side might say ---- */

static void impossible_sets_are_refused(void **state)
{
    struct chunk_set s = make_set(CHUNKS_KV, 3);
    Llmd__Chunks good, m;
    struct err e;

    (void)state;
    chunk_set_batch(&s, 0, &good);
    assert_ok(chunk_set_check(&good, 3, &e), e);
    assert_fails(chunk_set_check(&good, 4, &e), e, ERR_PROTO, "descriptors");
#define REFUSED(field, value, words)                                                               \
    do {                                                                                           \
        m = good;                                                                                  \
        m.field = value;                                                                           \
        assert_fails(chunk_set_check(&m, 1, &e), e, ERR_PROTO, words);                             \
    } while (0)
    REFUSED(kind, N_CHUNK_KINDS, "kind");
    REFUSED(set, 0, "set");
    REFUSED(device.len, 15, "15 bytes");
    REFUSED(n_chunks, 0, "chunks of");
    REFUSED(n_chunks, 2, "chunks of");
    REFUSED(n_chunks, UINT32_MAX, "chunks of");
    REFUSED(bytes, 0, "chunks of");
    REFUSED(bytes, UINT64_MAX, "chunks of");
    REFUSED(chunk_bytes, 0, "chunks of");
    REFUSED(first, 3, "descriptors");
    REFUSED(first, UINT32_MAX, "descriptors");
    chunk_set_fini(&s);
}

/* Whatever decides what lies where: another value is another set. */
static void a_set_is_the_same_only_when_all_of_it_is(void **state)
{
    struct chunk_set s = make_set(CHUNKS_KV, 3);
    Llmd__Chunks good, m;

    (void)state;
    chunk_set_batch(&s, 0, &good);
    assert_true(chunk_set_is_same(&s, &good));
#define OTHER(field, value)                                                                        \
    do {                                                                                           \
        m = good;                                                                                  \
        m.field = value;                                                                           \
        assert_false(chunk_set_is_same(&s, &m));                                                   \
    } while (0)
    OTHER(set, 12);
    OTHER(layout_low, 1);
    OTHER(layout_high, 1);
    OTHER(bytes, 3 * 4096);
    OTHER(chunk_bytes, 5000);
    OTHER(n_chunks, 4);
    OTHER(rank, 0);
    OTHER(device.data, (uint8_t *)"another GPU's id");
    chunk_set_fini(&s);
    assert_false(chunk_set_is_same(&s, &good));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_last_chunk_may_be_shorter),
        cmocka_unit_test(sets_of_several_messages_arrive_whole),
        cmocka_unit_test(a_new_set_is_announced_then_sent_and_told_again),
        cmocka_unit_test(a_worker_without_llmd_keeps_its_sets),
        cmocka_unit_test(a_road_that_ends_early_is_an_error),
        cmocka_unit_test(impossible_sets_are_refused),
        cmocka_unit_test(a_set_is_the_same_only_when_all_of_it_is),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
