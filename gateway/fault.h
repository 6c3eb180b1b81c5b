/* fault.h - why a request is not answered as asked, in no dialect's words yet.
 *
 * Whoever finds the trouble names its kind, the parameter, and a sentence; the dialect turns that into
 * its own status, error type and JSON shape.  Kinds are what dialects must tell apart, no more. */
#ifndef LLMD_GATEWAY_FAULT_H
#define LLMD_GATEWAY_FAULT_H

#include <stdbool.h>
#include <stdint.h>

enum fault_kind {
    FAULT_NONE,
    FAULT_MEDIA_TYPE,  /* Content-Type is not one the dialect reads */
    FAULT_SYNTAX,      /* the body is not JSON */
    FAULT_SCHEMA,      /* JSON, but a field is missing or of the wrong type */
    FAULT_INVALID,     /* a value that is not allowed */
    FAULT_UNSUPPORTED, /* known to the dialect, not done by this server */
    FAULT_TEMPLATE,    /* the chat template refuses the messages */
    FAULT_NO_MODEL,    /* there is no model of that name */
    FAULT_OVERLOADED,  /* no permit, or every group full for too long */
    FAULT_UNAVAILABLE, /* draining, or no group in service */
    FAULT_TIMEOUT,     /* request_timeout_s is over */
    FAULT_GENERATION,  /* the worker gave up on it */
    N_FAULTS
};

enum { FAULT_PARAM_BYTES = 96, FAULT_TEXT_BYTES = 640, FAULT_RETRY_AFTER_S = 1 };

struct fault {
    enum fault_kind kind;
    char param[FAULT_PARAM_BYTES]; /* the parameter in question, or "" */
    char text[FAULT_TEXT_BYTES];
    uint32_t retry_after_s; /* OVERLOADED, UNAVAILABLE: when it is worth asking again */
};

/* Always false: return fault_set(f, ...).  param may be NULL. */
bool fault_set(struct fault *f, enum fault_kind kind, const char *param, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* "overloaded", for logs. */
const char *fault_name(enum fault_kind kind);

#endif
