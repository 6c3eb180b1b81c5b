/* file.h - whole files in, for configuration and model metadata (weights are mapped, not read), and small ones out. */
#ifndef LLMD_COMMON_FILE_H
#define LLMD_COMMON_FILE_H

#include <stdbool.h>
#include <stddef.h>

#include "common/err.h"

/* Read a regular file of at most bytes_max bytes into fresh memory, NUL-terminated past its end.
 * *bytes: returned, caller frees.  ERR_SYS, or ERR_CONFIG when too large or not a regular file. */
bool file_read(const char *path, size_t bytes_max, char **bytes, size_t *n, struct err *e);

/* Write a file, in place of the one that may be there: who reads it meanwhile has the old one or the new one, never a part.
 * PATH.new is written on the way.  ERR_SYS. */
bool file_replace(const char *path, const char *text, struct err *e);

bool file_exists(const char *path);

#endif
