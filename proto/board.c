/* board.c - the board segment. */
#include "proto/board.h"

#include <string.h>

#include "common/clock.h"

static uint32_t slot_stride(void)
{
    return (uint32_t)((sizeof(struct board_slot) + 4095) / 4096 * 4096);
}

bool board_create(struct board *b, uint32_t n_groups, uint32_t tp_size, uint64_t instance,
                  struct err *e)
{
    uint32_t n_slots = BOARD_SLOT_RANKS + n_groups * tp_size;
    struct segment s;

    if (!segment_create(&s, SEGMENT_BOARD, BOARD_VERSION, "llmd-board",
                        BOARD_SLOTS_OFFSET + (size_t)n_slots * slot_stride(), instance, e))
        return false;
    *b = (struct board){ .segment = s, .hdr = (struct board_hdr *)s.hdr };
    b->hdr->n_slots = n_slots;
    b->hdr->slot_bytes = slot_stride();
    b->hdr->n_groups = n_groups;
    b->hdr->tp_size = tp_size;
    b->hdr->started_ns = clock_mono_ns();
    return true;
}

bool board_attach(struct board *b, int fd, struct err *e)
{
    struct segment s;
    const struct board_hdr *h;

    if (!segment_attach(&s, fd, SEGMENT_BOARD, BOARD_VERSION, true, e))
        return false;
    h = (const struct board_hdr *)s.hdr;
    if (h->slot_bytes < sizeof(struct board_slot) || h->slot_bytes % 64 != 0 || h->tp_size == 0 ||
        h->n_slots != BOARD_SLOT_RANKS + (uint64_t)h->n_groups * h->tp_size ||
        BOARD_SLOTS_OFFSET + (uint64_t)h->n_slots * h->slot_bytes > s.bytes) {
        err_set(e, ERR_PROTO, 0, "board: %u slots of %u bytes do not fit %zu bytes", h->n_slots,
                h->slot_bytes, s.bytes);
        segment_close(&s);
        return false;
    }
    *b = (struct board){ .segment = s, .hdr = (struct board_hdr *)s.hdr };
    return true;
}

void board_close(struct board *b)
{
    segment_close(&b->segment);
    b->hdr = NULL;
}

struct board_slot *board_slot(const struct board *b, uint32_t slot)
{
    assert(slot < b->hdr->n_slots);
    return segment_at(&b->segment, BOARD_SLOTS_OFFSET + (uint64_t)slot * b->hdr->slot_bytes);
}

void board_log_line(void *slot, const char *line, size_t n)
{
    struct board_log *log = &((struct board_slot *)slot)->log;
    uint32_t i = atomic_fetch_add_explicit(&log->n_lines, 1, memory_order_relaxed);
    char *to = log->lines[i % BOARD_LOG_LINES];

    if (n > BOARD_LOG_LINE_BYTES - 1)
        n = BOARD_LOG_LINE_BYTES - 1;
    memcpy(to, line, n);
    to[n] = '\0';
}

uint32_t board_log_read(const struct board_slot *slot,
                        char out[BOARD_LOG_LINES][BOARD_LOG_LINE_BYTES])
{
    const struct board_log *log = &slot->log;
    uint32_t end = atomic_load_explicit(&log->n_lines, memory_order_relaxed);
    uint32_t n = end < BOARD_LOG_LINES ? end : BOARD_LOG_LINES;

    for (uint32_t i = 0; i < n; i++) {
        memcpy(out[i], log->lines[(end - n + i) % BOARD_LOG_LINES], BOARD_LOG_LINE_BYTES);
        out[i][BOARD_LOG_LINE_BYTES - 1] = '\0';
    }
    return n;
}

const char *process_state_name(enum process_state s)
{
    static const char *const names[N_PROCESS_STATES] = { "down", "starting", "ready", "draining",
                                                         "backoff" };
    return (unsigned)s < N_PROCESS_STATES ? names[s] : "?";
}
