/* status.c - `llmctl status`: a table for people, one JSON object a line for programs. */
#include "llmctl/status.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/huge.h"
#include "llmctl/command.h"
#include "llmctl/table.h"
#include "proto/message_json.h"

static enum tint tint_of(const char *state)
{
    if (strcmp(state, "ready") == 0 || strcmp(state, "up") == 0)
        return TINT_GOOD;
    if (strcmp(state, "down") == 0 || strcmp(state, "backoff") == 0 ||
        strcmp(state, "gpu_down") == 0)
        return TINT_BAD;
    return TINT_WARNING;
}

static void add_line(struct buf *out, const char *name, bool colours)
{
    char padded[16];

    snprintf(padded, sizeof padded, "%-8s", name);
    terminal_add(out, padded, TINT_DIM, colours);
}

static void put_head(struct buf *out, const Llmd__Status *s, bool colours)
{
    char text[64];

    terminal_duration(text, sizeof text, s->uptime_ns);
    buf_printf(out, "llmd %s  ", s->version);
    terminal_add(out, s->state, tint_of(s->state), colours);
    buf_printf(out, "  up %s", text);
    for (size_t i = 0; i < s->n_listen; i++) {
        buf_add_str(out, i ? " " : "  http://");
        terminal_add(out, s->listen[i], TINT_NONE, colours);
    }
    buf_add_char(out, '\n');
}

static void put_model(struct buf *out, const Llmd__Status *s, bool colours)
{
    char bytes[32];

    add_line(out, "model", colours);
    terminal_add(out, s->served_model_name, TINT_NONE, colours);
    terminal_bytes(bytes, sizeof bytes, s->weights_bytes);
    buf_printf(out, "  %s of weights%s, %u tokens at most  ", bytes, s->on_device ? " on GPUs" : "",
               s->max_model_len);
    terminal_add(out, s->model, TINT_DIM, colours);
    buf_add_char(out, '\n');
}

/* Small ones are not worth a line. */
static void put_memory(struct buf *out, const Llmd__Status *s, bool colours)
{
    char all[32], resident[32], huge[32];

    for (size_t i = 0; i < s->n_memory; i++) {
        const Llmd__SegmentMemory *m = s->memory[i];
        if (m->bytes < HUGE_FROM_BYTES)
            continue;
        terminal_bytes(all, sizeof all, m->bytes);
        terminal_bytes(resident, sizeof resident, m->resident_bytes);
        terminal_bytes(huge, sizeof huge, m->huge_bytes);
        add_line(out, "pages", colours);
        buf_printf(out, "%s: %s, %s mapped, %s of it in huge pages (%s)\n", m->segment, all,
                   resident, huge, m->pages);
    }
}

static void put_load(struct buf *out, const Llmd__Status *s, bool colours)
{
    uint32_t used = 0, running = 0, waiting = 0;
    double tokens_per_s = 0;
    char bytes[32];

    for (size_t i = 0; i < s->n_groups; i++) {
        used += s->groups[i]->kv_pages_used;
        running += s->groups[i]->sequences_running;
        waiting += s->groups[i]->sequences_waiting;
        tokens_per_s += s->groups[i]->tokens_per_s;
    }
    terminal_bytes(bytes, sizeof bytes, s->kv_bytes);
    add_line(out, "kv", colours);
    buf_printf(out, "%u of %u pages used, %u tokens each, %s in all\n", used, s->kv_pages,
               s->kv_page_tokens, bytes);
    if (s->kv_host_pages > 0) {
        terminal_bytes(bytes, sizeof bytes, s->kv_host_bytes);
        add_line(out, "host tier", colours);
        buf_printf(out, "%u of %u pages used, %s in all\n", s->kv_host_pages_used, s->kv_host_pages,
                   bytes);
    }
    add_line(out, "load", colours);
    buf_printf(out, "%u running, %u waiting, %.1f tokens/s\n", running, waiting, tokens_per_s);
    add_line(out, "clients", colours);
    buf_printf(out, "%llu connections, %llu requests active\n", (unsigned long long)s->connections,
               (unsigned long long)s->requests_active);
    add_line(out, "served", colours);
    buf_printf(out, "%llu requests, %llu prompt tokens, %llu generated tokens\n",
               (unsigned long long)s->requests, (unsigned long long)s->prompt_tokens,
               (unsigned long long)s->generated_tokens);
    if (s->note[0]) {
        add_line(out, "note", colours);
        buf_printf(out, "%s\n", s->note);
    }
}

/* Which groups do not serve, and why; what to know of the GPUs. */
static void put_troubles(struct buf *out, const Llmd__Status *s, bool colours)
{
    char text[64];

    for (size_t i = 0; i < s->n_groups; i++) {
        const Llmd__GroupStatus *g = s->groups[i];
        if (!g->cause[0])
            continue;
        add_line(out, "down", colours);
        buf_printf(out, "group %u: ", g->group);
        terminal_add(out, g->cause, tint_of(g->state), colours);
        if (g->retry_in_ns) {
            terminal_duration(text, sizeof text, g->retry_in_ns);
            buf_printf(out, "; tried again in %s", text);
        }
        buf_add_char(out, '\n');
    }
    if (s->gpu_note[0]) {
        add_line(out, "gpu", colours);
        terminal_add(out, s->gpu_note, TINT_WARNING, colours);
        buf_add_char(out, '\n');
    }
}

