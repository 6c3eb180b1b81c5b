/* test_model_switch.c - `llmctl reload --model DIR` on the real system, under streams.
 *
 * What would break in production: a request refused or cut while the model is changed, a stream that goes on
 * with another model's weights, processes or descriptors of the old model left behind, an llmd that the next
 * crash cannot follow. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/open_fds.h"
#include "proto/control.h"
#include "proto/control_client.h"
#include "tests/proc/http_client.h"
#include "tests/proc/system.h"

enum { N_STREAMS = 8, TOKENS = 400, PATIENCE_MS = 60000 };

#define DEMO TEST_SOURCE_DIR "/models/stories-demo"

static const char *const args[] = { "--model", DEMO, "--log-level", "warning", NULL };

/* The demo model under another name: a folder that is a link. */
static char other[] = "/tmp/llmd-other-model-XXXXXX";
static char other_model[sizeof other + 8];

static int make_other(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(other));
    snprintf(other_model, sizeof other_model, "%s/other", other);
    return symlink(DEMO, other_model);
}

static int remove_other(void **state)
{
    (void)state;
    unlink(other_model);
    return rmdir(other);
}

static void nap_ms(int ms)
{
    nanosleep(&(struct timespec){ .tv_nsec = (long)ms * 1000000 }, NULL);
}

static void ask(const struct system *s, struct exchange *x, int i)
{
    struct buf body = { 0 };

    buf_printf(&body,
               "{\"inputs\":\"Once upon a time %d\",\"parameters\":{\"max_new_tokens\":%d,"
               "\"do_sample\":true,\"temperature\":0.9,\"seed\":%d}}",
               i, TOKENS, i);
    exchange_start(x, s->port, i % 2 ? "/generate_stream" : "/generate", "", body.data);
    buf_fini(&body);
}

static void finish(struct exchange *x, struct buf *out)
{
    assert_true(exchanges_run(x, 1, PATIENCE_MS));
    assert_false(x->refused);
    assert_true(exchange_finish(x));
    assert_int_equal(x->status, 200);
    buf_clear(out);
    buf_add(out, x->body.data, x->body.n);
    http_exchange_close(x);
}

/* Send the order; the answer comes when it is done. */
static int order_switch(const struct system *s, const char *model)
{
    Llmd__CtlRequest request = LLMD__CTL_REQUEST__INIT;
    int fd = control_connect(s->dir, 60000);

    request.command = LLMD__CTL_COMMAND__CTL_RELOAD;
    request.model = (char *)(uintptr_t)model;
    assert_true(fd >= 0);
    assert_true(control_send(fd, MSG_CTL_REQUEST, &request, NULL, 0, NULL));
    return fd;
}

/* "" when it was done, else why not. */
static void take_answer(int fd, char *error, size_t n)
{
    const Llmd__CtlReply *reply;
    struct control_msg m;

    assert_int_equal(control_recv(fd, &m, NULL), CONTROL_OK);
    reply = m.body;
    snprintf(error, n, "%s", reply->ok ? "" : reply->error);
    control_msg_fini(&m);
    close(fd);
}

/* The gateway of the model before may take a connection yet: it is told to stop when the answer is on its way. */
static void expect_served(const struct system *s, const char *name)
{
    uint64_t end_ns = clock_mono_ns() + PATIENCE_MS * NS_PER_MS;
    struct buf page = { 0 };
    char id[64];

    snprintf(id, sizeof id, "\"id\":\"%s\"", name);
    do {
        buf_clear(&page);
        assert_int_equal(http_ask(s->port, "/v1/models", NULL, &page), 200);
    } while (!strstr(page.data, id) && clock_mono_ns() < end_ns);
    if (!strstr(page.data, id))
        fail_msg("not %s: %s", id, page.data);
    buf_fini(&page);
}

/* Processes whose parent is llmd or who are in its family: counted by their runtime folder in vain, so by
 * what llmd's process table says and by its descriptors. */
static void wait_for_fds(pid_t pid, int at_most)
{
    uint64_t end_ns = clock_mono_ns() + PATIENCE_MS * NS_PER_MS;

    while (open_fds_count(pid) > at_most && clock_mono_ns() < end_ns)
        nap_ms(20);
    assert_true(open_fds_count(pid) <= at_most);
}

