/* requests.c - read entry headers, never what lies behind them: prompts are none of llmd's business.
 *
 * The worker writes while we read.  ledger_peek() gives headers of one sequence each; that the list as a whole is
 * of no single moment does not matter to an operator. */
#include "supervisor/requests.h"

#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/mem.h"
#include "supervisor/llmd.h"

/* A message has 128 KiB: 1024 of these without an error take half of it. */
enum { ERRORS_BYTES_MAX = 48 << 10 };

static Llmd__RequestStatus *add_row(Llmd__CtlReply *reply, uint32_t group, struct arena *a)
{
    Llmd__RequestStatus *r;

    if (reply->n_requests == REQUESTS_MAX) {
        reply->requests_left_out++;
        return NULL;
    }
    r = arena_alloc(a, sizeof *r);
    llmd__request_status__init(r);
    r->group = group;
    reply->requests[reply->n_requests++] = r;
    return r;
}

static uint64_t age_ns(uint64_t since_ns, uint64_t now_ns)
{
    return since_ns <= now_ns ? now_ns - since_ns : 0;
}

/* A sequence without pages has lost its place in the batch, or has not had one yet. */
static const char *state_of(const struct ledger_entry *entry)
{
    if (atomic_load(&entry->state) == LEDGER_DONE)
        return "done";
    return entry->scheduled_ns == 0 || atomic_load(&entry->n_pages) == 0 ? "waiting" : "running";
}

static void add_entry(const struct ledger_entry *entry, uint32_t group, uint64_t now_ns,
                      Llmd__CtlReply *reply, struct arena *a)
{
    Llmd__RequestStatus *r = add_row(reply, group, a);

    if (!r)
        return;
    r->sequence_id = entry->sequence_id;
    r->state = arena_strdup(a, state_of(entry));
    r->n_prompt = entry->n_prompt;
    r->n_generated = atomic_load(&entry->n_generated);
    r->age_ns = age_ns(entry->accepted_ns, now_ns);
    r->crashes = entry->crashes;
    r->kills = entry->kills;
    r->kv_pages = atomic_load(&entry->n_pages);
    if (atomic_load(&entry->state) == LEDGER_DONE && entry->finish == LLMD__FINISH__FINISH_ERROR)
        r->error = arena_strdup(a, entry->error);
}

static void add_suspect(const struct ledger_suspect *s, uint32_t group, uint64_t now_ns,
                        Llmd__CtlReply *reply, struct arena *a)
{
    Llmd__RequestStatus *r = add_row(reply, group, a);

    if (!r)
        return;
    r->sequence_id = s->sequence_id;
    r->state = arena_strdup(a, "poisoned");
    r->n_prompt = s->n_prompt;
    r->n_generated = s->n_generated;
    r->age_ns = age_ns(s->when_ns, now_ns);
    r->crashes = s->crashes;
    r->kills = s->kills;
    r->error = arena_strndup(a, s->error, strnlen(s->error, sizeof s->error));
}

static int by_age(const void *a, const void *b)
{
    const struct ledger_entry *x = a, *y = b;

    return (x->accepted_ns > y->accepted_ns) - (x->accepted_ns < y->accepted_ns);
}

void requests_add_poisoned(const struct ledger *l, uint32_t group, uint64_t now_ns,
                           Llmd__CtlReply *reply, struct arena *a)
{
    struct ledger_suspect suspects[LEDGER_SUSPECTS];

    for (uint32_t i = ledger_read_suspects(l, suspects); i-- > 0;)
        add_suspect(&suspects[i], group, now_ns, reply, a);
}

void requests_add_held(const struct ledger *l, uint32_t group, uint64_t now_ns,
                       Llmd__CtlReply *reply, struct arena *a)
{
    struct ledger_entry *entries = mem_zalloc(l->hdr->n_entries, sizeof *entries);
    uint32_t n = 0;

    for (uint32_t i = 0; i < l->hdr->n_entries; i++)
        n += ledger_peek(l, i, &entries[n]);
    qsort(entries, n, sizeof *entries, by_age);
    for (uint32_t i = 0; i < n; i++)
        add_entry(&entries[i], group, now_ns, reply, a);
    free(entries);
}

/* A storm of errors may not make the message too long. */
static void drop_errors(Llmd__CtlReply *reply)
{
    size_t bytes = 0;

    for (size_t i = 0; i < reply->n_requests; i++) {
        bytes += strlen(reply->requests[i]->error);
        if (bytes > ERRORS_BYTES_MAX)
            reply->requests[i]->error = (char *)(uintptr_t) "";
    }
}

void requests_answer(const struct llmd *l, Llmd__CtlReply *reply, struct arena *a)
{
    uint64_t now_ns = clock_mono_ns();

    reply->requests = arena_alloc(a, REQUESTS_MAX * sizeof *reply->requests);
    for (uint32_t g = 0; g < l->segments.n_groups; g++)
        requests_add_poisoned(&l->segments.ledgers[g], g, now_ns, reply,
                              a); /* few, and looked for */
    for (uint32_t g = 0; g < l->segments.n_groups; g++)
        requests_add_held(&l->segments.ledgers[g], g, now_ns, reply, a);
    drop_errors(reply);
}
