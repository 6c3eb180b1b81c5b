/* main.c - llmd: read the settings, run until asked to end.
 *
 * --layouts is what a running llmd asks the installed one, with its own arguments, before it becomes it: can
 * you take over what I share, and would you start?  Alone it needs no model. */
#include <stdio.h>
#include <stdlib.h>

#include "supervisor/layouts.h"
#include "supervisor/llmd.h"

int main(int argc, char **argv)
{
    static struct llmd llmd;
    struct err e = { 0 };

    options_parse(&llmd.options, argc, argv);
    if (llmd.options.wants_layouts && (puts(layouts_line()) < 0 || argc == 2))
        return 0;
    if (!options_apply(&llmd.options, &llmd.config, &e)) {
        fprintf(stderr, "llmd: %s\n", e.msg);
        return 2;
    }
    if (llmd.options.wants_layouts)
        return 0;
    log_init("llmd", config_log_level(&llmd.config), config_log_format(&llmd.config));
    return llmd_run(&llmd);
}
