/* runtime_dir.h - the folder where an llmd keeps its control socket, and who tidies it up.
 *
 * llmd and llmctl find it by the same rule, so that `llmctl status` needs no argument:
 *   1. the setting runtime_dir (its alias is $RUNTIME_DIRECTORY, which systemd sets)
 *   2. /run/llmd, when it is writable to us, or may be made by us (root)
 *   3. $XDG_RUNTIME_DIR/llmd, when that variable is set and its folder writable
 *   4. /tmp/llmd-UID
 *
 * Always true: one llmd per folder.  It holds a lock (flock) on the folder itself while it lives; the
 * kernel drops the lock at any death, so no lock file can be left behind or be stale.  A folder made by
 * llmd carries the sticky bit, which tells whoever is last that the folder is ours to remove. */
#ifndef LLMD_COMMON_RUNTIME_DIR_H
#define LLMD_COMMON_RUNTIME_DIR_H

#include <stdbool.h>
#include <stddef.h>

#include "common/config.h"
#include "common/err.h"

#define RUNTIME_CONTROL_NAME "control.sock"

/* Which folder it is, by the rule above; makes nothing.  ERR_CONFIG when the path leaves no room for a
 * socket's name (107 bytes in all). */
bool runtime_dir_resolve(const struct config *c, char *out, size_t n, struct err *e);

/* "<dir>/control.sock". */
void runtime_dir_control_path(const char *dir, char *out, size_t n);

/* llmd only: make the folder if need be (0750; below /tmp 0700) and lock it.  Returns the descriptor
 * that holds the lock, -1 on errors; ERR_CONFIG when another llmd has it for a second more. */
int runtime_dir_open(const char *dir, struct err *e);

/* Remove control.sock, and the folder if llmd made it and it is empty.  The caller holds the lock. */
void runtime_dir_remove(const char *dir);

/* For the last child of an llmd that was killed: the same, unless a living llmd holds the lock. */
void runtime_dir_sweep(const char *dir);

#endif
