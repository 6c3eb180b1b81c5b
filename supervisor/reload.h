/* reload.h - settings that change while service goes on.
 *
 * The LIVE ones (common/config.def) take effect at once, here and in the children, which get RELOAD; of the others only the
 * log says that they differ.  What is in force then is in the state for the next llmd (holdings.h). */
#ifndef LLMD_SUPERVISOR_RELOAD_H
#define LLMD_SUPERVISOR_RELOAD_H

#include "common/config.h"

struct llmd;

/* Take over the LIVE settings of `fresh`, name the others, and tell all children. */
void reload_take(struct llmd *l, const struct config *fresh);

/* Read all sources again, and take what they say.  False: *e, which is in the log too, and all stays as it is. */
bool reload_settings(struct llmd *l, struct err *e);

#endif
