/* check.h - what the tests share: cmocka with the headers it needs, checks of struct err, and a way to
 * see that a bug stops the process. */
#ifndef LLMD_TESTS_CHECK_H
#define LLMD_TESTS_CHECK_H

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/err.h"

/* The call succeeds; when not, its error is shown. */
#define assert_ok(call, e)                                                                         \
    do {                                                                                           \
        if (!(call))                                                                               \
            fail_msg("%s: %s", #call, (e).msg);                                                    \
    } while (0)

/* The call fails with this code, and its message contains the words. */
#define assert_fails(call, e, want_code, words)                                                    \
    do {                                                                                           \
        (e) = (struct err){ 0 };                                                                   \
        if (call)                                                                                  \
            fail_msg("%s: succeeded", #call);                                                      \
        assert_int_equal((e).code, want_code);                                                     \
        if (!strstr((e).msg, words))                                                               \
            fail_msg("%s: '%s' does not contain '%s'", #call, (e).msg, words);                     \
    } while (0)

/* `act(arg)` runs into an assert: it ends a child process by SIGABRT. */
static inline void assert_aborts(void (*act)(void *arg), void *arg)
{
    int status = 0;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        setrlimit(RLIMIT_CORE, &(struct rlimit){ 0 });
        signal(SIGABRT, SIG_DFL);
        close(STDERR_FILENO);
        act(arg);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGABRT);
}

#endif
