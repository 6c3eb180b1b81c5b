/* requests.c - `llmctl requests`: what the ledgers hold, one line for each sequence. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "llmctl/command.h"
#include "llmctl/table.h"
#include "proto/message_json.h"

static void put_json(struct buf *out, const Llmd__CtlReply *reply)
{
    struct json_writer w = { .out = out };

    jw_array(&w);
    for (size_t i = 0; i < reply->n_requests; i++)
        message_write_json(&w, &reply->requests[i]->base);
    jw_array_end(&w);
    buf_add_char(out, '\n');
}

static enum tint tint_of(const char *state)
{
    if (strcmp(state, "running") == 0)
        return TINT_GOOD;
    return strcmp(state, "poisoned") == 0 ? TINT_BAD : TINT_DIM;
}

static void add_row(struct table *t, const Llmd__RequestStatus *r)
{
    char age[32];

    terminal_duration(age, sizeof age, r->age_ns);
    table_add(t, TINT_NONE, "%016llx", (unsigned long long)r->sequence_id);
    table_add(t, TINT_NONE, "%u", r->group);
    table_add(t, tint_of(r->state), "%s", r->state);
    table_add(t, TINT_NONE, "%u", r->n_prompt);
    table_add(t, TINT_NONE, "%u", r->n_generated);
    table_add(t, TINT_NONE, "%s", age);
    table_add(t, TINT_NONE, "%u", r->kv_pages);
    table_add(t, r->crashes ? TINT_WARNING : TINT_NONE, "%u", r->crashes);
    table_add(t, r->kills ? TINT_WARNING : TINT_NONE, "%u", r->kills);
    table_add(t, TINT_NONE, "%s", r->error[0] ? r->error : "-");
}

static void put_table(struct buf *out, const Llmd__CtlReply *reply)
{
    static const struct table_column columns[] = {
        { "SEQUENCE", TABLE_LEFT },  { "GROUP", TABLE_RIGHT },     { "STATE", TABLE_LEFT },
        { "PROMPT", TABLE_RIGHT },   { "GENERATED", TABLE_RIGHT }, { "AGE", TABLE_RIGHT },
        { "KV PAGES", TABLE_RIGHT }, { "CRASHES", TABLE_RIGHT },   { "KILLS", TABLE_RIGHT },
        { "ERROR", TABLE_LEFT },
    };
    struct table t;

    table_init(&t, columns, sizeof columns / sizeof *columns);
    for (size_t i = 0; i < reply->n_requests; i++)
        add_row(&t, reply->requests[i]);
    table_print(&t, out, terminal_has_colours(STDOUT_FILENO), terminal_width(STDOUT_FILENO));
    table_fini(&t);
}

int requests_command(int argc, char **argv, struct globals g)
{
    static const struct argp_option options[] = {
        { "json", 'j', 0, 0, "One JSON array; its keys are the field names of RequestStatus", 0 },
        { 0 },
    };
    static const struct argp argp = {
        .options = options,
        .parser = command_parse_json,
        .doc =
            "Show every sequence that the ledgers hold, and the last ones that were ended because "
            "they had been running at crashes of their worker.",
        .children = global_options,
    };
    struct json_options o = { .globals = g };
    const Llmd__CtlReply *r;
    struct control_msg reply;
    struct buf out = { 0 };
    int code;

    command_parse(&argp, argc, argv, &o);
    code = command_ask_plain(&o.globals, LLMD__CTL_COMMAND__CTL_REQUESTS, &reply);
    if (code != CTL_EXIT_OK)
        return code;
    r = command_reply(&reply);
    if (o.json)
        put_json(&out, r);
    else
        put_table(&out, r);
    fwrite(out.data, 1, out.n, stdout);
    if (r->requests_left_out)
        fprintf(stderr, "llmctl: %u more did not fit\n", r->requests_left_out);
    buf_fini(&out);
    control_msg_fini(&reply);
    return CTL_EXIT_OK;
}
