/* options.h - the command line of llmd: one option per setting, made from config.def. */
#ifndef LLMD_SUPERVISOR_OPTIONS_H
#define LLMD_SUPERVISOR_OPTIONS_H

#include "common/config.h"
#include "supervisor/foreign.h"

enum { OPTIONS_IGNORED_MAX = 64 };

struct options {
    char **argv;                 /* all of it; borrowed */
    bool wants_layouts;          /* --layouts */
    bool gateway_last;           /* --gateway-last */
    const char *config_file;     /* NULL = none; borrowed from argv */
    const char *value[N_CONFIG]; /* NULL = not given */
    /* Options of other servers that have no effect. */
    const struct foreign_option *ignored[OPTIONS_IGNORED_MAX];
    size_t n_ignored;
    bool takes_keys;                  /* what comes next may be a further API key */
    char api_keys[CONFIG_TEXT_BYTES]; /* of --api-key, with blanks between them */
};

/* Parse argv; --help, --version and wrong usage end the process. */
void options_parse(struct options *o, int argc, char **argv);

/* Fill *c from all sources in their order: built-in, file, environment (other servers' variables, ours,
 * then PARAMS), command line. */
bool options_apply(const struct options *o, struct config *c, struct err *e);

#endif
