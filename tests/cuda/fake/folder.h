/* folder.h - the folder of `state=` as a test sees it from outside: it makes it, puts GPUs back, writes their fault script
 * and looks at what is held.  What lies in it: state.h. */
#ifndef LLMD_TESTS_CUDA_FAKE_FOLDER_H
#define LLMD_TESTS_CUDA_FAKE_FOLDER_H

#include <stdbool.h>

enum { STATE_FOLDER_BYTES = 40 };

/* A fresh one: in memory where there is room.  Here and below false: it could not be done. */
bool state_folder_make(char folder[STATE_FOLDER_BYTES]);
/* With all that is in it. */
bool state_folder_remove(const char *folder);

/* The whole script from now on, for `faults=FOLDER/faults`: rules, one a line.  Nobody reads half of it. */
bool state_folder_set_faults(const char *folder, const char *rules);
bool state_folder_gpu_is_lost(const char *folder, int gpu);
/* Give a lost GPU back; it must be one. */
bool state_folder_reset_gpu(const char *folder, int gpu);
/* NVML tells of this Xid. */
bool state_folder_add_xid(const char *folder, int gpu, const char *xid);

/* Pieces of memory that somebody holds, by a descriptor or a mapping; living processes; rules that have fired, those that
 * repeat not counted.  -1: there is no such folder. */
int state_folder_count_pieces(const char *folder);
int state_folder_count_processes(const char *folder);
int state_folder_count_fired(const char *folder);

#endif
