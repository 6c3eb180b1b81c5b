/* link_rate.h - what the link between two GPUs carries in one direction, as nvidia-smi tells.
 *
 *   --query-gpu=uuid,index,pcie.link.gen.max,pcie.link.width.max    "GPU-4d1c.., 0, 4, 16": a line each
 *   topo -m        a matrix, cells parted by tabs: "NV12" for twelve NVLinks between the two, other words for ways over PCIe
 *   nvlink -s      "Link 0: 26.562 GB/s": a line each, one direction
 *
 * PCIe: 2.5, 5, 8, 16, 32, 64 GT/s a lane, 8 of 10 bits being data in the first two, 128 of 130 from the third on (PCI-SIG). */
#ifndef LLMD_CUDA_VERIFY_LINK_RATE_H
#define LLMD_CUDA_VERIFY_LINK_RATE_H

#include <stdbool.h>

struct link_rate {
    double gb_per_s;
    char how[48]; /* "12 NVLinks", "PCIe 4 x16" */
};

/* Between the GPUs with these UUIDs.  false: the program is not installed, or says nothing of them; why, for people. */
bool link_rate_ask(struct link_rate *out, const char *uuid, const char *peer, char why[120]);

/* ---- what it says; for tests too ---- */

struct link_gpu {
    int index; /* nvidia-smi's own */
    unsigned pcie_generation, pcie_lanes;
};

/* Of a line of the list; false: the list has no such GPU, or does not know its lanes. */
bool link_rate_find(struct link_gpu *out, const char *list, const char *uuid);

/* NVLinks between two GPUs; 0: they have none. */
unsigned link_rate_nvlinks(const char *matrix, int from, int to);

/* GB/s of one NVLink, the fastest of the list; 0: there is none. */
double link_rate_nvlink(const char *links);

/* GB/s; 0: a generation that is not known. */
double link_rate_pcie(unsigned generation, unsigned lanes);

#endif
