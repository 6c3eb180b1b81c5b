/* doctor.c - `llmctl doctor`: the findings of checks.c, a line each. */
#include <stdio.h>
#include <unistd.h>

#include "common/json.h"
#include "llmctl/checks.h"
#include "llmctl/command.h"
#include "llmctl/terminal.h"
#include "llmctl/worker_tool.h"

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

static const char *verdict_of(const struct check *c)
{
    return c->ok ? "ok" : c->fails ? "fail" : "warn";
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
        jw_key(&w, "verdict");
        jw_str(&w, verdict_of(&checks[i]));
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
        char verdict[8];
        snprintf(verdict, sizeof verdict, "%-4s", verdict_of(c));
        terminal_add(out, verdict, c->ok ? TINT_GOOD : c->fails ? TINT_BAD : TINT_WARNING, colours);
        buf_printf(out, "  %-13s  ", c->name);
        terminal_add(out, c->finding, TINT_NONE, colours);
        buf_add_char(out, '\n');
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

enum { KEY_ROOT = 256, PORT_DEFAULT = 8080 };

struct doctor_options {
    struct globals globals;
    bool json;
    const char *model, *root;
    unsigned port;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct doctor_options *o = state->input;

    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->globals;
        return 0;
    case 'j':
        o->json = true;
        return 0;
    case 'm':
        o->model = arg;
        return 0;
    case 'p':
        o->port = (unsigned)command_number(state, "--port", arg, 1, 65535);
        return 0;
    case KEY_ROOT:
        o->root = arg;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option doctor_option_list[] = {
    { "model", 'm', "DIR", 0, "Judge this model too (default: the one that is served)", 0 },
    { "port", 'p', "N", 0, "Where a server would listen, when none runs (default 8080)", 0 },
    { "json", 'j', 0, 0, "One object: {ok, server, checks: [{name, ok, verdict, finding, advice}]}",
      0 },
    { "root", KEY_ROOT, "DIR", OPTION_HIDDEN, "For tests: /proc and /sys are below DIR", 0 },
    { 0 },
};
const struct argp doctor_argp = {
    .options = doctor_option_list,
    .parser = parse,
    .doc = "Look whether this host lets the server run well, and say what to set."
           "\vok: as it should be. warn: it runs, but worse than it could. fail: it cannot run so. "
           "Exit "
           "code 1 when anything is not ok. Without a running server the host alone is judged.",
    .children = global_options,
};

/* What llm-worker says of the model; NULL when none is named.  Caller gives it back. */
static json_t *ask_model(const struct doctor_options *o, const Llmd__Status *status)
{
    const char *model = o->model ? o->model : status ? status->model : NULL;
    char *argv[] = { (char *)(uintptr_t) "inspect", (char *)(uintptr_t)model, NULL };
    struct err e;
    json_t *v;

    if (!model || !model[0])
        return NULL;
    v = worker_tool_run(argv, "model", &e);
    return v ? v : json_pack("{s:b,s:s}", "ok", 0, "error", e.msg);
}

static int judge(const struct doctor_options *o, const struct answers *a)
{
    const Llmd__Status *status = a->has_status ? command_reply(&a->status)->status : NULL;
    pid_t pid = status && status->n_processes ? (pid_t)status->processes[0]->pid : 0;
    struct check checks[CHECKS_MAX];
    json_t *model = ask_model(o, status);
    struct buf out = { 0 };
    struct facts f;
    int n;

    facts_read(&f, o->root, pid, status ? 0 : o->port);
    f.status = status;
    f.config = a->has_config ? command_reply(&a->config) : NULL;
    f.model = model;
    n = checks_run(&f, checks);
    if (o->json)
        put_json(&out, status != NULL, checks, n, all_ok(checks, n));
    else
        put_lines(&out, status != NULL, checks, n, terminal_has_colours(STDOUT_FILENO));
    fwrite(out.data, 1, out.n, stdout);
    buf_fini(&out);
    json_decref(model);
    return all_ok(checks, n) ? CTL_EXIT_OK : CTL_EXIT_REFUSED;
}

int doctor_command(int argc, char **argv, struct globals g)
{
    struct doctor_options o = { .globals = g, .root = "", .port = PORT_DEFAULT };
    struct answers a;
    struct client c;
    struct err e;
    int code;

    command_parse(&doctor_argp, argc, argv, &o);
    if (!client_find(&c, o.globals.runtime_dir, &e)) {
        command_complain(&e);
        return CTL_EXIT_USAGE;
    }
    ask(&a, &c);
    code = judge(&o, &a);
    forget(&a);
    return code;
}
