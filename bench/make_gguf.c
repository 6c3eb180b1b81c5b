/* make_gguf.c - bench-make-gguf: a GGUF file of random weights (random_gguf.h).
 *
 *   bench-make-gguf [--shape NAME] [--type NAME] [--seed N] [--decoded] FILE */
#include <argp.h>
#include <stdlib.h>

#include "bench/random_gguf.h"

struct options {
    const char *shape, *type, *path;
    uint64_t seed;
    bool decoded;
};

static const struct argp_option argp_options[] = {
    { "shape", 's', "NAME", 0, "7b, 7b-half, 1.1b, 110m or tiny (default 110m)", 0 },
    { "type", 't', "NAME", 0, "q4_0, q8_0, f16 or bf16 (default q4_0)", 0 },
    { "seed", 'n', "N", 0, "the same seed gives the same bytes (default 1)", 0 },
    { "decoded", 'd', 0, 0, "the same weights, but written as F32", 0 },
    { 0 },
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct options *o = state->input;

    switch (key) {
    case 's':
        o->shape = arg;
        return 0;
    case 't':
        o->type = arg;
        return 0;
    case 'n':
        o->seed = strtoull(arg, NULL, 10);
        return 0;
    case 'd':
        o->decoded = true;
        return 0;
    case ARGP_KEY_ARG:
        if (o->path)
            argp_usage(state);
        o->path = arg;
        return 0;
    case ARGP_KEY_END:
        if (!o->path)
            argp_usage(state);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

int main(int argc, char **argv)
{
    static const struct argp argp = { .options = argp_options,
                                      .parser = parse,
                                      .args_doc = "FILE",
                                      .doc = "Write a GGUF file of random weights." };
    struct options o = { .shape = "110m", .type = "q4_0", .seed = 1 };
    struct random_model m;
    struct err e;

    argp_parse(&argp, argc, argv, 0, NULL, &o);
    m = (struct random_model){ shape_find(o.shape), weight_type_find(o.type), o.seed, o.decoded };
    if (!m.shape || !m.type) {
        char names[128];
        (m.shape ? weight_type_names : shape_names)(names, sizeof names);
        fprintf(stderr, "bench-make-gguf: '%s': one of %s\n", m.shape ? o.type : o.shape, names);
        return 2;
    }
    if (!random_gguf_write(&m, o.path, &e)) {
        fprintf(stderr, "bench-make-gguf: %s\n", e.msg);
        return 1;
    }
    return 0;
}
