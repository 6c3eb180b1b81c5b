/* ledger_layout.h - every accepted sequence of one group, byte for byte.
 *
 *   0             4096
 *   +-------------+---------+---------+-----
 *   | ledger_hdr  | entry 0 | entry 1 | ...        n_entries of entry_bytes each
 *   +-------------+---------+---------+-----
 *   one entry:
 *   +--------------+-------------------+------------+------------+------------+-----------+------------+-----------+
 *   | ledger_entry | request           | tokens     | logprobs   | ranks      | pages     | top        | embedding |
 *   |   256 bytes  | request_bytes_max | tokens_max | tokens_max | tokens_max | pages_max | tokens_max | embedding |
 *   |              |                   |   int32    |   float    |   uint32   |   uint32  |  * top_max |  _max     |
 *   +--------------+-------------------+------------+------------+------------+-----------+------------+-----------+
 *   request: the packed Submit without its prompt.  tokens: prompt ids, then generated ids.  logprobs[i],
 *   ranks[i] and top[i] belong to tokens[i]; the alternatives of a token stand right behind those of the one before it,
 *   so many of each as the entry's .n_top or .n_prompt_top says, whichever is more.  embedding: floats.  The memory is sparse: what a sequence does
 *   not use is never touched.
 *
 * Writers.  llmd fills the first part of ledger_hdr before it starts the group.  Everything else is written
 * by rank 0 of the group alone, on its engine thread; only the handler of its own fatal signal, on whichever
 * thread, turns .running from RUNS into FAULTED.  llmd reads too, for `llmctl requests`: the 256 bytes at the
 * start of each entry and the ring of suspects, never what lies behind them, and it writes nothing.
 *
 * Order.  A new entry: all its fields first, then .state = LEDGER_LIVE with release; only then may
 * ACCEPTED leave.  A token: tokens[n_prompt + i], logprobs, ranks, top first, then .n_generated = i + 1 with
 * release; only then may it leave in TOKENS.  A token of the prompt that is measured: logprobs, ranks, top first,
 * then .n_measured with release, and only then is the KV committed of the token before it, so that who goes on
 * from the KV finds a measure of each token up to it.  The end: .finish and its reasons, or the embedding, first,
 * then .state = LEDGER_DONE with release.  Freeing is one store of LEDGER_FREE.  The page table: a page is leased, then
 * written to pages[], then counted by .n_pages with release; it is taken out of the count before it is freed.
 * So whatever .n_pages lists is leased to this group and holds tokens of this sequence, in a page that only
 * others with the same tokens list too.
 * A reader of entry headers loads .state with acquire, copies, and loads .state and .sequence_id again: when
 * they are what they were, the copy is of one sequence (its counts may be a step old).  The ring: the suspect
 * first, then .n_suspects with release; what a reader copies it checks by loading .n_suspects again.
 *
 * Crash.  There is nothing to undo: an entry not LIVE or DONE was never acknowledged and is free; a
 * token past n_generated (drafts lie there, gpu-worker/speculation.h) was never sent and is sampled again with
 * the same counter (same draw).  The
 * successor scans once: LIVE entries go on with prompt + generated tokens and the KV pages they list
 * (kvpool_layout.h; not when .kv_identity says that the KV is another model's), DONE ones are
 * delivered again until acknowledged, or freed when nobody has claimed them for longer than a request may
 * take.  .crashes and .kills count the deaths that found the sequence
 * running since its last token: those by a fault of the worker itself, and those from outside.
 * .step_ns and the ring of suspects stay as they are and go on.
 *
 * Version.  Any change of size, order or meaning is a new LEDGER_VERSION. */
#ifndef LLMD_PROTO_LEDGER_LAYOUT_H
#define LLMD_PROTO_LEDGER_LAYOUT_H

#include <stdatomic.h>

#include "proto/segment.h"

enum { LEDGER_VERSION = 6, LEDGER_ENTRIES_OFFSET = 4096, LEDGER_ENTRY_HDR_BYTES = 256 };
enum { LEDGER_SUSPECTS = 16, LEDGER_STEP_SIZES = 48, LEDGER_ERROR_BYTES = 128 };

