/* json_cut.h - the members of a JSON object that one asks for, and nothing else of it.
 *
 * For the files of a model directory: they may be large, and tokenizer_config.json usually holds a
 * model_max_length of 1000000000000000019884624838656, which no strict JSON reader takes. */
#ifndef LLMD_TEXT_JSON_CUT_H
#define LLMD_TEXT_JSON_CUT_H

#include "common/json.h"
#include "text/json_scan.h"

struct json_member {
    const char *key;
    struct json_slice value; /* .s is NULL when the object has no such member */
};

/* Fill the values of members[0..n_members) from the object s[0..n), which they then borrow from.
 * ERR_MODEL when it is not UTF-8, not an object, or has one of them twice. */
bool json_cut(const char *s, size_t n, struct json_member *members, size_t n_members,
              struct err *e);

/* The value as a tree, caller gives it back with json_decref(); NULL in *v for an absent one, and
 * that is success.  ERR_MODEL when it is not JSON. */
bool json_cut_parse(const struct json_member *member, json_t **v, struct err *e);

#endif
