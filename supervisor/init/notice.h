/* notice.h - one datagram of the sd_notify(3) protocol, taken apart. */
#ifndef LLMD_SUPERVISOR_INIT_NOTICE_H
#define LLMD_SUPERVISOR_INIT_NOTICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { NOTICE_BYTES_MAX = 4096, FD_NAME_BYTES = 64 };

struct notice {
    bool is_ready, is_stopping;
    bool stores_fds, removes_fds; /* FDSTORE=1, FDSTOREREMOVE=1 */
    bool polls_fds;               /* drop them when they hang up; false: FDPOLL=0 */
    bool has_name;                /* FDNAME= was said and is valid */
    char fd_name[FD_NAME_BYTES];  /* "stored" when it was not */
    bool has_status;              /* STATUS= */
    char status[512];             /* cut to fit */
    uint64_t extend_us;           /* EXTEND_TIMEOUT_USEC=; 0 = not said */
};

/* Fill *n.  What is not known or makes no sense is passed over, line by line, as systemd does it.
 * False: bytes that no honest sender makes (a NUL among them); *n then says nothing. */
bool notice_parse(struct notice *n, const char *bytes, size_t n_bytes);

#endif