/* Until the processes of the model before have finished, a switch is refused; so is one to nowhere, but with
 * other words. */
static void wait_for_order(const struct system *s)
{
    uint64_t end_ns = clock_mono_ns() + PATIENCE_MS * NS_PER_MS;
    char error[300];

    do {
        assert_true(clock_mono_ns() < end_ns);
        nap_ms(20);
        take_answer(order_switch(s, "/nowhere"), error, sizeof error);
    } while (strstr(error, "going on"));
}

static void switch_under_streams(struct system *s, const char *model, struct buf *calm)
{
    struct exchange x[N_STREAMS], late;
    struct buf got = { 0 };
    char error[300];
    int order;

    for (int i = 0; i < N_STREAMS; i++)
        ask(s, &x[i], i);
    order = order_switch(s, model);
    nap_ms(20);
    ask(s, &late, 0); /* while the new one is loaded */
    take_answer(order, error, sizeof error);
    assert_string_equal(error, "");
    for (int i = 0; i < N_STREAMS; i++) {
        finish(&x[i], &got);
        assert_string_equal(got.data, calm[i].data);
    }
    finish(&late, &got);
    assert_string_equal(got.data, calm[0].data);
    buf_fini(&got);
}

static void run(struct system *s)
{
    struct buf calm[N_STREAMS] = { { 0 } };
    pid_t llmd = system_pid_of(s, "llmd");
    int fds = 0;

    for (int i = 0; i < N_STREAMS; i++) {
        struct exchange x;
        ask(s, &x, i);
        finish(&x, &calm[i]);
    }
    for (int round = 0; round < 4; round++) {
        wait_for_order(s);
        switch_under_streams(s, round % 2 ? DEMO : other_model, calm);
        expect_served(s, round % 2 ? "stories-demo" : "other");
        assert_true(system_wait_ready(s, PATIENCE_MS));
        assert_int_equal(system_pid_of(s, "llmd"), llmd);
        if (round == 0) {
            nap_ms(500);
            fds = open_fds_count(llmd);
        }
    }
    wait_for_fds(llmd, fds);
    for (int i = 0; i < N_STREAMS; i++)
        buf_fini(&calm[i]);
}

static void another_model_is_served_without_losing_a_stream(void **state)
{
    struct system s;

    (void)state;
    system_start(&s, args);
    run(&s);
    assert_int_equal(system_stop(&s), 0);
}

static void an_llmd_killed_after_a_switch_is_followed(void **state)
{
    struct system s;
    pid_t gateway;

    (void)state;
    system_start_below_init(&s, args);
    run(&s);
    gateway = system_pid_of(&s, "gateway");
    kill(system_pid_of(&s, "llmd"), SIGKILL);
    assert_true(system_wait_ready(&s, PATIENCE_MS));
    expect_served(&s, "stories-demo");
    assert_int_equal(system_pid_of(&s, "gateway"), gateway);
    assert_int_equal(system_stop(&s), 0);
}

static void a_model_that_cannot_be_read_leaves_the_old_one_serving(void **state)
{
    struct system s;
    char error[300];
    pid_t gateway;

    (void)state;
    system_start(&s, args);
    gateway = system_pid_of(&s, "gateway");
    take_answer(order_switch(&s, "/nowhere"), error, sizeof error);
    assert_non_null(strstr(error, "no such folder or file"));
    take_answer(order_switch(&s, other), error, sizeof error);
    assert_non_null(strstr(error, "config.json"));
    expect_served(&s, "stories-demo");
    assert_int_equal(system_pid_of(&s, "gateway"), gateway);
    assert_int_equal(system_stop(&s), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(another_model_is_served_without_losing_a_stream),
        cmocka_unit_test(an_llmd_killed_after_a_switch_is_followed),
        cmocka_unit_test(a_model_that_cannot_be_read_leaves_the_old_one_serving),
    };

    return cmocka_run_group_tests_name("model_switch", tests, make_other, remove_other);
}
