/* gguf_set.c - see gguf_set.h. */
#include "gpu-worker/load/gguf_set.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"

/* 1 for a file that is no part of a set. */
static bool count_files(const struct gguf *first, uint32_t *n, struct err *e)
{
    int64_t count = 1, no = 0;

    if (gguf_has(first, "split.count") && (!gguf_integer(first, "split.count", &count, e) ||
                                           !gguf_integer(first, "split.no", &no, e)))
        return false;
    count = count == 0 ? 1 : count;
    if (count < 1 || count > GGUF_SET_FILES_MAX)
        return err_set(e, ERR_MODEL, 0, "key 'split.count' is %lld; wanted 1..%d", (long long)count,
                       GGUF_SET_FILES_MAX);
    if (no != 0)
        return err_set(e, ERR_MODEL, 0, "this is file %lld of %lld of a set; give the first",
                       (long long)no + 1, (long long)count);
    *n = (uint32_t)count;
    return true;
}

/* "DIR/NAME-00001-of-00003.gguf" -> "DIR/NAME-00002-of-00003.gguf" */
static bool name_file(const char *first, uint32_t no, uint32_t n, char **path, struct err *e)
{
    char ending[32];
    size_t at = strlen(first);
    int n_ending = snprintf(ending, sizeof ending, "-00001-of-%05u.gguf", n);

    if (at < (size_t)n_ending || strcmp(first + at - (size_t)n_ending, ending) != 0)
        return err_set(e, ERR_MODEL, 0,
                       "by 'split.count' the first of %u files; its name must end in '%s'", n,
                       ending);
    *path = mem_strdup(first);
    snprintf(*path + at - (size_t)n_ending, (size_t)n_ending + 1, "-%05u-of-%05u.gguf", no + 1, n);
    return true;
}

static bool check_part(const struct gguf *g, uint32_t no, uint32_t n, struct err *e)
{
    int64_t found_no, found_n;

    if (!gguf_integer(g, "split.no", &found_no, e) || !gguf_integer(g, "split.count", &found_n, e))
        return false;
    return (found_no == no && found_n == n) ||
           err_set(e, ERR_MODEL, 0, "says that it is file %lld of %lld; wanted %u of %u",
                   (long long)found_no + 1, (long long)found_n, no + 1, n);
}

static bool open_part(struct gguf_set *set, uint32_t n, struct err *e)
{
    char *path = NULL;
    struct gguf *g;

    if (!name_file(set->files[0]->name, set->n, n, &path, e))
        return err_wrap(e, "'%s'", set->files[0]->name);
    g = gguf_open(path, e);
    free(path);
    if (!g)
        return false;
    set->files[set->n++] = g;
    return check_part(g, set->n - 1, n, e) || err_wrap(e, "'%s'", g->name);
}

static bool check_total(const struct gguf_set *set, struct err *e)
{
    int64_t wanted, found = 0;

    if (!gguf_has(set->files[0], "split.tensors.count"))
        return true;
    for (uint32_t i = 0; i < set->n; i++)
        found += set->files[i]->n_tensors;
    if (!gguf_integer(set->files[0], "split.tensors.count", &wanted, e))
        return false;
    return found == wanted || err_set(e, ERR_MODEL, 0, "%lld tensors in %u files; wanted %lld",
                                      (long long)found, set->n, (long long)wanted);
}

bool gguf_set_open(struct gguf_set *set, const char *path, struct err *e)
{
    struct gguf_set out = { .files = mem_zalloc(GGUF_SET_FILES_MAX, sizeof(struct gguf *)) };
    uint32_t n = 0;

    out.files[0] = gguf_open(path, e);
    if (!out.files[0])
        goto failed;
    out.n = 1;
    if (!count_files(out.files[0], &n, e)) {
        err_wrap(e, "'%s'", path);
        goto failed;
    }
    while (out.n < n)
        if (!open_part(&out, n, e))
            goto failed;
    if (!check_total(&out, e)) {
        err_wrap(e, "'%s'", path);
        goto failed;
    }
    *set = out;
    return true;
failed:
    gguf_set_close(&out);
    return false;
}

void gguf_set_close(struct gguf_set *set)
{
    for (uint32_t i = 0; i < set->n; i++)
        gguf_close(set->files[i]);
    free(set->files);
    *set = (struct gguf_set){ 0 };
}

const struct gguf_tensor *gguf_set_find(const struct gguf_set *set, const char *name,
                                        const struct gguf **file)
{
    for (uint32_t i = 0; i < set->n; i++)
        for (uint32_t k = 0; k < set->files[i]->n_tensors; k++)
            if (strcmp(set->files[i]->tensors[k].name, name) == 0) {
                *file = set->files[i];
                return &set->files[i]->tensors[k];
            }
    return NULL;
}
