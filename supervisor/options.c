/* options.c - argp over config.def, and the order of sources. */
#include "supervisor/options.h"

#include <argp.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "common/mem.h"
#include "common/runtime_dir.h"
#include "supervisor/foreign.h"

/* Where OCI mounts the model of a deployment. */
#define DEPLOYED_MODEL "/opt/ds/model/deployed_model"

enum {
    KEY_FIRST_SETTING = 0x100,
    KEY_CONFIG_FILE = 'c',
    KEY_LAYOUTS = 'L' << 8,
    KEY_GATEWAY_LAST,
    KEY_FIRST_FOREIGN = 'F' << 8,
    FOREIGN_MAX = 256
};

const char *argp_program_version = "llmd " LLMD_VERSION;

static void take_foreign(struct options *o, const struct foreign_option *f, const char *arg)
{
    if (f->setting >= 0)
        o->value[f->setting] = f->has_value ? arg : f->value;
    else if (o->n_ignored < OPTIONS_IGNORED_MAX)
        o->ignored[o->n_ignored++] = f;
}

static void take_letter(struct options *o, char letter, const char *arg)
{
    const char *name = foreign_long_name(&letter, 1);
    int setting = config_find(name);

    if (setting >= 0)
        o->value[setting] = arg;
    else
        take_foreign(o, foreign_find(name), arg);
}

/* As vLLM's, --api-key has one value or several. */
static bool add_key(struct options *o, const char *arg)
{
    size_t n = strlen(o->api_keys), room = sizeof o->api_keys - n;

    o->value[CONFIG_api_key] = o->api_keys;
    return (size_t)snprintf(o->api_keys + n, room, "%s%s", n > 0 ? " " : "", arg) < room;
}

static void take_keys(struct options *o, const char *arg, struct argp_state *state)
{
    if (!add_key(o, arg))
        argp_error(state, "the keys of --api-key are too long: give them a file, --api-keys-file");
}

static void take_setting(struct options *o, int setting, const char *arg, struct argp_state *state)
{
    if (setting != CONFIG_api_key) {
        o->value[setting] = arg;
        return;
    }
    o->api_keys[0] = '\0';
    take_keys(o, arg, state);
}

static error_t parse_one(int key, char *arg, struct argp_state *state)
{
    struct options *o = state->input;
    bool was_key = o->takes_keys;

    o->takes_keys = key == KEY_FIRST_SETTING + CONFIG_api_key || (was_key && key == ARGP_KEY_ARG);

    if (key == KEY_CONFIG_FILE)
        o->config_file = arg;
    else if (key == KEY_LAYOUTS)
        o->wants_layouts = true;
    else if (key == KEY_GATEWAY_LAST)
        o->gateway_last = true;
    else if (key >= KEY_FIRST_SETTING && key < KEY_FIRST_SETTING + N_CONFIG)
        take_setting(o, key - KEY_FIRST_SETTING, arg, state);
    else if (key >= KEY_FIRST_FOREIGN && key < KEY_FIRST_FOREIGN + FOREIGN_MAX)
        take_foreign(o, foreign_at((size_t)(key - KEY_FIRST_FOREIGN)), arg);
    else if (key > ' ' && key < 0x7f)
        take_letter(o, (char)key, arg);
    else if (key == ARGP_KEY_ARG && was_key && access(arg, F_OK) != 0) /* it is no model */
        take_keys(o, arg, state);
    else if (key == ARGP_KEY_ARG && !o->value[CONFIG_model])
        o->value[CONFIG_model] = arg;
    else if (key == ARGP_KEY_ARG)
        argp_error(state, "one model directory is enough, '%s' is left over", arg);
    else
        return ARGP_ERR_UNKNOWN;
    return 0;
}

/* "max_num_seqs" is --max-num-seqs. */
static char *option_name(const char *setting)
{
    char *name = mem_strdup(setting);

    for (char *c = name; *c; c++)
        if (*c == '_')
            *c = '-';
    return name;
}

static char *option_help(enum config_id id)
{
    char range[CONFIG_TEXT_BYTES + 64], text[CONFIG_TEXT_BYTES * 2];

    config_range(id, range, sizeof range);
    snprintf(text, sizeof text, "%s [%s]", config_help(id), range);
    return mem_strdup(text);
}

