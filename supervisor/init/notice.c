/* notice.c - split lines, know words.  Pure; any bytes may come (tests/fuzz/fuzz_notice.c). */
#include "supervisor/init/notice.h"

#include <stdio.h>
#include <string.h>

/* What follows "KEY=" in a line of n bytes, its length in *n_value; NULL: another line. */
static const char *value_of(const char *line, size_t n, const char *key, size_t *n_value)
{
    size_t k = strlen(key);

    if (n <= k || memcmp(line, key, k) != 0 || line[k] != '=')
        return NULL;
    *n_value = n - k - 1;
    return line + k + 1;
}

static bool says(const char *line, size_t n, const char *whole)
{
    return n == strlen(whole) && memcmp(line, whole, n) == 0;
}

/* Printable, not empty, and no ':', which separates the names in LISTEN_FDNAMES. */
static bool is_fd_name(const char *name, size_t n)
{
    if (n == 0 || n >= FD_NAME_BYTES)
        return false;
    for (size_t i = 0; i < n; i++)
        if (name[i] < ' ' || name[i] > '~' || name[i] == ':')
            return false;
    return true;
}

/* Digits only, and few enough to count nanoseconds by them; 0 = it is none. */
static uint64_t read_number(const char *digits, size_t n)
{
    uint64_t v = 0;

    if (n == 0 || n > 16)
        return 0;
    for (size_t i = 0; i < n; i++) {
        if (digits[i] < '0' || digits[i] > '9')
            return 0;
        v = v * 10 + (uint64_t)(digits[i] - '0');
    }
    return v;
}

static void take_line(struct notice *r, const char *line, size_t n)
{
    const char *value;
    size_t n_value;

    r->is_ready |= says(line, n, "READY=1");
    r->is_stopping |= says(line, n, "STOPPING=1");
    r->stores_fds |= says(line, n, "FDSTORE=1");
    r->removes_fds |= says(line, n, "FDSTOREREMOVE=1");
    if (says(line, n, "FDPOLL=0"))
        r->polls_fds = false;
    if ((value = value_of(line, n, "FDNAME", &n_value)) && is_fd_name(value, n_value)) {
        r->has_name = true;
        snprintf(r->fd_name, sizeof r->fd_name, "%.*s", (int)n_value, value);
    }
    if ((value = value_of(line, n, "STATUS", &n_value))) {
        r->has_status = true;
        snprintf(r->status, sizeof r->status, "%.*s", (int)n_value, value);
    }
    if ((value = value_of(line, n, "EXTEND_TIMEOUT_USEC", &n_value)))
        r->extend_us = read_number(value, n_value);
}

bool notice_parse(struct notice *n, const char *bytes, size_t n_bytes)
{
    *n = (struct notice){ .polls_fds = true, .fd_name = "stored" };
    if (memchr(bytes, '\0', n_bytes))
        return false;
    for (size_t at = 0; at < n_bytes;) {
        const char *end = memchr(bytes + at, '\n', n_bytes - at);
        size_t length = end ? (size_t)(end - bytes) - at : n_bytes - at;
        take_line(n, bytes + at, length);
        at += length + 1;
    }
    return true;
}
