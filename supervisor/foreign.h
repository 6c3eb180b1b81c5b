/* foreign.h - the options and variables by which deployments of other servers say what they want.
 *
 * Someone who changes the image and nothing else has command lines, PARAMS and variables of
 * text-generation-launcher or of vLLM.  What we have a setting for is obeyed, what we know and do not do is
 * named in a warning, and nothing of it keeps the server from starting but a value that is none. */
#ifndef LLMD_SUPERVISOR_FOREIGN_H
#define LLMD_SUPERVISOR_FOREIGN_H

#include "common/config.h"

enum foreign_server { FOREIGN_TGI = 1, FOREIGN_VLLM = 2, FOREIGN_BOTH = 3 };

struct foreign_option {
    enum foreign_server server; /* bits */
    const char *name;           /* without dashes in front */
    bool has_value;
    int setting;          /* enum config_id, or -1: without effect */
    const char *value;    /* of a switch's setting */
    const char *variable; /* of the environment, or "" */
    const char *remark;   /* why it has no effect; else what is worth knowing, or "" */
};

/* The i-th row of foreign.def, or NULL past the last: with the options that are settings of ours. */
const struct foreign_option *foreign_row(size_t i);
/* The i-th option, or NULL past the last.  Own settings are not among them. */
const struct foreign_option *foreign_at(size_t i);
/* By name; NULL: none. */
const struct foreign_option *foreign_find(const char *name);
/* The option that -letters stands for, as a long name; NULL: none. */
const char *foreign_long_name(const char *letters, size_t n);

/* Variables of the launcher.  ERR_CONFIG. */
bool foreign_read_environment(struct config *c, char *const *environment, struct err *e);
/* PARAMS: a command line of the launcher or of vLLM, split at white space.  ERR_CONFIG. */
bool foreign_read_params(struct config *c, const char *params, struct err *e);

/* The model as the containers find it: a path that exists, or a name below root
 * (/opt/ds/model/deployed_model), or with no name at all root itself.  Otherwise *model stays. */
void foreign_find_model(char model[CONFIG_TEXT_BYTES], const char *root);
/* "organisation/name", as a model is called on a hub, and nothing of that name is here. */
bool foreign_is_hub_id(const char *model);

#endif