static void put_processes(struct buf *out, const Llmd__Status *s, bool colours, unsigned width)
{
    static const struct table_column columns[] = {
        { "PROCESS", TABLE_LEFT },   { "STATE", TABLE_LEFT },     { "PID", TABLE_RIGHT },
        { "UPTIME", TABLE_RIGHT },   { "RESTARTS", TABLE_RIGHT }, { "MEMORY", TABLE_RIGHT },
        { "LAST EXIT", TABLE_LEFT },
    };
    struct table t;

    table_init(&t, columns, sizeof columns / sizeof *columns);
    for (size_t i = 0; i < s->n_processes; i++) {
        const Llmd__ProcessStatus *p = s->processes[i];
        char uptime[32] = "-", memory[32] = "-";
        if (p->pid) {
            terminal_duration(uptime, sizeof uptime, p->uptime_ns);
            terminal_bytes(memory, sizeof memory, p->rss_bytes);
        }
        table_add(&t, TINT_NONE, "%s", p->name);
        table_add(&t, tint_of(p->state), "%s", p->state);
        if (p->pid)
            table_add(&t, TINT_NONE, "%u", p->pid);
        else
            table_add(&t, TINT_DIM, "-");
        table_add(&t, TINT_NONE, "%s", uptime);
        table_add(&t, p->restarts ? TINT_WARNING : TINT_NONE, "%u", p->restarts);
        table_add(&t, TINT_NONE, "%s", memory);
        table_add(&t, p->last_exit[0] ? TINT_NONE : TINT_DIM, "%s",
                  p->last_exit[0] ? p->last_exit : "-");
    }
    buf_add_char(out, '\n');
    table_print(&t, out, colours, width);
    table_fini(&t);
}

static void put_groups(struct buf *out, const Llmd__Status *s, bool colours, unsigned width)
{
    static const struct table_column columns[] = {
        { "GROUP", TABLE_RIGHT },    { "STATE", TABLE_LEFT },    { "EPOCH", TABLE_RIGHT },
        { "RUNNING", TABLE_RIGHT },  { "WAITING", TABLE_RIGHT }, { "KV PAGES", TABLE_RIGHT },
        { "TOKENS/S", TABLE_RIGHT },
    };
    struct table t;

    table_init(&t, columns, sizeof columns / sizeof *columns);
    for (size_t i = 0; i < s->n_groups; i++) {
        const Llmd__GroupStatus *g = s->groups[i];
        table_add(&t, TINT_NONE, "%u", g->group);
        table_add(&t, tint_of(g->state), "%s", g->state);
        table_add(&t, TINT_NONE, "%u", g->epoch);
        table_add(&t, TINT_NONE, "%u", g->sequences_running);
        table_add(&t, TINT_NONE, "%u", g->sequences_waiting);
        table_add(&t, TINT_NONE, "%u", g->kv_pages_used);
        table_add(&t, TINT_NONE, "%.1f", g->tokens_per_s);
    }
    buf_add_char(out, '\n');
    table_print(&t, out, colours, width);
    table_fini(&t);
}

void status_put_table(struct buf *out, const Llmd__Status *s, bool colours, unsigned width)
{
    put_head(out, s, colours);
    put_model(out, s, colours);
    put_memory(out, s, colours);
    put_load(out, s, colours);
    put_troubles(out, s, colours);
    put_processes(out, s, colours, width);
    if (s->n_groups > 0)
        put_groups(out, s, colours, width);
}

void status_put_json(struct buf *out, const Llmd__Status *s)
{
    struct json_writer w = { .out = out };

    message_write_json(&w, &s->base);
    buf_add_char(out, '\n');
}

struct status_options {
    struct globals globals;
    bool json;
    unsigned watch_s; /* 0 = once */
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct status_options *o = state->input;

    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->globals;
        return 0;
    case 'j':
        o->json = true;
        return 0;
    case 'w':
        o->watch_s = (unsigned)command_number(state, "--watch", arg, 1, 86400);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* Ask once and show.  The exit code. */
static int show(const struct status_options *o)
{
    bool clear = o->watch_s && !o->json && isatty(STDOUT_FILENO);
    struct control_msg reply;
    struct buf out = { 0 };
    int code = command_ask_plain(&o->globals, LLMD__CTL_COMMAND__CTL_STATUS, &reply);
    const Llmd__Status *s;

    if (code != CTL_EXIT_OK)
        return code;
    s = command_reply(&reply)->status;
    if (clear)
        buf_add_str(&out, "\033[H\033[2J");
    if (s && o->json)
        status_put_json(&out, s);
    else if (s)
        status_put_table(&out, s, terminal_has_colours(STDOUT_FILENO),
                         terminal_width(STDOUT_FILENO));
    if (s && o->watch_s && !o->json && !clear)
        buf_add_char(&out, '\n');
    fwrite(out.data, 1, out.n, stdout);
    fflush(stdout);
    buf_fini(&out);
    control_msg_fini(&reply);
    return CTL_EXIT_OK;
}

static const struct argp_option status_option_list[] = {
    { "json", 'j', 0, 0, "One JSON object; its keys are the field names of message Status", 0 },
    { "watch", 'w', "S", 0, "Again every S seconds, until interrupted", 0 },
    { 0 },
};
const struct argp status_argp = {
    .options = status_option_list,
    .parser = parse,
    .doc = "Show the processes, groups, model and load of the server.",
    .children = global_options,
};

int status_command(int argc, char **argv, struct globals g)
{
    struct status_options o = { .globals = g };
    int interrupt_fd;

    command_parse(&status_argp, argc, argv, &o);
    if (!o.watch_s)
        return show(&o);
    interrupt_fd = terminal_catch_interrupt();
    do
        show(&o); /* a server that is away may come back */
    while (terminal_sleep(interrupt_fd, o.watch_s * 1000));
    close(interrupt_fd);
    return CTL_EXIT_OK;
}
