/* tool.h - `llm-worker model inspect|verify|quantize`: what llmctl runs to look at models, without a server.
 *
 * Answers are lines of JSON on standard output: {"progress":0.25} any number of times, then one object with
 * "ok" and the findings, or {"ok":false,"error":"..."}.  Exit codes: 0; 1 when ok is false; 64 wrong usage. */
#ifndef LLMD_GPU_WORKER_TOOL_TOOL_H
#define LLMD_GPU_WORKER_TOOL_TOOL_H

#include "common/buf.h"
#include "common/err.h"

/* argv[0] is "model". */
int model_tool(int argc, char **argv);

/* ---- its parts ---- */

typedef void tool_progress_fn(void *arg, double share);

/* Append one object: what the model is, and what it needs.  with_tensors: each of them too.  ERR_MODEL, ERR_SYS,
 * ERR_CONFIG. */
bool describe_model(const char *path, bool with_tensors, struct buf *out, struct err *e);

/* Append one object; *ok: nothing is wrong.  Reads every byte. */
void verify_model(const char *path, struct buf *out, bool *ok, tool_progress_fn *progress,
                  void *arg);

#endif
