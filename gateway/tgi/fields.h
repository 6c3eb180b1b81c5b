/* fields.h - the members of TGI's bodies, as its framework's deserializer takes them.
 *
 * What is wrong with a type is found here and told in that deserializer's words; what a value may be is
 * parse.c's business. */
#ifndef LLMD_GATEWAY_TGI_FIELDS_H
#define LLMD_GATEWAY_TGI_FIELDS_H

#include "gateway/fault.h"
#include "gateway/fields.h"

#define TGI_BODY(X)                                                                                \
    X(inputs, FIELD_STRING, FIELD_REQUIRED, 0, 0)                                                  \
    X(parameters, FIELD_OBJECT, 0, 0, 0)                                                           \
    X(stream, FIELD_BOOL, 0, 0, 0)

/* Of every version. */
#define TGI_PARAMETERS_ALL(X)                                                                      \
    X(best_of, FIELD_INT, FIELD_NULL, 0, INT64_MAX)                                                \
    X(temperature, FIELD_NUMBER, FIELD_NULL, 0, 0)                                                 \
    X(repetition_penalty, FIELD_NUMBER, FIELD_NULL, 0, 0)                                          \
    X(top_k, FIELD_INT, FIELD_NULL, INT32_MIN, INT32_MAX)                                          \
    X(top_p, FIELD_NUMBER, FIELD_NULL, 0, 0)                                                       \
    X(typical_p, FIELD_NUMBER, FIELD_NULL, 0, 0)                                                   \
    X(do_sample, FIELD_BOOL, 0, 0, 0)                                                              \
    X(return_full_text, FIELD_BOOL, FIELD_NULL, 0, 0)                                              \
    X(stop, FIELD_ARRAY, 0, 0, 0)                                                                  \
    X(truncate, FIELD_INT, FIELD_NULL, 0, INT64_MAX)                                               \
    X(watermark, FIELD_BOOL, 0, 0, 0)                                                              \
    X(details, FIELD_BOOL, 0, 0, 0)                                                                \
    X(decoder_input_details, FIELD_BOOL, 0, 0, 0)                                                  \
    X(seed, FIELD_ANY, FIELD_NULL, 0, 0)

/* Of 3.x; 0.9.3 ignores the last four as it does any member it has never heard of. */
#define TGI_PARAMETERS(X)                                                                          \
    TGI_PARAMETERS_ALL(X)                                                                          \
    X(max_new_tokens, FIELD_INT, FIELD_NULL, 0, UINT32_MAX)                                        \
    X(frequency_penalty, FIELD_NUMBER, FIELD_NULL, 0, 0)                                           \
    X(top_n_tokens, FIELD_INT, FIELD_NULL, 0, UINT32_MAX)                                          \
    X(grammar, FIELD_OBJECT, FIELD_NULL, 0, 0)                                                     \
    X(adapter_id, FIELD_STRING, FIELD_NULL, 0, 0)

#define TGI_PARAMETERS_0_9_3(X)                                                                    \
    TGI_PARAMETERS_ALL(X)                                                                          \
    X(max_new_tokens, FIELD_INT, 0, 0, UINT32_MAX)

struct tgi_body {
    TGI_BODY(FIELD_MEMBER)
};

struct tgi_parameters {
    TGI_PARAMETERS(FIELD_MEMBER)
    uint64_t seed_value; /* of .seed */
};

/* Read a parsed body and its parameters.  bytes[0..n) is its text, for what the parsed form cannot hold.
 * FAULT_SCHEMA. */
bool tgi_fields_read(const json_t *root, const char *bytes, size_t n, bool is_old,
                     struct tgi_body *body, struct tgi_parameters *p, struct fault *f);

/* The body's outermost value is an object of this Rust struct, or FAULT_SCHEMA. */
bool tgi_fields_expect_object(const json_t *root, const char *type, struct fault *f);

/* Always false: what fields_read() found, as FAULT_SCHEMA.  prefix: "parameters." */
bool tgi_fields_fault(struct fault *f, const char *prefix, const struct field_problem *p);

#endif
