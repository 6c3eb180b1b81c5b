/* config.c - `llmctl config`: every setting of the running server, and where its value came from. */
#include <stdio.h>
#include <unistd.h>

#include "llmctl/command.h"
#include "llmctl/table.h"
#include "proto/message_json.h"

static void put_json(struct buf *out, const Llmd__CtlReply *reply)
{
    struct json_writer w = { .out = out };

    jw_array(&w);
    for (size_t i = 0; i < reply->n_config; i++)
        message_write_json(&w, &reply->config[i]->base);
    jw_array_end(&w);
    buf_add_char(out, '\n');
}

static void put_table(struct buf *out, const Llmd__CtlReply *reply)
{
    static const struct table_column columns[] = {
        { "SETTING", TABLE_LEFT },
        { "VALUE", TABLE_LEFT },
        { "FROM", TABLE_LEFT },
        { "MEANING", TABLE_LEFT },
    };
    struct table t;

    table_init(&t, columns, sizeof columns / sizeof *columns);
    for (size_t i = 0; i < reply->n_config; i++) {
        const Llmd__ConfigLine *line = reply->config[i];
        table_add(&t, TINT_NONE, "%s", line->name);
        table_add(&t, line->value[0] ? TINT_NONE : TINT_DIM, "%s",
                  line->value[0] ? line->value : "-");
        table_add(&t, TINT_DIM, "%s", line->source);
        table_add(&t, TINT_NONE, "%s", line->help);
    }
    table_print(&t, out, terminal_has_colours(STDOUT_FILENO), terminal_width(STDOUT_FILENO));
    table_fini(&t);
}

static const struct argp_option config_option_list[] = {
    { "json", 'j', 0, 0, "One JSON array of {name, value, source, help}", 0 },
    { 0 },
};
const struct argp config_argp = {
    .options = config_option_list,
    .parser = command_parse_json,
    .doc = "Show every setting of the running server, its value and where that came from.",
    .children = global_options,
};

int config_command(int argc, char **argv, struct globals g)
{
    struct json_options o = { .globals = g };
    struct control_msg reply;
    struct buf out = { 0 };
    int code;

    command_parse(&config_argp, argc, argv, &o);
    code = command_ask_plain(&o.globals, LLMD__CTL_COMMAND__CTL_CONFIG, &reply);
    if (code != CTL_EXIT_OK)
        return code;
    if (o.json)
        put_json(&out, command_reply(&reply));
    else
        put_table(&out, command_reply(&reply));
    fwrite(out.data, 1, out.n, stdout);
    buf_fini(&out);
    control_msg_fini(&reply);
    return CTL_EXIT_OK;
}
