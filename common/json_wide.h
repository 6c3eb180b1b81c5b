/* json_wide.h - JSON whose integers may be larger than jansson's.
 *
 * jansson holds int64_t and refuses a document with more.  Elsewhere u64 is usual (TGI's seeds), and serde,
 * which reads TGI's bodies, takes an integer of any size for a floating-point number where nothing wants
 * it whole.  So here: an integer past int64_t becomes a real, and who wants it whole finds its digits in
 * the text, by its place. */
#ifndef LLMD_COMMON_JSON_WIDE_H
#define LLMD_COMMON_JSON_WIDE_H

#include "common/json.h"

/* As json_parse(); integers past int64_t become reals. */
json_t *json_wide_parse(const char *bytes, size_t n, struct err *e);

/* The integer at path (member names from the outermost object on, NULL at the end) of a text that
 * json_wide_parse() has taken.  False when no integer of 0..2^64-1 stands there.  Names are compared as
 * they are spelled, so one with escapes is not found. */
bool json_wide_uint(const char *bytes, size_t n, const char *const path[], uint64_t *out);

#endif
