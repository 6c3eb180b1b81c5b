/* last_words.c - pick the lines that say why.  Lines are as common/log.c writes them: text or JSON, with a
 * level word or systemd's "<4>" in front. */
#include "supervisor/last_words.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"

/* Further back than that a line tells of something else. */
enum { N_WORDS = 2, LINES_LOOKED_AT = 8, NOT_TROUBLE = 0 };

static int trouble_of(const char *line)
{
    if (strstr(line, "bug: "))
        return 3;
    if (strncmp(line, "<3>", 3) == 0 || strstr(line, " error ") || strstr(line, "\"error\""))
        return 2;
    if (strncmp(line, "<4>", 3) == 0 || strstr(line, " warning ") || strstr(line, "\"warning\""))
        return 1;
    return NOT_TROUBLE;
}

/* Without time, level and name: what comes behind "llm-worker/0.0: ", or the message of JSON. */
static const char *text_of(const char *line)
{
    const char *message = strstr(line, "\"message\":\""), *name = strstr(line, ": ");

    if (message)
        return message + strlen("\"message\":\"");
    return name ? name + 2 : line;
}

void last_words(const struct board_slot *slot, char *out, size_t n)
{
    char(*lines)[BOARD_LOG_LINE_BYTES] = mem_alloc(BOARD_LOG_LINES * sizeof *lines);
    uint32_t n_lines = board_log_read(slot, lines);
    uint32_t of_life = atomic_load(&slot->log.n_lines) - atomic_load(&slot->kept.log_start);
    uint32_t n_looked_at = of_life < LINES_LOOKED_AT ? of_life : LINES_LOOKED_AT;
    uint32_t from = n_lines > n_looked_at ? n_lines - n_looked_at : 0;
    uint32_t picked[N_WORDS], n_picked = 0;
    int worst = NOT_TROUBLE;
    size_t at = 0;

    for (uint32_t i = from; i < n_lines; i++)
        worst = trouble_of(lines[i]) > worst ? trouble_of(lines[i]) : worst;
    for (uint32_t i = n_lines; worst && i > from && n_picked < N_WORDS; i--)
        if (trouble_of(lines[i - 1]) == worst)
            picked[n_picked++] = i - 1;
    out[0] = '\0';
    while (n_picked > 0 && at < n) { /* oldest first */
        const char *text = text_of(lines[picked[--n_picked]]);
        int length = (int)(strchr(text, '\0') - text);
        if (length >= 2 && strcmp(text + length - 2, "\"}") == 0)
            length -= 2; /* the end of a JSON line */
        at += (size_t)snprintf(out + at, n - at, "%s%.*s", at ? "; " : "", length, text);
    }
    free(lines);
}
