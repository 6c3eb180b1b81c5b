/* gpu_check.h - the door to the process that asks whether GPUs can be used (cuda/gpu_check.c): `llm-worker gpu-check UUID...`.
 *
 * llmd starts it before it starts a group again whose GPU was in trouble, and ends it when the answer takes too long. */
#ifndef LLMD_GPU_WORKER_GPU_CHECK_H
#define LLMD_GPU_WORKER_GPU_CHECK_H

/* Its control socket is descriptor 3.  Returns the exit code: 0, all are well, or nobody can say; 1, and FATAL with the
 * reason. */
int gpu_check_main(int argc, char **argv);

#endif
