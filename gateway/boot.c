/* boot.c - take in BOOT and RELOAD. */
#include "gateway/boot.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fault_point.h"
#include "common/log.h"

enum {
    CONNECTIONS_MS = 2000
}; /* llmd sends them at once; if not, those without are served first */

static bool apply_settings(struct service *s, const Llmd__Boot *m, struct err *e)
{
    config_init(&s->config);
    for (size_t i = 0; i < m->n_settings; i++)
        if (!config_set(&s->config, m->settings[i]->name, m->settings[i]->value, "llmd", e))
            return false;
    log_init("llm-gateway", config_log_level(&s->config), config_log_format(&s->config));
    return true;
}

static bool attach_board(struct service *s, struct control_msg *msg, const Llmd__Boot *m,
                         struct err *e)
{
    int fd = control_take_fd(msg, LLMD__FD_KIND__FD_BOARD, 0);
    struct board_slot *slot;

    if (fd < 0)
        return err_set(e, ERR_PROTO, 0, "BOOT brings no board");
    if (!board_attach(&s->board, fd, e))
        return false;
    if (m->slot >= s->board.hdr->n_slots || m->n_groups > UPSTREAM_GROUPS_MAX || m->n_groups == 0 ||
        m->n_groups > s->board.hdr->n_groups)
        return err_set(e, ERR_PROTO, 0, "BOOT names slot %u and %u groups, the board has %u and %u",
                       m->slot, m->n_groups, s->board.hdr->n_slots, s->board.hdr->n_groups);
    slot = board_slot(&s->board, m->slot);
    s->slot = slot;
    s->stats = &slot->stats;
    stats_zero_gauges(s->stats); /* a predecessor's */
    atomic_store(&slot->heartbeat_ns, clock_mono_ns());
    return true;
}

static bool attach_connections(struct service *s, struct control_msg *msg, struct err *e)
{
    int fd = control_take_fd(msg, LLMD__FD_KIND__FD_CONNECTIONS, 0);

    if (fd < 0)
        return true;
    if (!connections_attach(&s->connections, fd, e))
        return false;
    s->has_connections = true;
    return true;
}

static bool take_listeners(struct boot *b, struct control_msg *msg, struct err *e)
{
    int fd;

    while (b->n_listen < BOOT_LISTEN_MAX &&
           (fd = control_take_fd(msg, LLMD__FD_KIND__FD_LISTEN, (uint32_t)b->n_listen)) >= 0)
        b->listen_fds[b->n_listen++] = fd;
    return b->n_listen > 0 || err_set(e, ERR_PROTO, 0, "BOOT brings no listening socket");
}

/* A file that its operator is just writing must not keep a dead gateway's successor from service. */
static bool load_keys(struct service *s, struct err *e)
{
    if (service_load_keys(s, e))
        return true;
    if (!key_table_has_file_keys(&s->admission.keys))
        return false;
    log_error("%s, going on with the keys of the gateway before", e->msg);
    return true;
}

static bool take_boot(struct control_msg *msg, struct service *s, struct boot *b, struct err *e)
{
    const Llmd__Boot *m = msg->body;

    s->control = CONTROL_FD;
    b->epoch = m->epoch;
    b->n_connections = m->n_connections;
    if (!apply_settings(s, m, e) || !attach_board(s, msg, m, e) || !attach_connections(s, msg, e) ||
        !take_listeners(b, msg, e))
        return false;
    if (!fault_points_set(s->config.fault_points, m->epoch, e))
        return false;
    log_set_tap(board_log_line, s->slot);
    s->gateway_epoch = m->epoch;
    if (m->epoch > 1) /* there was service, and the groups say HELLO in a moment */
        atomic_store(&s->unserved_since_ns, clock_mono_ns());
    s->n_groups = m->n_groups;
    snprintf(s->instance, sizeof s->instance, "%s", m->instance);
    for (uint32_t g = 0; g < s->n_groups; g++)
        atomic_store(&s->group_up[g], 1); /* until llmd says otherwise */
    admission_init(&s->admission, s->config.max_concurrent_requests,
                   s->has_connections ? connections_keys(&s->connections) : NULL, s->stats);
    service_apply_settings(s);
    return load_keys(s, e);
}

