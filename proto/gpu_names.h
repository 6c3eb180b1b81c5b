/* gpu_names.h - the GPUs of all ranks of a host, as llmd remembers them: names with a space between two, that of rank r of
 * group g at place g * tp_size + r.
 *
 * A name is the GPU's UUID as NVML and nvidia-smi write it.  Numbers would not do: when a GPU falls off the bus, those
 * behind it move up, and a group that starts again would take its neighbour's. */
#ifndef LLMD_PROTO_GPU_NAMES_H
#define LLMD_PROTO_GPU_NAMES_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum { GPU_NAME_BYTES = 48, GPU_NAMES_BYTES = 64 * GPU_NAME_BYTES, GPU_NOTE_BYTES = 400 };

/* False, and *out is untouched: the list has no such place, or no name there that fits. */
static inline bool gpu_names_get(const char *names, uint32_t place, char out[GPU_NAME_BYTES])
{
    size_t n = strcspn(names, " ");

    while (place-- > 0 && names[n] == ' ') {
        names += n + 1;
        n = strcspn(names, " ");
    }
    if (place != UINT32_MAX || n == 0 || n >= GPU_NAME_BYTES)
        return false;
    memcpy(out, names, n);
    out[n] = '\0';
    return true;
}

#endif
