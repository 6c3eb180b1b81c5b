/* foreign.c - obey command lines and variables of other servers. */
#include "supervisor/foreign.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "common/log.h"
#include "common/mem.h"

/* An option that is a setting of ours is found by its name. */
#define OWN(server_, name_, remark_)                                                               \
    { .server = FOREIGN_##server_,                                                                 \
      .name = name_,                                                                               \
      .has_value = true,                                                                           \
      .setting = -1,                                                                               \
      .variable = "",                                                                              \
      .remark = remark_ },
#define VALUE(server_, name_, variable_, setting_, remark_)                                        \
    { .server = FOREIGN_##server_,                                                                 \
      .name = name_,                                                                               \
      .has_value = true,                                                                           \
      .setting = CONFIG_##setting_,                                                                \
      .variable = variable_,                                                                       \
      .remark = remark_ },
#define SWITCH(server_, name_, variable_, setting_, value_)                                        \
    { .server = FOREIGN_##server_,                                                                 \
      .name = name_,                                                                               \
      .setting = CONFIG_##setting_,                                                                \
      .value = value_,                                                                             \
      .variable = variable_,                                                                       \
      .remark = "" },
#define WITH_VALUE(server_, name_, why_) OWN(server_, name_, why_)
#define NO_VALUE(server_, name_, why_)                                                             \
    { .server = FOREIGN_##server_, .name = name_, .setting = -1, .variable = "", .remark = why_ },
#define SHORT(letters_, name_)

static const struct foreign_option rows[] = {
#include "supervisor/foreign.def"
};

#undef OWN
#undef VALUE
#undef SWITCH
#undef WITH_VALUE
#undef NO_VALUE
#undef SHORT
#define OWN(server_, name_, remark_)
#define VALUE(server_, name_, variable_, setting_, remark_)
#define SWITCH(server_, name_, variable_, setting_, value_)
#define WITH_VALUE(server_, name_, why_)
#define NO_VALUE(server_, name_, why_)
#define SHORT(letters_, name_) { letters_, name_ },

static const char *const shorts[][2] = {
#include "supervisor/foreign.def"
};

#define COUNT(a) (sizeof(a) / sizeof *(a))

const struct foreign_option *foreign_row(size_t i)
{
    return i < COUNT(rows) ? &rows[i] : NULL;
}

const struct foreign_option *foreign_at(size_t i)
{
    for (size_t row = 0; row < COUNT(rows); row++)
        if (config_find(rows[row].name) < 0 && i-- == 0)
            return &rows[row];
    return NULL;
}

const char *foreign_long_name(const char *letters, size_t n)
{
    for (size_t i = 0; i < COUNT(shorts); i++)
        if (strlen(shorts[i][0]) == n && memcmp(shorts[i][0], letters, n) == 0)
            return shorts[i][1];
    return NULL;
}

const struct foreign_option *foreign_find(const char *name)
{
    const struct foreign_option *o;

    for (size_t i = 0; (o = foreign_at(i)); i++)
        if (strcmp(o->name, name) == 0)
            return o;
    return NULL;
}

static bool set(struct config *c, int setting, const char *value, const char *source, struct err *e)
{
    return config_set(c, config_name((enum config_id)setting), value, source, e) ||
           err_wrap(e, "%s", source);
}

/* ---- the environment ---- */

static const char *look_up(char *const *environment, const char *name)
{
    size_t n = strlen(name);

    for (; environment && *environment; environment++)
        if (strncmp(*environment, name, n) == 0 && (*environment)[n] == '=')
            return (*environment)[n + 1] ? *environment + n + 1 : NULL;
    return NULL;
}

static bool is_no(const char *value)
{
    static const char *const no[] = { "false", "0", "no", "off", "n", "f" };

    for (size_t i = 0; i < COUNT(no); i++)
        if (strcasecmp(value, no[i]) == 0)
            return true;
    return false;
}

bool foreign_read_environment(struct config *c, char *const *environment, struct err *e)
{
    const struct foreign_option *o;

    for (size_t i = 0; (o = foreign_at(i)); i++) {
        const char *value = o->variable[0] ? look_up(environment, o->variable) : NULL;
        char source[64];
        if (!value || (!o->has_value && is_no(value)))
            continue;
        snprintf(source, sizeof source, "environment %s", o->variable);
        if (!set(c, o->setting, o->has_value ? value : o->value, source, e))
            return false;
    }
    return true;
}

/* ---- PARAMS ---- */

static const char params_source[] = "environment PARAMS";

struct words {
    char *next;
};

static char *take_word(struct words *w)
{
    char *word = w->next + strspn(w->next, " \t\r\n");
    size_t n = strcspn(word, " \t\r\n");

    if (n == 0)
        return NULL;
    w->next = word + n + (word[n] != '\0');
    word[n] = '\0';
    return word;
}

/* "--name", "-p" or, as the sample's own recipe has it, "-name": the long name; its value behind '='. */
static const char *option_name(char *word, char **value)
{
    bool has_two = strncmp(word, "--", 2) == 0;
    char *name = word + 1 + has_two;
    const char *name_of_short;

    *value = strchr(name, '=');
    if (*value)
        *(*value)++ = '\0';
    name_of_short = has_two ? NULL : foreign_long_name(name, strlen(name));
    return name_of_short ? name_of_short : name;
}

/* As vLLM's, --api-key has one value or several: the words up to the next option. */
static bool take_keys(struct config *c, struct words *w, const char *first, struct err *e)
{
    char keys[CONFIG_TEXT_BYTES];
    const char *key = first;
    size_t n = 0;

    for (; key; key = w->next[strspn(w->next, " \t\r\n")] == '-' ? NULL : take_word(w)) {
        n += (size_t)snprintf(keys + n, sizeof keys - n, "%s%s", n > 0 ? " " : "", key);
        if (n >= sizeof keys)
            return err_set(e, ERR_CONFIG, 0, "%s: the keys of api-key are too long", params_source);
    }
    return set(c, CONFIG_api_key, keys, params_source, e);
}

static bool take_option(struct config *c, struct words *w, char *word, struct err *e)
{
    char *value;
    const char *name = option_name(word, &value);
    const struct foreign_option *o = foreign_find(name);
    int setting = o ? o->setting : config_find(name);
    bool has_value = o ? o->has_value : setting >= 0;

    if (has_value && !value)
        value = take_word(w);
    if (setting < 0) {
        log_warning("PARAMS: option=%s %s%s, ignoring it", name,
                    o ? "has no effect here: " : "is not known", o ? o->remark : "");
        return true;
    }
    if (has_value && !value)
        return err_set(e, ERR_CONFIG, 0, "%s: option '%s' has no value", params_source, name);
    if (setting == CONFIG_api_key)
        return take_keys(c, w, value, e);
    return set(c, setting, has_value ? value : o->value, params_source, e);
}

bool foreign_read_params(struct config *c, const char *params, struct err *e)
{
    char *copy = mem_strdup(params);
    struct words w = { .next = copy };
    bool ok = true;
    char *word;

    while (ok && (word = take_word(&w))) {
        if (word[0] == '-' && word[1])
            ok = take_option(c, &w, word, e);
        else
            log_warning("PARAMS: \"%s\" belongs to no option, ignoring it", word);
    }
    free(copy);
    return ok;
}

/* ---- the model ---- */

void foreign_find_model(char model[CONFIG_TEXT_BYTES], const char *root)
{
    char below[2 * CONFIG_TEXT_BYTES];

    if (model[0] && access(model, F_OK) == 0)
        return;
    snprintf(below, sizeof below, "%s%s%s", root, model[0] ? "/" : "", model);
    if (strlen(below) < CONFIG_TEXT_BYTES && access(below, F_OK) == 0)
        strcpy(model, below);
}

bool foreign_is_hub_id(const char *model)
{
    const char *slash = strchr(model, '/');

    return slash && slash > model && slash[1] && !strchr(slash + 1, '/') && model[0] != '.' &&
           access(model, F_OK) != 0;
}
