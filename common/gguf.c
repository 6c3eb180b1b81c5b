/* gguf.c - parse and ask a GGUF file.  Called at start-up only. */
#include "common/gguf.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/file.h"
#include "common/mem.h"

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "values are read as they lie in the file");

enum {
    KEY_BYTES_MAX = 65535, /* of the specification */
    ALIGNMENT_DEFAULT = 32,
    ALIGNMENT_MAX = 1 << 20,
    PAIR_BYTES_MIN = 8 + 1 + 4 + 1,       /* key, type, value */
    TENSOR_BYTES_MIN = 8 + 1 + 4 + 4 + 8, /* name, no dims, type, offset */
};

static const struct {
    const char *name;
    uint32_t bytes; /* 0: not the same for all */
} types[N_GGUF_TYPES] = {
    [GGUF_U8] = { "uint8", 1 },    [GGUF_I8] = { "int8", 1 },    [GGUF_U16] = { "uint16", 2 },
    [GGUF_I16] = { "int16", 2 },   [GGUF_U32] = { "uint32", 4 }, [GGUF_I32] = { "int32", 4 },
    [GGUF_F32] = { "float32", 4 }, [GGUF_BOOL] = { "bool", 1 },  [GGUF_STRING] = { "string", 0 },
    [GGUF_ARRAY] = { "array", 0 }, [GGUF_U64] = { "uint64", 8 }, [GGUF_I64] = { "int64", 8 },
    [GGUF_F64] = { "float64", 8 },
};

const char *gguf_type_name(enum gguf_type t)
{
    return (unsigned)t < N_GGUF_TYPES ? types[t].name : "?";
}

/* ---- values as they lie in the file ---- */

static uint32_t load32(const unsigned char *at)
{
    uint32_t v;

    memcpy(&v, at, sizeof v);
    return v;
}

static uint64_t load64(const unsigned char *at)
{
    uint64_t v;

    memcpy(&v, at, sizeof v);
    return v;
}

static bool load_integer(enum gguf_type type, const unsigned char *at, int64_t *v)
{
    uint64_t bits = 0;
    int unused = 64 - 8 * (int)types[type].bytes;

    switch (type) {
    case GGUF_U8:
    case GGUF_U16:
    case GGUF_U32:
    case GGUF_U64:
        memcpy(&bits, at, types[type].bytes);
        *v = (int64_t)bits;
        return *v >= 0;
    case GGUF_I8:
    case GGUF_I16:
    case GGUF_I32:
    case GGUF_I64:
        memcpy(&bits, at, types[type].bytes);
        *v = (int64_t)(bits << unused) >> unused;
        return true;
    default:
        return false;
    }
}

static bool load_number(enum gguf_type type, const unsigned char *at, double *v)
{
    int64_t whole;
    float single;

    if (type == GGUF_F64) {
        memcpy(v, at, sizeof *v);
    } else if (type == GGUF_F32) {
        memcpy(&single, at, sizeof single);
        *v = (double)single;
    } else if (load_integer(type, at, &whole)) {
        *v = (double)whole;
    } else {
        return false;
    }
    return isfinite(*v);
}

static struct gguf_string load_string(const unsigned char *at)
{
    return (struct gguf_string){ (const char *)at + 8, (size_t)load64(at) };
}

static struct gguf_array load_array(const unsigned char *at)
{
    return (struct gguf_array){ (enum gguf_type)load32(at), load64(at + 4), at + 12 };
}

/* ---- reading: each of these moves `at` over what it has checked ---- */

struct reader {
    const unsigned char *s;
    size_t n, at;
    struct err *e;
};

static size_t left(const struct reader *r)
{
    return r->n - r->at;
}

static bool is_short(const struct reader *r, const char *what)
{
    return err_set(r->e, ERR_MODEL, 0, "the file ends at byte %zu, in %s", r->n, what);
}

static bool skip(struct reader *r, uint64_t bytes, const char *what)
{
    if (bytes > left(r))
        return is_short(r, what);
    r->at += (size_t)bytes;
    return true;
}

