/* segments.c - make the segments.  The weights' and groups' contents are the workers' business: llmd only
 * makes them, in the right size. */
#include "supervisor/segments.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/mem.h"
#include "proto/group_layout.h"
#include "proto/weights_layout.h"

enum { TOP_LOGPROBS_MAX = 20 };

static bool create_plain(struct segment *s, enum segment_kind kind, uint32_t version,
                         const char *what, uint32_t index, uint64_t bytes, uint64_t instance,
                         struct err *e)
{
    char name[32];

    snprintf(name, sizeof name, "llmd-%s-%u", what, index);
    return segment_create(s, kind, version, name, bytes, instance, e);
}

static bool create_groups(struct segments *s, const struct config *c, const Llmd__ModelPlan *plan,
                          uint64_t instance, struct err *e)
{
    const struct ledger_shape shape = {
        .n_entries = (uint32_t)(c->max_num_seqs + c->max_waiting_seqs),
        .tokens_max = plan->max_model_len,
        .page_tokens = plan->kv_page_tokens,
        .top_max = TOP_LOGPROBS_MAX,
    };

    for (uint32_t g = 0; g < s->n_groups; g++)
        if (!ledger_create(&s->ledgers[g], &shape, g, instance, e) ||
            !create_plain(&s->groups[g], SEGMENT_GROUP, GROUP_VERSION, "group", g,
                          plan->group_bytes, instance, e))
            return false;
    return true;
}

bool segments_create(struct segments *s, const struct config *c, const Llmd__ModelPlan *plan,
                     uint64_t instance, struct err *e)
{
    const struct kvpool_shape shape = {
        .n_pages = plan->kv_pages,
        .page_tokens = plan->kv_page_tokens,
        .n_layers = plan->n_layers,
        .n_kv_heads = plan->n_kv_heads,
        .head_dim = plan->head_dim,
        .dtype = (enum dtype)plan->kv_dtype,
    };

    *s = (struct segments){ .n_groups = (uint32_t)c->groups, .tp_size = (uint32_t)c->tp_size };
    s->ledgers = mem_zalloc(s->n_groups, sizeof *s->ledgers);
    s->groups = mem_zalloc(s->n_groups, sizeof *s->groups);
    s->weights = mem_zalloc(s->tp_size, sizeof *s->weights);
    if (!board_create(&s->board, s->n_groups, s->tp_size, instance, e) ||
        !connections_create(&s->connections, (uint32_t)c->max_connections,
                            c->connection_journal_bytes, instance, e) ||
        !kvpool_create(&s->kvpool, &shape, instance, e) || !create_groups(s, c, plan, instance, e))
        return false;
    for (uint32_t r = 0; r < s->tp_size; r++)
        if (!create_plain(&s->weights[r], SEGMENT_WEIGHTS, WEIGHTS_VERSION, "weights", r,
                          plan->weights_shard_bytes, instance, e))
            return false;
    return true;
}

void segments_close(struct segments *s)
{
    for (uint32_t g = 0; g < s->n_groups; g++) {
        ledger_close(&s->ledgers[g]);
        segment_close(&s->groups[g]);
    }
    for (uint32_t r = 0; r < s->tp_size; r++)
        segment_close(&s->weights[r]);
    kvpool_close(&s->kvpool);
    connections_close(&s->connections);
    board_close(&s->board);
    free(s->ledgers);
    free(s->groups);
    free(s->weights);
    *s = (struct segments){ 0 };
}
