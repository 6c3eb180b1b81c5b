/* text_parts.h - what a model's text is made of, cut at its tags: content, reasoning, calls of tools.
 *
 * A list of slices in the order of the text.  Tags belong to no part.  A call is one PART_CALL with its
 * name, then PART_ARGUMENTS whose slices, joined, are the arguments as JSON. */
#ifndef LLMD_GATEWAY_ANSWER_TEXT_PARTS_H
#define LLMD_GATEWAY_ANSWER_TEXT_PARTS_H

#include <stddef.h>
#include <stdint.h>

#include "common/arena.h"

enum part_kind { PART_CONTENT, PART_REASONING, PART_CALL, PART_ARGUMENTS };

struct text_part {
    enum part_kind kind;
    uint32_t call; /* of PART_CALL and PART_ARGUMENTS: 0, 1, ... */
    const char *s; /* in the text, or in the arena; PART_CALL: the name */
    size_t n;
};

struct text_parts {
    struct arena *arena; /* borrowed: of the list, and of names that had to be decoded */
    struct text_part *list;
    size_t n, cap;
};

/* Append a part; one that goes on where the last one ended lengthens that.  Empty ones are dropped, but
 * for a PART_CALL. */
void text_parts_add(struct text_parts *parts, struct text_part part);

/* One mark of a format in a text that still grows. */
enum mark_match {
    MARK_NO,
    MARK_PART, /* the text ends within it */
    MARK_YES,
};

/* Does `mark` stand at text[at]?  Never MARK_PART for at == n. */
enum mark_match mark_at(const char *text, size_t n, size_t at, const char *mark);
/* The first place from `at` on where it does, or begins to; n when there is none. */
size_t mark_find(const char *text, size_t n, size_t at, const char *mark, enum mark_match *match);

static inline int text_is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

#endif
