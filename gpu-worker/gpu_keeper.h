/* gpu_keeper.h - the door to the process that holds GPU memory (cuda/keeper.h): `llm-worker gpu-keeper ...`. */
#ifndef LLMD_GPU_WORKER_GPU_KEEPER_H
#define LLMD_GPU_WORKER_GPU_KEEPER_H

/* Arguments: "gpu-keeper", ordinal of the GPU, milliseconds to wait for memory; its socket is descriptor 3.  Returns the
 * exit code: 0 when nobody holds the other end any more. */
int gpu_keeper_main(int argc, char **argv);

#endif
