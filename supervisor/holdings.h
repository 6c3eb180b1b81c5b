/* holdings.h - every descriptor that the next llmd needs, under its name (fdstore.h). */
#ifndef LLMD_SUPERVISOR_HOLDINGS_H
#define LLMD_SUPERVISOR_HOLDINGS_H

#include <stdint.h>

#include "common/err.h"

struct llmd;

typedef void holdings_visit_fn(void *arg, const char *name, int fd);

/* What service needs: segments, listening sockets that are ours, and the state last. */
void holdings_of_service(const struct llmd *l, holdings_visit_fn *visit, void *arg);
/* Of the children and client connections. */
void holdings_of_children(const struct llmd *l, holdings_visit_fn *visit, void *arg);
/* Listening sockets of socket activation; the service manager passes them itself. */
void holdings_of_activation(const struct llmd *l, holdings_visit_fn *visit, void *arg);

/* Give the service's to the store; the children's go there one by one, when they start. */
void holdings_store(struct llmd *l);
/* The state that is in force now (state.h), in the place of the one before.  False: *e, and that one stays. */
bool holdings_write_state(struct llmd *l, struct err *e);
/* The end of service: the next start is a first one. */
void holdings_forget(struct llmd *l);

/* The same with all children and connections. */
void holdings_store_all(struct llmd *l);
void holdings_forget_all(struct llmd *l);

/* "llmd-ctl-SLOT", "llmd-pid-SLOT". */
void holdings_control_name(uint32_t slot, char *out, unsigned long n);
void holdings_pidfd_name(uint32_t slot, char *out, unsigned long n);

#endif
