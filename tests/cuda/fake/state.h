/* state.h - what the processes of one test have in common: the GPUs' memory, who uses them, which are lost.
 *
 * With `state=FOLDER` it is files of that folder:
 *
 *   gpu-N-PID-SERIAL   one allocation of GPU N: the device memory itself.  Whoever opened or received it shares
 *                      one open file description, which carries a lock (flock); the kernel drops the lock with
 *                      the last descriptor and mapping, in whatever process.  So an allocation whose lock can be had
 *                      belongs to nobody, and is freed by whoever looks next.
 *   process-PID        struct below; locked in the same way for as long as the process lives
 *   lost-N             GPU N is lost; the CUresult as text.  Removing the file is a reset
 *   xid-N              what NVML tells of GPU N: Xids, one a line; read on as it grows
 *   fired-HASH         that rule of the fault script has fired
 *   lock               held for a moment by whoever allocates
 *
 * Without it allocations are memfds that are counted within the process, by looking at its open descriptors. */
#ifndef LLMD_TESTS_CUDA_FAKE_STATE_H
#define LLMD_TESTS_CUDA_FAKE_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Instead of a GPU's number: host memory that the driver allocates, which no GPU's limit counts. */
enum { STATE_HOST = 100 };

/* A new allocation of `bytes`: a descriptor, close-on-exec, or -1: the GPU has not that much left. */
int state_create(int gpu, size_t bytes);

/* The GPU of an allocation's descriptor, STATE_HOST, or -1 when it is none. */
int state_gpu_of(int fd);

/* Count bytes that die with the process (cuMemAlloc); false: the GPU has not that much left. */
bool state_private_add(int gpu, size_t bytes);
void state_private_remove(int gpu, size_t bytes);

/* Bytes in use of the GPU, of everybody. */
uint64_t state_used(int gpu);

/* Open descriptors of this process that own device memory. */
unsigned state_descriptors(void);

/* This process has, or has no longer, a context on the GPU. */
void state_context(int gpu, bool has);

/* The descriptor of this process's record, whose lock says that it lives; -1 when it has none. */
int state_record_fd(void);

/* The processes with a context on the GPU, and their private bytes. */
struct state_process {
    pid_t pid;
    uint64_t bytes;
};
unsigned state_processes(int gpu, struct state_process *out, unsigned max);

/* The CUresult of a lost GPU, or 0. */
int state_lost(int gpu);
void state_lose(int gpu, int result);

/* The Xid number `index` of the GPU, from 0; 0: there are not so many. */
unsigned state_xid(int gpu, unsigned index);

/* The rule fires now: true the first time in this state (without a folder: always true). */
bool state_fire(uint64_t rule);

#endif
