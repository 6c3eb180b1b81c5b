/* err.h - operating errors: what went wrong, in words fit to show an operator.
 *
 * Three kinds of trouble are never confused.  A bug stops the process (assert).  An operating error
 * (file, device, peer, model directory, client's input) returns false and fills struct err.  An
 * expected outcome (queue full, end of sequence) is an enum value and no error.
 *
 * Always true: err.msg is a complete sentence part without a newline, and says the operation, the
 * object in quotes, what was wanted and what was found. */
#ifndef LLMD_COMMON_ERR_H
#define LLMD_COMMON_ERR_H

#include <stdbool.h>

enum err_code {
    ERR_NONE,
    ERR_SYS,    /* a system call failed; .sys is errno */
    ERR_CONFIG, /* the operator's settings */
    ERR_PROTO,  /* bytes of another process, or a segment, are not what this build expects */
    ERR_MODEL,  /* the model directory */
    ERR_INPUT,  /* a client's request */
    ERR_DEVICE, /* an accelerator; the worker that meets it exits */
    ERR_TIMEOUT,
};

struct err {
    enum err_code code;
    int sys; /* errno, CUresult or ncclResult_t, by code; else 0 */
    char msg[240];
};

/* Fill *e; for ERR_SYS append ": " and strerror(sys).  Always false: return err_set(e, ...).
 * e may be NULL, then the text is dropped. */
bool err_set(struct err *e, enum err_code code, int sys, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* Prepend "<fmt>: " on the way up.  Always false. */
bool err_wrap(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
