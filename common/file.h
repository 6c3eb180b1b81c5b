/* file.h - whole files in, for configuration and model metadata (weights are mapped, not read). */
#ifndef LLMD_COMMON_FILE_H
#define LLMD_COMMON_FILE_H

#include <stdbool.h>
#include <stddef.h>

#include "common/err.h"

/* Read a regular file of at most bytes_max bytes into fresh memory, NUL-terminated past its end.
 * *bytes: returned, caller frees.  ERR_SYS, or ERR_CONFIG when too large or not a regular file. */
bool file_read(const char *path, size_t bytes_max, char **bytes, size_t *n, struct err *e);

bool file_exists(const char *path);

#endif
