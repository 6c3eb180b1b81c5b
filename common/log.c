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
#include <time.h>
#include <unistd.h>

#include "common/journal.h"
#include "common/utf8.h"

enum {
    LINE_BYTES = 2304,
    PROCESS_BYTES = 32,
    REQUEST_BYTES = 132,
    TEXT_BYTES = LINE_BYTES - 192 - PROCESS_BYTES - REQUEST_BYTES
};

static struct {
    char process[PROCESS_BYTES];
    _Atomic int level;
    enum log_format format;
    bool under_journal; /* stderr goes to journald: prefix lines, leave the time to it */
    int journal;        /* its socket; LOG_JOURNAL only */
    log_tap_fn *tap;
    void *tap_arg;
} logger = { .process = "llmd", .level = LOG_INFO, .format = LOG_TEXT, .journal = -1 };

static const char *const level_names[] = { "error", "warning", "info", "debug" };
static const int syslog_levels[] = { 3, 4, 6, 7 };

/* Process 1 is one of ours in a container that was made for it, and nowhere else. */
static bool is_below_our_init(void)
{
    FILE *f = fopen("/proc/1/comm", "re");
    char name[16] = "";
    bool ours = f && fgets(name, sizeof name, f) &&
                (strcmp(name, "llm-init\n") == 0 || strcmp(name, "llmd\n") == 0);

    if (f)
        fclose(f);
    return ours;
}

static enum log_format find_format(void)
{
    if (logger.under_journal)
        return logger.journal >= 0 ? LOG_JOURNAL : LOG_TEXT;
    return is_below_our_init() ? LOG_JSON : LOG_TEXT;
}

void log_init(const char *process, enum log_level level, enum log_format format)
{
    snprintf(logger.process, sizeof logger.process, "%s", process);
    logger.under_journal = journal_is_stderr();
    if (format == LOG_AUTO && logger.under_journal && logger.journal < 0)
        logger.journal = journal_open(JOURNAL_SOCKET);
    logger.format = format == LOG_AUTO ? find_format() : format;
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

/* request: "request_id=abc ", or "". */
static int put_text_line(char *line, enum log_level level, const char *request, const char *text)
{
    char when[40];

    if (logger.under_journal)
        return snprintf(line, LINE_BYTES, "<%d>%s: %s%s", syslog_levels[level], logger.process,
                        request, text);
    put_time(when, sizeof when);
    return snprintf(line, LINE_BYTES, "%s %-7s %s: %s%s", when, level_names[level], logger.process,
                    request, text);
}

static int put_json_line(char *line, enum log_level level, const char *request_id, const char *text)
{
    char when[40];

    put_time(when, sizeof when);
    return snprintf(line, LINE_BYTES,
                    "{\"timestamp\":\"%s\",\"level\":\"%s\",\"process\":\"%s\",%s%s%s"
                    "\"message\":\"%s\"}",
                    when, level_names[level], logger.process,
                    request_id[0] ? "\"request_id\":\"" : "", request_id,
                    request_id[0] ? "\"," : "", text);
}

/* Behind "<6>name: ". */
static const char *message_of(const char *line)
{
    return line + strlen("<6>") + strlen(logger.process) + strlen(": ");
}

static bool tell_journal(enum log_level level, const struct log_place *place,
                         const char *request_id, const char *message)
{
    return journal_send(logger.journal,
                        &(struct journal_line){ .priority = syslog_levels[level],
                                                .process = logger.process,
                                                .message = message,
                                                .request_id = request_id[0] ? request_id : NULL,
                                                .file = place->file,
                                                .function = place->function,
                                                .line = place->line });
}

static void write_line(const char *line, size_t n)
{
    ssize_t put;

    do
        put = write(STDERR_FILENO, line, n);
    while (put < 0 && errno == EINTR); /* any other failure: nowhere is left to say it */
}

/* An id is a word: what would end it, or a string, is changed. */
static void put_id(char *out, size_t n, const char *id)
{
    size_t i = 0;

    for (; id && id[i] && i + 1 < n; i++)
        out[i] = id[i] > ' ' && id[i] < 0x7f && id[i] != '"' && id[i] != '\\' ? id[i] : '_';
    out[i] = '\0';
}

void log_line(enum log_level level, const struct log_place *place, const char *request_id,
              const char *fmt, ...)
{
    char msg[TEXT_BYTES], text[TEXT_BYTES], line[LINE_BYTES + 1];
    char id[REQUEST_BYTES], request[REQUEST_BYTES + 16] = "";
    int saved = errno, n;
    va_list ap;

    if ((int)level > atomic_load_explicit(&logger.level, memory_order_relaxed))
        return;
    va_start(ap, fmt);
    vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    put_clean(text, sizeof text, msg, logger.format);
    put_id(id, sizeof id, request_id);
    if (id[0])
        snprintf(request, sizeof request, "request_id=%s ", id);
    n = logger.format == LOG_JSON ? put_json_line(line, level, id, text)
                                  : put_text_line(line, level, request, text);
    if (logger.tap)
        logger.tap(logger.tap_arg, line, (size_t)n);
    if (logger.format != LOG_JOURNAL || !tell_journal(level, place, id, message_of(line))) {
        line[n++] = '\n';
        write_line(line, (size_t)n);
    }
    errno = saved;
}

/* assert() of every program: the bug is a line of the log like any other, so that it is found where the
 * last words of a process are kept. */
void __assert_fail(const char *expression, const char *file, unsigned line, const char *function)
{
    const struct log_place place = { file, function, (int)line };

    log_line(LOG_ERROR, &place, NULL, "bug: %s:%u: %s: assertion '%s' failed", file, line, function,
             expression);
    abort();
}