static bool read_u32(struct reader *r, uint32_t *v, const char *what)
{
    if (!skip(r, 4, what))
        return false;
    *v = load32(r->s + r->at - 4);
    return true;
}

static bool read_u64(struct reader *r, uint64_t *v, const char *what)
{
    if (!skip(r, 8, what))
        return false;
    *v = load64(r->s + r->at - 8);
    return true;
}

static bool skip_string(struct reader *r, const char *what)
{
    uint64_t n;

    return read_u64(r, &n, what) && skip(r, n, what);
}

/* A key or a tensor's name: 1..max bytes, none of them NUL. */
static bool read_name(struct reader *r, size_t max, char **name, const char *what)
{
    struct gguf_string s;
    size_t from = r->at;

    if (!skip_string(r, what))
        return false;
    s = load_string(r->s + from);
    if (s.n == 0 || s.n > max || memchr(s.s, '\0', s.n))
        return err_set(r->e, ERR_MODEL, 0,
                       "%s of %zu bytes at byte %zu; wanted 1..%zu, without NUL", what, s.n, from,
                       max);
    *name = mem_strndup(s.s, s.n);
    return true;
}

static bool skip_value(struct reader *r, uint32_t type, int depth);

static bool skip_array(struct reader *r, int depth)
{
    uint32_t of;
    uint64_t n;

    if (depth == GGUF_DEPTH_MAX)
        return err_set(r->e, ERR_MODEL, 0, "arrays in arrays, deeper than %d", GGUF_DEPTH_MAX);
    if (!read_u32(r, &of, "an array") || !read_u64(r, &n, "an array"))
        return false;
    if (of < N_GGUF_TYPES && types[of].bytes > 0)
        return n <= left(r) / types[of].bytes ? skip(r, n * types[of].bytes, "an array")
                                              : is_short(r, "an array");
    for (uint64_t i = 0; i < n; i++)
        if (!skip_value(r, of, depth + 1))
            return false;
    return n > 0 || of < N_GGUF_TYPES || skip_value(r, of, depth + 1);
}

static bool skip_value(struct reader *r, uint32_t type, int depth)
{
    if (type >= N_GGUF_TYPES)
        return err_set(r->e, ERR_MODEL, 0, "values of type %u; this build knows 0..%d", type,
                       N_GGUF_TYPES - 1);
    if (type == GGUF_STRING)
        return skip_string(r, "a string");
    if (type == GGUF_ARRAY)
        return skip_array(r, depth);
    return skip(r, types[type].bytes, "a value");
}

static bool read_pair(struct reader *r, struct gguf_pair *p)
{
    uint32_t type;

    if (!read_name(r, KEY_BYTES_MAX, &p->key, "a key"))
        return false;
    if (!read_u32(r, &type, "a value's type"))
        return err_wrap(r->e, "key '%.80s'", p->key);
    p->type = (enum gguf_type)type;
    p->at = r->s + r->at;
    if (!skip_value(r, type, 0))
        return err_wrap(r->e, "key '%.80s'", p->key);
    return type != GGUF_BOOL || *p->at <= 1 ||
           err_set(r->e, ERR_MODEL, 0, "key '%.80s': a bool of %u", p->key, *p->at);
}

static bool read_dims(struct reader *r, struct gguf_tensor *t)
{
    uint64_t elements = 1;

    if (!read_u32(r, &t->n_dims, "its dimensions"))
        return false;
    if (t->n_dims > GGUF_DIMS_MAX)
        return err_set(r->e, ERR_MODEL, 0, "%u dimensions; at most %d are allowed", t->n_dims,
                       GGUF_DIMS_MAX);
    for (uint32_t i = 0; i < GGUF_DIMS_MAX; i++) {
        t->dims[i] = 1;
        if (i < t->n_dims && !read_u64(r, &t->dims[i], "its dimensions"))
            return false;
        if (t->dims[i] == 0 || __builtin_mul_overflow(elements, t->dims[i], &elements))
            return err_set(r->e, ERR_MODEL, 0, "dimension %u of %llu", i,
                           (unsigned long long)t->dims[i]);
    }
    return true;
}

