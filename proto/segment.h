/* segment.h - memory that no single process owns: a memfd with a checked header.
 *
 * Every segment begins with the same 64-byte struct segment_hdr.  The supervisor creates segments and
 * hands descriptors on; a process that attaches checks magic, kind, version and size before it believes
 * a byte.  Nothing has a name in a file system, so nothing is left behind, whatever happens.  Size and
 * seals: F_SEAL_SHRINK and F_SEAL_GROW from creation, so a mapping can never meet SIGBUS by truncation. */
#ifndef LLMD_PROTO_SEGMENT_H
#define LLMD_PROTO_SEGMENT_H

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

enum segment_kind {
    SEGMENT_BOARD = 1,
    SEGMENT_LEDGER,
    SEGMENT_KVPOOL,
    SEGMENT_WEIGHTS,
    SEGMENT_CONNECTIONS,
    SEGMENT_GROUP,
    SEGMENT_CHUNKS,
    SEGMENT_HOST_TIER,
};

#define SEGMENT_MAGIC 0x3147534d4c4cull /* "LLMSG1" */

/* In which way a segment came to its memory; what came of it is another question (common/huge.h).  RESERVED is
 * set at creation, the others by the worker that fills the segment. */
enum segment_pages {
    SEGMENT_PAGES_SMALL,
    SEGMENT_PAGES_RESERVED,  /* from the pool of huge pages: what maps or unmaps counts in these */
    SEGMENT_PAGES_ADVISED,   /* MADV_HUGEPAGE */
    SEGMENT_PAGES_COLLAPSED, /* MADV_COLLAPSE */
    SEGMENT_PAGES_OFF,       /* small, and to stay so: set by who makes the segment */
    N_SEGMENT_PAGES
};

struct segment_hdr {
    uint64_t magic;         /* SEGMENT_MAGIC, written last at creation */
    uint32_t kind;          /* enum segment_kind */
    uint32_t version;       /* of that kind's layout */
    uint64_t bytes;         /* of the whole segment */
    uint64_t instance;      /* random word of the llmd that made it */
    _Atomic uint32_t pages; /* enum segment_pages; 0 in segments of before there were others */
    uint8_t reserved[28];
};
static_assert(sizeof(struct segment_hdr) == 64, "one cache line");

struct segment {
    struct segment_hdr *hdr; /* start of the mapping; NULL when not mapped */
    size_t bytes;
    int fd; /* owned; -1 = none (attached and then closed, or none) */
    bool writable;
};

/* Make a zeroed memfd of `bytes` (rounded up to the page size), map it and write its header.  `name`
 * shows in /proc/PID/maps.  ERR_SYS. */
bool segment_create(struct segment *s, enum segment_kind kind, uint32_t version, const char *name,
                    size_t bytes, uint64_t instance, struct err *e);

/* The same for a large segment: out of the pool of reserved huge pages, rounded up to these, when it is worth it
 * and the pool has enough; else as above.  All of it is promised before this returns, so that no access can
 * meet SIGBUS for want of a page; where a control group could break that promise later, all of it is
 * taken now.  wants_huge false: small pages, and PAGES_OFF tells the others so. */
bool segment_create_large(struct segment *s, enum segment_kind kind, uint32_t version,
                          const char *name, size_t bytes, uint64_t instance, bool wants_huge,
                          struct err *e);

/* "small", "reserved", "advised", "collapsed", "off". */
const char *segment_pages_name(const struct segment_hdr *h);

/* Map a received descriptor; takes fd on success and on failure (closed then).  ERR_PROTO names what
 * was expected and what was found. */
bool segment_attach(struct segment *s, int fd, enum segment_kind kind, uint32_t version,
                    bool writable, struct err *e);

/* Unmap and close; safe on a zeroed or half-made struct. */
void segment_close(struct segment *s);

static inline void *segment_at(const struct segment *s, uint64_t offset)
{
    assert(offset < s->bytes);
    return (char *)s->hdr + offset;
}

#endif
