/* json_scan.h - walk over a large JSON text in place.
 *
 * A tokenizer.json of a modern model is a map of 150,000 strings and a list of 300,000 more.  Building a tree of
 * it takes longer than a gateway is allowed to be away after a crash, so its two big members are read
 * with this; everything small is cut out by json_scan_skip() and goes through common/json.
 *
 * The first error sticks: every later call returns false, and json_scan_ok() tells.  So callers
 * write loops without checks and ask once at the end. */
#ifndef LLMD_TEXT_JSON_SCAN_H
#define LLMD_TEXT_JSON_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

struct json_scan {
    const char *s;
    size_t n, at;
    bool first; /* the next member or item is the first of its object or array */
    bool failed;
    struct err *e; /* borrowed */
};

/* A value as it stands in the text. */
struct json_slice {
    const char *s;
    size_t n;
};

/* s[0..n) is UTF-8, checked by the caller, and stays while it is scanned. */
void json_scan_init(struct json_scan *j, const char *s, size_t n, struct err *e);
bool json_scan_ok(const struct json_scan *j);

/* Stop with ERR_MODEL, the place in the text added.  Always false. */
bool json_scan_fail(struct json_scan *j, const char *what);

/* Enter an object or array; false when something else stands here (and that is an error). */
bool json_scan_object(struct json_scan *j);
bool json_scan_array(struct json_scan *j);

/* The next member's key (unescaped into `key`, at most key_max bytes with the NUL), its value being
 * next; false at the end of the object. */
bool json_scan_key(struct json_scan *j, char *key, size_t key_max, size_t *n);
/* Is there another item?  False at the end of the array. */
bool json_scan_item(struct json_scan *j);

/* The first character of the next value, '\0' at the end of the text. */
char json_scan_peek(struct json_scan *j);

/* A string, unescaped into out; it never needs more than out_max bytes + NUL, else an error. */
bool json_scan_string(struct json_scan *j, char *out, size_t out_max, size_t *n);
bool json_scan_int(struct json_scan *j, int64_t *v);
/* Pass over any value.  Only its strings and brackets are looked at. */
bool json_scan_skip(struct json_scan *j, struct json_slice *value);

/* After the last value: nothing but white space follows. */
bool json_scan_end(struct json_scan *j);

#endif
