/* byte_map.h - GPT-2's alphabet: every byte as a printable character.
 *
 * Byte-level vocabularies are written in it ("Ġthe" is " the").  We undo it once, at open, and work
 * on bytes.  Radford et al. 2019. */
#ifndef LLMD_TEXT_BYTE_MAP_H
#define LLMD_TEXT_BYTE_MAP_H

#include <stdbool.h>
#include <stddef.h>

/* The bytes that piece[0..n) (valid UTF-8) stands for, at most n of them.  False when a character is
 * not of the alphabet; `out` is then undefined. */
bool byte_map_undo(const char *piece, size_t n, char *out, size_t *out_n);

#endif
