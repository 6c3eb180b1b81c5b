/* test_log_journal.c - a line reaches journald's socket with its fields, and never waits for it.
 *
 * What would break in production: an operator searches for a request and finds nothing, or the server stands still
 * because journald does. */
#include "common/journal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/check.h"

static char folder[] = "/tmp/test_log_journal-XXXXXX";
static struct sockaddr_un address = { .sun_family = AF_UNIX };
static int journald;

static int set_up(void **state)
{
    (void)state;
    if (!mkdtemp(folder))
        return -1;
    snprintf(address.sun_path, sizeof address.sun_path, "%s/socket", folder);
    journald = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    return journald < 0 ? -1 : bind(journald, (struct sockaddr *)&address, sizeof address);
}

static int tear_down(void **state)
{
    (void)state;
    close(journald);
    unlink(address.sun_path);
    return rmdir(folder);
}

static const char *receive(void)
{
    static char bytes[8192];
    ssize_t n = recv(journald, bytes, sizeof bytes - 1, 0);

    bytes[n > 0 ? n : 0] = '\0';
    return bytes;
}

static void journal_line_brings_its_fields(void **state)
{
    int fd = journal_open(address.sun_path);
    struct journal_line line = { .priority = 4,
                                 .process = "llm-worker/2.11",
                                 .message = "a=b",
                                 .request_id = "id-7",
                                 .file = "x.c",
                                 .function = "f",
                                 .line = 12 };

    (void)state;
    assert_true(fd >= 0);
    assert_true(journal_send(fd, &line));
    assert_string_equal(receive(), "MESSAGE=a=b\nPRIORITY=4\nSYSLOG_IDENTIFIER=llm-worker/2.11\n"
                                   "LLMD_PROCESS=llm-worker/2.11\nLLMD_GROUP=2\nLLMD_RANK=11\n"
                                   "LLMD_REQUEST_ID=id-7\nCODE_FILE=x.c\nCODE_FUNC=f\n"
                                   "CODE_LINE=12\n");
    assert_true(journal_send(
        fd, &(struct journal_line){ .priority = 6, .process = "llmd", .message = "m" }));
    assert_string_equal(receive(),
                        "MESSAGE=m\nPRIORITY=6\nSYSLOG_IDENTIFIER=llmd\nLLMD_PROCESS=llmd\n");
    close(fd);
}

static void journal_field_that_does_not_fit_is_left_out_whole(void **state)
{
    int fd = journal_open(address.sun_path);
    char id[5000];

    (void)state;
    memset(id, 'x', sizeof id);
    id[sizeof id - 1] = '\0';
    assert_true(journal_send(
        fd, &(struct journal_line){ .process = "llmd", .message = "m", .request_id = id }));
    assert_string_equal(receive(),
                        "MESSAGE=m\nPRIORITY=0\nSYSLOG_IDENTIFIER=llmd\nLLMD_PROCESS=llmd\n");
    close(fd);
}

static void journal_that_does_not_read_is_not_waited_for(void **state)
{
    int fd = journal_open(address.sun_path), n = 0;
    struct journal_line line = { .priority = 6, .process = "llmd", .message = "m" };

    (void)state;
    while (journal_send(fd, &line))
        n++;
    assert_true(n > 0);
    while (receive()[0])
        n--;
    assert_int_equal(n, 0);
    assert_true(journal_send(fd, &line)); /* it reads again */
    assert_true(receive()[0] == 'M');
    close(fd);
}

static void journal_that_is_not_there_is_no_descriptor(void **state)
{
    char longer[200];

    (void)state;
    memset(longer, 'x', sizeof longer);
    longer[sizeof longer - 1] = '\0';
    assert_int_equal(journal_open("/nowhere/at/all"), -1);
    assert_int_equal(journal_open(longer), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(journal_line_brings_its_fields),
        cmocka_unit_test(journal_field_that_does_not_fit_is_left_out_whole),
        cmocka_unit_test(journal_that_does_not_read_is_not_waited_for),
        cmocka_unit_test(journal_that_is_not_there_is_no_descriptor),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
