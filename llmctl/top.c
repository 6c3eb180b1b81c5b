/* top.c - `llmctl top`: the screen of top_view.c, again every interval.
 *
 * It takes the alternate screen and gives everything back at its end, whichever way that comes; a frame is one
 * write, so a slow line never shows half of one.  A server that goes away is told and waited for. */
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/mem.h"
#include "llmctl/answer.h"
#include "llmctl/command.h"
#include "llmctl/http.h"
#include "llmctl/top_view.h"

enum {
    INTERVAL_MIN_MS = 250,
    INTERVAL_MAX_MS = 60000,
    PAGE_BYTES_MAX = 4 << 20,
    PAGE_TIMEOUT_S = 2
};

struct top {
    struct globals globals;
    struct client client;
    struct top_view view;
    struct control_msg reply; /* view.status is in it */
    bool has_reply;
    struct termios before;
    int signals;
    bool done;
};

/* ---- the server ---- */

static bool add_to(void *arg, const char *bytes, size_t n)
{
    struct buf *out = arg;

    buf_add(out, bytes, n);
    return out->n <= PAGE_BYTES_MAX;
}

/* No page is no failure: latencies are left out then. */
static void read_metrics(const struct top *t, struct buf *page)
{
    struct buf refusal = { 0 };
    char base[128], url[160];
    struct http_post get = { .url = url,
                             .api_key = getenv("LLMD_API_KEY"),
                             .stop_fd = -1,
                             .timeout_s = PAGE_TIMEOUT_S,
                             .on_body = add_to,
                             .arg = page };
    long status;

    if (!answer_url(t->view.status, base, sizeof base))
        return;
    snprintf(url, sizeof url, "%s/metrics", base);
    if (http_post(&get, &refusal, &status, NULL) != HTTP_OK)
        buf_clear(page);
    buf_fini(&refusal);
}

static void forget(struct top *t)
{
    if (t->has_reply)
        control_msg_fini(&t->reply);
    t->has_reply = false;
    t->view.status = NULL;
}

static void sample(struct top *t)
{
    struct control_msg reply;
    struct buf page = { 0 };
    struct err e;

    if (client_ask_status(&t->client, &reply, &e) != CLIENT_OK) {
        forget(t);
        snprintf(t->view.trouble, sizeof t->view.trouble, "%s", e.msg);
        return;
    }
    forget(t);
    t->reply = reply;
    t->has_reply = true;
    t->view.status = command_reply(&t->reply)->status;
    if (t->view.status) {
        read_metrics(t, &page);
        top_view_sample(&t->view, page.n ? page.data : NULL, clock_mono_ns());
    }
    buf_fini(&page);
}

/* ---- the terminal ---- */

static bool is_utf8(void)
{
    static const char *const names[] = { "LC_ALL", "LC_CTYPE", "LANG" };

    for (int i = 0; i < 3; i++) {
        const char *v = getenv(names[i]);
        if (v && v[0])
            return strcasestr(v, "UTF-8") || strcasestr(v, "utf8");
    }
    return false;
}

static void draw(const struct top *t)
{
    struct winsize size = { .ws_col = 80, .ws_row = 24 };
    struct top_screen screen = { .colours = terminal_has_colours(STDOUT_FILENO),
                                 .utf8 = is_utf8() };
    struct buf text = { 0 }, out = { 0 };

    ioctl(STDOUT_FILENO, TIOCGWINSZ, &size);
    screen.columns = size.ws_col ? size.ws_col : 80;
    screen.rows = size.ws_row ? size.ws_row : 24;
    top_view_put(&text, &t->view, &screen);
    buf_add_str(&out, "\033[H");
    for (const char *c = text.data; *c; c++) {
        if (*c == '\n')
            buf_add_str(&out, "\033[K\r\n");
        else
            buf_add_char(&out, *c);
    }
    buf_add_str(&out, "\033[K\033[J");
    fwrite(out.data, 1, out.n, stdout);
    fflush(stdout);
    buf_fini(&text);
    buf_fini(&out);
}

static int catch_signals(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGWINCH);
    sigprocmask(SIG_BLOCK, &set, NULL);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static bool open_terminal(struct top *t)
{
    struct termios raw;

    if (tcgetattr(STDIN_FILENO, &t->before) < 0)
        return false;
    raw = t->before;
    raw.c_lflag &= (tcflag_t) ~(ICANON | ECHO);
    raw.c_cc[VMIN] = 0;
    raw.c_cc[VTIME] = 0;
    tcsetattr(STDIN_FILENO, TCSANOW, &raw);
    fputs("\033[?1049h\033[?25l\033[2J", stdout); /* alternate screen, no cursor */
    return true;
}

