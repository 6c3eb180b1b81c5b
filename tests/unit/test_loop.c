/* test_loop.c - a task lost between threads is a request that is never answered; a stop that is missed
 * is a process that has to be killed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above */
#include <cmocka.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/clock.h"
#include "gateway/net/loop.h"

enum { N_THREADS = 3, N_POSTS = 2000 };

struct poster {
    struct loop *loop;
    int number;
    struct tally *tally;
    pthread_t thread;
};

struct tally {
    struct loop *loop;
    int next[N_THREADS]; /* what the next task of each thread must be */
    int n;
    int n_wrong;
};

struct post {
    struct tally *tally;
    int thread, number;
};

static struct post posts[N_THREADS][N_POSTS];

static void on_post(void *arg)
{
    struct post *p = arg;

    p->tally->n_wrong += p->tally->next[p->thread]++ != p->number;
    if (++p->tally->n == N_THREADS * N_POSTS)
        loop_stop(p->tally->loop);
}

static void *post_all(void *arg)
{
    struct poster *p = arg;

    for (int i = 0; i < N_POSTS; i++) {
        posts[p->number][i] = (struct post){ p->tally, p->number, i };
        loop_post(p->loop, on_post, &posts[p->number][i]);
    }
    return NULL;
}

static void tasks_of_other_threads_run_once_and_in_order(void **state)
{
    struct err e;
    struct loop *l = loop_new(&e);
    struct tally tally = { .loop = l };
    struct poster posters[N_THREADS];

    (void)state;
    for (int i = 0; i < N_THREADS; i++) {
        posters[i] = (struct poster){ .loop = l, .number = i, .tally = &tally };
        assert_int_equal(pthread_create(&posters[i].thread, NULL, post_all, &posters[i]), 0);
    }
    loop_run(l);
    for (int i = 0; i < N_THREADS; i++)
        pthread_join(posters[i].thread, NULL);
    assert_int_equal(tally.n, N_THREADS * N_POSTS);
    assert_int_equal(tally.n_wrong, 0);
    loop_free(l);
}

static void count(void *arg)
{
    ++*(int *)arg;
}

static void a_stop_before_the_run_is_not_missed(void **state)
{
    struct err e;
    struct loop *l = loop_new(&e);
    int n = 0;

    (void)state;
    loop_post(l, count, &n);
    loop_stop(l);
    loop_run(l);
    assert_int_equal(n, 1);
    loop_post(l, count, &n); /* and it can run again */
    loop_stop(l);
    loop_run(l);
    assert_int_equal(n, 2);
    loop_post(l, count, &n); /* dropped with the loop */
    loop_free(l);
    assert_int_equal(n, 2);
}

struct timed {
    struct loop *loop;
    struct loop_timer *timer;
    struct loop_watch *watch;
    int n;
    int fd;
};

static void on_timer(void *arg)
{
    struct timed *t = arg;

    assert_false(loop_timer_is_set(t->timer));
    if (++t->n < 3)
        loop_timer_set(t->timer, 5 * NS_PER_MS);
    else
        loop_stop(t->loop);
}

static void a_timer_fires_once_for_each_setting(void **state)
{
    struct err e;
    struct timed t = { .loop = loop_new(&e) };
    uint64_t start_ns = clock_mono_ns();

    (void)state;
    t.timer = loop_timer_new(t.loop, on_timer, &t);
    loop_timer_set(t.timer, 3600 * NS_PER_S);
    assert_true(loop_timer_is_set(t.timer));
    loop_timer_set(t.timer, 5 * NS_PER_MS); /* moves it */
    loop_run(t.loop);
    assert_int_equal(t.n, 3);
    assert_true(clock_mono_ns() - start_ns >= 14 * NS_PER_MS);
    loop_timer_set(t.timer, 0);
    loop_timer_clear(t.timer);
    loop_stop(t.loop);
    loop_run(t.loop);
    assert_int_equal(t.n, 3);
    loop_timer_free(t.timer);
    loop_free(t.loop);
}

static void on_readable(void *arg)
{
    struct timed *t = arg;
    eventfd_t value;

    eventfd_read(t->fd, &value);
    if (++t->n == 1)
        loop_watch_kick(t->watch); /* nothing is readable any more, but we want to look again */
    else
        loop_stop(t->loop);
}

static void a_watch_is_told_of_data_and_of_a_kick(void **state)
{
    struct err e;
    struct timed t = { .loop = loop_new(&e), .fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC) };

    (void)state;
    t.watch = loop_watch_new(t.loop, t.fd, on_readable, &t);
    eventfd_write(t.fd, 1);
    loop_run(t.loop);
    assert_int_equal(t.n, 2);
    loop_watch_pause(t.watch);
    eventfd_write(t.fd, 1);
    loop_stop(t.loop);
    loop_run(t.loop);
    assert_int_equal(t.n, 2);
    loop_watch_resume(t.watch);
    loop_run(t.loop);
    assert_int_equal(t.n, 3);
    loop_watch_free(t.watch);
    close(t.fd);
    loop_free(t.loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tasks_of_other_threads_run_once_and_in_order),
        cmocka_unit_test(a_stop_before_the_run_is_not_missed),
        cmocka_unit_test(a_timer_fires_once_for_each_setting),
        cmocka_unit_test(a_watch_is_told_of_data_and_of_a_kick),
    };

    return cmocka_run_group_tests_name("loop", tests, NULL, NULL);
}
