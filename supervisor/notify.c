/* notify.c - sd_notify(3) and sd_listen_fds(3). */
#include "supervisor/notify.h"

#include <stdio.h>
#include <string.h>

#include <systemd/sd-daemon.h>

#include "common/clock.h"

void notify_ready(void)
{
    sd_notify(0, "READY=1");
}

void notify_reloading(void)
{
    sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%llu", (unsigned long long)(clock_mono_ns() / 1000));
}

void notify_stopping(uint64_t within_ns)
{
    sd_notify(0, "STOPPING=1");
    if (within_ns)
        notify_extend(within_ns);
}

void notify_status(const char *line)
{
    static char said[512];

    if (strncmp(said, line, sizeof said - 1) == 0)
        return;
    snprintf(said, sizeof said, "%s", line);
    sd_notifyf(0, "STATUS=%s", said);
}

void notify_extend(uint64_t ns)
{
    sd_notifyf(0, "EXTEND_TIMEOUT_USEC=%llu", (unsigned long long)(ns / 1000));
}

int notify_n_passed_fds(void)
{
    return sd_listen_fds(1);
}

int notify_passed_fd(int i)
{
    return SD_LISTEN_FDS_START + i;
}
