/* log_text.h - a line of common/log.c read back: its level and its time, in any of its three forms.
 *
 *   2026-01-02T03:04:05.678Z info    llm-gateway: text
 *   <6>llm-gateway: text                                         under systemd; the journal has the time
 *   {"timestamp":"2026-...Z","level":"info",...}                 log_format json; may be cut short */
#ifndef LLMD_LLMCTL_LOG_TEXT_H
#define LLMD_LLMCTL_LOG_TEXT_H

#include <stdbool.h>
#include <stdint.h>

#include "common/log.h"

/* What is to be shown. */
struct log_filter {
    enum log_level level_max; /* lines of this level and graver ones; those of unknown level too */
    uint64_t since_ms;        /* Unix time; 0: all.  Lines without a time are shown */
    const char *text;         /* NULL, or what must stand in the line: a request's id */
};

/* LOG_DEBUG + 1 when the line is of none of these forms. */
int log_text_level(const char *line);

/* Milliseconds since 1970; 0 when the line has no time. */
uint64_t log_text_ms(const char *line);

bool log_text_passes(const char *line, const struct log_filter *f);

/* How many of the `now` lines are new, when `before` was the end of the same log: the longest end of
 * `before` that begins `now` is what was seen.  *lost: none of it is left, lines between may be missing. */
uint64_t log_text_new(char *const *before, uint64_t n_before, char *const *now, uint64_t n_now,
                      bool *lost);

#endif
