/* engine_fixture.c - see engine_fixture.h. */
#include "engine_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

const int32_t story[STORY_TOKENS] = { 1, 40, 41, 42, 43, 44, 45 };

bool said_hello(const void *arg)
{
    return ((const struct client *)arg)->n_hello > 0;
}

void fixture_init(struct fixture *f, const struct rig_shape *shape)
{
    rig_make_segments(&f->rig, shape);
    rig_start(&f->rig);
    client_open(&f->client, f->rig.instance, 1);
    rig_until(&f->rig, &f->client, said_hello, &f->client);
}

void fixture_fini(struct fixture *f)
{
    client_close(&f->client);
    rig_close(&f->rig);
}

void switch_off_drafts(struct fixture *f)
{
    struct err e;

    assert_true(config_set(&f->rig.config, "speculate", "off", "test", &e));
}

struct client_request endless(uint32_t max_tokens)
{
    struct client_request r = client_request(story, STORY_TOKENS, max_tokens);

    r.ignore_eos = true;
    return r;
}

bool first_has_ten(const void *arg)
{
    const struct client *c = arg;

    return c->streams[0].n >= 10;
}
