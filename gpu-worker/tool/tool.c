/* tool.c - the command line of `llm-worker model`. */
#include "gpu-worker/tool/tool.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "common/json.h"
#include "gpu-worker/tool/convert.h"

static const char usage[] = "usage: llm-worker model inspect MODEL [--tensors]\n"
                            "       llm-worker model verify MODEL\n"
                            "       llm-worker model quantize MODEL OUT.gguf TYPE [--force]\n";

static void say_progress(void *arg, double share)
{
    (void)arg;
    printf("{\"progress\":%.4f}\n", share);
    fflush(stdout);
}

static int finish(struct buf *out, bool ok, const struct err *e)
{
    struct json_writer w = { .out = out };

    if (!ok && out->n == 0) {
        jw_object(&w);
        jw_key(&w, "ok");
        jw_bool(&w, false);
        jw_key(&w, "error");
        jw_str(&w, e->msg);
        jw_object_end(&w);
    }
    buf_add_char(out, '\n');
    fwrite(out->data, 1, out->n, stdout);
    buf_fini(out);
    return fflush(stdout) == 0 && ok ? EXIT_SUCCESS : EXIT_FAILURE;
}

static int inspect(const char *model, bool with_tensors)
{
    struct buf out = { 0 };
    struct err e = { 0 };
    bool ok = describe_model(model, with_tensors, &out, &e);

    return finish(&out, ok, &e);
}

static int verify(const char *model)
{
    struct buf out = { 0 };
    bool ok;

    verify_model(model, &out, &ok, say_progress, NULL);
    return finish(&out, ok, NULL);
}

/* What is half written goes when we are stopped. */
static char part[4200];

static void on_stop(int signal)
{
    unlink(part);
    _exit(128 + signal);
}

static void watch_stop(const char *to)
{
    struct sigaction act = { .sa_handler = on_stop };

    convert_part_name(to, part, sizeof part);
    sigaction(SIGINT, &act, NULL);
    sigaction(SIGTERM, &act, NULL);
    sigaction(SIGHUP, &act, NULL);
}

static void put_report(struct buf *out, const char *to, const struct convert_report *r)
{
    struct json_writer w = { .out = out };

    jw_object(&w);
    jw_key(&w, "ok");
    jw_bool(&w, true);
    jw_key(&w, "model");
    jw_str(&w, to);
    jw_key(&w, "tensors");
    jw_uint(&w, r->n_tensors);
    jw_key(&w, "from_bytes");
    jw_uint(&w, r->from_bytes);
    jw_key(&w, "to_bytes");
    jw_uint(&w, r->to_bytes);
    jw_key(&w, "relative_error");
    jw_double(&w, r->relative_error);
    jw_key(&w, "tokenizer");
    jw_bool(&w, r->has_tokenizer);
    jw_object_end(&w);
}

static int quantize(const char *model, const char *to, const char *type, bool force)
{
    enum tensor_type t = convert_type(type);
    struct convert_report report;
    struct buf out = { 0 };
    struct err e = { 0 };
    bool ok;

    if (t == TENSOR_NONE)
        ok = err_set(
            &e, ERR_CONFIG, 0,
            "type '%.40s' cannot be written; have F32, F16, BF16, Q8_0, Q5_1, Q5_0, Q4_1, Q4_0",
            type);
    else {
        watch_stop(to);
        ok = convert_model(model, to, t, force, &report, say_progress, NULL, &e);
    }
    if (ok)
        put_report(&out, to, &report);
    return finish(&out, ok, &e);
}

/* Take the word out of the arguments. */
static bool take_flag(int *argc, char **argv, const char *flag)
{
    for (int i = 1; i < *argc; i++)
        if (strcmp(argv[i], flag) == 0) {
            memmove(&argv[i], &argv[i + 1], (size_t)(*argc - i) * sizeof *argv);
            (*argc)--;
            return true;
        }
    return false;
}

int model_tool(int argc, char **argv)
{
    bool with_tensors = take_flag(&argc, argv, "--tensors"),
         force = take_flag(&argc, argv, "--force");

    if (argc == 3 && strcmp(argv[1], "inspect") == 0)
        return inspect(argv[2], with_tensors);
    if (argc == 3 && strcmp(argv[1], "verify") == 0)
        return verify(argv[2]);
    if (argc == 5 && strcmp(argv[1], "quantize") == 0)
        return quantize(argv[2], argv[3], argv[4], force);
    fputs(usage, stderr);
    return EX_USAGE;
}
