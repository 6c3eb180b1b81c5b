/* worker_tool.h - run `llm-worker model ...` (gpu-worker/tool/tool.h), which knows models; llmctl does not. */
#ifndef LLMD_LLMCTL_WORKER_TOOL_H
#define LLMD_LLMCTL_WORKER_TOOL_H

#include "common/json.h"

/* argv: the words behind "llm-worker model", ended by NULL.  Shows progress on a terminal's stderr under `title`.  The
 * last object it writes: caller gives it back; NULL and *e when there is none, or it cannot be run. */
json_t *worker_tool_run(char *const *argv, const char *title, struct err *e);

#endif
