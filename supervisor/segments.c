/* segments.c - make the segments.  The weights' and groups' contents are the workers' business: llmd only
 * makes them, in the right size. */
#include "supervisor/segments.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "proto/chunks_layout.h"
#include "proto/group_layout.h"
#include "proto/weights_layout.h"
#include "supervisor/gpu_memory.h"

/* Tokens that a request may name to have their log probabilities (Sampling.logprob_tokens). */
enum { NAMED_LOGPROBS_MAX = 128 };

static bool create_plain(struct segment *s, enum segment_kind kind, uint32_t version,
                         const char *what, uint32_t index, uint64_t bytes, uint64_t instance,
                         struct err *e)
{
    char name[32];

    snprintf(name, sizeof name, "llmd-%s-%u", what, index);
    return segment_create(s, kind, version, name, bytes, instance, e);
}

/* Alternatives of a token that an entry has room for. */
static uint32_t top_max(const struct config *c, const Llmd__ModelPlan *plan)
{
    uint64_t n = c->max_logprobs < plan->vocab_size ? c->max_logprobs : plan->vocab_size;

    return n > NAMED_LOGPROBS_MAX ? (uint32_t)n : NAMED_LOGPROBS_MAX;
}

static bool create_groups(struct segments *s, const struct config *c, const Llmd__ModelPlan *plan,
                          uint64_t instance, struct err *e)
{
    const struct ledger_shape shape = {
        .n_entries = (uint32_t)(c->max_num_seqs + c->max_waiting_seqs),
        .tokens_max = plan->max_model_len,
        .page_tokens = plan->kv_page_tokens,
        .top_max = top_max(c, plan),
        .embedding_max = plan->hidden_size,
    };

    for (uint32_t g = 0; g < s->n_groups; g++)
        if (!ledger_create(&s->ledgers[g], &shape, g, instance, e) ||
            !create_plain(&s->groups[g], SEGMENT_GROUP, GROUP_VERSION, "group", g,
                          plan->group_bytes, instance, e))
            return false;
    return true;
}

static bool wants_huge(const struct config *c)
{
    return strcmp(c->huge_pages, "off") != 0;
}

static bool create_weights(struct segment *s, const struct config *c, uint32_t shard,
                           uint64_t bytes, uint64_t instance, struct err *e)
{
    char name[32];

    snprintf(name, sizeof name, "llmd-weights-%u", shard);
    return segment_create_large(s, SEGMENT_WEIGHTS, WEIGHTS_VERSION, name, bytes, instance,
                                wants_huge(c), e);
}

static void make_room(struct segments *s, const struct config *c, const Llmd__ModelPlan *plan)
{
    *s = (struct segments){ .n_groups = (uint32_t)c->groups,
                            .tp_size = (uint32_t)c->tp_size,
                            .on_device = plan->on_device };
    s->n_weights = s->on_device ? s->n_groups * s->tp_size : s->tp_size;
    s->ledgers = mem_zalloc(s->n_groups, sizeof *s->ledgers);
    s->groups = mem_zalloc(s->n_groups, sizeof *s->groups);
    s->weights = mem_zalloc(s->n_weights, sizeof *s->weights);
}

static bool create_chunks(struct segments *s, uint64_t instance, struct err *e)
{
    struct chunks_hdr *h;

    if (!s->on_device)
        return true;
    if (!segment_create(&s->chunks, SEGMENT_CHUNKS, CHUNKS_VERSION, "llmd-chunks",
                        gpu_memory_table_bytes(s->n_groups, s->tp_size), instance, e))
        return false;
    h = (struct chunks_hdr *)s->chunks.hdr;
    h->n_groups = s->n_groups;
    h->tp_size = s->tp_size;
    return true;
}

static bool create_host_tier(struct segments *s, const struct config *c,
                             const Llmd__ModelPlan *plan, uint64_t instance, struct err *e)
{
    const struct host_tier_shape shape = { .n_slots = plan->kv_host_pages,
                                           .page_tokens = plan->kv_page_tokens,
                                           .n_ranks = s->tp_size,
                                           .slot_bytes = plan->kv_rank_page_bytes,
                                           .small_pages = !wants_huge(c) };

    return plan->kv_host_pages == 0 || host_tier_create(&s->host_tier, &shape, instance, e);
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
        .small_pages = !wants_huge(c),
        .on_device = plan->on_device,
    };

    make_room(s, c, plan);
    if (!board_create(&s->board, s->n_groups, s->tp_size, instance, e) ||
        !connections_create(&s->connections, (uint32_t)c->max_connections,
                            c->connection_journal_bytes, instance, e) ||
        !create_groups(s, c, plan, instance, e) || !create_chunks(s, instance, e))
        return false;
    for (uint32_t r = 0; r < s->n_weights; r++) /* first: all of them are read at each step */
        if (!create_weights(&s->weights[r], c, r, plan->weights_shard_bytes, instance, e))
            return false;
    return kvpool_create(&s->kvpool, &shape, instance, e) &&
           create_host_tier(s, c, plan, instance, e);
}

