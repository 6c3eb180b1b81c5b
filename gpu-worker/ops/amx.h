/* amx.h - the matrix unit of x86: what its instructions read, of which compilers are not told. */
#ifndef LLMD_GPU_WORKER_OPS_AMX_H
#define LLMD_GPU_WORKER_OPS_AMX_H

#include <assert.h>
#include <stdint.h>

/* For _tile_loadconfig() (Intel 64 manual, LDTILECFG); of its 16 tiles 8 exist, of up to 16 rows of up to 64 bytes. */
struct amx_config {
    uint8_t palette, start_row, reserved[14]; /* 1, 0, 0 */
    uint16_t row_bytes[16];
    uint8_t rows[16];
};
static_assert(sizeof(struct amx_config) == 64, "as the instruction reads it");

/* What p points to has been written before an instruction of the unit reads it. */
static inline void amx_reads(const void *p)
{
    __asm__ volatile("" : : "r"(p) : "memory");
}

#endif
