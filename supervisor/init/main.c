/* main.c - llm-init: the command line. */
#include <argp.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/config.h"
#include "common/mem.h"
#include "supervisor/init/keeper.h"

enum { KEY_WATCHDOG = 'w', KEY_STOP_TIMEOUT = 't', KEY_PAUSE_MAX = 'p', KEY_FDS_MAX = 'n' };

const char *argp_program_version = "llm-init " LLMD_VERSION;

static const struct argp_option table[] = {
    { "watchdog-s", KEY_WATCHDOG, "N", 0,
      "A llmd without a sign of life for so many seconds is killed and started again; 0 = never "
      "[10 (0..86400)]",
      0 },
    { "stop-timeout-s", KEY_STOP_TIMEOUT, "N", 0,
      "A stop that takes longer, and longer than llmd announced, ends with SIGKILL for all [60 "
      "(1..86400)]",
      0 },
    { "pause-max-ms", KEY_PAUSE_MAX, "N", 0,
      "Longest pause between two starts of a llmd that dies again and again [5000 (0..3600000)]",
      0 },
    { "fd-store-max", KEY_FDS_MAX, "N", 0,
      "Most descriptors that are kept for llmd [16384 (0..1048576)]", 0 },
    { 0 },
};

static uint64_t read_number(const char *text, uint64_t min, uint64_t max, struct argp_state *state)
{
    char *end;
    unsigned long long v = strtoull(text, &end, 10);

    if (end == text || *end || text[0] == '-' || v < min || v > max)
        argp_error(state, "'%s' is not a number from %llu to %llu", text, (unsigned long long)min,
                   (unsigned long long)max);
    return v;
}

/* llmd's own words from here on; its name may be left out. */
static void take_command(struct keeper_options *o, char **words, int n)
{
    bool is_named = n > 0 && words[0][0] != '-';
    int at = 0;

    o->argv = mem_zalloc((size_t)n + 2, sizeof *o->argv);
    if (!is_named)
        o->argv[at++] = mem_strdup("llmd");
    for (int i = 0; i < n; i++)
        o->argv[at++] = words[i];
}

static error_t parse_one(int key, char *arg, struct argp_state *state)
{
    struct keeper_options *o = state->input;

    switch (key) {
    case KEY_WATCHDOG:
        o->watchdog_s = read_number(arg, 0, 86400, state);
        return 0;
    case KEY_STOP_TIMEOUT:
        o->stop_timeout_s = read_number(arg, 1, 86400, state);
        return 0;
    case KEY_PAUSE_MAX:
        o->pause_max_ms = read_number(arg, 0, 3600000, state);
        return 0;
    case KEY_FDS_MAX:
        o->fds_max = read_number(arg, 0, 1048576, state);
        return 0;
    case ARGP_KEY_ARGS:
        take_command(o, state->argv + state->next, state->argc - state->next);
        return 0;
    case ARGP_KEY_NO_ARGS:
        take_command(o, NULL, 0);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* Logs look as those of llmd, which reads the same environment and says what is wrong with it. */
static void begin_log(void)
{
    static struct config config;

    config_init(&config);
    config_read_environment(&config, environ, NULL);
    log_init("llm-init", config_log_level(&config), config_log_format(&config));
}

int main(int argc, char **argv)
{
    static struct keeper_options options = {
        .watchdog_s = 10, .stop_timeout_s = 60, .pause_max_ms = 5000, .fds_max = 16384
    };
    static struct keeper keeper;
    const struct argp argp = {
        .options = table,
        .parser = parse_one,
        .args_doc = "[--] [llmd] [ARGS...]",
        .doc =
            "llm-init starts llmd and starts it again when it dies: PID 1 of a container, or any "
            "parent. It holds llmd's descriptors meanwhile, so that the next llmd takes over the "
            "processes and connections of the dead one, as under systemd.\v"
            "Ends with the exit code of llmd when that ends by itself. SIGTERM, SIGINT, SIGHUP, "
            "SIGUSR1, SIGUSR2 and SIGQUIT are passed on to it.",
    };

    argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, &options);
    begin_log();
    return keeper_run(&keeper, &options);
}
