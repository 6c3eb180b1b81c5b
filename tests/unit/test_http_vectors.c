/* test_http_vectors.c - two parsers that understand a request differently are how requests are
 * smuggled.  tests/vectors/http/node.txt holds what node's parser (llhttp) made of some eight hundred inputs:
 * every request that we accept must have been accepted there with the same meaning.
 *
 * Where we refuse what node accepts, the reason must be in the list below; and every reason in
 * the list must occur, so that it stays a true account of where we are stricter. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above */
#include <cmocka.h>
#include <stdio.h>

#include "common/file.h"
#include "tests/http_describe.h"

static const struct {
    const char *reason;
    const char *what;
} stricter[] = {
    { "REQUEST_LINE", "two empty lines or a bare LF before it, two blanks in it, HTTP/0.9" },
    { "TARGET", "fragment, user, unknown scheme, no host, '*' without OPTIONS, bad escape" },
    { "VERSION", "HTTP/2.0 said on an HTTP/1 connection" },
    { "HOST", "two equal ones, or bytes in it that no host has" },
    { "CODING", "empty, in two fields, or in HTTP/1.0" },
    { "CODING_UNKNOWN", "another coding before chunked: node leaves it in the body" },
    { "CHUNK", "a size of more than 16 digits, an extension without a name" },
};
enum { N_STRICTER = sizeof stricter / sizeof stricter[0] };

struct tally {
    int inputs;
    int requests;
    int seen[N_STRICTER];
    int wrong;
};

static void unescape(struct buf *out, const char *line, size_t n)
{
    buf_clear(out);
    for (size_t i = 0; i < n; i++) {
        unsigned byte;
        if (line[i] == '\\' && sscanf(line + i, "\\x%2x", &byte) == 1) {
            buf_add_char(out, (char)byte);
            i += 3;
        } else {
            buf_add_char(out, line[i]);
        }
    }
}

static void complain(struct tally *t, const char *what, const char *input, size_t n,
                     const char *ours, const char *theirs)
{
    print_error("%s\n  input %.*s\n  ours  %s\n  node  %.300s\n", what, (int)n, input, ours,
                theirs);
    t->wrong++;
}

/* Is a refusal of ours one that we know of?  `ours` begins with "refused NAME ". */
static bool count_refusal(struct tally *t, const char *ours)
{
    for (int i = 0; i < N_STRICTER; i++) {
        size_t n = strlen(stricter[i].reason);
        if (!strncmp(ours, "refused ", 8) && !strncmp(ours + 8, stricter[i].reason, n) &&
            ours[8 + n] == ' ') {
            t->seen[i]++;
            return true;
        }
    }
    return false;
}

/* `theirs`: lines "= request" and "! code", up to the next "<" or the end. */
static void compare(struct tally *t, const char *input, size_t n, const char *theirs)
{
    struct buf bytes = { 0 }, ours = { 0 };
    const char *at;

    unescape(&bytes, input, n);
    http_describe(&ours, bytes.data, bytes.n, &http_limits_default, HTTP_BODY_BYTES_MAX_DEFAULT,
                  (struct describe_pieces){ 0 });
    t->inputs++;
    for (at = ours.data; *at && strncmp(at, "refused ", 8) != 0 && strcmp(at, "more\n") != 0;) {
        size_t line = strcspn(at, "\n");
        if (strncmp(theirs, "= ", 2) != 0 || strncmp(theirs + 2, at, line + 1) != 0) {
            complain(t, "accepted here, refused or understood differently there", input, n, at,
                     theirs);
            goto out;
        }
        t->requests++;
        at += line + 1;
        theirs += 2 + line + 1;
    }
    if (!strncmp(theirs, "= ", 2) && !count_refusal(t, at))
        complain(t, "refused here, accepted there, and the reason is not listed", input, n, at,
                 theirs);
out:
    buf_fini(&bytes);
    buf_fini(&ours);
}

static void what_we_accept_node_understands_alike(void **state)
{
    struct tally t = { 0 };
    struct err e = { 0 };
    char *text;
    size_t n;

    (void)state;
    if (!file_read(TEST_SOURCE_DIR "/tests/vectors/http/node.txt", 1 << 20, &text, &n, &e))
        fail_msg("%s", e.msg);
    for (char *line = text; *line; line += strcspn(line, "\n") + 1) {
        size_t line_n = strcspn(line, "\n");
        if (!strncmp(line, "< ", 2))
            compare(&t, line + 2, line_n - 2, line + line_n + 1);
    }
    for (int i = 0; i < N_STRICTER; i++) {
        print_message("stricter: %-18s %3d times: %s\n", stricter[i].reason, t.seen[i],
                      stricter[i].what);
        if (t.seen[i] == 0)
            fail_msg("listed as stricter, but never is: %s", stricter[i].reason);
    }
    print_message("%d inputs, %d requests accepted by both\n", t.inputs, t.requests);
    assert_int_equal(t.wrong, 0);
    assert_in_range(t.inputs, 700, 100000);
    assert_in_range(t.requests, 50, 100000);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(what_we_accept_node_understands_alike) };

    return cmocka_run_group_tests_name("http_vectors", tests, NULL, NULL);
}
