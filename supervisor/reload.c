/* reload.c - see reload.h. */
#include "supervisor/reload.h"

#include <stdlib.h>
#include <string.h>

#include "common/api_keys.h"
#include "common/fault_point.h"
#include "common/log.h"
#include "common/mem.h"
#include "supervisor/boot.h"
#include "supervisor/holdings.h"
#include "supervisor/llmd.h"
#include "supervisor/runner.h"

/* Take over the LIVE settings of `fresh` that differ, noting them in *changed; name the others. */
static void take_live(struct llmd *l, const struct config *fresh, struct boot_settings *changed)
{
    char old_value[CONFIG_TEXT_BYTES], new_value[CONFIG_TEXT_BYTES];

    for (int i = 0; i < N_CONFIG; i++) {
        enum config_id id = (enum config_id)i;
        config_value(&l->config, id, old_value, sizeof old_value);
        config_value(fresh, id, new_value, sizeof new_value);
        if (strcmp(old_value, new_value) == 0)
            continue;
        if (!config_is_live(id)) {
            log_warning("setting=%s from=\"%s\" to=\"%s\" takes effect when llmd is restarted, "
                        "ignoring it now",
                        config_name(id), old_value, new_value);
            continue;
        }
        config_shown_value(&l->config, id, old_value, sizeof old_value);
        config_set(&l->config, config_name(id), new_value, fresh->source[i], NULL);
        config_shown_value(&l->config, id, new_value, sizeof new_value);
        log_info("setting=%s from=\"%s\" to=\"%s\" source=\"%s\"", config_name(id), old_value,
                 new_value, fresh->source[i]);
        boot_add_setting(changed, &l->config, id);
    }
}

/* The gateway is told even when no setting has changed: it reads its file of keys again. */
static void send_reload(struct llmd *l, struct boot_settings *changed)
{
    Llmd__Reload reload = LLMD__RELOAD__INIT;

    if (changed->n == 0 && !l->config.api_keys_file[0])
        return;
    reload.n_settings = changed->n;
    reload.settings = changed->pointer;
    runner_send(&l->gateway, MSG_RELOAD, &reload);
    for (uint32_t g = 0; changed->n > 0 && g < l->n_groups; g++)
        runner_send(&l->groups[g], MSG_RELOAD, &reload);
}

void reload_take(struct llmd *l, const struct config *fresh)
{
    struct boot_settings *changed = mem_zalloc(1, sizeof *changed);
    struct err e = { 0 };

    take_live(l, fresh, changed);
    log_set_level(config_log_level(&l->config));
    if (!fault_points_set(l->config.fault_points, l->epoch, &e))
        log_warning("%s, arming none", e.msg);
    send_reload(l, changed);
    if (changed->n > 0 && l->state_fd >= 0 && !holdings_write_state(l, &e))
        log_warning("%s, the old one stays", e.msg);
    free(changed);
}

/* The gateway would keep the old keys, and only its log would say why. */
static bool keys_can_be_read(const struct config *c, struct err *e)
{
    struct api_keys keys;

    if (!c->api_keys_file[0])
        return true;
    if (!api_keys_read(&keys, c->api_keys_file, e))
        return false;
    api_keys_fini(&keys);
    return true;
}

bool reload_settings(struct llmd *l, struct err *e)
{
    struct config *fresh = mem_zalloc(1, sizeof *fresh);
    bool ok;

    if (l->was_ready)
        notify_reloading(&l->notify);
    ok = options_apply(&l->options, fresh, e) && keys_can_be_read(fresh, e);
    if (ok)
        reload_take(l, fresh);
    else
        log_error("event=reload_failed error=\"%s\", keeping the old settings", e->msg);
    if (l->was_ready)
        notify_ready(&l->notify);
    free(fresh);
    return ok;
}
