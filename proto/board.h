/* board.h - make, attach and reach the slots of the board (board_layout.h). */
#ifndef LLMD_PROTO_BOARD_H
#define LLMD_PROTO_BOARD_H

#include "proto/board_layout.h"

struct board {
    struct segment segment;
    struct board_hdr *hdr;
};

bool board_create(struct board *b, uint32_t n_groups, uint32_t tp_size, uint64_t instance,
                  struct err *e);
/* Takes fd.  Every process maps the board writable: its own slot is its own. */
bool board_attach(struct board *b, int fd, struct err *e);
void board_close(struct board *b);

struct board_slot *board_slot(const struct board *b, uint32_t slot);

static inline uint32_t board_rank_slot(const struct board *b, uint32_t group, uint32_t rank)
{
    return BOARD_SLOT_RANKS + group * b->hdr->tp_size + rank;
}

/* A log tap (common/log.h) whose argument is the process's slot: its last words stay on the board. */
void board_log_line(void *slot, const char *line, size_t n);
/* Copy the lines that are there, oldest first, into out[]; returns how many. */
uint32_t board_log_read(const struct board_slot *slot,
                        char out[BOARD_LOG_LINES][BOARD_LOG_LINE_BYTES]);

const char *process_state_name(enum process_state s);

#endif
