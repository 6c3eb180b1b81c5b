/* boot.c - take in BOOT and RELOAD. */
#include "gateway/boot.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"

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

/* Connections of a predecessor died with it: nobody handed their descriptors on. */
static void free_stale_records(struct service *s)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < s->connections.hdr->n_slots; i++) {
        if (connection_state(connections_record(&s->connections, i)) == CONNECTION_FREE)
            continue;
        connections_release(&s->connections, i);
        n++;
    }
    if (n > 0)
        log_warning("connections=%u of a predecessor were cut, ignoring their records", n);
}

static bool attach_connections(struct service *s, struct control_msg *msg, struct err *e)
{
    int fd = control_take_fd(msg, LLMD__FD_KIND__FD_CONNECTIONS, 0);

    if (fd < 0)
        return true;
    if (!connections_attach(&s->connections, fd, e))
        return false;
    s->has_connections = true;
    free_stale_records(s);
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

static bool take_boot(struct control_msg *msg, struct service *s, struct boot *b, struct err *e)
{
    const Llmd__Boot *m = msg->body;

    b->epoch = m->epoch;
    if (!apply_settings(s, m, e) || !attach_board(s, msg, m, e) || !attach_connections(s, msg, e) ||
        !take_listeners(b, msg, e))
        return false;
    s->gateway_epoch = m->epoch;
    s->n_groups = m->n_groups;
    snprintf(s->instance, sizeof s->instance, "%s", m->instance);
    for (uint32_t g = 0; g < s->n_groups; g++)
        atomic_store(&s->group_up[g], 1); /* until llmd says otherwise */
    admission_init(&s->admission, s->config.max_concurrent_requests, s->stats);
    service_apply_settings(s);
    return true;
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
    return ok;
}

void boot_fini(struct boot *b, struct service *s)
{
    for (size_t i = 0; i < b->n_listen; i++)
        close(b->listen_fds[i]);
    b->n_listen = 0;
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
    log_set_level(config_log_level(&s->config));
    service_apply_settings(s);
    log_info("reload settings=%zu", reload->n_settings);
}
