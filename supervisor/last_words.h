/* last_words.h - what a process that died had logged last, from the board. */
#ifndef LLMD_SUPERVISOR_LAST_WORDS_H
#define LLMD_SUPERVISOR_LAST_WORDS_H

#include "proto/board.h"

/* The newest lines of its life that tell of trouble, two at most, cut to fit: "bug: ..." of an assert()
 * wins over errors, an error over a warning.  "" when there is none. */
void last_words(const struct board_slot *slot, char *out, size_t n);

#endif
