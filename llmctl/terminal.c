/* terminal.c - what people see.  Model text and last words of processes are shown to terminals only
 * through terminal_add_safe(): neither may move the cursor or set the window's title. */
#include "llmctl/terminal.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "common/clock.h"

bool terminal_has_colours(int fd)
{
    const char *term = getenv("TERM"), *no = getenv("NO_COLOR");

    return isatty(fd) && term && strcmp(term, "dumb") != 0 && !(no && no[0]);
}

unsigned terminal_width(int fd)
{
    struct winsize size;

    return ioctl(fd, TIOCGWINSZ, &size) == 0 ? size.ws_col : 0;
}

void terminal_add(struct buf *out, const char *text, enum tint tint, bool colours)
{
    static const char *const codes[] = { "",         "\033[1m",  "\033[2m",
                                         "\033[32m", "\033[33m", "\033[31m" };
    unsigned char held = 0;

    if (colours && tint != TINT_NONE)
        buf_add_str(out, codes[tint]);
    terminal_add_safe(out, text, strlen(text), &held);
    if (colours && tint != TINT_NONE)
        buf_add_str(out, "\033[0m");
}

/* C1 controls are U+0080..U+009F: C2 80 .. C2 9F in UTF-8. */
void terminal_add_safe(struct buf *out, const char *bytes, size_t n, unsigned char *held)
{
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)bytes[i];
        bool is_c1 = *held && c >= 0x80 && c <= 0x9f;
        if (*held && !is_c1)
            buf_add_char(out, (char)*held);
        *held = 0;
        if (c == 0xc2)
            *held = c;
        else if (!is_c1 && c != 0x7f && (c >= 0x20 || c == '\n' || c == '\t'))
            buf_add_char(out, (char)c);
    }
}

void terminal_duration(char *out, size_t n, uint64_t ns)
{
    unsigned long long s = ns / NS_PER_S;

    if (s == 0)
        snprintf(out, n, "%llu ms", (unsigned long long)(ns / NS_PER_MS));
    else if (s < 60)
        snprintf(out, n, "%llus", s);
    else if (s < 3600)
        snprintf(out, n, "%llum %02llus", s / 60, s % 60);
    else if (s < 86400)
        snprintf(out, n, "%lluh %02llum", s / 3600, s / 60 % 60);
    else
        snprintf(out, n, "%llud %lluh", s / 86400, s / 3600 % 24);
}

void terminal_bytes(char *out, size_t n, uint64_t bytes)
{
    static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB" };
    double v = (double)bytes;
    int unit = 0;

    while (v >= 1023.95 && unit < 5) { /* what would be rounded to 1024.0 */
        v /= 1024;
        unit++;
    }
    snprintf(out, n, unit ? "%.1f %s" : "%.0f %s", v, units[unit]);
}

int terminal_catch_interrupt(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, NULL);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

bool terminal_was_interrupted(int fd)
{
    struct signalfd_siginfo info;

    return fd >= 0 && read(fd, &info, sizeof info) == sizeof info;
}

bool terminal_sleep(int interrupt_fd, unsigned ms)
{
    struct pollfd p = { .fd = interrupt_fd, .events = POLLIN };

    poll(&p, 1, (int)ms);
    return !terminal_was_interrupted(interrupt_fd);
}
