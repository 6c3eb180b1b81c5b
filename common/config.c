/* config.c - settings from text, checked against config.def.  Called at start-up and on reload only. */
#include "common/config.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum kind { KIND_NUM, KIND_REAL, KIND_TEXT, KIND_CHOICE };
enum when { LIVE, RESTART };

struct setting {
    const char *name;
    enum kind kind;
    size_t offset;
    const char *builtin;
    uint64_t min, max;
    double least, most; /* KIND_REAL */
    const char *choices;
    enum when when;
    const char *alias, *help;
};

static const struct setting settings[N_CONFIG] = {
#define NUM(n, builtin_, min_, max_, when_, alias_, help_)                                         \
    [CONFIG_##n] = { .name = #n,                                                                   \
                     .kind = KIND_NUM,                                                             \
                     .offset = offsetof(struct config, n),                                         \
                     .builtin = #builtin_,                                                         \
                     .min = min_,                                                                  \
                     .max = max_,                                                                  \
                     .when = when_,                                                                \
                     .alias = alias_,                                                              \
                     .help = help_ },
#define REAL(n, builtin_, min_, max_, when_, alias_, help_)                                        \
    [CONFIG_##n] = { .name = #n,                                                                   \
                     .kind = KIND_REAL,                                                            \
                     .offset = offsetof(struct config, n),                                         \
                     .builtin = #builtin_,                                                         \
                     .least = min_,                                                                \
                     .most = max_,                                                                 \
                     .when = when_,                                                                \
                     .alias = alias_,                                                              \
                     .help = help_ },
#define TEXT(n, builtin_, when_, alias_, help_)                                                    \
    [CONFIG_##n] = { .name = #n,                                                                   \
                     .kind = KIND_TEXT,                                                            \
                     .offset = offsetof(struct config, n),                                         \
                     .builtin = builtin_,                                                          \
                     .when = when_,                                                                \
                     .alias = alias_,                                                              \
                     .help = help_ },
#define CHOICE(n, builtin_, choices_, when_, alias_, help_)                                        \
    [CONFIG_##n] = { .name = #n,                                                                   \
                     .kind = KIND_CHOICE,                                                          \
                     .offset = offsetof(struct config, n),                                         \
                     .builtin = builtin_,                                                          \
                     .choices = choices_,                                                          \
                     .when = when_,                                                                \
                     .alias = alias_,                                                              \
                     .help = help_ },
#include "common/config.def"
#undef NUM
#undef REAL
#undef TEXT
#undef CHOICE
};

int config_find(const char *name)
{
    for (int i = 0; i < N_CONFIG; i++) {
        const char *a = settings[i].name, *b = name;
        while (*a && (*a == *b || (*a == '_' && *b == '-')))
            a++, b++;
        if (!*a && !*b)
            return i;
    }
    return -1;
}

/* "12", "512M", "4G", "64KiB": digits, then a power of 1024. */
static bool parse_number(const char *text, uint64_t *out)
{
    static const char units[] = "kmgt";
    unsigned long long v;
    char *end;

    if (!isdigit((unsigned char)text[0]))
        return false;
    errno = 0;
    v = strtoull(text, &end, 10);
    if (errno)
        return false;
    if (*end) {
        const char *unit = strchr(units, tolower((unsigned char)*end));
        unsigned shift = unit ? 10 * (unsigned)(unit - units + 1) : 0;
        if (!unit || v > UINT64_MAX >> shift)
            return false;
        v <<= shift;
        end++;
        if (*end && strcasecmp(end, "b") != 0 && strcasecmp(end, "ib") != 0)
            return false;
    }
    *out = v;
    return true;
}

static bool set_number(const struct setting *s, uint64_t *to, const char *value, struct err *e)
{
    uint64_t v;

    if (!parse_number(value, &v) || v < s->min || v > s->max)
        return err_set(e, ERR_CONFIG, 0, "setting '%s': '%s' is not a number from %llu to %llu",
                       s->name, value, (unsigned long long)s->min, (unsigned long long)s->max);
    *to = v;
    return true;
}

