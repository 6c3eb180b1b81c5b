/* announce.h - what others are told of the service as a whole, whenever it has changed. */
#ifndef LLMD_SUPERVISOR_ANNOUNCE_H
#define LLMD_SUPERVISOR_ANNOUNCE_H

struct llmd;

/* SERVICE: which groups are up, and whether to refuse.  It is a state, not an event: when the gateway does not read
 * just now, it is made and sent again when it does (news_writable). */
void announce_to_gateway(struct llmd *l);

/* The service manager: READY=1 when a group and the gateway serve for the first time, and the line of status. */
void announce_to_manager(struct llmd *l);

#endif
