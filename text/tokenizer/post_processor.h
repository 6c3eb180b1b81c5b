/* post_processor.h - the tokens that a model wants before and after every text. */
#ifndef LLMD_TEXT_POST_PROCESSOR_H
#define LLMD_TEXT_POST_PROCESSOR_H

#include "common/json.h"

enum { POST_PROCESSOR_IDS_MAX = 8 };

struct post_processor {
    int32_t before[POST_PROCESSOR_IDS_MAX], after[POST_PROCESSOR_IDS_MAX];
    size_t n_before, n_after;
    bool trims_spans; /* a token's span leaves out the spaces at its ends */
};

/* NULL and null mean none. */
bool post_processor_load(struct post_processor *p, const json_t *json, struct err *e);

#endif
