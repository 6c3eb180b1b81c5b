/* answer.h - one HTTP answer, read strictly, and made comparable.
 *
 * The reader is the suite's own: what the gateway frames wrongly must not be read kindly by code that
 * thinks alike. */
#ifndef LLMD_TESTS_CHAOS_ANSWER_H
#define LLMD_TESTS_CHAOS_ANSWER_H

#include <stdbool.h>
#include <stddef.h>

#include "common/buf.h"

enum answer_phase {
    ANSWER_HEAD,
    ANSWER_LENGTH,     /* a body of known length */
    ANSWER_CHUNK_SIZE, /* the line before a chunk */
    ANSWER_CHUNK,      /* its bytes and the CRLF behind them */
    ANSWER_LAST,       /* the CRLF behind the chunk of size 0 */
    ANSWER_UNTIL_END,  /* a body that ends with the connection */
    ANSWER_WHOLE,
    ANSWER_BAD,
};

struct answer {
    enum answer_phase phase;
    size_t at;       /* bytes understood so far */
    size_t head_end; /* behind the empty line; 0 = not yet */
    size_t rest;     /* of the body or chunk */
    int status;
    bool says_close;
    const char *problem; /* of ANSWER_BAD */
};

/* Go on over bytes[0..n-1], the answer so far with what may follow it.  Ends in ANSWER_WHOLE with .at
 * behind the answer's last byte. */
void answer_read(struct answer *a, const char *bytes, size_t n);
/* The connection has ended: an answer that ends so is whole, any other is bad. */
void answer_end(struct answer *a);

/* Append the answer without what may differ between two runs: Date, Connection, times, ids, `created`.
 * of_peer: of the head only the status, and the body without its framing. */
void answer_normalise(const struct answer *a, const char *bytes, bool of_peer, struct buf *out);

#endif
