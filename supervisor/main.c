/* main.c - llmd: read the settings, run until asked to end. */
#include <stdio.h>
#include <stdlib.h>

#include "supervisor/llmd.h"

int main(int argc, char **argv)
{
    static struct llmd llmd;
    struct err e = { 0 };

    options_parse(&llmd.options, argc, argv);
    if (!options_apply(&llmd.options, &llmd.config, &e)) {
        fprintf(stderr, "llmd: %s\n", e.msg);
        return 2;
    }
    log_init("llmd", config_log_level(&llmd.config), config_log_format(&llmd.config));
    return llmd_run(&llmd);
}
