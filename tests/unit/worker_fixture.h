/* worker_fixture.h - the real llm-worker with the demo model and one gateway that talks to it, and the requests that the
 * tests of the process make: what each is answered must not depend on company, caches, ranks or crashes. */
#ifndef LLMD_TESTS_WORKER_FIXTURE_H
#define LLMD_TESTS_WORKER_FIXTURE_H

#include "worker_rig.h"

#define DEMO TEST_SOURCE_DIR "/models/stories-demo"

/* For fixture_init(): 1 rank of 2 threads; 2 ranks of a thread each. */
extern const char *const one_rank[], *const two_ranks[];

struct fixture {
    struct worker_rig rig;
    struct client client;
};

/* set: name, value, ..., NULL; borrowed. */
void fixture_init(struct fixture *f, uint32_t tp_size, const char *const *set);
void fixture_fini(struct fixture *f);
/* Until no sequence has an entry, page or pin. */
void wait_until_clean(struct fixture *f);
/* One setting changes at run time. */
void reload(struct worker_process *p, const char *name, const char *value);

/* ---- requests ---- */

enum { STORY_TOKENS = 5, PROMPT_MAX = 90 };

extern const int32_t story[STORY_TOKENS]; /* "Once upon a time" */

/* A story that only max_tokens ends. */
struct client_request endless(uint32_t max_tokens);

/* Number i of 64 different ones: greedy and sampled, short and chunked prompts, penalties, log probabilities.  Its prompt
 * is written to prompt[PROMPT_MAX]. */
struct client_request stream_request(uint32_t i, int32_t *prompt);
/* The same tokens, numbers and end. */
void compare_streams(const struct client_stream *a, const struct client_stream *b);

/* Prompts whose common part ends inside a page of 16. */
enum { SHARING = 6, SHARED = 57 };

struct client_request sharing_request(uint32_t i, int32_t *prompt);
/* All of them, with ids from `id` on, and wait for their ends; one after the other, or at once. */
void submit_sharing(struct fixture *f, uint64_t id, int32_t prompts[SHARING][PROMPT_MAX],
                    bool at_once);

/* ---- what is said of a prompt ---- */

enum { READ = 440, N_READINGS = 3 };

/* A prompt, and what one has to say to have it measured or embedded. */
struct readings {
    int32_t prompt[READ];
    struct client_request measured, mean, last;
};

void readings_init(struct readings *x);
/* As N_READINGS streams with ids from first_id on. */
void submit_readings(struct client *c, uint64_t first_id, const struct readings *x);
/* The first streams of a say the same as those of b from number `at` on. */
void compare_readings(const struct client *a, const struct client *b, uint32_t at);

#endif
