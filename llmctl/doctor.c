/* doctor.c - `llmctl doctor`: the findings of checks.c, a line each. */
#include <stdio.h>
#include <unistd.h>

#include "common/json.h"
#include "llmctl/checks.h"
#include "llmctl/command.h"
#include "llmctl/terminal.h"

/* What the server says, kept while it is looked at. */
struct answers {
    struct control_msg status, config;
    bool has_status, has_config;
};

/* None is no failure: the host can be judged without. */
static void ask(struct answers *a, const struct client *c)
{
    Llmd__CtlRequest request = LLMD__CTL_REQUEST__INIT;
    struct err e;

    *a = (struct answers){ 0 };
    a->has_status = client_ask_status(c, &a->status, &e) == CLIENT_OK;
    request.command = LLMD__CTL_COMMAND__CTL_CONFIG;
    a->has_config = a->has_status && client_call(c, &request, &a->config, &e) == CLIENT_OK;
}

static void forget(struct answers *a)
{
    if (a->has_status)
        control_msg_fini(&a->status);
    if (a->has_config)
        control_msg_fini(&a->config);
}

static void put_json(struct buf *out, bool has_server, const struct check *checks, int n, bool ok)
{
    struct json_writer w = { .out = out };

    jw_object(&w);
    jw_key(&w, "ok");
    jw_bool(&w, ok);
    jw_key(&w, "server");
    jw_bool(&w, has_server);
    jw_key(&w, "checks");
    jw_array(&w);
    for (int i = 0; i < n; i++) {
        jw_object(&w);
        jw_key(&w, "name");
        jw_str(&w, checks[i].name);
        jw_key(&w, "ok");
        jw_bool(&w, checks[i].ok);
        jw_key(&w, "finding");
        jw_str(&w, checks[i].finding);
        jw_key(&w, "advice");
        jw_str(&w, checks[i].advice);
        jw_object_end(&w);
    }
    jw_array_end(&w);
    jw_object_end(&w);
    buf_add_char(out, '\n');
}

static void put_lines(struct buf *out, bool has_server, const struct check *checks, int n,
                      bool colours)
{
    if (!has_server)
        buf_add_str(out, "no server answers here: this is about the host alone\n");
    for (int i = 0; i < n; i++) {
        const struct check *c = &checks[i];
        terminal_add(out, c->ok ? "ok  " : "warn", c->ok ? TINT_GOOD : TINT_WARNING, colours);
        buf_printf(out, "  %-13s  %s\n", c->name, c->finding);
        if (!c->ok)
            buf_printf(out, "%19s  -> %s\n", "", c->advice);
    }
}

static bool all_ok(const struct check *checks, int n)
{
    for (int i = 0; i < n; i++)
        if (!checks[i].ok)
            return false;
    return true;
}

static const struct argp_option doctor_option_list[] = {
    { "json", 'j', 0, 0, "One object: {ok, server, checks: [{name, ok, finding, advice}]}", 0 },
    { 0 },
};
const struct argp doctor_argp = {
    .options = doctor_option_list,
    .parser = command_parse_json,
    .doc = "Look whether this host lets the server run well, and say what to set."
           "\vExit code 1 when something is to be set. Without a running server the host alone is "
           "judged.",
    .children = global_options,
};

int doctor_command(int argc, char **argv, struct globals g)
{
    struct json_options o = { .globals = g };
    struct check checks[CHECKS_MAX];
    struct buf out = { 0 };
    struct answers a;
    struct facts f;
    struct client c;
    struct err e;
    int n;

    command_parse(&doctor_argp, argc, argv, &o);
    if (!client_find(&c, o.globals.runtime_dir, &e)) {
        command_complain(&e);
        return CTL_EXIT_USAGE;
    }
    ask(&a, &c);
    const Llmd__Status *status = a.has_status ? command_reply(&a.status)->status : NULL;
    facts_read(&f, "", status && status->n_processes ? (pid_t)status->processes[0]->pid : 0);
    f.status = status;
    f.config = a.has_config ? command_reply(&a.config) : NULL;
    n = checks_run(&f, checks);
    if (o.json)
        put_json(&out, status != NULL, checks, n, all_ok(checks, n));
    else
        put_lines(&out, status != NULL, checks, n, terminal_has_colours(STDOUT_FILENO));
    fwrite(out.data, 1, out.n, stdout);
    buf_fini(&out);
    forget(&a);
    return all_ok(checks, n) ? CTL_EXIT_OK : CTL_EXIT_REFUSED;
}
