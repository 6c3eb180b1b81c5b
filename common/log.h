/* log.h - one event, one line: key=value, to stderr.
 *
 *   error    someone must act          warning  we went on, and the line says how
 *   info     a state changed           debug    the rest
 *
 * Under systemd a line goes to the journal with fields (common/journal.h): `journalctl LLMD_REQUEST_ID=...`.
 * In a container one JSON object a line is written instead, which log services take apart.  Nothing is logged
 * per token: rates are counters (proto/stats.def); and no client's text but where log_prompts asks for it. */
#ifndef LLMD_COMMON_LOG_H
#define LLMD_COMMON_LOG_H

#include <stddef.h>

enum log_level { LOG_ERROR, LOG_WARNING, LOG_INFO, LOG_DEBUG };
enum log_format {
    LOG_AUTO, /* the journal where stderr leads there, JSON below an init of ours, else text */
    LOG_TEXT,
    LOG_JSON,
    LOG_JOURNAL /* LOG_AUTO's finding; not to be asked for */
};

/* Called once by main() before any thread starts.  `process` names the writer in each line
 * ("llmd", "llm-gateway", "llm-worker/0.1"); it is copied. */
void log_init(const char *process, enum log_level level, enum log_format format);

/* Also possible later (SIGHUP re-reads the configuration). */
void log_set_level(enum log_level level);

/* Give every line that is written to `tap` as well (without its end of line); NULL: no more.  Once, before
 * further threads start.  tap is called on whichever thread logs. */
typedef void log_tap_fn(void *arg, const char *line, size_t n);
void log_set_tap(log_tap_fn *tap, void *arg);

/* Where a line comes from; strings that live for ever. */
struct log_place {
    const char *file, *function;
    int line;
};

/* request_id: of the request that it tells of; NULL or "" = of none. */
void log_line(enum log_level level, const struct log_place *place, const char *request_id,
              const char *fmt, ...) __attribute__((format(printf, 4, 5)));

#define LOG_HERE (&(const struct log_place){ __FILE__, __func__, __LINE__ })

#define log_error(...)              log_line(LOG_ERROR, LOG_HERE, NULL, __VA_ARGS__)
#define log_warning(...)            log_line(LOG_WARNING, LOG_HERE, NULL, __VA_ARGS__)
#define log_info(...)               log_line(LOG_INFO, LOG_HERE, NULL, __VA_ARGS__)
#define log_debug(...)              log_line(LOG_DEBUG, LOG_HERE, NULL, __VA_ARGS__)
#define log_request(level, id, ...) log_line(level, LOG_HERE, id, __VA_ARGS__)

#endif
