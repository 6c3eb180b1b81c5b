/* passed.c - sd_listen_fds_with_names(3). */
#include "supervisor/passed.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <systemd/sd-daemon.h>

#include "common/mem.h"

static bool is_ours(const char *name)
{
    return strncmp(name, "llmd-", 5) == 0;
}

void passed_init(struct passed *p)
{
    char **names = NULL;
    int n = sd_listen_fds_with_names(1, &names);

    *p = (struct passed){ 0 };
    if (n <= 0)
        return;
    p->list = mem_zalloc((size_t)n, sizeof *p->list);
    p->n = (uint32_t)n;
    for (int i = 0; i < n; i++) {
        p->list[i].fd = SD_LISTEN_FDS_START + i;
        snprintf(p->list[i].name, sizeof p->list[i].name, "%s", names[i]);
        free(names[i]);
    }
    free(names);
}

void passed_fini(struct passed *p)
{
    for (uint32_t i = 0; i < p->n; i++)
        if (p->list[i].fd >= 0)
            close(p->list[i].fd);
    free(p->list);
    *p = (struct passed){ 0 };
}

static int take(struct passed_fd *one)
{
    int fd = one->fd;

    one->fd = -1;
    return fd;
}

int passed_take(struct passed *p, const char *name)
{
    for (uint32_t i = 0; i < p->n; i++)
        if (p->list[i].fd >= 0 && strcmp(p->list[i].name, name) == 0)
            return take(&p->list[i]);
    return -1;
}

int passed_take_numbered(struct passed *p, const char *name, uint32_t number)
{
    char full[FDSTORE_NAME_BYTES];

    snprintf(full, sizeof full, "%s%u", name, number);
    return passed_take(p, full);
}

int passed_take_activated(struct passed *p)
{
    for (uint32_t i = 0; i < p->n; i++)
        if (p->list[i].fd >= 0 && !is_ours(p->list[i].name))
            return take(&p->list[i]);
    return -1;
}
