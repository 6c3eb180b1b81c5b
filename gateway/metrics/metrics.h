/* metrics.h - the board in Prometheus' text format. */
#ifndef LLMD_GATEWAY_METRICS_METRICS_H
#define LLMD_GATEWAY_METRICS_METRICS_H

#include "common/buf.h"
#include "proto/board.h"

struct key_table;
struct service;

/* A family: # HELP and # TYPE, once, before its samples. */
void metrics_family(struct buf *out, const char *prefix, const char *name, const char *suffix,
                    const char *type, const char *help);
/* Samples of a histogram with the given labels ("" or "a=\"b\"" without braces). */
void metrics_hist(struct buf *out, const char *prefix, const char *name, const char *labels,
                  const struct stat_hist *h, enum hist_id id);
/* A label's value with quotes, backslashes and newlines escaped. */
void metrics_label(struct buf *out, const char *name, const char *value);

/* Which slots write a number. */
enum stat_owner { OWNER_GATEWAY, OWNER_RANK0, OWNER_LLMD };
enum stat_owner metrics_stat_owner(enum stat_id s);
enum stat_owner metrics_hist_owner(enum hist_id h);

/* llmd_*: everything on the board. */
void metrics_own(struct buf *out, const struct board *b);
/* llmd_key_*: what each API key has used. */
void metrics_keys(struct buf *out, struct key_table *t);
/* llmd_*: what the gateway knows besides. */
void metrics_service(struct buf *out, const struct service *s);
/* process_*: this gateway's memory and descriptors. */
void metrics_process(struct buf *out, const struct service *s);
/* vllm:* and tgi_*: those of their names that our numbers fill truthfully. */
void metrics_vllm(struct buf *out, struct service *s);
void metrics_tgi(struct buf *out, struct service *s);

/* The numbers of this gateway, and of rank 0 of a group. */
const struct stats *metrics_of_gateway(const struct service *s);
const struct stats *metrics_of_group(const struct service *s, uint32_t group);

#endif
