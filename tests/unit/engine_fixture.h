/* engine_fixture.h - an engine over the fake runtime and one gateway that it has greeted: what the tests of the engine
 * begin with. */
#ifndef LLMD_TESTS_ENGINE_FIXTURE_H
#define LLMD_TESTS_ENGINE_FIXTURE_H

#include "engine_rig.h"

enum { PAGE = 8 };      /* tokens of a page of rig_roomy */
enum { SLOW_US = 300 }; /* a step, where a test must meet a stream before its end */
enum { STORY_TOKENS = 7 };

extern const int32_t story[STORY_TOKENS];

struct fixture {
    struct rig rig;
    struct client client;
};

void fixture_init(struct fixture *f, const struct rig_shape *shape);
void fixture_fini(struct fixture *f);
/* For tests that count rows. */
void switch_off_drafts(struct fixture *f);

/* A story that only max_tokens ends. */
struct client_request endless(uint32_t max_tokens);

/* Of a client, for rig_until(): the engine has greeted it; its first stream has ten tokens. */
bool said_hello(const void *arg);
bool first_has_ten(const void *arg);

#endif
