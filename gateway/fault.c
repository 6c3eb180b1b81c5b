/* fault.c - fill a fault. */
#include "gateway/fault.h"

#include <stdarg.h>
#include <stdio.h>

bool fault_set(struct fault *f, enum fault_kind kind, const char *param, const char *fmt, ...)
{
    va_list ap;

    f->kind = kind;
    f->retry_after_s = FAULT_RETRY_AFTER_S;
    snprintf(f->param, sizeof f->param, "%s", param ? param : "");
    va_start(ap, fmt);
    vsnprintf(f->text, sizeof f->text, fmt, ap);
    va_end(ap);
    return false;
}

const char *fault_name(enum fault_kind kind)
{
    static const char *const names[N_FAULTS] = {
        [FAULT_NONE] = "none",
        [FAULT_MEDIA_TYPE] = "media_type",
        [FAULT_SYNTAX] = "syntax",
        [FAULT_SCHEMA] = "schema",
        [FAULT_INVALID] = "invalid",
        [FAULT_UNSUPPORTED] = "unsupported",
        [FAULT_TEMPLATE] = "template",
        [FAULT_NO_MODEL] = "no_model",
        [FAULT_OVERLOADED] = "overloaded",
        [FAULT_UNAVAILABLE] = "unavailable",
        [FAULT_TIMEOUT] = "timeout",
        [FAULT_GENERATION] = "generation",
    };

    return names[kind];
}