/* The table lives as long as the process: argp prints from it.  Other servers' options are not printed. */
static const struct argp_option *make_options(void)
{
    static const char letters[] = "pgqe"; /* the last without a value */
    static struct argp_option table[N_CONFIG + FOREIGN_MAX + 3 + sizeof letters];
    const struct foreign_option *f;
    size_t n = N_CONFIG + 3;

    if (table[0].name)
        return table;

    for (int i = 0; i < N_CONFIG; i++)
        table[i] = (struct argp_option){ .name = option_name(config_name((enum config_id)i)),
                                         .key = KEY_FIRST_SETTING + i,
                                         .arg = "VALUE",
                                         .doc = option_help((enum config_id)i) };
    table[N_CONFIG] = (struct argp_option){
        .name = "config", .key = KEY_CONFIG_FILE, .arg = "FILE", .doc = "YAML file of settings"
    };
    table[N_CONFIG + 1] = (struct argp_option){
        .name = "layouts",
        .key = KEY_LAYOUTS,
        .doc = "Print the versions of what processes share, check the settings, and end"
    };
    table[N_CONFIG + 2] = (struct argp_option){
        .name = "gateway-last",
        .key = KEY_GATEWAY_LAST,
        .doc = "Take connections when a group can serve them, not before (llmctl reload --model)"
    };
    for (const char *l = letters; *l; l++)
        table[n++] = (struct argp_option){ .key = *l,
                                           .arg = *l == 'e' ? NULL : "VALUE",
                                           .flags = OPTION_HIDDEN };
    for (size_t i = 0; i < FOREIGN_MAX && (f = foreign_at(i)); i++)
        table[n++] = (struct argp_option){ .name = f->name,
                                           .key = KEY_FIRST_FOREIGN + (int)i,
                                           .arg = f->has_value ? "VALUE" : NULL,
                                           .flags = OPTION_HIDDEN };
    return table;
}

void options_parse(struct options *o, int argc, char **argv)
{
    const struct argp argp = {
        .options = make_options(),
        .parser = parse_one,
        .args_doc = "[MODEL_DIR]",
        .doc = "llmd serves a language model and does not go down.\v"
               "Options of text-generation-launcher and vllm serve are taken too; those without "
               "effect are named in the log. "
               "Every setting may also stand in the file, or in the environment as LLMD_<NAME>. "
               "Later sources win: built-in, file, environment, command line. SIGHUP reads them "
               "again, "
               "SIGTERM finishes what runs and ends.",
    };

    *o = (struct options){ .argv = argv };
    argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, o);
}

/* A path of the operator's, wherever it is shown or read: "." would be no name to serve a model under.  Links
 * are kept, since their names are what people chose. */
static bool make_absolute(char path[CONFIG_TEXT_BYTES], struct err *e)
{
    char out[CONFIG_TEXT_BYTES], here[CONFIG_TEXT_BYTES];
    size_t n;

    while (strncmp(path, "./", 2) == 0)
        memmove(path, path + 2, strlen(path + 2) + 1);
    if (path[0] != '/') {
        if (!getcwd(here, sizeof here))
            return err_set(e, ERR_SYS, errno, "read the name of the working directory");
        if (strcmp(path, ".") == 0)
            path[0] = '\0';
        if ((size_t)snprintf(out, sizeof out, "%s/%s", here, path) >= sizeof out)
            return err_set(e, ERR_CONFIG, 0, "the path '%.64s...' is too long", out);
        strcpy(path, out);
    }
    for (n = strlen(path); n > 1 && path[n - 1] == '/'; n--)
        path[n - 1] = '\0';
    return true;
}

/* Children are told the folder that was chosen, so that the last one can tidy it up. */
static bool settle_runtime_dir(struct config *c, struct err *e)
{
    char dir[CONFIG_TEXT_BYTES];

    return runtime_dir_resolve(c, dir, sizeof dir, e) &&
           config_set(c, "runtime_dir", dir, c->source[CONFIG_runtime_dir], e);
}

/* The sample's containers fetch a model by these. */
static void warn_of_downloads(void)
{
    static const char *const variables[] = { "BUCKET", "TOKEN_FILE" };

    for (size_t i = 0; i < sizeof variables / sizeof *variables; i++)
        if (getenv(variables[i]))
            log_warning("variable=%s nothing is downloaded here, the model must be a local "
                        "directory, ignoring it",
                        variables[i]);
}

bool options_apply(const struct options *o, struct config *c, struct err *e)
{
    const char *params = getenv("PARAMS");

    config_init(c);
    if (o->config_file && !config_read_file(c, o->config_file, e))
        return false;
    if (!foreign_read_environment(c, environ, e) || !config_read_environment(c, environ, e) ||
        !foreign_read_params(c, params ? params : "", e))
        return false;
    for (size_t i = 0; i < o->n_ignored; i++)
        log_warning("option=%s has no effect here: %s, ignoring it", o->ignored[i]->name,
                    o->ignored[i]->remark);
    for (int i = 0; i < N_CONFIG; i++)
        if (o->value[i] &&
            !config_set(c, config_name((enum config_id)i), o->value[i], "command line", e))
            return false;
    warn_of_downloads();
    foreign_find_model(c->model, DEPLOYED_MODEL);
    if (!c->model[0])
        return err_set(e, ERR_CONFIG, 0,
                       "no model: give its directory as argument, as --model or in MODEL");
    if (foreign_is_hub_id(c->model))
        return err_set(
            e, ERR_CONFIG, 0,
            "model '%.200s' is no folder here, and nothing is downloaded: fetch the model "
            "and give its folder, or its name below " DEPLOYED_MODEL,
            c->model);
    return make_absolute(c->model, e) &&
           (!c->api_keys_file[0] || make_absolute(c->api_keys_file, e)) && settle_runtime_dir(c, e);
}
