/* news.h - what happened to processes and teams, and what follows from it for the service.
 *
 * The machines (process.h, team.h) know their own process or team; the runner says what has become of them.  Here it is
 * decided who is to be started, told or ended because of it: groups follow the one that has the weights, the gateway is told
 * which groups are up, a drain and an upgrade take their next step. */
#ifndef LLMD_SUPERVISOR_NEWS_H
#define LLMD_SUPERVISOR_NEWS_H

#include "supervisor/team.h"

struct llmd;

/* It has another state. */
void news_team_changed(struct llmd *l, struct team *t);
/* A rank has its shard, complete. */
void news_weights_ready(struct llmd *l, const struct process *p);
/* A group answers the gateway p of that epoch. */
void news_serving(struct llmd *l, const struct process *p, uint32_t epoch);
/* Its program runs, and BOOT is waiting there. */
void news_spawned(struct llmd *l, struct process *p);
/* Its control socket has room again. */
void news_writable(struct llmd *l, struct process *p);
/* It has ended, and all it has said is heard; its machine does not know yet. */
void news_ended(struct llmd *l, const struct process *p, const siginfo_t *info);

#endif
