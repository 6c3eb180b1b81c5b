/* chat_rig.h - the gateway rig for chat answers: settings, a model that says any text, one byte a token. */
#ifndef LLMD_TESTS_CHAT_RIG_H
#define LLMD_TESTS_CHAT_RIG_H

#include "tests/unit/gateway_rig.h"

enum { FIRST_BYTE_TOKEN = 3 }; /* of the demo model's vocabulary */

static inline void rig_set(struct rig *r, const char *name, const char *value)
{
    struct err e;

    assert_ok(config_set(&r->service.config, name, value, "t", &e), e);
}

/* The model's next tokens spell `text`, the last of them with `finish`. */
static inline void rig_says(struct rig *r, uint32_t choice, const char *text, Llmd__Finish finish)
{
    size_t n = strlen(text);
    int32_t *ids = malloc(n * sizeof *ids);

    for (size_t i = 0; i < n; i++)
        ids[i] = (unsigned char)text[i] + FIRST_BYTE_TOKEN;
    rig_tokens(r, choice, ids, (uint32_t)n, finish);
    free(ids);
}

static inline void expect_fault(struct rig *r, const struct dialect *d, const char *body,
                                int status, const char *want)
{
    struct reply reply;

    if (rig_parse(r, d, 0, body))
        fail_msg("taken: %s", body);
    reply_init(&reply);
    d->fault(&r->fault, &reply);
    if (reply.status != status || !strstr(reply.body.data, want))
        fail_msg("%s\n  got  %d %s\n  want %d %s", body, reply.status, reply.body.data, status,
                 want);
    reply_fini(&reply);
    rig_done(r);
}

/* The prompt that a body makes. */
static inline void expect_prompt(struct rig *r, const struct dialect *d, const char *body,
                                 const char *want)
{
    if (!rig_parse(r, d, 0, body))
        fail_msg("%s: %s", body, r->fault.text);
    assert_string_equal(r->rq.prompts[0].text, want);
    rig_done(r);
}

#endif
