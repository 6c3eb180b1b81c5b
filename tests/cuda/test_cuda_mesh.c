/* test_cuda_mesh.c - ranks that meet over sockets; here they are threads of one process.
 *
 * What would break in production: a rank that waits for ever for one that does not come; groups or epochs that take
 * each other's ranks in; descriptors that leak. */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>

#include "common/clock.h"
#include "gpu-worker/cuda/mesh.h"
#include "tests/check.h"

struct rank {
    uint64_t group_id;
    uint32_t epoch, rank, n_ranks;
    uint64_t limit_ms;
    bool ok;
    struct err e;
    uint32_t sum;    /* of what all said */
    ino_t inodes[8]; /* of the descriptors that came */
    pthread_t thread;
};

/* A group id that no other test process uses. */
static uint64_t own_group(uint32_t n)
{
    return (uint64_t)getpid() << 16 | n;
}

/* Meet, and go two rounds: numbers, then numbers with descriptors. */
static void *meet(void *arg)
{
    struct rank *r = arg;
    uint64_t deadline = clock_mono_ns() + r->limit_ms * NS_PER_MS;
    uint32_t mine = 100 + r->rank, all[8];
    struct mesh m = { 0 };
    int fds[8], fd = memfd_create("test", MFD_CLOEXEC);
    struct stat s;

    r->ok = mesh_open(&m, r->group_id, r->epoch, r->rank, r->n_ranks, deadline, &r->e) &&
            mesh_all_gather(&m, &mine, -1, all, NULL, sizeof mine, deadline, &r->e);
    for (uint32_t i = 0; i < r->n_ranks && r->ok; i++)
        r->sum += all[i];
    r->ok = r->ok && mesh_all_gather(&m, &mine, fd, all, fds, sizeof mine, deadline, &r->e);
    for (uint32_t i = 0; i < r->n_ranks && r->ok; i++) {
        r->inodes[i] = fstat(i == r->rank ? fd : fds[i], &s) == 0 ? s.st_ino : 0;
        if (i != r->rank)
            close(fds[i]);
    }
    close(fd);
    mesh_close(&m);
    return NULL;
}

static void start(struct rank *r)
{
    assert_int_equal(pthread_create(&r->thread, NULL, meet, r), 0);
}

static int open_fds(void)
{
    int n = 0;

    for (int fd = 0; fd < 1024; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

static void ranks_hand_each_other_numbers_and_descriptors(void **state)
{
    int before = open_fds();

    (void)state;
    for (uint32_t n = 1; n <= 8; n++) {
        struct rank ranks[8] = { 0 };
        /* The last comes first, and finds nobody. */
        for (uint32_t i = n; i-- > 0;) {
            ranks[i] = (struct rank){ own_group(n), 3, i, n, 30000, false, { 0 }, 0, { 0 }, 0 };
            start(&ranks[i]);
        }
        for (uint32_t i = 0; i < n; i++) {
            pthread_join(ranks[i].thread, NULL);
            if (!ranks[i].ok)
                fail_msg("rank %u of %u: %s", i, n, ranks[i].e.msg);
            assert_int_equal(ranks[i].sum, 100 * n + n * (n - 1) / 2);
            for (uint32_t p = 0; p < n; p++) {
                assert_true(ranks[i].inodes[p] != 0);
                assert_true(ranks[i].inodes[p] == ranks[0].inodes[p]);
            }
        }
    }
    assert_int_equal(open_fds(), before);
}

static void a_rank_that_does_not_come_is_named(void **state)
{
    struct rank high = { own_group(20), 1, 1, 2, 50, false, { 0 }, 0, { 0 }, 0 };
    struct rank low = { own_group(21), 1, 0, 3, 50, false, { 0 }, 0, { 0 }, 0 };

    (void)state;
    start(&high);
    start(&low);
    pthread_join(high.thread, NULL);
    pthread_join(low.thread, NULL);
    assert_false(high.ok);
    assert_int_equal(high.e.code, ERR_TIMEOUT);
    assert_non_null(strstr(high.e.msg, "rank 0 did not come"));
    assert_false(low.ok);
    assert_int_equal(low.e.code, ERR_TIMEOUT);
    assert_non_null(strstr(low.e.msg, "2 ranks did not come"));
}

static void groups_and_epochs_do_not_meet(void **state)
{
    struct rank ranks[] = {
        { own_group(30), 1, 0, 2, 100, false, { 0 }, 0, { 0 }, 0 },
        { own_group(30), 2, 1, 2, 100, false, { 0 }, 0, { 0 }, 0 },
        { own_group(31), 1, 1, 2, 100, false, { 0 }, 0, { 0 }, 0 },
    };

    (void)state;
    for (int i = 0; i < 3; i++)
        start(&ranks[i]);
    for (int i = 0; i < 3; i++) {
        pthread_join(ranks[i].thread, NULL);
        assert_false(ranks[i].ok);
        assert_int_equal(ranks[i].e.code, ERR_TIMEOUT);
    }
}

static void *leave_after_meeting(void *arg)
{
    struct rank *r = arg;
    struct mesh m = { 0 };

    r->ok = mesh_open(&m, r->group_id, r->epoch, r->rank, r->n_ranks,
                      clock_mono_ns() + 30 * NS_PER_S, &r->e);
    mesh_close(&m);
    return NULL;
}

static void a_rank_that_has_left_is_named(void **state)
{
    struct rank stays = { own_group(40), 1, 0, 2, 30000, false, { 0 }, 0, { 0 }, 0 };
    struct rank leaves = { own_group(40), 1, 1, 2, 30000, false, { 0 }, 0, { 0 }, 0 };

    (void)state;
    start(&stays);
    assert_int_equal(pthread_create(&leaves.thread, NULL, leave_after_meeting, &leaves), 0);
    pthread_join(leaves.thread, NULL);
    pthread_join(stays.thread, NULL);
    assert_true(leaves.ok);
    assert_false(stays.ok);
    assert_int_equal(stays.e.code, ERR_DEVICE);
    assert_non_null(strstr(stays.e.msg, "rank 1 has left"));
}

/* Say something at a rank's door that no rank would say; returns when it is listening. */
static int knock(const struct rank *r, const void *bytes, size_t n)
{
    struct sockaddr_un at = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    socklen_t length;

    length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 +
                         (size_t)snprintf(at.sun_path + 1, sizeof at.sun_path - 1,
                                          "llmd-ranks-%016llx-%u-%u",
                                          (unsigned long long)r->group_id, r->epoch, r->rank));
    while (connect(fd, (struct sockaddr *)&at, length) != 0)
        nanosleep(&(struct timespec){ 0, 1000000 }, NULL);
    assert_int_equal(send(fd, bytes, n, MSG_NOSIGNAL), n);
    return fd;
}

static void a_rank_of_another_build_is_refused(void **state)
{
    struct rank r = { own_group(50), 1, 0, 2, 30000, false, { 0 }, 0, { 0 }, 0 };
    uint32_t hello[6] = { 99, 1, 2, 1 };
    int fd;

    (void)state;
    start(&r);
    fd = knock(&r, hello, sizeof hello);
    pthread_join(r.thread, NULL);
    close(fd);
    assert_false(r.ok);
    assert_int_equal(r.e.code, ERR_PROTO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranks_hand_each_other_numbers_and_descriptors),
        cmocka_unit_test(a_rank_that_does_not_come_is_named),
        cmocka_unit_test(groups_and_epochs_do_not_meet),
        cmocka_unit_test(a_rank_that_has_left_is_named),
        cmocka_unit_test(a_rank_of_another_build_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