static bool read_tensor(struct reader *r, struct gguf_tensor *t)
{
    if (!read_name(r, GGUF_NAME_MAX, &t->name, "a tensor's name"))
        return false;
    return (read_dims(r, t) && read_u32(r, &t->type, "its type") &&
            read_u64(r, &t->offset, "its offset")) ||
           err_wrap(r->e, "tensor '%.80s'", t->name);
}

/* ---- the whole file ---- */

static int by_key(const void *a, const void *b)
{
    return strcmp(((const struct gguf_pair *)a)->key, ((const struct gguf_pair *)b)->key);
}

static bool read_header(struct reader *r, struct gguf *g, uint64_t *n_tensors, uint64_t *n_pairs)
{
    if (r->n < 4 || memcmp(r->s, "GGUF", 4) != 0)
        return err_set(r->e, ERR_MODEL, 0, "not a GGUF file");
    r->at = 4;
    if (!read_u32(r, &g->version, "the header"))
        return false;
    if (g->version != 2 && g->version != 3)
        return err_set(r->e, ERR_MODEL, 0, "version %u%s; this build reads 2 and 3", g->version,
                       g->version == __builtin_bswap32(3) ? " (big-endian)" : "");
    if (!read_u64(r, n_tensors, "the header") || !read_u64(r, n_pairs, "the header"))
        return false;
    if (*n_pairs > left(r) / PAIR_BYTES_MIN || *n_tensors > left(r) / TENSOR_BYTES_MIN ||
        *n_pairs > UINT32_MAX || *n_tensors > UINT32_MAX)
        return err_set(r->e, ERR_MODEL, 0, "%llu keys and %llu tensors in a file of %zu bytes",
                       (unsigned long long)*n_pairs, (unsigned long long)*n_tensors, r->n);
    return true;
}

static bool read_pairs(struct reader *r, struct gguf *g, uint64_t n)
{
    g->pairs = mem_zalloc(n, sizeof *g->pairs);
    while (g->n_pairs < n)
        if (!read_pair(r, &g->pairs[g->n_pairs++]))
            return false;
    if (n > 0)
        qsort(g->pairs, n, sizeof *g->pairs, by_key);
    for (uint64_t i = 1; i < n; i++)
        if (strcmp(g->pairs[i - 1].key, g->pairs[i].key) == 0)
            return err_set(r->e, ERR_MODEL, 0, "key '%.80s' is there twice", g->pairs[i].key);
    return true;
}

static bool read_alignment(struct reader *r, struct gguf *g)
{
    int64_t v = ALIGNMENT_DEFAULT;

    if (gguf_has(g, "general.alignment") && !gguf_integer(g, "general.alignment", &v, r->e))
        return false;
    if (v < 1 || v > ALIGNMENT_MAX || (v & (v - 1)) != 0)
        return err_set(r->e, ERR_MODEL, 0, "key 'general.alignment' is %lld; wanted a power of two",
                       (long long)v);
    g->alignment = (uint32_t)v;
    return true;
}

static bool read_tensors(struct reader *r, struct gguf *g, uint64_t n)
{
    uint64_t at;

    g->tensors = mem_zalloc(n, sizeof *g->tensors);
    while (g->n_tensors < n)
        if (!read_tensor(r, &g->tensors[g->n_tensors++]))
            return false;
    at = (r->at + g->alignment - 1) / g->alignment * g->alignment;
    at = at < r->n ? at : r->n; /* a file without data may end anywhere */
    g->data = r->s + at;
    g->data_bytes = r->n - at;
    for (uint64_t i = 0; i < n; i++)
        if (g->tensors[i].offset > g->data_bytes || g->tensors[i].offset % g->alignment != 0)
            return err_set(r->e, ERR_MODEL, 0,
                           "tensor '%.80s' at offset %llu of %llu bytes of data, aligned to %u",
                           g->tensors[i].name, (unsigned long long)g->tensors[i].offset,
                           (unsigned long long)g->data_bytes, g->alignment);
    return true;
}

