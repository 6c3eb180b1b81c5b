/* requests.c - `llmctl requests`: what the ledgers hold, one line for each sequence. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "llmctl/command.h"
#include "llmctl/table.h"
#include "proto/message_json.h"

enum { KEY_SORT = 256, KEY_STATE, KEY_GROUP };

struct requests_options {
    struct globals globals;
    bool json;
    int (*compare)(const void *a, const void *b); /* NULL: as they were accepted */
    const char *state;                            /* NULL: all */
    bool has_group;
    uint32_t group;
};

/* ---- order and choice ---- */

#define BY_FALLING(field)                                                                          \
    static int by_##field(const void *a, const void *b)                                            \
    {                                                                                              \
        const Llmd__RequestStatus *x = *(Llmd__RequestStatus *const *)a,                           \
                                  *y = *(Llmd__RequestStatus *const *)b;                           \
        if (x->field != y->field)                                                                  \
            return x->field < y->field ? 1 : -1;                                                   \
        return (x->sequence_id > y->sequence_id) - (x->sequence_id < y->sequence_id);              \
    }
BY_FALLING(age_ns)
BY_FALLING(n_prompt)
BY_FALLING(n_generated)
BY_FALLING(kv_pages)

static const struct {
    const char *name;
    int (*compare)(const void *a, const void *b);
} orders[] = { { "age", by_age_ns },
               { "prompt", by_n_prompt },
               { "generated", by_n_generated },
               { "kv", by_kv_pages } };

static void set_order(struct requests_options *o, const char *name, struct argp_state *state)
{
    for (size_t i = 0; i < sizeof orders / sizeof *orders; i++)
        if (strcmp(name, orders[i].name) == 0)
            o->compare = orders[i].compare;
    if (!o->compare)
        argp_error(state, "--sort: '%s' is not age, prompt, generated or kv", name);
}

static bool is_wanted(const Llmd__RequestStatus *r, const struct requests_options *o)
{
    return (!o->state || strcmp(r->state, o->state) == 0) &&
           (!o->has_group || r->group == o->group);
}

/* Leaves the wanted ones in the reply's array, in order; what is in the rest is still the reply's. */
static size_t choose(Llmd__RequestStatus **all, size_t n, const struct requests_options *o)
{
    size_t n_wanted = 0;

    for (size_t i = 0; i < n; i++) {
        Llmd__RequestStatus *r = all[i];
        if (!is_wanted(r, o))
            continue;
        all[i] = all[n_wanted];
        all[n_wanted++] = r;
    }
    if (o->compare && n_wanted > 0)
        qsort(all, n_wanted, sizeof *all, o->compare);
    return n_wanted;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct requests_options *o = state->input;

    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->globals;
        return 0;
    case 'j':
        o->json = true;
        return 0;
    case KEY_SORT:
        set_order(o, arg, state);
        return 0;
    case KEY_STATE:
        o->state = arg;
        if (strcmp(arg, "waiting") != 0 && strcmp(arg, "running") != 0 &&
            strcmp(arg, "done") != 0 && strcmp(arg, "poisoned") != 0)
            argp_error(state, "--state: '%s' is not waiting, running, done or poisoned", arg);
        return 0;
    case KEY_GROUP:
        o->has_group = true;
        o->group = (uint32_t)command_number(state, "--group", arg, 0, UINT32_MAX);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* ---- showing ---- */

static void put_json(struct buf *out, Llmd__RequestStatus *const *requests, size_t n)
{
    struct json_writer w = { .out = out };

    jw_array(&w);
    for (size_t i = 0; i < n; i++)
        message_write_json(&w, &requests[i]->base);
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

static void put_table(struct buf *out, Llmd__RequestStatus *const *requests, size_t n)
{
    static const struct table_column columns[] = {
        { "SEQUENCE", TABLE_LEFT },  { "GROUP", TABLE_RIGHT },     { "STATE", TABLE_LEFT },
        { "PROMPT", TABLE_RIGHT },   { "GENERATED", TABLE_RIGHT }, { "AGE", TABLE_RIGHT },
        { "KV PAGES", TABLE_RIGHT }, { "CRASHES", TABLE_RIGHT },   { "KILLS", TABLE_RIGHT },
        { "ERROR", TABLE_LEFT },
    };
    struct table t;

    table_init(&t, columns, sizeof columns / sizeof *columns);
    for (size_t i = 0; i < n; i++)
        add_row(&t, requests[i]);
    table_print(&t, out, terminal_has_colours(STDOUT_FILENO), terminal_width(STDOUT_FILENO));
    table_fini(&t);
}

static const struct argp_option requests_option_list[] = {
    { "sort", KEY_SORT, "age|prompt|generated|kv", 0, "The largest first (default: as accepted)",
      0 },
    { "state", KEY_STATE, "waiting|running|done|poisoned", 0, "Those in this state only", 0 },
    { "group", KEY_GROUP, "N", 0, "Those of this group only", 0 },
    { "json", 'j', 0, 0, "One JSON array; its keys are the field names of RequestStatus", 0 },
    { 0 },
};
const struct argp requests_argp = {
    .options = requests_option_list,
    .parser = parse,
    .doc = "Show every sequence that the ledgers hold, and the last ones that were ended because "
           "they had been running at crashes of their worker.",
    .children = global_options,
};

int requests_command(int argc, char **argv, struct globals g)
{
    struct requests_options o = { .globals = g };
    Llmd__CtlReply *r;
    size_t n;
    struct control_msg reply;
    struct buf out = { 0 };
    int code;

    command_parse(&requests_argp, argc, argv, &o);
    code = command_ask_plain(&o.globals, LLMD__CTL_COMMAND__CTL_REQUESTS, &reply);
    if (code != CTL_EXIT_OK)
        return code;
    r = reply.body;
    n = choose(r->requests, r->n_requests, &o);
    if (o.json)
        put_json(&out, r->requests, n);
    else
        put_table(&out, r->requests, n);
    fwrite(out.data, 1, out.n, stdout);
    if (r->requests_left_out)
        fprintf(stderr, "llmctl: %u more did not fit\n", r->requests_left_out);
    buf_fini(&out);
    control_msg_fini(&reply);
    return CTL_EXIT_OK;
}
