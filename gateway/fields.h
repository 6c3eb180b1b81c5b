/* fields.h - JSON members into a struct, by a table: name, type, range.
 *
 * Every dialect reads its bodies through this file, so that a wrong type, a number that does not fit
 * or a missing member is found in one place and described the same way.  Members that are not in the
 * table are ignored, as all three original servers do.
 *
 * A list macro makes the struct and the table, so that they cannot differ:
 *
 *     #define BODY(X) X(inputs, FIELD_STRING, FIELD_REQUIRED, 0, 0)
 *     struct body { BODY(FIELD_MEMBER) };
 *     static const struct field body_fields[] = { BODY(FIELD_ROW) };      with FIELD_OWNER = struct body
 */
#ifndef LLMD_GATEWAY_FIELDS_H
#define LLMD_GATEWAY_FIELDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/json.h"

enum field_type {
    FIELD_BOOL,
    FIELD_INT,    /* min..max */
    FIELD_NUMBER, /* any finite number */
    FIELD_STRING,
    FIELD_ARRAY,
    FIELD_OBJECT,
    FIELD_ANY, /* whatever it is, it is kept; null is not */
};

enum field_flags {
    FIELD_REQUIRED = 1, /* and not null */
    FIELD_NULL = 2,     /* null is the same as absent */
};

struct field {
    const char *name;
    enum field_type type;
    unsigned flags;
    size_t offset;    /* of its struct field_value */
    int64_t min, max; /* FIELD_INT */
};

/* A table by name, for who describes what a route takes (openapi.h): in the table's file,
 *     FIELD_TABLE(chat_fields, "", own_fields);
 * in dialect.h its declaration, in routes.c its route.  `inside`: where in the body its members are, "" for the body
 * itself, "parameters", "instances[].parameters". */
struct field_table {
    const char *inside;
    const struct field *rows;
    size_t n;
};

#define FIELD_TABLE(name, where, table)                                                            \
    const struct field_table name = { where, table, sizeof(table) / sizeof *(table) }

/* What was read.  s and json are borrowed from the JSON value. */
struct field_value {
    bool is_set;
    bool b;
    int64_t i;
    double d; /* also set for FIELD_INT */
    const char *s;
    size_t n;
    const json_t *json;
};

#define FIELD_MEMBER(name, type, flags, min, max) struct field_value name;
#define FIELD_ROW(name, type, flags, min, max)                                                     \
    { #name, type, flags, offsetof(FIELD_OWNER, name), min, max },

enum field_trouble { FIELD_MISSING, FIELD_WRONG_TYPE, FIELD_OUT_OF_RANGE };

struct field_problem {
    enum field_trouble what;
    char name[64];
    char expected[96]; /* "a string", "an integer from 0 to 4294967295" */
    char found[96];    /* "null", "string \"abc\"", "integer -4" */
};

/* How strict types are. */
enum field_mode {
    FIELDS_STRICT, /* an integer is a number, nothing else is anything else */
    FIELDS_LENIENT /* "0.5" is a number, 1 and "true" are bools, 3.0 is an integer */
};

/* Read the members of `object` into *out, which is zeroed first.  False: *p says what is wrong with the
 * first bad member in table order. */
bool fields_read(const json_t *object, const struct field *table, size_t n, enum field_mode mode,
                 void *out, size_t out_bytes, struct field_problem *p);

/* One value that is no member of a table (an element of an array). */
bool field_convert(const json_t *value, const struct field *f, enum field_mode mode,
                   struct field_value *out, struct field_problem *p);

/* "string \"abc\"", "floating point 1.5", "sequence": what a JSON value is, cut to fit. */
void field_describe(const json_t *value, char *out, size_t n);

#endif
