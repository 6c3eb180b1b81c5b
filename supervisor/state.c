/* state.c - write and read the memfd "llmd-state". */
#include "supervisor/state.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/arena.h"
#include "common/log.h"
#include "common/mem.h"
#include "supervisor/layouts.h"

enum { STATE_BYTES_MAX = 1 << 20 };
#define STATE_SEALS (F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

static void add_settings(Llmd__Keep *k, const struct config *c, struct arena *a)
{
    k->settings = arena_alloc(a, N_CONFIG * sizeof *k->settings);
    for (int i = 0; i < N_CONFIG; i++) {
        Llmd__Keep__KeptSetting *one = arena_alloc(a, sizeof *one);
        char value[CONFIG_TEXT_BYTES];
        llmd__keep__kept_setting__init(one);
        config_value(c, (enum config_id)i, value, sizeof value);
        one->name = arena_strdup(a, config_name((enum config_id)i));
        one->value = arena_strdup(a, value);
        one->source = arena_strdup(a, c->source[i]);
        k->settings[k->n_settings++] = one;
    }
}

static bool write_all(int fd, const struct buf *b)
{
    return write(fd, b->data, b->n) == (ssize_t)b->n && fcntl(fd, F_ADD_SEALS, STATE_SEALS) == 0;
}

int state_make(const struct state *s, struct err *e)
{
    int fd = memfd_create("llmd-state", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    Llmd__Keep keep = LLMD__KEEP__INIT;
    struct arena a = { 0 };
    struct buf b = { 0 };

    keep.layouts = (char *)(uintptr_t)layouts_line();
    keep.instance = s->instance;
    keep.serial = s->serial;
    keep.plan = (Llmd__ModelPlan *)(uintptr_t)s->plan;
    add_settings(&keep, s->config, &a);
    frame_pack(&b, MSG_KEEP, &keep);
    if (fd < 0 || !write_all(fd, &b)) {
        err_set(e, ERR_SYS, errno, "write the state for the next llmd");
        if (fd >= 0)
            close(fd);
        fd = -1;
    }
    buf_fini(&b);
    arena_fini(&a);
    return fd;
}

static bool read_all(int fd, struct buf *b, struct err *e)
{
    int seals = fcntl(fd, F_GET_SEALS);
    struct stat st;

    if (seals < 0 || (seals & STATE_SEALS) != STATE_SEALS)
        return err_set(e, ERR_PROTO, 0, "the state is not sealed: it is not whole");
    if (fstat(fd, &st) < 0 || st.st_size <= 0 || st.st_size > STATE_BYTES_MAX)
        return err_set(e, ERR_PROTO, 0, "the state has no size that could be right");
    buf_reserve(b, (size_t)st.st_size);
    if (pread(fd, b->data, (size_t)st.st_size, 0) != st.st_size)
        return err_set(e, ERR_SYS, errno, "read the state");
    b->n = (size_t)st.st_size;
    return true;
}

bool state_is_ours(const Llmd__Keep *k, struct err *e)
{
    return strcmp(k->layouts, layouts_line()) == 0 ||
           err_set(e, ERR_PROTO, 0, "it has '%s', this build '%s'", k->layouts, layouts_line());
}

static bool is_usable(const Llmd__Keep *k, struct err *e)
{
    if (!k->plan || k->n_settings == 0)
        return err_set(e, ERR_PROTO, 0, "the state has no plan or no settings");
    return true;
}

Llmd__Keep *state_read(int fd, struct err *e)
{
    Llmd__Keep *k = NULL;
    struct buf b = { 0 };
    struct frame f;

    if (read_all(fd, &b, e) && frame_parse(&f, (const uint8_t *)b.data, b.n, e)) {
        if (f.type != MSG_KEEP)
            err_set(e, ERR_PROTO, 0, "the state is a %s", msg_name(f.type));
        else
            k = (Llmd__Keep *)frame_unpack(&f, e);
    }
    buf_fini(&b);
    if (k && !is_usable(k, e)) {
        frame_free_body(k);
        k = NULL;
    }
    return k;
}

bool state_settings(const Llmd__Keep *k, struct config *c, struct err *e)
{
    config_init(c);
    for (size_t i = 0; i < k->n_settings; i++) {
        const Llmd__Keep__KeptSetting *one = k->settings[i];
        if (config_find(one->name) < 0)
            log_warning("setting=%s of a former llmd is not known here, ignoring it", one->name);
        else if (!config_set(c, one->name, one->value, one->source, e))
            return false;
    }
    return true;
}
