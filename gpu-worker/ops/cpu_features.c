/* cpu_features.c - see cpu_features.h: CPUID for the instructions, XCR0 for the registers.
 *
 * A processor may have instructions whose registers the system does not save at a context switch; they then
 * fault or, worse, lose their upper halves.  The tiles of AMX are saved for a process that has asked for it. */
#include "gpu-worker/ops/cpu_features.h"

#include <assert.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

/* CPUID leaves 1, 7 and 7.1, and XCR0. */
struct features {
    uint32_t c1, b7, c7, d7, a71;
    uint64_t saved;
};

enum {
    SAVES_YMM = 0x6,        /* SSE and AVX */
    SAVES_ZMM = 0xe0 | 0x6, /* and masks, upper halves, upper registers */
    SAVES_TILES = 0x60000 | SAVES_ZMM,
    C1_AVX2 = bit_OSXSAVE | bit_AVX | bit_FMA | bit_F16C,
    B7_AVX512 = bit_AVX2 | bit_AVX512BW | bit_AVX512DQ | bit_AVX512F,
    D7_AMX = 1 << 24 | 1 << 25, /* AMX-TILE, AMX-INT8 */
    A71_AVXVNNI = 1 << 4,
    A71_AVX512BF16 = 1 << 5,
};

#define B7_AVX512_ALL ((uint32_t)B7_AVX512 | bit_AVX512VL)

static const struct features needs[N_CPU_TIERS] = {
    [CPU_PLAIN] = { .saved = 0 },
    [CPU_AVX2] = { .c1 = C1_AVX2, .b7 = bit_AVX2, .saved = SAVES_YMM },
    [CPU_AVXVNNI] = { .c1 = C1_AVX2, .b7 = bit_AVX2, .a71 = A71_AVXVNNI, .saved = SAVES_YMM },
    [CPU_AVX512] = { .c1 = C1_AVX2, .b7 = B7_AVX512_ALL, .saved = SAVES_ZMM },
    [CPU_AVX512VNNI] = { .c1 = C1_AVX2,
                         .b7 = B7_AVX512_ALL,
                         .c7 = bit_AVX512VNNI,
                         .saved = SAVES_ZMM },
    [CPU_AMXINT8] = { .c1 = C1_AVX2,
                      .b7 = B7_AVX512_ALL,
                      .c7 = bit_AVX512VNNI,
                      .d7 = D7_AMX,
                      .saved = SAVES_TILES },
    [CPU_AVX512BF16] = { .c1 = C1_AVX2,
                         .b7 = B7_AVX512_ALL,
                         .c7 = bit_AVX512VNNI,
                         .a71 = A71_AVX512BF16,
                         .saved = SAVES_ZMM },
};

static uint64_t saved_states(void)
{
    uint32_t low, high;

    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

static struct features features_here(void)
{
    struct features f = { 0 };
    uint32_t a, b, c, d;

    if (__get_cpuid(1, &a, &b, &c, &d))
        f.c1 = c;
    if (f.c1 & bit_OSXSAVE)
        f.saved = saved_states();
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) {
        uint32_t subleaves = a;
        f.b7 = b;
        f.c7 = c;
        f.d7 = d;
        if (subleaves >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d))
            f.a71 = a;
    }
    return f;
}

static bool covers(const struct features *have, const struct features *need)
{
    return (have->c1 & need->c1) == need->c1 && (have->b7 & need->b7) == need->b7 &&
           (have->c7 & need->c7) == need->c7 && (have->d7 & need->d7) == need->d7 &&
           (have->a71 & need->a71) == need->a71 && (have->saved & need->saved) == need->saved;
}

/* For all threads of the process, also those to come; refused where a signal stack has no room for them. */
static bool enable_tiles(void)
{
    enum { REQUEST_PERMISSION = 0x1023, /* ARCH_REQ_XCOMP_PERM */ TILE_DATA = 18 };

    return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}

bool cpu_enable_tier(enum cpu_tier tier)
{
    struct features here = features_here();

    assert((unsigned)tier < N_CPU_TIERS);
    return covers(&here, &needs[tier]) && (tier != CPU_AMXINT8 || enable_tiles());
}
/* Zen 3 and 4 are one family; AVX-512 is Zen 4's. */
bool cpu_fetches_far(void)
{
    enum { AMD_B = 0x68747541, AMD_D = 0x69746e65, AMD_C = 0x444d4163 }; /* AuthenticAMD */
    uint32_t a, b, c, d;

    if (!__get_cpuid(0, &a, &b, &c, &d) || b != AMD_B || d != AMD_D || c != AMD_C ||
        !__get_cpuid(1, &a, &b, &c, &d))
        return false;
    return (a >> 8 & 0xf) + (a >> 20 & 0xff) == 0x19 && cpu_enable_tier(CPU_AVX512VNNI);
}
#else
bool cpu_fetches_far(void)
{
    return false;
}

bool cpu_enable_tier(enum cpu_tier tier)
{
    return tier == CPU_PLAIN;
}
#endif
