#include "bench/compare/rounds_file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define HEADER "shape,type,work,ours,theirs,limit,limit_of\n"

struct line {
    char shape[16], type[16], work[48], limit_name[16];
    double ours, theirs, limit;
};

static bool parse(const char *text, struct line *l)
{
    return sscanf(text, "%15[^,],%15[^,],\"%47[^\"]\",%lf,%lf,%lf,%15[a-z0-9]", l->shape, l->type,
                  l->work, &l->ours, &l->theirs, &l->limit, l->limit_name) == 7;
}

/* Whose line it is; NULL: another group's. */
static struct figure *find(struct figure *figures, uint32_t n, const struct line *l)
{
    for (uint32_t i = 0; i < n; i++)
        if (strcmp(figures[i].shape->name, l->shape) == 0 &&
            strcmp(figures[i].type->name, l->type) == 0 && strcmp(figures[i].work, l->work) == 0)
            return &figures[i];
    return NULL;
}

static bool take(struct figure *f, const struct line *l)
{
    if (f->n_rounds == ROUNDS_MAX)
        return false;
    f->ours[f->n_rounds] = l->ours;
    f->theirs[f->n_rounds] = l->theirs;
    f->limits[f->n_rounds++] = l->limit;
    snprintf(f->limit_name, sizeof f->limit_name, "%s", l->limit_name);
    return true;
}

static bool read_lines(FILE *in, const char *path, struct figure *figures, uint32_t n,
                       struct err *e)
{
    char *text = NULL;
    size_t room = 0;
    uint32_t number = 0;
    bool ok = true;

    while (ok && getline(&text, &room, in) > 0) {
        struct line l;
        struct figure *f;
        if (++number == 1 && strcmp(text, HEADER) == 0)
            continue;
        if (!parse(text, &l))
            ok = err_set(e, ERR_PROTO, 0, "%s:%u: not a case of a round", path, number);
        else if ((f = find(figures, n, &l)) && !take(f, &l))
            ok = err_set(e, ERR_PROTO, 0, "%s:%u: more than %u rounds", path, number, ROUNDS_MAX);
    }
    free(text);
    return ok;
}

/* A run may have been cut while it wrote a round. */
static void keep_whole_rounds(struct figure *figures, uint32_t n)
{
    uint32_t least = ROUNDS_MAX;

    for (uint32_t i = 0; i < n; i++)
        least = figures[i].n_rounds < least ? figures[i].n_rounds : least;
    for (uint32_t i = 0; i < n; i++)
        figures[i].n_rounds = least;
}

bool rounds_file_read(const char *path, struct figure *figures, uint32_t n, struct err *e)
{
    FILE *in = fopen(path, "r");
    bool ok;

    if (!in)
        return errno == ENOENT || err_set(e, ERR_SYS, errno, "open '%s'", path);
    ok = read_lines(in, path, figures, n, e);
    fclose(in);
    keep_whole_rounds(figures, n);
    return ok;
}

bool rounds_file_append(const char *path, const struct figure *figures, uint32_t n, uint32_t round,
                        struct err *e)
{
    FILE *out = fopen(path, "a");
    bool ok;

    if (!out)
        return err_set(e, ERR_SYS, errno, "open '%s'", path);
    if (fseek(out, 0, SEEK_END) == 0 && ftell(out) == 0)
        fputs(HEADER, out);
    for (uint32_t i = 0; i < n; i++) {
        const struct figure *f = &figures[i];
        fprintf(out, "%s,%s,\"%s\",%.2f,%.2f,%.2f,%s\n", f->shape->name, f->type->name, f->work,
                f->ours[round], f->theirs[round], f->limits[round], f->limit_name);
    }
    ok = !ferror(out);
    if (fclose(out) != 0 || !ok)
        return err_set(e, ERR_SYS, errno, "write '%s'", path);
    return true;
}
