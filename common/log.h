/* log.h - one event, one line: key=value, to stderr.
 *
 *   error    someone must act          warning  we went on, and the line says how
 *   info     a state changed           debug    the rest
 *
 * Under systemd each line starts with the "<3>" priority prefix of sd-daemon(3); on a terminal and in
 * a container with LOG_FORMAT json one JSON object a line is written instead (OCI's log viewer
 * wants that).  Nothing is logged per token: rates are counters (proto/stats.def). */
#ifndef LLMD_COMMON_LOG_H
#define LLMD_COMMON_LOG_H

#include <stddef.h>

enum log_level { LOG_ERROR, LOG_WARNING, LOG_INFO, LOG_DEBUG };
enum log_format { LOG_TEXT, LOG_JSON };

/* Called once by main() before any thread starts.  `process` names the writer in each line
 * ("llmd", "llm-gateway", "llm-worker/0.1"); it is copied. */
void log_init(const char *process, enum log_level level, enum log_format format);

/* Also possible later (SIGHUP re-reads the configuration). */
void log_set_level(enum log_level level);

/* Give every line that is written to `tap` as well (without its end of line); NULL: no more.  Once, before
 * further threads start.  tap is called on whichever thread logs. */
typedef void log_tap_fn(void *arg, const char *line, size_t n);
void log_set_tap(log_tap_fn *tap, void *arg);

void log_line(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...)   log_line(LOG_ERROR, __VA_ARGS__)
#define log_warning(...) log_line(LOG_WARNING, __VA_ARGS__)
#define log_info(...)    log_line(LOG_INFO, __VA_ARGS__)
#define log_debug(...)   log_line(LOG_DEBUG, __VA_ARGS__)

#endif
