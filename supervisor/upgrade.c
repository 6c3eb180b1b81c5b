/* upgrade.c - see upgrade.h. */
#include "supervisor/upgrade.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/mem.h"
#include "supervisor/layouts.h"
#include "supervisor/llmd.h"
#include "supervisor/successor.h"

#define PROBE_TIMEOUT_NS (10 * NS_PER_S)

/* ---- one team after the other ---- */

static _Atomic uint64_t *mark(const struct llmd *l)
{
    return &l->segments.board.hdr->upgrade_ns;
}

bool upgrade_is_on(const struct llmd *l)
{
    return l->segments.board.hdr && atomic_load(mark(l)) != 0;
}

static bool is_older(const struct team *t, uint64_t than_ns)
{
    for (uint32_t i = 0; i < t->n_members; i++)
        if (atomic_load(&t->members[i].slot->started_ns) < than_ns)
            return true;
    return false;
}

/* True: this team is of the installed programs and serves, or cannot. */
static bool has_replaced(struct team *t, uint64_t since_ns)
{
    if (t->state == TEAM_GPU_DOWN) /* whenever it starts again, it does with these */
        return true;
    if (!is_older(t, since_ns))
        return team_is_up(t);
    if (team_is_up(t) || t->state == TEAM_BACKOFF)
        team_handle(t, TEAM_EV_RESTART);
    return false;
}

void upgrade_go_on(struct llmd *l)
{
    uint64_t since_ns;

    if (!upgrade_is_on(l) || l->phase != LLMD_SERVING)
        return;
    since_ns = atomic_load(mark(l));
    if (!has_replaced(&l->gateway, since_ns))
        return;
    for (uint32_t g = 0; g < l->n_groups; g++)
        if (!has_replaced(&l->groups[g], since_ns))
            return;
    if (atomic_exchange(mark(l), 0) != 0)
        log_info("event=upgraded ms=%llu",
                 (unsigned long long)((clock_mono_ns() - since_ns) / NS_PER_MS));
}

/* ---- llmd itself ---- */

void upgrade_answer(int fd, const char *error)
{
    Llmd__CtlReply reply = LLMD__CTL_REPLY__INIT;

    if (fd < 0)
        return;
    reply.ok = !error;
    reply.error = (char *)(uintptr_t)(error ? error : "");
    control_send(fd, MSG_CTL_REPLY, &reply, NULL, 0, NULL); /* who has left does not hear it */
    close(fd);
}

static void give_up(struct upgrade *u, const char *why)
{
    log_error("event=%s_failed error=\"%s\", going on as before",
              u->is_for_all ? "upgrade" : "restart", why);
    upgrade_answer(u->asker, why);
    u->asker = -1;
    upgrade_stop(u);
}

static bool may_take_over(const struct upgrade *u, struct err *e)
{
    size_t length = strlen(layouts_line());
    const char *said = u->layouts;
    bool is_same = strncmp(said, layouts_line(), length) == 0 && said[length] == '\n';

    if (strncmp(said, "layouts ", 8) != 0)
        return err_set(e, ERR_PROTO, 0, "'%s' does not know --layouts", u->llmd->self_path);
    if (!is_same && !u->is_for_all)
        return err_set(e, ERR_PROTO, 0,
                       "the installed llmd cannot take over these processes: 'llmctl upgrade' "
                       "replaces them too");
    return true;
}

/* What only llmd knows dies with it: all that the store should have goes there now. */
static bool settle(struct llmd *l, struct err *e)
{
    kept_store_all(&l->kept);
    return fdstore_sync(&l->store) ||
           err_set(e, ERR_TIMEOUT, 0, "the service manager does not read what it is to keep");
}

static void on_probed(void *arg, const struct buf *out, const struct err *why)
{
    struct upgrade *u = arg;
    struct llmd *l = u->llmd;
    struct err e = *why;

    u->layouts = mem_strdup(out->data ? out->data : "");
    if (e.code == ERR_NONE && may_take_over(u, &e) && settle(l, &e)) {
        log_info("event=%s program=\"%s\"", u->is_for_all ? "upgrade" : "restart", l->self_path);
        if (u->is_for_all)
            atomic_store(mark(l), clock_mono_ns());
        successor_exec(l,
                       &(struct successor){
                           .fill = successor_fill_all, .argv = l->options.argv, .asker = u->asker },
                       &e);
        atomic_store(mark(l), 0);
    }
    give_up(u, e.msg);
}

/* The arguments llmd was started with, and --layouts. */
static char **probe_arguments(const struct llmd *l)
{
    size_t n = 0;
    char **argv;

    while (l->options.argv[n])
        n++;
    argv = mem_zalloc(n + 2, sizeof *argv);
    memcpy(argv, l->options.argv, n * sizeof *argv);
    argv[n] = (char *)(uintptr_t) "--layouts";
    return argv;
}

bool upgrade_start(struct upgrade *u, struct llmd *l, bool is_for_all, int asker, struct err *e)
{
    char **argv = probe_arguments(l);
    const struct capture_call call = { .path = l->self_path,
                                       .argv = argv,
                                       .name = "the installed llmd",
                                       .timeout_ns = PROBE_TIMEOUT_NS,
                                       .done = on_probed,
                                       .arg = u };
    bool ok = false;

    if (u->llmd || upgrade_is_on(l)) {
        err_set(e, ERR_CONFIG, 0, "an upgrade or a restart is going on already");
        goto out;
    }
    if (l->phase == LLMD_INSPECTING) {
        err_set(e, ERR_CONFIG, 0, "llmd is still reading the model");
        goto out;
    }
    *u = (struct upgrade){ .llmd = l, .is_for_all = is_for_all };
    u->asker = fcntl(asker, F_DUPFD_CLOEXEC, 3);
    ok = capture_start(&u->probe, l->event, &call, e);
    if (!ok)
        upgrade_stop(u);
out:
    free(argv);
    return ok;
}

void upgrade_stop(struct upgrade *u)
{
    if (!u->llmd)
        return;
    capture_stop(&u->probe);
    if (u->asker >= 0)
        close(u->asker);
    free(u->layouts);
    *u = (struct upgrade){ .llmd = NULL };
}
