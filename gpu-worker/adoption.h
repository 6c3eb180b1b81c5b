/* adoption.h - KV pages of a dead predecessor, taken over by the sequences that list them.
 *
 * Once, at the start of a worker of a later epoch, on rank 0's engine thread (proto/kvpool_layout.h,
 * "Crash").  A page is believed when everything that can be checked agrees: lease, stored token ids, hash
 * chain and, for sealed ones, the checksum of its data.  What a sequence does not keep is computed again
 * by the scheduler as any prefill is, so a wrong page costs time and never a byte. */
#ifndef LLMD_GPU_WORKER_ADOPTION_H
#define LLMD_GPU_WORKER_ADOPTION_H

#include "gpu-worker/kvcache.h"
#include "gpu-worker/runtime.h"

struct adoption {
    uint32_t n_adopted; /* pages, one that several list counts for each */
    uint32_t n_cached;  /* sealed pages that nobody lists, kept to be found */
    uint32_t n_corrupt; /* sealed pages whose data is not what was sealed */
    uint32_t n_freed;   /* all other pages of the group's dead epochs that nobody may write to */
    uint32_t n_moved;   /* pages whose committed tokens were copied to fresh ones */
};

/* Keep what is good of the pages that these sequences list in their ledger entries, with keep_cached also
 * the sealed ones that none lists, and free every other page that dead epochs of the group hold.  Sequences are
 * live, just loaded, at most as many as may run at once; on return n_pages and n_computed say what each
 * keeps, always less than all of its tokens.  Entries of other sequences must list no pages.  The
 * checksums of listed pages are read on the compute threads, those of the others when they are found. */
void adoption_run(struct kvcache *c, struct runtime *rt, struct sequence *const *sequences,
                  uint32_t n, bool keep_cached, struct adoption *out);

#endif