static bool parse(struct gguf *g, const void *bytes, size_t n, struct err *e)
{
    struct reader r = { .s = bytes, .n = n, .e = e };
    uint64_t n_tensors, n_pairs;

    g->bytes = n;
    return (read_header(&r, g, &n_tensors, &n_pairs) && read_pairs(&r, g, n_pairs) &&
            read_alignment(&r, g) && read_tensors(&r, g, n_tensors)) ||
           err_wrap(e, "'%s'", g->name);
}

struct gguf *gguf_parse(const char *name, const void *bytes, size_t n, struct err *e)
{
    struct gguf *g = mem_zalloc(1, sizeof *g);

    g->name = mem_strdup(name);
    if (parse(g, bytes, n, e))
        return g;
    gguf_close(g);
    return NULL;
}

static bool map_file(struct gguf *g, struct err *e)
{
    void *map = MAP_FAILED;
    struct stat s;
    int fd = open(g->name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

    if (fd < 0)
        return err_set(e, ERR_SYS, errno, "open '%s'", g->name);
    if (fstat(fd, &s) < 0)
        err_set(e, ERR_SYS, errno, "stat '%s'", g->name);
    else if (!S_ISREG(s.st_mode) || s.st_size == 0)
        err_set(e, ERR_MODEL, 0, "'%s' is empty or not a regular file", g->name);
    else if ((map = mmap(NULL, (size_t)s.st_size, PROT_READ, MAP_PRIVATE, fd, 0)) == MAP_FAILED)
        err_set(e, ERR_SYS, errno, "map '%s'", g->name);
    close(fd);
    if (map == MAP_FAILED)
        return false;
    g->map = map;
    g->bytes = (uint64_t)s.st_size;
    g->mtime_ns = (int64_t)s.st_mtim.tv_sec * 1000000000 + s.st_mtim.tv_nsec;
    return true;
}

struct gguf *gguf_open(const char *path, struct err *e)
{
    struct gguf *g = mem_zalloc(1, sizeof *g);

    g->name = mem_strdup(path);
    if (map_file(g, e) && parse(g, g->map, g->bytes, e))
        return g;
    gguf_close(g);
    return NULL;
}

void gguf_close(struct gguf *g)
{
    if (!g)
        return;
    for (uint32_t i = 0; i < g->n_pairs; i++)
        free(g->pairs[i].key);
    for (uint32_t i = 0; i < g->n_tensors; i++)
        free(g->tensors[i].name);
    if (g->map)
        munmap(g->map, g->bytes);
    free(g->pairs);
    free(g->tensors);
    free(g->name);
    free(g);
}

/* ---- which file ---- */

static bool has_suffix(const char *name, const char *suffix)
{
    size_t n = strlen(name), m = strlen(suffix);

    return n >= m && strcmp(name + n - m, suffix) == 0;
}

/* Of "NAME-00002-of-00005.gguf" 2; 0 when it is no part of a set. */
static unsigned part_of_set(const char *name)
{
    static const char pattern[] = "-#####-of-#####.gguf";
    size_t n = strlen(name), m = sizeof pattern - 1;

    if (n < m)
        return 0;
    for (size_t i = 0; i < m; i++) {
        char c = name[n - m + i];
        if (pattern[i] == '#' ? c < '0' || c > '9' : c != pattern[i])
            return 0;
    }
    return (unsigned)strtoul(name + n - m + 1, NULL, 10);
}

static bool is_candidate(const char *name)
{
    return has_suffix(name, ".gguf") && name[0] != '.' && strncmp(name, "mmproj", 6) != 0 &&
           part_of_set(name) <= 1;
}

static bool has_safetensors(const char *dir)
{
    char path[4096];

    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    if (file_exists(path))
        return true;
    snprintf(path, sizeof path, "%s/model.safetensors.index.json", dir);
    return file_exists(path);
}

static bool locate_in(const char *model, DIR *dir, char **path, struct err *e)
{
    struct buf found = { 0 };
    struct dirent *entry;
    char *other = NULL;

    while (!other && (entry = readdir(dir))) {
        if (!is_candidate(entry->d_name))
            continue;
        if (found.n > 0)
            other = mem_strdup(entry->d_name);
        else
            buf_printf(&found, "%s/%s", model, entry->d_name);
    }
    if (other) {
        err_set(e, ERR_CONFIG, 0,
                "model directory has the GGUF files '%.80s' and '%.80s': name one as the model",
                found.data, other);
        free(other);
        buf_fini(&found);
        return false;
    }
    *path = found.n > 0 ? buf_take(&found) : NULL;
    return true;
}

bool gguf_locate(const char *model, char **path, struct err *e)
{
    struct stat s;
    DIR *dir;
    bool ok;

    if (stat(model, &s) < 0)
        return err_set(e, ERR_SYS, errno, "model '%s'", model);
    if (!S_ISDIR(s.st_mode)) {
        *path = mem_strdup(model);
        return true;
    }
    *path = NULL;
    if (has_safetensors(model))
        return true;
    dir = opendir(model);
    if (!dir)
        return err_set(e, ERR_SYS, errno, "model directory '%s'", model);
    ok = locate_in(model, dir, path, e);
    closedir(dir);
    return ok;
}

/* ---- asking ---- */

static const struct gguf_pair *find(const struct gguf *g, const char *key)
{
    struct gguf_pair wanted = { .key = (char *)(uintptr_t)key };

    return g->n_pairs == 0 ? NULL : bsearch(&wanted, g->pairs, g->n_pairs, sizeof wanted, by_key);
}

bool gguf_has(const struct gguf *g, const char *key)
{
    return find(g, key) != NULL;
}

static bool refuse(const char *key, const struct gguf_pair *p, const char *wanted, struct err *e)
{
    if (!p)
        return err_set(e, ERR_MODEL, 0, "key '%.80s' is missing", key);
    return err_set(e, ERR_MODEL, 0, "key '%.80s' has type %s; wanted %s", key,
                   gguf_type_name(p->type), wanted);
}

bool gguf_integer(const struct gguf *g, const char *key, int64_t *v, struct err *e)
{
    const struct gguf_pair *p = find(g, key);

    return (p && load_integer(p->type, p->at, v)) || refuse(key, p, "a whole number", e);
}

bool gguf_number(const struct gguf *g, const char *key, double *v, struct err *e)
{
    const struct gguf_pair *p = find(g, key);

    return (p && load_number(p->type, p->at, v)) || refuse(key, p, "a finite number", e);
}

bool gguf_bool(const struct gguf *g, const char *key, bool *v, struct err *e)
{
    const struct gguf_pair *p = find(g, key);

    if (!p || p->type != GGUF_BOOL)
        return refuse(key, p, "bool", e);
    *v = *p->at != 0;
    return true;
}

bool gguf_string(const struct gguf *g, const char *key, struct gguf_string *v, struct err *e)
{
    const struct gguf_pair *p = find(g, key);

    if (!p || p->type != GGUF_STRING)
        return refuse(key, p, "string", e);
    *v = load_string(p->at);
    return true;
}

bool gguf_array(const struct gguf *g, const char *key, struct gguf_array *v, struct err *e)
{
    const struct gguf_pair *p = find(g, key);

    if (!p || p->type != GGUF_ARRAY)
        return refuse(key, p, "array", e);
    *v = load_array(p->at);
    return true;
}

bool gguf_array_integer(const struct gguf_array *a, uint64_t i, int64_t *v)
{
    assert(i < a->n);
    return load_integer(a->of, a->at + i * types[a->of].bytes, v);
}

bool gguf_array_number(const struct gguf_array *a, uint64_t i, double *v)
{
    assert(i < a->n);
    return load_number(a->of, a->at + i * types[a->of].bytes, v);
}

struct gguf_string gguf_array_next(struct gguf_array *a)
{
    struct gguf_string s;

    assert(a->of == GGUF_STRING && a->n > 0);
    s = load_string(a->at);
    a->at += 8 + s.n;
    a->n--;
    return s;
}