enum ledger_state { LEDGER_FREE, LEDGER_LIVE, LEDGER_DONE };

enum ledger_running { LEDGER_RESTS, LEDGER_RUNS, LEDGER_FAULTED };

/* A sequence that was ended because it was running at the deaths of its worker. */
struct ledger_suspect {
    uint64_t sequence_id;
    uint64_t when_ns; /* CLOCK_MONOTONIC */
    uint32_t crashes, kills;
    uint32_t n_prompt, n_generated;
    char error[LEDGER_ERROR_BYTES];
};

struct ledger_hdr {
    struct segment_hdr segment;
    uint32_t n_entries;
    uint32_t tokens_max;        /* prompt + generated, = max_model_len */
    uint32_t pages_max;         /* KV pages of one sequence */
    uint32_t top_max;           /* alternatives kept per token, at most */
    uint32_t request_bytes_max; /* packed Submit without its prompt */
    uint32_t embedding_max;     /* floats */
    uint64_t entry_bytes;
    uint64_t request_offset; /* these offsets count from the start of an entry */
    uint64_t tokens_offset;
    uint64_t logprobs_offset;  /* float[tokens_max] */
    uint64_t ranks_offset;     /* uint32_t[tokens_max] */
    uint64_t pages_offset;     /* uint32_t[pages_max] */
    uint64_t top_offset;       /* struct ledger_top[tokens_max * top_max] */
    uint64_t embedding_offset; /* float[embedding_max] */
    /* from here on rank 0's */
    uint64_t
        kv_identity[2]; /* of the weights, kernels and number format that the listed pages are of */
    _Atomic uint64_t
        step_ns[LEDGER_STEP_SIZES]; /* how long steps of each size take (step_history.h) */
    _Atomic uint32_t n_suspects;    /* ever; number i is suspects[i % LEDGER_SUSPECTS] */
    uint32_t n_chunks_reloaded; /* of the weights, when the KV pages there are were last trusted */
    struct ledger_suspect suspects[LEDGER_SUSPECTS];
};
static_assert(sizeof(struct ledger_hdr) <= LEDGER_ENTRIES_OFFSET, "header fits its page");

struct ledger_top {
    int32_t token;
    float logprob;
};

struct ledger_entry {
    _Atomic uint32_t state; /* enum ledger_state */
    _Atomic uint32_t n_generated;
    uint64_t sequence_id;
    uint32_t n_prompt;
    uint32_t n_given; /* of the generated tokens, how many came with Submit.generated */
    uint32_t request_bytes;
    uint32_t peer;            /* gateway thread it belongs to: its ZeroMQ routing id */
    uint64_t accepted_ns;     /* CLOCK_MONOTONIC; queue order */
    uint64_t scheduled_ns;    /* first time in a batch; 0 = not yet */
    _Atomic uint32_t running; /* enum ledger_running: RUNS while its step is computed; FAULTED when
                                 the worker died of a fault then */
    uint32_t crashes;         /* faults that found it running since its last token */
    uint32_t finish;          /* Llmd__Finish, valid when DONE */
    int32_t stop_token;       /* of FINISH_STOP_TOKEN */
    _Atomic uint32_t n_pages; /* valid entries of pages[] */
    uint32_t epoch;           /* of the worker that wrote pages[] */
    uint32_t n_top;           /* alternatives really stored per generated token */
    uint32_t kills;           /* as .crashes, but without a fault: SIGKILL, out of memory, a hang */
    char error[LEDGER_ERROR_BYTES]; /* of FINISH_ERROR */
    uint32_t n_cached;              /* prompt tokens found in the prefix cache when it first ran */
    _Atomic uint32_t n_measured; /* tokens of the prompt whose logprobs there are; 0 = not wanted */
    uint32_t n_prompt_top;       /* alternatives stored of each of these */
    uint32_t n_embedding;        /* floats of .embedding, valid when DONE */
    uint8_t reserved[32];
};
static_assert(sizeof(struct ledger_entry) == LEDGER_ENTRY_HDR_BYTES, "fixed entry header");

#endif
