/* json_reader.h - fields of a JSON object of a model's files, one reader per type, each error naming file,
 * field, what was wanted and what was found.  ERR_MODEL throughout; outputs are written on success only. */
#ifndef LLMD_GPU_WORKER_LOAD_JSON_READER_H
#define LLMD_GPU_WORKER_LOAD_JSON_READER_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/json.h"

struct json_reader {
    const char *file;
    const json_t *object;
    struct err *e;
};

/* `"field" must be <wanted>, found ...`.  Always false. */
bool json_reader_fail(const struct json_reader *r, const char *field, const char *wanted);

/* NULL when it is absent; null counts as absent, as it does for the library that writes these files. */
const json_t *json_reader_field(const struct json_reader *r, const char *field);

/* A whole number in min..max. */
bool json_reader_count(const struct json_reader *r, const char *field, uint32_t min, uint32_t max,
                       uint32_t *out);
bool json_reader_count_or(const struct json_reader *r, const char *field, uint32_t max,
                          uint32_t absent, uint32_t *out); /* 1..max */

bool json_reader_number(const struct json_reader *r, const char *field, double min, double max,
                        double *out);
bool json_reader_number_or(const struct json_reader *r, const char *field, double min, double max,
                           double absent, double *out);

bool json_reader_bool_or(const struct json_reader *r, const char *field, bool absent, bool *out);

#endif
