/* make_types.c - golden vectors of the block formats: types.txt, made by GGML's own decoders.
 *
 *   cc -o make_types make_types.c -ldl && ./make_types DIR/libggml-base.so >types.txt
 *
 * The library is the one inside the npm package @node-llama-cpp/linux-x64 3.22.1.  Half of the blocks are normal
 * random numbers encoded by the library's own encoder, half are random bytes whose decoded numbers are finite.  One
 * line a vector:
 *
 *   NAME  bytes in hex  elements as floats' bits in hex, 8 digits each */
#include <dlfcn.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* As ggml.h declares it. */
struct type_traits {
    const char *name;
    int64_t block, block_interleave;
    size_t bytes;
    bool is_quantized;
    void (*to_float)(const void *x, float *y, int64_t n);
    void (*from_float)(const float *x, void *y, int64_t n);
};

enum { BLOCKS = 3, ELEMENTS_MAX = 256, BYTES_MAX = 1024 };

static const struct {
    const char *name;
    int number; /* enum ggml_type */
} types[] = { { "F16", 1 },   { "BF16", 30 }, { "Q4_0", 2 },   { "Q4_1", 3 },  { "Q5_0", 6 },
              { "Q5_1", 7 },  { "Q8_0", 8 },  { "Q2_K", 10 },  { "Q3_K", 11 }, { "Q4_K", 12 },
              { "Q5_K", 13 }, { "Q6_K", 14 }, { "IQ4_NL", 20 } };

static uint64_t state = 20261128;

static uint32_t random32(void)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 32);
}

static float random_normal(void)
{
    double u = (random32() + 1.0) / 4294967297.0, v = random32() / 4294967296.0;

    return (float)(sqrt(-2 * log(u)) * cos(6.283185307179586 * v));
}

static bool all_finite(const float *y, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(y[i]))
            return false;
    return true;
}

static void print(const char *name, const uint8_t *bytes, size_t n_bytes, const float *y, int64_t n)
{
    printf("%s ", name);
    for (size_t i = 0; i < n_bytes; i++)
        printf("%02x", bytes[i]);
    printf(" ");
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &y[i], 4);
        printf("%08x", bits);
    }
    printf("\n");
}

static void make(const char *name, const struct type_traits *t)
{
    int64_t n = t->block == 1 ? 32 : t->block;
    size_t n_bytes = t->bytes * (size_t)(n / t->block);
    uint8_t bytes[BYTES_MAX];
    float y[ELEMENTS_MAX];

    for (int k = 0; k < 2 * BLOCKS; k++) {
        do {
            for (int64_t i = 0; i < n; i++)
                y[i] = random_normal();
            for (size_t i = 0; i < n_bytes; i++)
                bytes[i] = (uint8_t)(random32() >> 24);
            if (k < BLOCKS)
                t->from_float(y, bytes, n);
            t->to_float(bytes, y, n);
        } while (!all_finite(y, n));
        print(name, bytes, n_bytes, y, n);
    }
}

int main(int argc, char **argv)
{
    void *library = argc == 2 ? dlopen(argv[1], RTLD_NOW) : NULL;
    const struct type_traits *(*traits)(int) =
        library ? (const struct type_traits *(*)(int))dlsym(library, "ggml_get_type_traits") : NULL;

    if (!traits) {
        fprintf(stderr, "usage: make_types LIBRARY: %s\n", argc == 2 ? dlerror() : "no library");
        return 1;
    }
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        make(types[i].name, traits(types[i].number));
    return 0;
}