static void close_terminal(const struct top *t)
{
    fputs("\033[?25h\033[?1049l", stdout);
    fflush(stdout);
    tcsetattr(STDIN_FILENO, TCSANOW, &t->before);
}

/* ---- keys ---- */

static void set_interval(struct top *t, unsigned ms)
{
    if (ms >= INTERVAL_MIN_MS && ms <= INTERVAL_MAX_MS)
        t->view.interval_ms = ms;
}

static void take_key(struct top *t, char key)
{
    switch (key) {
    case 'q':
    case 'Q':
        t->done = true;
        break;
    case 'p':
    case ' ':
        t->view.paused = !t->view.paused;
        break;
    case 's':
        t->view.order = (t->view.order + 1) % N_TOP_ORDERS;
        break;
    case '+':
        set_interval(t, t->view.interval_ms * 2);
        break;
    case '-':
        set_interval(t, t->view.interval_ms / 2);
        break;
    default:
        break; /* an arrow's three bytes */
    }
}

static void take_input(struct top *t)
{
    char keys[64];
    ssize_t n = read(STDIN_FILENO, keys, sizeof keys);

    if (n <= 0)
        t->done = true; /* the terminal is gone */
    if (n > 0 && keys[0] == '\033')
        return;
    for (ssize_t i = 0; i < n; i++)
        take_key(t, keys[i]);
}

static void take_signals(struct top *t)
{
    struct signalfd_siginfo info;

    while (read(t->signals, &info, sizeof info) == sizeof info)
        if (info.ssi_signo != SIGWINCH)
            t->done = true;
}

/* Until the interval is over; a key or another size draws at once. */
static void wait_for_next(struct top *t)
{
    uint64_t begin = clock_mono_ns();

    while (!t->done) {
        struct pollfd p[2] = { { .fd = STDIN_FILENO, .events = POLLIN },
                               { .fd = t->signals, .events = POLLIN } };
        uint64_t end = begin + t->view.interval_ms * NS_PER_MS, now = clock_mono_ns();
        if (now >= end || poll(p, 2, (int)((end - now) / NS_PER_MS) + 1) == 0)
            return;
        if (p[0].revents)
            take_input(t);
        if (p[1].revents)
            take_signals(t);
        if (!t->done)
            draw(t);
    }
}

/* ---- the command ---- */

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct top *t = state->input;

    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &t->globals;
        return 0;
    case 'i':
        t->view.interval_ms = (unsigned)command_number(state, "--interval", arg, 1, 60) * 1000;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option top_option_list[] = {
    { "interval", 'i', "S", 0, "Seconds between two looks (default 1)", 0 },
    { 0 },
};
const struct argp top_argp = {
    .options = top_option_list,
    .parser = parse,
    .doc =
        "Watch the server: tokens/s, queue, KV pages, latencies of the last 60 looks, groups and "
        "processes, until q."
        "\vKeys: q quit, p pause, s next order of processes (name, age, restarts, memory), + and - "
        "change the interval. Needs a terminal; for scripts there is `llmctl status --json`. The "
        "key "
        "in LLMD_API_KEY is used for /metrics.",
    .children = global_options,
};

static int watch(struct top *t)
{
    t->signals = catch_signals();
    if (!open_terminal(t))
        return CTL_EXIT_USAGE;
    while (!t->done) {
        if (!t->view.paused)
            sample(t);
        draw(t);
        wait_for_next(t);
    }
    close_terminal(t);
    forget(t);
    close(t->signals);
    return CTL_EXIT_OK;
}

int top_command(int argc, char **argv, struct globals g)
{
    struct top *t = mem_zalloc(1, sizeof *t);
    struct err e;
    int code = CTL_EXIT_USAGE;

    t->globals = g;
    t->view.interval_ms = 1000;
    command_parse(&top_argp, argc, argv, t);
    if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO))
        fputs("llmctl: top needs a terminal; `llmctl status --watch 1` writes anywhere\n", stderr);
    else if (!client_find(&t->client, t->globals.runtime_dir, &e))
        command_complain(&e);
    else
        code = watch(t);
    free(t);
    return code;
}
