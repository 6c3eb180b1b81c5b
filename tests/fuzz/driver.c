/* driver.c - a fuzz target without libFuzzer: replay files, then mutations of them.
 *
 * driver [--milliseconds N] [--seed N] file or folder ...
 *
 * Mutation i is a function of the seed and i alone, so a failure is found again by running with the
 * seed it printed; the time only says when to stop.  It follows no coverage: it is the smoke test of
 * machines without clang. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/clock.h"
#include "common/file.h"
#include "common/mem.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum {
    SEEDS_MAX = 1024,
    SEED_BYTES_MAX = 1 << 20,
    EDITS_MAX = 6,
    CHUNK_MAX = 64,
    PATH_MAX_BYTES = 4096
};

struct seed {
    char *s;
    size_t n;
};

static struct seed seeds[SEEDS_MAX];
static size_t n_seeds;

static uint64_t draw(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u); /* splitmix64 */

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static size_t below(uint64_t *state, size_t n)
{
    return n == 0 ? 0 : (size_t)(draw(state) % n);
}

static void add_file(const char *path)
{
    struct err e = { 0 };
    struct seed *seed = &seeds[n_seeds];

    if (n_seeds == SEEDS_MAX || !file_read(path, SEED_BYTES_MAX, &seed->s, &seed->n, &e)) {
        fprintf(stderr, "%s\n", n_seeds == SEEDS_MAX ? "too many seeds" : e.msg);
        exit(2);
    }
    n_seeds++;
}

static int visible(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static void add_path(const char *path)
{
    struct dirent **entries;
    struct stat st;
    int n;

    if (stat(path, &st) == 0 && !S_ISDIR(st.st_mode)) {
        add_file(path);
        return;
    }
    n = scandir(path, &entries, visible, alphasort);
    if (n < 0) {
        perror(path);
        exit(2);
    }
    for (int i = 0; i < n; i++) {
        char file[PATH_MAX_BYTES];
        snprintf(file, sizeof file, "%s/%s", path, entries[i]->d_name);
        add_file(file);
        free(entries[i]);
    }
    free(entries);
}

/* Change s[0..*n), of which there is room for CHUNK_MAX more. */
static void edit(uint64_t *state, uint8_t *s, size_t *n)
{
    static const uint8_t odd[] = { 0x00, 0xff, 0x7f, 0x80, 0xc0, 0xed,
                                   0xf4, '"',  '\\', '{',  ']',  '0' };
    size_t at = below(state, *n), len = 1 + below(state, CHUNK_MAX);

    if (*n == 0) {
        s[(*n)++] = (uint8_t)draw(state);
        return;
    }
    switch (below(state, 5)) {
    case 0:
        s[at] ^= (uint8_t)(1u << below(state, 8));
        break;
    case 1:
        s[at] = odd[below(state, sizeof odd)];
        break;
    case 2: /* drop a chunk */
        len = len > *n - at ? *n - at : len;
        memmove(s + at, s + at + len, *n - at - len);
        *n -= len;
        break;
    case 3: /* repeat a chunk */
        len = len > *n - at ? *n - at : len;
        memmove(s + at + len, s + at, *n - at);
        *n += len;
        break;
    default: /* copy a chunk over another place */
        len = len > *n - at ? *n - at : len;
        memmove(s + below(state, *n - len + 1), s + at, len);
        break;
    }
}

static void run(const uint8_t *s, size_t n)
{
    uint8_t *exact = mem_alloc(n); /* so that a sanitizer sees a read past the end */

    memcpy(exact, s, n);
    LLVMFuzzerTestOneInput(exact, n);
    free(exact);
}

static void mutate(uint64_t seed, uint64_t i)
{
    uint64_t state = seed ^ i * 0xd1342543de82ef95u;
    const struct seed *from = &seeds[below(&state, n_seeds)];
    uint8_t *s = mem_alloc(from->n + EDITS_MAX * CHUNK_MAX);
    size_t n = from->n, edits = 1 + below(&state, EDITS_MAX);

    memcpy(s, from->s, n);
    for (size_t k = 0; k < edits; k++)
        edit(&state, s, &n);
    run(s, n);
    free(s);
}

int main(int argc, char **argv)
{
    uint64_t milliseconds = 2000, seed = 1, i, deadline_ns;

    for (int arg = 1; arg < argc; arg++) {
        if (strcmp(argv[arg], "--milliseconds") == 0 && arg + 1 < argc)
            milliseconds = strtoull(argv[++arg], NULL, 10);
        else if (strcmp(argv[arg], "--seed") == 0 && arg + 1 < argc)
            seed = strtoull(argv[++arg], NULL, 10);
        else
            add_path(argv[arg]);
    }
    if (n_seeds == 0) {
        fprintf(stderr, "no seeds\n");
        return 2;
    }
    printf("seed %llu, %zu files\n", (unsigned long long)seed, n_seeds);
    fflush(stdout);
    for (size_t k = 0; k < n_seeds; k++)
        run((const uint8_t *)seeds[k].s, seeds[k].n);
    deadline_ns = clock_mono_ns() + milliseconds * NS_PER_MS;
    for (i = 0; clock_mono_ns() < deadline_ns; i++)
        mutate(seed, i);
    printf("%llu mutations\n", (unsigned long long)i);
    for (size_t k = 0; k < n_seeds; k++)
        free(seeds[k].s);
    return 0;
}
