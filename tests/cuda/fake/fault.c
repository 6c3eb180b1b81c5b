/* fault.c - reads and counts the rules; work.c and device.c do what they say. */
#include "tests/cuda/fake/fault.h"

#include <ctype.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tests/cuda/fake/settings.h"
#include "tests/cuda/fake/state.h"

enum { RULES_MAX = 256, NAME_BYTES = 80 };

struct rule {
    enum fault_point point;
    char name[NAME_BYTES]; /* "*" = any */
    int gpu;               /* -1 = any */
    uint64_t at;           /* fires at this count */
    bool is_repeated;      /* and at each later one */
    bool has_word;         /* of launches, only those where the array at `array` has `word` */
    unsigned array;        /* byte of the arguments where its address is */
    int32_t word;
    uint64_t seen;
    bool has_fired;
    bool is_of_file, is_listed; /* there; and it stands there still */
    uint64_t hash;
    struct fault fault;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct rule rules[RULES_MAX];
static unsigned n_rules;
static uint64_t n_fired;
static struct timespec file_time;
static off_t file_bytes;

/* FNV-1a (Fowler, Noll, Vo). */
static uint64_t hash_text(const char *text)
{
    uint64_t h = 0xcbf29ce484222325ull;

    for (; *text; text++)
        h = (h ^ (unsigned char)*text) * 0x100000001b3ull;
    return h;
}

/* ---- Reading ---- */

static bool parse_address(struct fault_address *a, const char *text)
{
    char base, *end;

    if (text[0] == '\0')
        return false;
    base = text[0];
    a->base = base == 'r' ? FAULT_RANGE : FAULT_ARGUMENT;
    a->index = (unsigned)strtoul(text + 1, &end, 0);
    if ((base != 'r' && base != 'a') || end == text + 1)
        return false;
    if (*end == '\0')
        return true;
    if (*end != '+')
        return false;
    a->offset = strtoull(end + 1, &end, 0);
    return *end == '\0';
}

static bool parse_action(struct fault *f, const char *text)
{
    char word[16] = "", a[64] = "", b[32] = "", c[32] = "";
    int n = sscanf(text, "%15s %63s %31s %31s", word, a, b, c);

    f->code = (int)strtol(a, NULL, 0);
    f->ms = (uint32_t)strtoul(a, NULL, 0);
    if (strcmp(word, "return") == 0 && n == 2)
        f->action = FAULT_RETURN;
    else if (strcmp(word, "sticky") == 0 && n == 2)
        f->action = FAULT_STICKY;
    else if (strcmp(word, "lost") == 0 && n == 2)
        f->action = FAULT_LOST;
    else if (strcmp(word, "kill") == 0 && n == 1)
        f->action = FAULT_KILL;
    else if (strcmp(word, "hang") == 0 && n == 1)
        f->action = FAULT_HANG;
    else if (strcmp(word, "slow") == 0 && n == 2)
        f->action = FAULT_SLOW;
    else if (strcmp(word, "flip") == 0 && n == 3 && parse_address(&f->address, a))
        f->action = FAULT_FLIP;
    else if (strcmp(word, "ghost") == 0 && n == 4 && parse_address(&f->address, a))
        f->action = FAULT_GHOST;
    else if (strcmp(word, "spoil") == 0 && n == 4 && parse_address(&f->address, a))
        f->action = FAULT_SPOIL;
    else if (strcmp(word, "late") == 0 && n == 4 && parse_address(&f->address, a))
        f->action = FAULT_LATE;
    else
        return false;
    f->bit = (uint32_t)strtoul(b, NULL, 0);
    f->bytes = strtoull(b, NULL, 0);
    if (f->action == FAULT_GHOST || f->action == FAULT_LATE)
        f->ms = (uint32_t)strtoul(c, NULL, 0);
    if (f->action == FAULT_SPOIL)
        f->code = (int)strtol(c, NULL, 0);
    return true;
}

/* "7", "7+" or "7-90" */
static bool parse_count(struct rule *r, const char *text)
{
    char *end;

    r->at = strtoull(text, &end, 0);
    if (end == text || r->at == 0)
        return false;
    if (*end == '-') {
        uint64_t last = strtoull(end + 1, &end, 0), draw = r->hash + fake_settings()->seed;

        if (last < r->at)
            return false;
        /* splitmix64's mixing (Steele, Lea, Flood 2014) */
        draw = (draw ^ draw >> 30) * 0xbf58476d1ce4e5b9ull;
        draw = (draw ^ draw >> 27) * 0x94d049bb133111ebull;
        r->at += (draw ^ draw >> 31) % (last - r->at + 1);
    }
    r->is_repeated = *end == '+';
    return end[r->is_repeated] == '\0';
}

/* "", " at N", " if aN has VALUE", or both */
static bool parse_condition(struct rule *r, const char *text)
{
    int used = 0;

    text += strspn(text, " ");
    if (sscanf(text, "at %" SCNu64 " %n", &r->fault.meeting, &used) == 1) {
        if (r->point != FAULT_KERNEL || r->fault.meeting == 0)
            return false;
        text += used;
    }
    if (*text == '\0')
        return true;
    used = 0;
    r->has_word = sscanf(text, "if a%u has %" SCNd32 " %n", &r->array, &r->word, &used) == 2;
    return r->has_word && r->point == FAULT_KERNEL && used > 0 && text[used] == '\0';
}

static bool parse_rule(struct rule *r, const char *text, uint64_t hash)
{
    char point[16] = "", count[32] = "", condition[64] = "";
    const char *colon;
    int used = 0;

    *r = (struct rule){ .gpu = -1, .hash = hash };
    snprintf(r->fault.rule, sizeof r->fault.rule, "%s", text);
    if (sscanf(text, "gpu %d %n", &r->gpu, &used) == 1)
        text += used;
    used = 0;
    if (sscanf(text, "%15s %79s %31[^: ]%n", point, r->name, count, &used) != 3 || used == 0)
        return false;
    colon = strchr(text + used, ':');
    if (!colon || (size_t)(colon - text) - (size_t)used >= sizeof condition)
        return false;
    memcpy(condition, text + used, (size_t)(colon - text) - (size_t)used);
    if (strcmp(point, "call") != 0 && strcmp(point, "kernel") != 0)
        return false;
    r->point = strcmp(point, "call") == 0 ? FAULT_CALL : FAULT_KERNEL;
    return parse_count(r, count) && parse_condition(r, condition) &&
           parse_action(&r->fault, colon + 1) &&
           (r->fault.meeting == 0 || r->fault.action != FAULT_LATE);
}

static struct rule *known(uint64_t hash)
{
    for (unsigned i = 0; i < n_rules; i++)
        if (rules[i].hash == hash)
            return &rules[i];
    return NULL;
}

static bool add_rule(const struct rule *r)
{
    struct rule *old = known(r->hash);

    if (old) {
        old->is_listed |= r->is_listed;
        return true;
    }
    if (n_rules == RULES_MAX) {
        fake_say("more than %d fault rules", RULES_MAX);
        return false;
    }
    rules[n_rules++] = *r;
    return true;
}

static bool add_line(char *line, bool is_of_file)
{
    uint64_t hash = hash_text(line); /* with its comment */
    char *end = line + strcspn(line, "#");
    struct rule r;

    while (end > line && isspace((unsigned char)end[-1]))
        end--;
    *end = '\0';
    while (isspace((unsigned char)*line))
        line++;
    if (*line == '\0')
        return true;
    if (!parse_rule(&r, line, hash)) {
        fake_say("fault rule '%s' is not understood", line);
        return false;
    }
    r.is_of_file = r.is_listed = is_of_file;
    return add_rule(&r);
}

static bool add_text(const char *text, bool is_of_file)
{
    char *copy = strdup(text), *rest = copy, *line;
    bool ok = copy != NULL;

    while (ok && (line = strsep(&rest, ";\n")) != NULL)
        ok = add_line(line, is_of_file);
    free(copy);
    return ok;
}

/* What does not stand in the file any more is no rule any more. */
static void forget_unlisted(void)
{
    unsigned n = 0;

    for (unsigned i = 0; i < n_rules; i++)
        if (!rules[i].is_of_file || rules[i].is_listed)
            rules[n++] = rules[i];
    n_rules = n;
}

static void read_file(const char *path)
{
    struct stat st;
    char text[16384];
    FILE *f;
    size_t n;

    if (stat(path, &st) != 0 ||
        (st.st_size == file_bytes && st.st_mtim.tv_sec == file_time.tv_sec &&
         st.st_mtim.tv_nsec == file_time.tv_nsec))
        return;
    file_bytes = st.st_size;
    file_time = st.st_mtim;
    f = fopen(path, "re");
    if (!f)
        return;
    n = fread(text, 1, sizeof text - 1, f);
    text[n] = '\0';
    fclose(f);
    for (unsigned i = 0; i < n_rules; i++)
        rules[i].is_listed = false;
    if (!add_text(text, true))
        abort();
    forget_unlisted();
}

static void read_environment(void)
{
    const char *text = getenv("LLMD_FAKE_CUDA_FAULTS");

    if (text && !add_text(text, false))
        abort();
}

/* The rules as of now; the mutex is held. */
static void refresh(void)
{
    static bool has_environment;

    if (!has_environment)
        read_environment();
    has_environment = true;
    if (fake_settings()->faults[0])
        read_file(fake_settings()->faults);
}

/* ---- Firing ---- */

/* Among the array's first n words? */
static bool has_word(const struct rule *r, const struct fault_launch *l)
{
    const int32_t *words = NULL;

    if (!l || r->array + sizeof words > l->args_bytes)
        return false;
    memcpy(&words, (const char *)l->args + r->array, sizeof words);
    for (uint32_t i = 0; words && i < l->n; i++)
        if (words[i] == r->word)
            return true;
    return false;
}

static bool matches(const struct rule *r, enum fault_point point, const char *name, int gpu,
                    const struct fault_launch *l)
{
    return r->point == point && (r->gpu < 0 || r->gpu == gpu) &&
           (strcmp(r->name, "*") == 0 || strcmp(r->name, name) == 0) &&
           (!r->has_word || has_word(r, l));
}

static bool fires(struct rule *r)
{
    r->seen++;
    if (r->is_repeated)
        return r->seen >= r->at;
    if (r->seen != r->at || r->has_fired)
        return false;
    r->has_fired = true;
    return state_fire(r->hash);
}

void fault_pass(struct fault *out, enum fault_point point, const char *name, int gpu,
                const struct fault_launch *l)
{
    out->action = FAULT_NONE;
    pthread_mutex_lock(&mutex);
    refresh();
    for (unsigned i = 0; i < n_rules; i++)
        if (matches(&rules[i], point, name, gpu, l) && fires(&rules[i]) &&
            out->action == FAULT_NONE) {
            *out = rules[i].fault;
            n_fired++;
        }
    pthread_mutex_unlock(&mutex);
}

bool fault_add(const char *text)
{
    bool ok;

    pthread_mutex_lock(&mutex);
    ok = add_text(text, false);
    pthread_mutex_unlock(&mutex);
    return ok;
}

uint64_t fault_count(void)
{
    uint64_t n;

    pthread_mutex_lock(&mutex);
    n = n_fired;
    pthread_mutex_unlock(&mutex);
    return n;
}
