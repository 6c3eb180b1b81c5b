/* ledger.h - make, attach and reach the entries of a group's ledger (ledger_layout.h). */
#ifndef LLMD_PROTO_LEDGER_H
#define LLMD_PROTO_LEDGER_H

#include "proto/ledger_layout.h"

struct ledger {
    struct segment segment;
    struct ledger_hdr *hdr;
};

struct ledger_shape {
    uint32_t n_entries;  /* sequences running + waiting */
    uint32_t tokens_max; /* max_model_len */
    uint32_t page_tokens;
    uint32_t top_max;
    uint32_t embedding_max; /* floats; 0 = no embeddings */
};

/* Memory that a ledger comes to: every entry with a request of usual size, n_running of them with all their
 * tokens.  Log probabilities that requests ask for come on top. */
uint64_t ledger_bytes_used(const struct ledger_shape *shape, uint32_t n_running);

/* Virtual size: sparse, only touched pages cost memory. */
bool ledger_create(struct ledger *l, const struct ledger_shape *shape, uint32_t group,
                   uint64_t instance, struct err *e);
bool ledger_attach(struct ledger *l, int fd, bool writable, struct err *e); /* takes fd */
void ledger_close(struct ledger *l);

struct ledger_entry *ledger_entry(const struct ledger *l, uint32_t i);

/* Rank 0: remember a sequence that was ended because of the deaths it was running at. */
void ledger_add_suspect(struct ledger *l, const struct ledger_suspect *s);
/* Anyone: the last of them, oldest first; returns how many. */
uint32_t ledger_read_suspects(const struct ledger *l, struct ledger_suspect out[LEDGER_SUSPECTS]);

/* Anyone: copy the header of entry i.  False when it is free, or changes hands just now. */
bool ledger_peek(const struct ledger *l, uint32_t i, struct ledger_entry *out);

static inline void *ledger_part(const struct ledger_entry *entry, uint64_t offset)
{
    return (char *)(uintptr_t)entry + offset;
}

static inline uint8_t *ledger_request(const struct ledger *l, const struct ledger_entry *entry)
{
    return ledger_part(entry, l->hdr->request_offset);
}

static inline int32_t *ledger_tokens(const struct ledger *l, const struct ledger_entry *entry)
{
    return ledger_part(entry, l->hdr->tokens_offset);
}

static inline float *ledger_logprobs(const struct ledger *l, const struct ledger_entry *entry)
{
    return ledger_part(entry, l->hdr->logprobs_offset);
}

static inline uint32_t *ledger_ranks(const struct ledger *l, const struct ledger_entry *entry)
{
    return ledger_part(entry, l->hdr->ranks_offset);
}

static inline uint32_t *ledger_pages(const struct ledger *l, const struct ledger_entry *entry)
{
    return ledger_part(entry, l->hdr->pages_offset);
}

static inline float *ledger_embedding(const struct ledger *l, const struct ledger_entry *entry)
{
    return ledger_part(entry, l->hdr->embedding_offset);
}

/* The alternatives of token i, prompt included: n_prompt_top or n_top of them. */
static inline struct ledger_top *ledger_top(const struct ledger *l,
                                            const struct ledger_entry *entry, uint32_t i)
{
    size_t n = entry->n_top > entry->n_prompt_top ? entry->n_top : entry->n_prompt_top;

    return (struct ledger_top *)ledger_part(entry, l->hdr->top_offset) + i * n;
}

#endif
