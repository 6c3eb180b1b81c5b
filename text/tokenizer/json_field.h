/* json_field.h - reading the settings of a model's JSON files: a member, its kind, its default. */
#ifndef LLMD_TEXT_JSON_FIELD_H
#define LLMD_TEXT_JSON_FIELD_H

#include <stdbool.h>

#include "common/json.h"

/* Absent and null are the same: hub files use both.  A member of another kind is ERR_MODEL. */
bool json_field_bool(const json_t *object, const char *key, bool otherwise, bool *v, struct err *e);
bool json_field_str(const json_t *object, const char *key, const char **v, size_t *n,
                    struct err *e);

/* As above, but ERR_MODEL when absent. */
bool json_field_need_str(const json_t *object, const char *key, const char **v, size_t *n,
                         struct err *e);

/* The "type" of a component; ERR_MODEL unless `object` is an object that has one. */
const char *json_field_type(const json_t *object, struct err *e);

#endif
