/* model.c - `llmctl model inspect|verify|quantize`: what a model is, whether it is whole, and how to make it
 * smaller.  llm-worker does the work (worker_tool.h); no server is asked. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "llmctl/command.h"
#include "llmctl/table.h"
#include "llmctl/worker_tool.h"

enum { KEY_TENSORS = 256, KEY_FORCE };

struct model_options {
    struct globals globals;
    const char *words[3]; /* inspect MODEL, verify MODEL, quantize MODEL OUT */
    unsigned n_words;
    const char *type;
    bool json, tensors, force;
};

/* ---- showing ---- */

static const char *text(const json_t *v, const char *key)
{
    const char *s = json_string_value(json_object_get(v, key));

    return s ? s : "-";
}

static unsigned long long number(const json_t *v, const char *key)
{
    return (unsigned long long)json_integer_value(json_object_get(v, key));
}

static const char *bytes(const json_t *v, const char *key, char out[32])
{
    terminal_bytes(out, 32, number(v, key));
    return out;
}

static void put_name(struct buf *out, const char *name, bool colours)
{
    char padded[16];

    snprintf(padded, sizeof padded, "%-10s", name);
    terminal_add(out, padded, TINT_DIM, colours);
}

static void put_line(struct buf *out, bool colours, const char *name, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

static void put_line(struct buf *out, bool colours, const char *name, const char *fmt, ...)
{
    char line[1024];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    put_name(out, name, colours);
    terminal_add(out, line, TINT_NONE, colours);
    buf_add_char(out, '\n');
}

static void put_parameters(struct buf *out, const json_t *v, bool colours)
{
    double n = (double)number(v, "parameters");

    put_line(out, colours, "family", "%s, %.4g %s parameters", text(v, "architecture"),
             n >= 1e9 ? n / 1e9 : n / 1e6, n >= 1e9 ? "billion" : "million");
}

static void put_shape(struct buf *out, const json_t *v, bool colours)
{
    unsigned long long experts = number(v, "experts"), window = number(v, "sliding_window");
    char more[96] = "";

    put_line(out, colours, "shape",
             "%llu layers of %llu, %llu heads (%llu of keys) of %llu, MLP %llu, vocabulary %llu",
             number(v, "layers"), number(v, "hidden_size"), number(v, "heads"),
             number(v, "kv_heads"), number(v, "head_dim"), number(v, "intermediate_size"),
             number(v, "vocab_size"));
    if (experts)
        put_line(out, colours, "experts", "%llu, %llu of them for a token", experts,
                 number(v, "experts_used"));
    if (window)
        snprintf(more, sizeof more, ", a window of %llu", window);
    put_line(out, colours, "context", "%llu tokens, rope scaling %s%s",
             number(v, "max_position_embeddings"), text(v, "rope_scaling"), more);
}

static void put_memory(struct buf *out, const json_t *v, bool colours)
{
    const json_t *w = json_object_get(v, "weights_bytes"),
                 *kv = json_object_get(v, "kv_bytes_per_token");
    char a[32], b[32], c[32];

    put_line(out, colours, "weights", "%s in memory; --quantize int8: %s, int4: %s",
             bytes(w, "none", a), bytes(w, "int8", b), bytes(w, "int4", c));
    put_line(out, colours, "kv", "%s a token in float16 (default), %s in int8, %s in float32",
             bytes(kv, "float16", a), bytes(kv, "int8", b), bytes(kv, "float32", c));
    terminal_bytes(a, sizeof a, number(kv, "float16") * number(v, "max_position_embeddings"));
    put_line(out, colours, "", "%s for one sequence as long as the context", a);
}

static void put_text(struct buf *out, const json_t *v, bool colours)
{
    const json_t *t = json_object_get(v, "tokenizer"), *c = json_object_get(v, "chat_template");

    if (json_object_get(t, "error"))
        put_line(out, colours, "tokenizer", "cannot be used: %s", text(t, "error"));
    else
        put_line(out, colours, "tokenizer",
                 "%s, %llu tokens, begins a text with %s, ends it with %s", text(t, "kind"),
                 number(t, "tokens"), text(t, "bos"), text(t, "eos"));
    if (json_object_get(c, "error"))
        put_line(out, colours, "template", "cannot be used: %s", text(c, "error"));
    else if (!json_is_true(json_object_get(c, "present")))
        put_line(out, colours, "template", "none: /v1/chat/completions will refuse");
    else
        put_line(out, colours, "template", "yes%s%s",
                 json_is_true(json_object_get(c, "takes_system")) ? ", knows system messages" : "",
                 json_is_true(json_object_get(c, "takes_tools")) ? ", knows tools" : "");
}

static void put_types(struct buf *out, const json_t *v, bool colours)
{
    static const struct table_column columns[] = { { "TYPE", TABLE_LEFT },
                                                   { "TENSORS", TABLE_RIGHT },
                                                   { "ELEMENTS", TABLE_RIGHT },
                                                   { "BYTES", TABLE_RIGHT } };
    struct table t;
    const json_t *one;
    char size[32];
    size_t i;

    table_init(&t, columns, 4);
    json_array_foreach (json_object_get(v, "types"), i, one) {
        table_add(&t, TINT_NONE, "%s", text(one, "type"));
        table_add(&t, TINT_NONE, "%llu", number(one, "tensors"));
        table_add(&t, TINT_NONE, "%llu", number(one, "elements"));
        table_add(&t, TINT_NONE, "%s", bytes(one, "bytes", size));
    }
    buf_add_char(out, '\n');
    table_print(&t, out, colours, 0);
    table_fini(&t);
}

static void put_tensors(struct buf *out, const json_t *v, bool colours)
{
    static const struct table_column columns[] = { { "TENSOR", TABLE_LEFT },
                                                   { "TYPE", TABLE_LEFT },
                                                   { "SHAPE", TABLE_LEFT },
                                                   { "BYTES", TABLE_RIGHT } };
    const json_t *list = json_object_get(v, "tensors"), *one;
    struct table t;
    char size[32];
    size_t i;

    if (!list)
        return;
    table_init(&t, columns, 4);
    json_array_foreach (list, i, one) {
        const json_t *shape = json_object_get(one, "shape");
        char *dims = json_dumps(shape, JSON_COMPACT);
        table_add(&t, TINT_NONE, "%s", text(one, "name"));
        table_add(&t, TINT_NONE, "%s", text(one, "type"));
        table_add(&t, TINT_NONE, "%s", dims ? dims : "-");
        table_add(&t, TINT_NONE, "%s", bytes(one, "bytes", size));
        free(dims);
    }
    buf_add_char(out, '\n');
    table_print(&t, out, colours, 0);
    table_fini(&t);
}

static void put_inspection(struct buf *out, const json_t *v, bool colours)
{
    size_t n = json_array_size(json_object_get(v, "files"));
    const char *quantization = text(v, "quantization");
    char size[32];

    put_line(out, colours, "model", "%s", text(v, "model"));
    put_line(out, colours, "format", "%s, %zu file%s, %s", text(v, "format"), n, n == 1 ? "" : "s",
             bytes(v, "file_bytes", size));
    if (strcmp(quantization, "none") != 0)
        put_line(out, colours, "quantised", "%s", quantization);
    put_parameters(out, v, colours);
    put_shape(out, v, colours);
    put_memory(out, v, colours);
    put_text(out, v, colours);
    put_types(out, v, colours);
    put_tensors(out, v, colours);
}

static void put_verdict(struct buf *out, const json_t *v, bool colours)
{
    const json_t *one;
    size_t i;

    json_array_foreach (json_object_get(v, "checks"), i, one) {
        bool ok = json_is_true(json_object_get(one, "ok"));
        terminal_add(out, ok ? "ok  " : "fail", ok ? TINT_GOOD : TINT_BAD, colours);
        buf_printf(out, "  %-10s  ", text(one, "name"));
        terminal_add(out, text(one, "finding"), TINT_NONE, colours);
        buf_add_char(out, '\n');
    }
}

static void put_made(struct buf *out, const json_t *v, bool colours)
{
    double error = json_number_value(json_object_get(v, "relative_error"));
    char from[32], to[32];

    put_line(out, colours, "made", "%s, %llu tensors", text(v, "model"), number(v, "tensors"));
    put_line(out, colours, "size", "%s, was %s", bytes(v, "to_bytes", to),
             bytes(v, "from_bytes", from));
    put_line(out, colours, "rounding", "%.3f %% of the weights' size (root mean square)",
             error * 100);
    if (!json_is_true(json_object_get(v, "tokenizer")))
        put_line(out, colours, "tokenizer", "none: the source has none");
}

/* ---- the command ---- */

static bool is(const struct model_options *o, const char *word)
{
    return strcmp(o->words[0], word) == 0;
}

static json_t *ask(const struct model_options *o, struct err *e)
{
    char *argv[8] = { (char *)(uintptr_t)o->words[0], (char *)(uintptr_t)o->words[1] };
    int n = 2;

    if (is(o, "quantize")) {
        argv[n++] = (char *)(uintptr_t)o->words[2];
        argv[n++] = (char *)(uintptr_t)o->type;
    }
    if (o->tensors)
        argv[n++] = (char *)(uintptr_t) "--tensors";
    if (o->force)
        argv[n++] = (char *)(uintptr_t) "--force";
    return worker_tool_run(argv, o->words[0], e);
}

static int show(const struct model_options *o, const json_t *v)
{
    bool ok = json_is_true(json_object_get(v, "ok")), colours = terminal_has_colours(STDOUT_FILENO);
    const char *error = json_string_value(json_object_get(v, "error"));
    struct buf out = { 0 };
    struct err e;

    if (o->json) {
        struct json_writer w = { .out = &out };
        jw_json(&w, v);
        buf_add_char(&out, '\n');
    } else if (error) {
        err_set(&e, ERR_MODEL, 0, "%s", error);
        command_complain(&e);
    } else if (is(o, "inspect"))
        put_inspection(&out, v, colours);
    else if (is(o, "verify"))
        put_verdict(&out, v, colours);
    else
        put_made(&out, v, colours);
    if (out.n > 0)
        fwrite(out.data, 1, out.n, stdout);
    buf_fini(&out);
    return ok ? CTL_EXIT_OK : CTL_EXIT_REFUSED;
}

static void check_words(const struct model_options *o, struct argp_state *state)
{
    bool quantize = o->n_words > 0 && is(o, "quantize");

    if (o->n_words == 0 || (!quantize && !is(o, "inspect") && !is(o, "verify")))
        argp_error(state, "what? inspect, verify or quantize");
    if (o->n_words != (quantize ? 3u : 2u))
        argp_error(state, quantize ? "quantize MODEL OUT.gguf --type=TYPE" : "which model?");
    if (quantize && !o->type)
        argp_error(state,
                   "quantize: --type is missing: q8_0, q5_1, q5_0, q4_1, q4_0, bf16, f16 or f32");
    if (!quantize && (o->type || o->force))
        argp_error(state, "--type and --force are for quantize");
    if (o->tensors && !is(o, "inspect"))
        argp_error(state, "--tensors is for inspect");
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct model_options *o = state->input;

    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->globals;
        return 0;
    case 'j':
        o->json = true;
        return 0;
    case 't':
        o->type = arg;
        return 0;
    case KEY_TENSORS:
        o->tensors = true;
        return 0;
    case KEY_FORCE:
        o->force = true;
        return 0;
    case ARGP_KEY_ARG:
        if (o->n_words == 3)
            argp_error(state, "'%s' is one word too many", arg);
        o->words[o->n_words++] = arg;
        return 0;
    case ARGP_KEY_END:
        check_words(o, state);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option model_option_list[] = {
    { "type", 't', "q8_0|q5_1|q5_0|q4_1|q4_0|bf16|f16|f32", 0,
      "quantize: number format of matrices", 0 },
    { "force", KEY_FORCE, 0, 0, "quantize: replace a file that exists", 0 },
    { "tensors", KEY_TENSORS, 0, 0, "inspect: list every tensor", 0 },
    { "json", 'j', 0, 0, "One JSON object", 0 },
    { 0 },
};
const struct argp model_argp = {
    .options = model_option_list,
    .parser = parse,
    .args_doc = "inspect MODEL\nverify MODEL\nquantize MODEL OUT.gguf",
    .doc = "Look at a model without a server: a HuggingFace directory, a GGUF file or a directory "
           "with "
           "one."
           "\vinspect: family, shape, number formats, memory for weights and KV pages, tokenizer, "
           "chat "
           "template.  verify: files, tensors, tokenizer and checksums are whole, and no weight is "
           "NaN or "
           "infinite; every byte is read.  quantize: the same model as one GGUF file in another "
           "number "
           "format; it is opened again and compared with the source.  Exit code 1 when something "
           "is wrong "
           "with the model.",
    .children = global_options,
};

int model_command(int argc, char **argv, struct globals g)
{
    struct model_options o = { .globals = g };
    struct err e;
    json_t *v;
    int code;

    command_parse(&model_argp, argc, argv, &o);
    v = ask(&o, &e);
    if (!v) {
        command_complain(&e);
        return CTL_EXIT_REFUSED;
    }
    code = show(&o, v);
    json_decref(v);
    return code;
}