/* "0.5", "2", "-1e-3": no words and no hexadecimal; the point is a point, since the locale of a process that reads settings is "C". */
static bool set_real(const struct setting *s, double *to, const char *value, struct err *e)
{
    char *end;
    double v;

    errno = 0;
    v = strtod(value, &end);
    if (!value[0] || value[strspn(value, "+-.0123456789eE")] || *end || errno || v < s->least ||
        v > s->most)
        return err_set(e, ERR_CONFIG, 0, "setting '%s': '%s' is not a number from %g to %g",
                       s->name, value, s->least, s->most);
    *to = v;
    return true;
}

static bool is_choice(const char *choices, const char *value)
{
    size_t n = strlen(value);

    if (n == 0 || strchr(value, '|'))
        return false;
    for (const char *at = choices; at; at = strchr(at, '|')) {
        at += *at == '|';
        if (strncmp(at, value, n) == 0 && (at[n] == '|' || at[n] == '\0'))
            return true;
    }
    return false;
}

struct word {
    enum config_id setting;
    const char *theirs, *ours;
    bool is_near; /* and not the same */
};

static const struct word words[] = {
#define SAME(setting_, theirs_, ours_)                                                             \
    { .setting = CONFIG_##setting_, .theirs = theirs_, .ours = ours_ },
#define NEAR(setting_, theirs_, ours_)                                                             \
    { .setting = CONFIG_##setting_, .theirs = theirs_, .ours = ours_, .is_near = true },
#include "common/config_words.def"
#undef SAME
#undef NEAR
};

/* Our word for a value that is spelled as another server has it. */
static const char *own_word(const struct setting *s, const char *value)
{
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (&settings[words[i].setting] != s || strcasecmp(words[i].theirs, value) != 0)
            continue;
        if (words[i].is_near)
            log_warning("setting=%s value=%s is not known here, taking %s", s->name, value,
                        words[i].ours);
        return words[i].ours;
    }
    return value;
}

static bool set_value(struct config *c, const struct setting *s, const char *value, struct err *e)
{
    char *to = (char *)c + s->offset;

    switch (s->kind) {
    case KIND_NUM:
        return set_number(s, (uint64_t *)(void *)to, own_word(s, value), e);
    case KIND_REAL:
        return set_real(s, (double *)(void *)to, value, e);
    case KIND_TEXT:
        if (strlen(value) >= CONFIG_TEXT_BYTES)
            return err_set(e, ERR_CONFIG, 0, "setting '%s' is longer than %d bytes", s->name,
                           CONFIG_TEXT_BYTES - 1);
        strcpy(to, value);
        return true;
    case KIND_CHOICE:
        value = own_word(s, value);
        if (!is_choice(s->choices, value))
            return err_set(e, ERR_CONFIG, 0, "setting '%s': '%s' is none of %s", s->name, value,
                           s->choices);
        strcpy(to, value);
        return true;
    }
    return false;
}

void config_init(struct config *c)
{
    *c = (struct config){ 0 };
    for (int i = 0; i < N_CONFIG; i++) {
        bool ok = set_value(c, &settings[i], settings[i].builtin, NULL);
        assert(ok);
        strcpy(c->source[i], "built-in");
    }
}

bool config_set(struct config *c, const char *name, const char *value, const char *source,
                struct err *e)
{
    int i = config_find(name);

    if (i < 0)
        return err_set(e, ERR_CONFIG, 0, "there is no setting '%.64s'", name);
    if (!set_value(c, &settings[i], value, e))
        return false;
    snprintf(c->source[i], sizeof c->source[0], "%s", source);
    return true;
}

/* The value of NAME in the environment, or NULL; an empty value counts as not set. */
static const char *look_up(char *const *environment, const char *name)
{
    size_t n = strlen(name);

    for (; environment && *environment; environment++)
        if (strncmp(*environment, name, n) == 0 && (*environment)[n] == '=')
            return (*environment)[n + 1] ? *environment + n + 1 : NULL;
    return NULL;
}

/* The first of the names in "A|B" that is set; *name is then it. */
static const char *look_up_any(char *const *environment, const char *names, char name[64])
{
    while (*names) {
        size_t n = strcspn(names, "|");
        const char *value;
        snprintf(name, 64, "%.*s", (int)n, names);
        value = look_up(environment, name);
        if (value)
            return value;
        names += n + (names[n] == '|');
    }
    return NULL;
}

static void own_name(const struct setting *s, char out[64])
{
    int n = snprintf(out, 64, "LLMD_%s", s->name);

    for (int i = 0; i < n; i++)
        out[i] = (char)toupper((unsigned char)out[i]);
}

bool config_read_environment(struct config *c, char *const *environment, struct err *e)
{
    for (int i = 0; i < N_CONFIG; i++) {
        const struct setting *s = &settings[i];
        char name[64], source[96];
        const char *value;
        own_name(s, name);
        value = look_up(environment, name);
        if (!value)
            value = look_up_any(environment, s->alias, name);
        if (!value)
            continue;
        snprintf(source, sizeof source, "environment %s", name);
        if (!config_set(c, s->name, value, source, e))
            return err_wrap(e, "environment %s", name);
    }
    return true;
}

const char *config_name(enum config_id id)
{
    return settings[id].name;
}

const char *config_help(enum config_id id)
{
    return settings[id].help;
}

bool config_is_live(enum config_id id)
{
    return settings[id].when == LIVE;
}

void config_value(const struct config *c, enum config_id id, char *out, size_t n)
{
    const char *from = (const char *)c + settings[id].offset;

    if (settings[id].kind == KIND_NUM)
        snprintf(out, n, "%llu", (unsigned long long)*(const uint64_t *)(const void *)from);
    else if (settings[id].kind == KIND_REAL)
        snprintf(out, n, "%.15g", *(const double *)(const void *)from);
    else
        snprintf(out, n, "%s", from);
}

void config_shown_value(const struct config *c, enum config_id id, char *out, size_t n)
{
    config_value(c, id, out, n);
    if (id == CONFIG_api_key && out[0])
        snprintf(out, n, "(secret)");
}

void config_range(enum config_id id, char *out, size_t n)
{
    const struct setting *s = &settings[id];

    if (s->kind == KIND_NUM)
        snprintf(out, n, "%s (%llu..%llu)", s->builtin, (unsigned long long)s->min,
                 (unsigned long long)s->max);
    else if (s->kind == KIND_REAL)
        snprintf(out, n, "%s (%g..%g)", s->builtin, s->least, s->most);
    else if (s->kind == KIND_CHOICE)
        snprintf(out, n, "%s (%s)", s->builtin, s->choices);
    else
        snprintf(out, n, "%s", s->builtin[0] ? s->builtin : "not set");
}

enum log_level config_log_level(const struct config *c)
{
    static const char *const names[] = { "error", "warning", "info", "debug" };

    for (int i = 0; i < 4; i++)
        if (strcmp(c->log_level, names[i]) == 0)
            return (enum log_level)i;
    return LOG_INFO;
}

enum log_format config_log_format(const struct config *c)
{
    if (strcmp(c->log_format, "auto") == 0)
        return LOG_AUTO;
    return strcmp(c->log_format, "json") == 0 ? LOG_JSON : LOG_TEXT;
}

void config_served_name(const struct config *c, char *out, size_t n)
{
    const char *end = c->model + strlen(c->model), *start;

    if (c->served_model_name[0]) {
        snprintf(out, n, "%s", c->served_model_name);
        return;
    }
    while (end > c->model && end[-1] == '/')
        end--;
    start = end;
    while (start > c->model && start[-1] != '/')
        start--;
    snprintf(out, n, "%.*s", (int)(end - start), start);
}