/* ---- connections of a dead gateway ---- */

static bool wait_readable(int control, uint64_t until_ns)
{
    uint64_t now_ns = clock_mono_ns();
    struct pollfd p = { .fd = control, .events = POLLIN };

    return now_ns < until_ns &&
           poll(&p, 1, (int)((until_ns - now_ns + NS_PER_MS - 1) / NS_PER_MS)) > 0;
}

/* Messages of other kinds are kept for later.  False: no more will come. */
static bool take_connections(int control, struct service *s, struct boot *b, uint32_t *n_left)
{
    struct control_msg msg;
    struct err e;

    if (control_recv(control, &msg, &e) != CONTROL_OK)
        return false;
    if (msg.type != MSG_CONNECTIONS) {
        if (b->n_early == BOOT_EARLY_MAX)
            control_msg_fini(&b->early[--b->n_early]);
        b->early[b->n_early++] = msg;
        return true;
    }
    *n_left -= (uint32_t)msg.n_fds < *n_left ? (uint32_t)msg.n_fds : *n_left;
    takeover_receive(&b->takeover, s, &msg);
    control_msg_fini(&msg);
    return true;
}

static void receive_connections(int control, struct service *s, struct boot *b, uint32_t n)
{
    uint64_t until_ns = clock_mono_ns() + CONNECTIONS_MS * NS_PER_MS;
    uint32_t n_left = n;

    while (n_left > 0 && wait_readable(control, until_ns) &&
           take_connections(control, s, b, &n_left)) {
    }
    if (n_left > 0)
        log_warning("takeover missing=%u of %u connections did not come, going on without", n_left,
                    n);
}

bool boot_receive(int control, struct service *s, struct boot *b, struct err *e)
{
    struct control_msg msg;
    bool ok = false;

    *b = (struct boot){ 0 };
    switch (control_recv(control, &msg, e)) {
    case CONTROL_OK:
        if (msg.type == MSG_BOOT)
            ok = take_boot(&msg, s, b, e);
        else
            err_set(e, ERR_PROTO, 0, "expected BOOT, got %s", msg_name(msg.type));
        control_msg_fini(&msg);
        break;
    case CONTROL_CLOSED:
        err_set(e, ERR_PROTO, 0, "llmd closed the control socket before BOOT");
        break;
    case CONTROL_EMPTY:
        err_set(e, ERR_PROTO, 0, "no BOOT on the control socket");
        break;
    case CONTROL_FAILED:
        break;
    }
    if (ok && b->n_connections > 0)
        receive_connections(control, s, b, b->n_connections);
    return ok;
}

void boot_fini(struct boot *b, struct service *s)
{
    for (size_t i = 0; i < b->n_listen; i++)
        close(b->listen_fds[i]);
    b->n_listen = 0;
    while (b->n_early > 0)
        control_msg_fini(&b->early[--b->n_early]);
    takeover_fini(&b->takeover);
    log_set_tap(NULL, NULL); /* it writes to the board */
    admission_fini(&s->admission);
    if (s->has_connections)
        connections_close(&s->connections);
    board_close(&s->board);
}

static bool is_live(const char *name)
{
    for (int id = 0; id < N_CONFIG; id++)
        if (config_is_live((enum config_id)id) &&
            strcmp(config_name((enum config_id)id), name) == 0)
            return true;
    return false;
}

void boot_reload(struct service *s, const Llmd__Reload *reload)
{
    for (size_t i = 0; i < reload->n_settings; i++) {
        const Llmd__Setting *setting = reload->settings[i];
        struct err e;
        if (!is_live(setting->name))
            continue;
        if (!config_set(&s->config, setting->name, setting->value, "llmd", &e))
            log_warning("reload: %s, keeping the old value", e.msg);
    }
    struct err e;

    log_set_level(config_log_level(&s->config));
    if (!fault_points_set(s->config.fault_points, s->gateway_epoch, &e))
        log_warning("reload: %s, none is armed", e.msg);
    service_apply_settings(s);
    if (!service_load_keys(s, &e))
        log_error("reload: %s, keeping the old keys", e.msg);
    log_info("reload settings=%zu", reload->n_settings);
}
