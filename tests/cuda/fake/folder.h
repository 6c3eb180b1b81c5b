/* folder.h - the folder of `state=` as a test sees it from outside: it makes it, puts GPUs back, writes their fault script
 * and looks at what is held.  What lies in it: state.h. */
#ifndef LLMD_TESTS_CUDA_FAKE_FOLDER_H
#define LLMD_TESTS_CUDA_FAKE_FOLDER_H

#include <stdbool.h>
#include <stddef.h>

enum { STATE_FOLDER_BYTES = 40 };

/* A fresh one: in memory where there is room.  Fails the running test when there is none. */
void state_folder_make(char folder[STATE_FOLDER_BYTES]);
/* With all that is in it. */
void state_folder_remove(const char *folder);

/* The whole script from now on, for `faults=FOLDER/faults`: rules, one a line.  Nobody reads half of it. */
void state_folder_set_faults(const char *folder, const char *rules);
/* Give a lost GPU back; it must be one. */
void state_folder_reset_gpu(const char *folder, int gpu);
/* NVML tells of this Xid. */
void state_folder_add_xid(const char *folder, int gpu, unsigned xid);

/* How many files are somebody's: pieces of memory and living processes. */
int state_folder_count_held(const char *folder);

#endif
