/* stop_match.h - stop strings in a text that grows.
 *
 * Two rules exist.  OpenAI and vLLM: a match anywhere ends the answer, the one that completes first
 * wins, and text that might still become part of a match is held back.  TGI: after each token, does
 * the text end with a stop string (one newline after it allowed)?  Both are pure functions of the
 * text, so a recovered answer stops at the same byte. */
#ifndef LLMD_GATEWAY_ANSWER_STOP_MATCH_H
#define LLMD_GATEWAY_ANSWER_STOP_MATCH_H

#include <stdbool.h>
#include <stddef.h>

struct stop_string {
    const char *s; /* borrowed */
    size_t n;      /* >= 1 */
};

struct stop_set {
    const struct stop_string *strings;
    size_t n;
    size_t bytes_max;  /* longest */
    size_t hold_chars; /* characters of the longest, less one */
};

void stop_set_init(struct stop_set *set, const struct stop_string *strings, size_t n);

struct stop_hit {
    size_t which;      /* index of the stop string */
    size_t start, end; /* bytes of the text */
};

/* The match in text[0..n) that completes first among those ending past `seen` (what earlier calls
 * looked at); ties go to the one named first. */
bool stop_find(const struct stop_set *set, const char *text, size_t n, size_t seen,
               struct stop_hit *hit);

/* TGI: text[0..n) ends with one of them. */
bool stop_ends(const struct stop_set *set, const char *text, size_t n, size_t *which);

/* Bytes of text[0..n) that no later match can cut off: all but the last hold_chars characters.  The
 * text is whole UTF-8 characters. */
size_t stop_shown(const struct stop_set *set, const char *text, size_t n);

#endif
