/* log.c - format a line on the stack and hand it to stderr in one write, so that lines of several
 * processes sharing the descriptor never mix.  Any thread.
 *
 * A message may quote a client's bytes: what is no UTF-8 becomes U+FFFD and control characters are
 * escaped, so that one event stays one line, a JSON line always parses, and no terminal obeys a log. */
#include "common/log.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/utf8.h"

enum { LINE_BYTES = 2048, PROCESS_BYTES = 32, TEXT_BYTES = LINE_BYTES - 128 - PROCESS_BYTES };

static struct {
    char process[PROCESS_BYTES];
    _Atomic int level;
    enum log_format format;
    int under_journal; /* stderr goes to journald: prefix lines, leave the time to it */
    log_tap_fn *tap;
    void *tap_arg;
} logger = { .process = "llmd", .level = LOG_INFO };

static const char *const level_names[] = { "error", "warning", "info", "debug" };
static const int syslog_levels[] = { 3, 4, 6, 7 };

/* JOURNAL_STREAM names the device and inode of journald's socket; a child whose stderr was sent
 * elsewhere inherits the variable all the same (systemd.exec(5)). */
static int stderr_is_journal(void)
{
    const char *text = getenv("JOURNAL_STREAM");
    unsigned long long device, inode;
    struct stat st;

    return text && sscanf(text, "%llu:%llu", &device, &inode) == 2 &&
           fstat(STDERR_FILENO, &st) == 0 && device == (unsigned long long)st.st_dev &&
           inode == (unsigned long long)st.st_ino;
}

void log_init(const char *process, enum log_level level, enum log_format format)
{
    snprintf(logger.process, sizeof logger.process, "%s", process);
    logger.format = format;
    logger.under_journal = stderr_is_journal();
    atomic_store(&logger.level, level);
}

void log_set_level(enum log_level level)
{
    atomic_store(&logger.level, level);
}

void log_set_tap(log_tap_fn *tap, void *arg)
{
    logger.tap_arg = arg;
    logger.tap = tap;
}

static size_t put_time(char *out, size_t n)
{
    struct timespec now;
    struct tm tm;
    size_t len;

    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &tm);
    len = strftime(out, n, "%Y-%m-%dT%H:%M:%S", &tm);
    return len + (size_t)snprintf(out + len, n - len, ".%03ldZ", now.tv_nsec / 1000000);
}

/* Copy `s` without control characters and broken UTF-8, for JSON with its escapes; what does not fit is
 * left off, never half a character or half an escape. */
static void put_clean(char *out, size_t n, const char *s, enum log_format format)
{
    size_t at = 0, left = strlen(s);

    while (left > 0 && at + 7 < n) {
        unsigned char c = (unsigned char)*s;
        size_t len;
        if (utf8_next(s, left, &len) != UTF8_CHAR) {
            memcpy(out + at, "\xef\xbf\xbd", 3);
            at += 3;
        } else if (c < 0x20 || c == 0x7f) {
            at += (size_t)snprintf(out + at, n - at, format == LOG_JSON ? "\\u%04x" : "\\x%02x", c);
        } else {
            if (format == LOG_JSON && (c == '"' || c == '\\'))
                out[at++] = '\\';
            memcpy(out + at, s, len);
            at += len;
        }
        s += len;
        left -= len;
    }
    out[at] = '\0';
}

static int put_text_line(char *line, enum log_level level, const char *text)
{
    char when[40];

    if (logger.under_journal)
        return snprintf(line, LINE_BYTES, "<%d>%s: %s", syslog_levels[level], logger.process, text);
    put_time(when, sizeof when);
    return snprintf(line, LINE_BYTES, "%s %-7s %s: %s", when, level_names[level], logger.process,
                    text);
}

static int put_json_line(char *line, enum log_level level, const char *text)
{
    char when[40];

    put_time(when, sizeof when);
    return snprintf(line, LINE_BYTES,
                    "{\"timestamp\":\"%s\",\"level\":\"%s\",\"process\":\"%s\","
                    "\"message\":\"%s\"}",
                    when, level_names[level], logger.process, text);
}

static void write_line(const char *line, size_t n)
{
    ssize_t put;

    do
        put = write(STDERR_FILENO, line, n);
    while (put < 0 && errno == EINTR); /* any other failure: nowhere is left to say it */
}

void log_line(enum log_level level, const char *fmt, ...)
{
    char msg[TEXT_BYTES], text[TEXT_BYTES], line[LINE_BYTES + 1];
    int saved = errno, n;
    va_list ap;

    if ((int)level > atomic_load_explicit(&logger.level, memory_order_relaxed))
        return;
    va_start(ap, fmt);
    vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    put_clean(text, sizeof text, msg, logger.format);
    n = logger.format == LOG_JSON ? put_json_line(line, level, text)
                                  : put_text_line(line, level, text);
    if (logger.tap)
        logger.tap(logger.tap_arg, line, (size_t)n);
    line[n++] = '\n';
    write_line(line, (size_t)n);
    errno = saved;
}

/* assert() of every program: the bug is a line of the log like any other, so that it is found where the
 * last words of a process are kept. */
void __assert_fail(const char *expression, const char *file, unsigned line, const char *function)
{
    log_error("bug: %s:%u: %s: assertion '%s' failed", file, line, function, expression);
    abort();
}
