/* log.c - format a line on the stack and hand it to stderr in one write, so that lines of several
 * processes sharing the descriptor never mix.  Any thread. */
#include "common/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LINE_BYTES = 2048 };

static struct {
    char process[32];
    _Atomic int level;
    enum log_format format;
    int under_journal; /* stderr goes to journald: prefix lines, leave the time to it */
} logger = { .process = "llmd", .level = LOG_INFO };

static const char *const level_names[] = { "error", "warning", "info", "debug" };
static const int syslog_levels[] = { 3, 4, 6, 7 };

void log_init(const char *process, enum log_level level, enum log_format format)
{
    snprintf(logger.process, sizeof logger.process, "%s", process);
    logger.format = format;
    logger.under_journal = getenv("JOURNAL_STREAM") != NULL;
    atomic_store(&logger.level, level);
}

void log_set_level(enum log_level level)
{
    atomic_store(&logger.level, level);
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

/* Copy `s` as the inside of a JSON string; cuts where the room ends, never inside an escape. */
static size_t put_escaped(char *out, size_t n, const char *s)
{
    size_t at = 0;

    for (; *s && at + 7 < n; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\') {
            out[at++] = '\\';
            out[at++] = (char)c;
        } else if (c < 0x20) {
            at += (size_t)snprintf(out + at, n - at, "\\u%04x", c);
        } else {
            out[at++] = (char)c;
        }
    }
    out[at] = '\0';
    return at;
}

static size_t put_text_line(char *line, enum log_level level, const char *msg)
{
    char when[40] = "";

    if (logger.under_journal)
        return (size_t)snprintf(line, LINE_BYTES, "<%d>%s: %s", syslog_levels[level],
                                logger.process, msg);
    put_time(when, sizeof when);
    return (size_t)snprintf(line, LINE_BYTES, "%s %-7s %s: %s", when, level_names[level],
                            logger.process, msg);
}

static size_t put_json_line(char *line, enum log_level level, const char *msg)
{
    char when[40], text[LINE_BYTES - 200];

    put_time(when, sizeof when);
    put_escaped(text, sizeof text, msg);
    return (size_t)snprintf(line, LINE_BYTES,
                            "{\"timestamp\":\"%s\",\"level\":\"%s\",\"process\":\"%s\","
                            "\"message\":\"%s\"}",
                            when, level_names[level], logger.process, text);
}

void log_line(enum log_level level, const char *fmt, ...)
{
    char msg[LINE_BYTES - 128], line[LINE_BYTES + 1];
    int saved = errno;
    size_t n;
    va_list ap;

    if ((int)level > atomic_load_explicit(&logger.level, memory_order_relaxed))
        return;
    va_start(ap, fmt);
    vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    n = logger.format == LOG_JSON ? put_json_line(line, level, msg)
                                  : put_text_line(line, level, msg);
    if (n >= LINE_BYTES)
        n = LINE_BYTES - 1;
    line[n++] = '\n';
    if (write(STDERR_FILENO, line, n) < 0) {
        /* nowhere left to say it */
    }
    errno = saved;
}
