/* json.h - the one door to JSON: jansson for reading (strict), an own small writer for output.
 *
 * Reading refuses duplicate keys, invalid UTF-8, trailing text and nesting past 2048 levels; who
 * includes this header may use jansson's json_t functions on what json_parse() returns.
 *
 * Writing appends to a struct buf.  Commas are the writer's business: call jw_key() and values in
 * order.  Strings must be valid UTF-8 or are mended with U+FFFD, so the output always parses. */
#ifndef LLMD_COMMON_JSON_H
#define LLMD_COMMON_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/err.h"

/* Parse all n bytes as one JSON value (any kind at the top).  NULL and ERR_INPUT with line and column
 * when it is not JSON.  Caller gives it back with json_decref(). */
json_t *json_parse(const char *bytes, size_t n, struct err *e);

/* Read and parse a whole file of at most bytes_max bytes.  NULL and ERR_SYS or ERR_MODEL. */
json_t *json_parse_file(const char *path, size_t bytes_max, struct err *e);

struct json_writer {
    struct buf *out; /* borrowed */
    bool need_comma;
};

void jw_object(struct json_writer *w); /* { */
void jw_object_end(struct json_writer *w);
void jw_array(struct json_writer *w); /* [ */
void jw_array_end(struct json_writer *w);
void jw_key(struct json_writer *w, const char *key);
void jw_str(struct json_writer *w, const char *s); /* NULL writes null */
void jw_strn(struct json_writer *w, const char *bytes, size_t n);
void jw_int(struct json_writer *w, int64_t v);
void jw_uint(struct json_writer *w, uint64_t v);
void jw_bool(struct json_writer *w, bool v);
void jw_null(struct json_writer *w);
/* Shortest text that reads back as the same float (jw_float) or double (jw_double); NaN and the
 * infinities have no JSON form and are written as null. */
void jw_float(struct json_writer *w, float v);
void jw_double(struct json_writer *w, double v);
/* Any json_t, compact, keys in their order, numbers as jw_int() and jw_double(). */
void jw_json(struct json_writer *w, const json_t *v);

#endif
