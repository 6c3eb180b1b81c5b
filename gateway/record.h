/* record.h - keep the connections segment true: what a successor must know of each connection.
 *
 * A slot is claimed when a connection opens and released when it closes; all functions do nothing for
 * CONNECTIONS_NO_SLOT (no segment, or more connections than slots).  Only the owning thread. */
#ifndef LLMD_GATEWAY_RECORD_H
#define LLMD_GATEWAY_RECORD_H

#include "gateway/net/http_request.h"
#include "gateway/request.h"

void record_open(struct service *s, struct http_conn *conn, uint32_t thread);
void record_close(struct service *s, struct http_conn *conn);
uint32_t record_slot(const struct http_request *http);

void record_reading(struct service *s, uint32_t slot, enum dialect_id dialect);
void record_waiting(struct service *s, uint32_t slot, const struct http_request *http,
                    const struct request *rq, uint64_t first_sequence_id);
void record_group(struct service *s, uint32_t slot, uint32_t choice, uint32_t group);
/* After http_start() or http_respond(). */
void record_answering(struct service *s, uint32_t slot, const struct http_request *http);
/* A keep-alive comment goes out after n_events pieces.  False: there is no room to remember it, so it must
 * not be sent. */
bool record_keep_alive(struct service *s, uint32_t slot, uint32_t n_events);
void record_idle(struct service *s, uint32_t slot);

#endif
