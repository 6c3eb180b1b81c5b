/* logs.c - what lies in the rings outlives the process that wrote it, and an llmd that died. */
#include "supervisor/logs.h"

#include <string.h>

#include "supervisor/llmd.h"

/* A message has 128 KiB: with many processes each gets fewer lines. */
enum { LINES_BYTES_MAX = 96 << 10 };

static void add_log(const struct board_slot *slot, uint32_t lines_max, Llmd__CtlReply *reply,
                    struct arena *a)
{
    char lines[BOARD_LOG_LINES][BOARD_LOG_LINE_BYTES];
    uint32_t n = board_log_read(slot, lines), first = n > lines_max ? n - lines_max : 0;
    Llmd__ProcessLog *log = arena_alloc(a, sizeof *log);

    llmd__process_log__init(log);
    log->process = arena_strdup(a, slot->name);
    log->lines = arena_alloc(a, (n - first + 1) * sizeof *log->lines);
    for (uint32_t i = first; i < n; i++)
        log->lines[log->n_lines++] = arena_strdup(a, lines[i]);
    reply->logs[reply->n_logs++] = log;
}

void logs_answer(const struct llmd *l, const char *process, Llmd__CtlReply *reply, struct arena *a)
{
    const struct board *b = &l->segments.board;
    uint32_t n = b->hdr ? b->hdr->n_slots : 0, lines_max = BOARD_LOG_LINES;

    if (!process[0] && n > 0)
        lines_max = LINES_BYTES_MAX / BOARD_LOG_LINE_BYTES / n;
    if (lines_max == 0)
        lines_max = 1;
    reply->logs = arena_alloc(a, (n + 1) * sizeof *reply->logs);
    for (uint32_t i = 0; i < n; i++) {
        const struct board_slot *slot = board_slot(b, i);
        if (slot->name[0] && (!process[0] || strcmp(process, slot->name) == 0))
            add_log(slot, lines_max, reply, a);
    }
    if (process[0] && reply->n_logs == 0) {
        reply->ok = false;
        reply->error =
            arena_printf(a, "there is no process '%s'; `llmctl status` shows them", process);
    }
}
