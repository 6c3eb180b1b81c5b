/* boot.h - what llmd hands to a gateway at its start, taken apart. */
#ifndef LLMD_GATEWAY_BOOT_H
#define LLMD_GATEWAY_BOOT_H

#include "gateway/service.h"
#include "gateway/takeover/takeover.h"
#include "proto/control.h"

enum { BOOT_LISTEN_MAX = 16, BOOT_EARLY_MAX = 8 };

struct boot {
    uint32_t epoch;
    uint32_t n_connections; /* announced */
    int listen_fds[BOOT_LISTEN_MAX];
    size_t n_listen;
    struct takeover takeover; /* connections of a dead gateway */
    struct control_msg
        early[BOOT_EARLY_MAX]; /* messages that came in between; to be taken afterwards */
    size_t n_early;
};

/* Wait for BOOT on the control socket and fill s and b from it: settings, board, connections, listening
 * sockets; then for the connections that it announces.  ERR_CONFIG, ERR_PROTO, ERR_SYS. */
bool boot_receive(int control, struct service *s, struct boot *b, struct err *e);
void boot_fini(struct boot *b, struct service *s);

/* Apply the settings of a RELOAD that may change while running; others are named in the log. */
void boot_reload(struct service *s, const Llmd__Reload *reload);

#endif
