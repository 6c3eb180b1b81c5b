/* main.c - llmd: read the settings, run until asked to end.
 *
 * --layouts is what a running llmd asks the installed one, with its own arguments, before it becomes it: can
 * you take over what I share, and would you start?  Alone it needs no model. */
#include <stdio.h>
#include <stdlib.h>

#include "supervisor/layouts.h"
#include "supervisor/llmd.h"

/* So that what is wrong with the settings is told in the form that they ask for. */
static void begin_log(struct llmd *llmd)
{
    static const enum config_id ids[] = { CONFIG_log_level, CONFIG_log_format };
    struct config *c = &llmd->config; /* options_apply() begins it anew, and complains */
    struct err e;

    config_init(c);
    config_read_environment(c, environ, &e);
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++)
        if (llmd->options.value[ids[i]])
            config_set(c, config_name(ids[i]), llmd->options.value[ids[i]], "command line", &e);
    log_init("llmd", config_log_level(c), config_log_format(c));
}

int main(int argc, char **argv)
{
    static struct llmd llmd;
    struct err e = { 0 };

    options_parse(&llmd.options, argc, argv);
    if (llmd.options.wants_layouts && (puts(layouts_line()) < 0 || argc == 2))
        return 0;
    begin_log(&llmd);
    if (!options_apply(&llmd.options, &llmd.config, &e)) {
        log_error("%s", e.msg);
        return 2;
    }
    if (llmd.options.wants_layouts)
        return 0;
    log_init("llmd", config_log_level(&llmd.config), config_log_format(&llmd.config));
    return llmd_run(&llmd);
}
