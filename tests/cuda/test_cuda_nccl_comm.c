/* test_cuda_nccl_comm.c - a communicator's states, on the fake NCCL; the ranks are this process and a child.
 *
 * What would break in production: a rank that waits for NCCL; a communicator that never forms and is never given up. */
#include <stdio.h>
#include <time.h>

#include "gpu-worker/cuda/nccl_comm.h"
#include "tests/cuda/device_fixture.h"

enum { N = 100000 };

static void nap(void)
{
    nanosleep(&(struct timespec){ 0, 1000000 }, NULL);
}

static enum nccl_comm_state settle(struct nccl_comm *c, struct err *e)
{
    while (nccl_comm_poll(c, e) == NCCL_COMM_FORMING)
        nap();
    return c->state;
}

static void sum_twice(uint32_t rank, const struct nccl_unique_id *id)
{
    struct device_fixture f;
    struct nccl_comm c;
    struct err e = { 0 };
    float *v = malloc(N * sizeof *v), *in;

    fixture_open(&f, (int)rank, N * sizeof *v);
    in = fixture_alloc(&f, N * sizeof *v);
    for (int i = 0; i < N; i++)
        v[i] = (float)(i + (int)rank);
    fixture_put(&f, in, v, N * sizeof *v);
    assert_ok(nccl_comm_start(&c, id, rank, 2, &e), e);
    assert_int_equal(c.state, NCCL_COMM_FORMING);
    assert_int_equal(settle(&c, &e), NCCL_COMM_READY);
    for (int i = 0; i < 2; i++)
        assert_true(nccl_comm_all_reduce(&c, &f.stream, in, in, N));
    fixture_get(&f, v, in, N * sizeof *v);
    for (int i = 0; i < N; i++)
        assert_true(v[i] == (float)(2 * (2 * i + 1)));
    assert_true(nccl_comm_close(&c, true));
    fixture_free(&f, in);
    fixture_close(&f);
    free(v);
}

static void two_ranks_form_and_sum(void **state)
{
    struct nccl_unique_id id;
    struct err e = { 0 };
    int status = 0;
    pid_t pid;

    (void)state;
    assert_ok(nccl_comm_id(&id, &e), e);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        sum_twice(1, &id);
        _exit(0);
    }
    sum_twice(0, &id);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static void a_communicator_that_does_not_form_is_given_up(void **state)
{
    struct nccl_unique_id id;
    struct nccl_comm c;
    struct err e = { 0 };

    (void)state;
    assert_ok(nccl_comm_id(&id, &e), e);
    assert_ok(nccl_comm_start(&c, &id, 0, 2, &e), e); /* the other never comes */
    assert_int_equal(nccl_comm_poll(&c, &e), NCCL_COMM_FORMING);
    assert_true(c.deadline_ns <= clock_mono_ns() + NCCL_COMM_LIMIT_NS);
    c.deadline_ns = clock_mono_ns();
    assert_int_equal(settle(&c, &e), NCCL_COMM_FAILED);
    assert_int_equal(e.code, ERR_TIMEOUT);
    assert_int_equal(nccl_comm_poll(&c, &e), NCCL_COMM_FAILED); /* and stays so */
    assert_false(nccl_comm_close(&c, true));                    /* without a wait: it is left */
    assert_true(nccl_comm_is_left());
}

static void an_error_of_the_library_is_told(void **state)
{
    struct nccl_unique_id id;
    struct nccl_comm c;
    struct err e = { 0 };

    (void)state;
    setenv("LLMD_FAKE_NCCL", "init=fail", 1);
    assert_ok(nccl_comm_id(&id, &e), e);
    assert_ok(nccl_comm_start(&c, &id, 0, 2, &e), e);
    assert_int_equal(settle(&c, &e), NCCL_COMM_FAILED);
    assert_int_equal(e.code, ERR_DEVICE);
    assert_non_null(strstr(e.msg, "ncclSystemError"));
    unsetenv("LLMD_FAKE_NCCL");
    assert_false(nccl_comm_close(&c, true));
}

static void the_operators_environment_stays(void **state)
{
    (void)state;
    setenv("NCCL_SOCKET_IFNAME", "eth7", 1);
    unsetenv("NCCL_IB_DISABLE");
    nccl_comm_environment(false);
    assert_string_equal(getenv("NCCL_SOCKET_IFNAME"), "eth7");
    assert_string_equal(getenv("NCCL_IB_DISABLE"), "1");
    assert_null(getenv("NCCL_P2P_DISABLE"));
    nccl_comm_environment(true);
    assert_string_equal(getenv("NCCL_P2P_DISABLE"), "1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_ranks_form_and_sum),
        cmocka_unit_test(a_communicator_that_does_not_form_is_given_up),
        cmocka_unit_test(an_error_of_the_library_is_told),
        cmocka_unit_test(the_operators_environment_stays),
    };

    setenv("LLMD_FAKE_CUDA", "gpus=2", 1);
    nccl_comm_environment(false);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
