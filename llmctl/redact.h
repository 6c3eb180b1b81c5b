/* redact.h - take secrets out of text that leaves the machine. */
#ifndef LLMD_LLMCTL_REDACT_H
#define LLMD_LLMCTL_REDACT_H

#include "common/buf.h"

/* Append text[0..n) with "(redacted)" in place of
 *   keys by their look     sk-..., hf_..., nvapi-..., and other words of such a beginning and 12 letters or more
 *   what is named one      behind "Bearer ", and behind key, token, password or secret with = or : (JSON too)
 *   passwords in URLs      scheme://user:password@host
 * Too much is taken rather than too little; names of settings stay. */
void redact_add(struct buf *out, const char *text, size_t n);

#endif
