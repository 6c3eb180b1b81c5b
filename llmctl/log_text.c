/* log_text.c - see log_text.h. */
#include "llmctl/log_text.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

enum { LEVEL_UNKNOWN = LOG_DEBUG + 1 };

static int level_of_word(const char *word)
{
    static const char *const names[] = { "error", "warning", "info", "debug" };

    for (int i = 0; i <= LOG_DEBUG; i++)
        if (strncmp(word, names[i], strlen(names[i])) == 0)
            return i;
    return LEVEL_UNKNOWN;
}

int log_text_level(const char *line)
{
    const char *at;

    if (line[0] == '<' && line[1] >= '0' && line[1] <= '7' && line[2] == '>')
        return line[1] <= '3'   ? LOG_ERROR
               : line[1] == '4' ? LOG_WARNING
               : line[1] <= '6' ? LOG_INFO
                                : LOG_DEBUG;
    if (line[0] == '{') {
        at = strstr(line, "\"level\":\"");
        return at ? level_of_word(at + strlen("\"level\":\"")) : LEVEL_UNKNOWN;
    }
    at = strchr(line, ' ');
    return log_text_ms(line) && at ? level_of_word(at + 1) : LEVEL_UNKNOWN;
}

uint64_t log_text_ms(const char *line)
{
    static const char key[] = "{\"timestamp\":\"";
    struct tm tm = { 0 };
    unsigned ms;

    if (strncmp(line, key, sizeof key - 1) == 0)
        line += sizeof key - 1;
    if (sscanf(line, "%4d-%2d-%2dT%2d:%2d:%2d.%3uZ", &tm.tm_year, &tm.tm_mon, &tm.tm_mday,
               &tm.tm_hour, &tm.tm_min, &tm.tm_sec, &ms) != 7)
        return 0;
    tm.tm_year -= 1900;
    tm.tm_mon -= 1;
    return (uint64_t)timegm(&tm) * 1000 + ms;
}

bool log_text_passes(const char *line, const struct log_filter *f)
{
    uint64_t ms = f->since_ms ? log_text_ms(line) : 0;
    int level = log_text_level(line);

    return (level == LEVEL_UNKNOWN || level <= (int)f->level_max) &&
           (ms == 0 || ms >= f->since_ms) && (!f->text || strstr(line, f->text));
}

uint64_t log_text_new(char *const *before, uint64_t n_before, char *const *now, uint64_t n_now,
                      bool *lost)
{
    *lost = false;
    for (uint64_t n = n_before < n_now ? n_before : n_now; n > 0; n--) {
        uint64_t same = 0;
        while (same < n && strcmp(before[n_before - n + same], now[same]) == 0)
            same++;
        if (same == n)
            return n_now - n;
    }
    *lost = n_before > 0 && n_now > 0;
    return n_now;
}