static bool is_missing(int fd, const char *name, uint32_t number, struct err *e)
{
    return fd < 0 && !err_set(e, ERR_PROTO, 0, "segment '%s' is missing (number %u)", name, number);
}

/* To hold it and hand it on; llmd reads no byte past its header. */
static bool attach_numbered(struct segment *s, struct passed *from, const char *name,
                            uint32_t number, enum segment_kind kind, uint32_t version,
                            struct err *e)
{
    int fd = passed_take_numbered(from, name, number);

    return !is_missing(fd, name, number, e) && segment_attach(s, fd, kind, version, false, e);
}

static bool attach_single(struct segments *s, struct passed *from, struct err *e)
{
    int board = passed_take(from, "llmd-board");
    int pool = -1, connections = -1;

    if (is_missing(board, "llmd-board", 0, e) || !board_attach(&s->board, board, e))
        return false;
    pool = passed_take(from, "llmd-kvpool");
    if (is_missing(pool, "llmd-kvpool", 0, e) || !kvpool_attach(&s->kvpool, pool, e))
        return false;
    connections = passed_take(from, "llmd-connections");
    return !is_missing(connections, "llmd-connections", 0, e) &&
           connections_attach(&s->connections, connections, e);
}

static bool attach_chunks(struct segments *s, struct passed *from, struct err *e)
{
    int fd;

    if (!s->on_device)
        return true;
    fd = passed_take(from, "llmd-chunks");
    return !is_missing(fd, "llmd-chunks", 0, e) &&
           segment_attach(&s->chunks, fd, SEGMENT_CHUNKS, CHUNKS_VERSION, true, e);
}

static bool attach_host_tier(struct segments *s, const Llmd__ModelPlan *plan, struct passed *from,
                             struct err *e)
{
    int fd;

    if (plan->kv_host_pages == 0)
        return true;
    fd = passed_take(from, "llmd-hosttier");
    return !is_missing(fd, "llmd-hosttier", 0, e) && host_tier_attach(&s->host_tier, fd, e);
}

bool segments_attach(struct segments *s, const struct config *c, const Llmd__ModelPlan *plan,
                     struct passed *from, struct err *e)
{
    make_room(s, c, plan);
    if (!attach_single(s, from, e) || !attach_chunks(s, from, e) ||
        !attach_host_tier(s, plan, from, e))
        return false;
    for (uint32_t g = 0; g < s->n_groups; g++) {
        int ledger = passed_take_numbered(from, "llmd-ledger-", g);
        if (is_missing(ledger, "llmd-ledger-", g, e) ||
            !ledger_attach(&s->ledgers[g], ledger, true, e) ||
            !attach_numbered(&s->groups[g], from, "llmd-group-", g, SEGMENT_GROUP, GROUP_VERSION,
                             e))
            return false;
    }
    for (uint32_t r = 0; r < s->n_weights; r++)
        if (!attach_numbered(&s->weights[r], from, "llmd-weights-", r, SEGMENT_WEIGHTS,
                             WEIGHTS_VERSION, e))
            return false;
    return true;
}

void segments_each(const struct segments *s, void (*visit)(void *arg, const char *name, int fd),
                   void *arg)
{
    char name[FDSTORE_NAME_BYTES];

    visit(arg, "llmd-board", s->board.segment.fd);
    visit(arg, "llmd-connections", s->connections.segment.fd);
    visit(arg, "llmd-kvpool", s->kvpool.segment.fd);
    if (s->on_device)
        visit(arg, "llmd-chunks", s->chunks.fd);
    if (s->host_tier.hdr)
        visit(arg, "llmd-hosttier", s->host_tier.segment.fd);
    for (uint32_t g = 0; g < s->n_groups; g++) {
        snprintf(name, sizeof name, "llmd-ledger-%u", g);
        visit(arg, name, s->ledgers[g].segment.fd);
        snprintf(name, sizeof name, "llmd-group-%u", g);
        visit(arg, name, s->groups[g].fd);
    }
    for (uint32_t r = 0; r < s->n_weights; r++) {
        snprintf(name, sizeof name, "llmd-weights-%u", r);
        visit(arg, name, s->weights[r].fd);
    }
}

void segments_close(struct segments *s)
{
    for (uint32_t g = 0; g < s->n_groups; g++) {
        ledger_close(&s->ledgers[g]);
        segment_close(&s->groups[g]);
    }
    for (uint32_t r = 0; r < s->n_weights; r++)
        segment_close(&s->weights[r]);
    segment_close(&s->chunks);
    host_tier_close(&s->host_tier);
    kvpool_close(&s->kvpool);
    connections_close(&s->connections);
    board_close(&s->board);
    free(s->ledgers);
    free(s->groups);
    free(s->weights);
    *s = (struct segments){ 0 };
}
