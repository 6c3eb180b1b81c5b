/* huge.c - reads the pool's counters, the setting's word and smaps. */
#include "common/huge.h"

#include <stdio.h>
#include <string.h>

enum { PATH_BYTES = 1024, LINE_BYTES = 512 };

#define POOL "/sys/kernel/mm/hugepages/hugepages-2048kB/"

/* ---- the host ---- */

static uint64_t read_number(const char *root, const char *file)
{
    unsigned long long value = 0;
    char path[PATH_BYTES];
    FILE *f;

    snprintf(path, sizeof path, "%s%s", root, file);
    f = fopen(path, "re");
    if (f && fscanf(f, "%llu", &value) != 1)
        value = 0;
    if (f)
        fclose(f);
    return value;
}

/* "always within_size advise [never] deny force" -> "never" */
static void read_choice(const char *root, const char *file, char *word, size_t n)
{
    char path[PATH_BYTES], line[LINE_BYTES], *begin = NULL;
    FILE *f;

    word[0] = '\0';
    snprintf(path, sizeof path, "%s%s", root, file);
    f = fopen(path, "re");
    if (f && fgets(line, sizeof line, f))
        begin = strchr(line, '[');
    if (begin)
        snprintf(word, n, "%.*s", (int)strcspn(begin + 1, "]"), begin + 1);
    if (f)
        fclose(f);
}

void huge_host_read(struct huge_host *h, const char *root)
{
    uint64_t unused = read_number(root, POOL "free_hugepages");
    uint64_t promised = read_number(root, POOL "resv_hugepages");

    *h = (struct huge_host){ .pool = read_number(root, POOL "nr_hugepages") };
    h->pool_free = unused > promised ? unused - promised : 0;
    read_choice(root, "/sys/kernel/mm/transparent_hugepage/shmem_enabled", h->shmem_enabled,
                sizeof h->shmem_enabled);
}

bool huge_host_takes_advice(const struct huge_host *h)
{
    static const char *const words[] = { "advise", "within_size", "always", "force" };

    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcmp(h->shmem_enabled, words[i]) == 0)
            return true;
    return false;
}

/* ---- one mapping ---- */

/* "7f00-7f80 r--s 00000000 00:01 17   /memfd:llmd-weights-0 (deleted)": a mapping begins. */
static bool parse_mapping(const char *line, const char *file, bool *is_ours, uint64_t *bytes)
{
    unsigned long long from, to;
    size_t n = strcspn(line, "\n"), n_file = strlen(file);

    if (sscanf(line, "%llx-%llx ", &from, &to) != 2 || to < from)
        return false;
    *is_ours = n >= n_file && memcmp(line + n - n_file, file, n_file) == 0;
    *bytes = to - from;
    return true;
}

static bool parse_kib(const char *line, const char *key, uint64_t *bytes)
{
    size_t n = strlen(key);
    unsigned long long kib;

    if (strncmp(line, key, n) != 0 || sscanf(line + n, " %llu kB", &kib) != 1)
        return false;
    *bytes = kib << 10;
    return true;
}

/* Pages of the pool are not part of Rss. */
static void take_line(struct huge_use *use, const char *line)
{
    static const char *const huge[] = { "ShmemPmdMapped:", "FilePmdMapped:" };
    static const char *const pool[] = { "Shared_Hugetlb:", "Private_Hugetlb:" };
    uint64_t bytes;

    if (parse_kib(line, "Rss:", &bytes))
        use->resident += bytes;
    for (int i = 0; i < 2; i++) {
        if (parse_kib(line, huge[i], &bytes))
            use->huge += bytes;
        if (parse_kib(line, pool[i], &bytes)) {
            use->resident += bytes;
            use->huge += bytes;
        }
    }
}

static void read_smaps(FILE *f, const char *file, struct huge_use *best)
{
    struct huge_use here = { 0 };
    char line[LINE_BYTES];
    bool is_ours = false;
    uint64_t bytes;

    while (fgets(line, sizeof line, f)) {
        if (!parse_mapping(line, file, &is_ours, &bytes)) {
            if (is_ours)
                take_line(&here, line);
        } else {
            here = (struct huge_use){ .bytes = bytes };
        }
        if (is_ours && here.bytes >= best->bytes)
            *best = here;
    }
}

bool huge_use_read(struct huge_use *use, const char *root, pid_t pid, const char *name)
{
    char path[PATH_BYTES], file[128], who[16] = "self";
    FILE *f;

    *use = (struct huge_use){ 0 };
    if (pid > 0)
        snprintf(who, sizeof who, "%d", (int)pid);
    snprintf(path, sizeof path, "%s/proc/%s/smaps", root, who);
    snprintf(file, sizeof file, "/memfd:%s (deleted)", name);
    f = fopen(path, "re");
    if (!f)
        return false;
    read_smaps(f, file, use);
    fclose(f);
    return use->bytes > 0;
}
