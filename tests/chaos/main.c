/* main.c - the chaos suite from the command line; `make chaos` calls it.
 *
 * The last line of its output is the result.  Exit code 0: nothing was lost, wrong, refused or leaked,
 * and the server always came back; 1: something was; 2: it could not be run.  A peer (--peer-command)
 * is measured, not judged: the code is 0 when the run came to its end. */
#include <argp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/chaos/chaos.h"

enum option_key {
    KEY_SEED = 256,
    KEY_ROUNDS,
    KEY_KILLS,
    KEY_CLIENTS,
    KEY_BIN,
    KEY_MODEL,
    KEY_SHAPE,
    KEY_ONLY,
    KEY_LARGE,
    KEY_DEVICE,
    KEY_CALM,
    KEY_HANG,
    KEY_CSV,
    KEY_PEER_COMMAND,
    KEY_PEER_PORT,
    KEY_PEER_MODEL,
    KEY_VERBOSE,
};

struct arguments {
    struct chaos_options options;
    const char *csv;
};

static const struct argp_option option_table[] = {
    { "seed", KEY_SEED, "N", 0, "Everything left to chance comes from it (1)", 0 },
    { "rounds", KEY_ROUNDS, "N", 0, "Rounds of kills, all shapes together", 0 },
    { "kills-per-round", KEY_KILLS, "N", 0, "So many", 0 },
    { "clients", KEY_CLIENTS, "N", 0, "Clients at once (32)", 0 },
    { "bin", KEY_BIN, "DIR", 0, "Folder of llmd and the others", 0 },
    { "model", KEY_MODEL, "DIR", 0, "Model to serve", 0 },
    { "shape", KEY_SHAPE, "NAME", 0, "Only this one: one, groups2 or tp2", 0 },
    { "only", KEY_ONLY, "KINDS", 0, "Only these kinds of kills, separated by commas", 0 },
    { "large", KEY_LARGE, NULL, 0, "Few, short requests, for a large model", 0 },
    { "device", KEY_DEVICE, "cuda", 0,
      "Servers on fake GPUs, with the faults of device_faults.def; before --clients", 0 },
    { "calm-ms", KEY_CALM, "N", 0, "Load without kills before the rounds of a shape", 0 },
    { "hang-step-ms", KEY_HANG, "N", 0, "A step is never taken for hung before", 0 },
    { "csv", KEY_CSV, "FILE", 0, "Where the table goes, besides the terminal", 0 },
    { "peer-command", KEY_PEER_COMMAND, "CMD", 0, "Drive this server instead, in a shell loop", 0 },
    { "peer-port", KEY_PEER_PORT, "N", 0, "Where it listens", 0 },
    { "peer-model", KEY_PEER_MODEL, "NAME", 0, "The name it knows its model by", 0 },
    { "verbose", KEY_VERBOSE, NULL, 0, "Tell every kill", 0 },
    { 0 },
};

static error_t take_option(int key, char *text, struct argp_state *state)
{
    struct arguments *a = state->input;
    struct chaos_options *o = &a->options;

    switch (key) {
    case KEY_SEED:
        o->seed = strtoull(text, NULL, 10);
        break;
    case KEY_ROUNDS:
        o->rounds = (uint32_t)strtoul(text, NULL, 10);
        break;
    case KEY_KILLS:
        o->kills_per_round = (uint32_t)strtoul(text, NULL, 10);
        break;
    case KEY_CLIENTS:
        o->n_clients = (uint32_t)strtoul(text, NULL, 10);
        break;
    case KEY_BIN:
        o->bin = text;
        break;
    case KEY_MODEL:
        o->model = text;
        break;
    case KEY_SHAPE:
        o->shape = text;
        break;
    case KEY_ONLY:
        o->only = text;
        break;
    case KEY_LARGE:
        o->set = CATALOG_LARGE;
        break;
    case KEY_DEVICE:
        if (strcmp(text, "cuda") != 0)
            argp_error(state, "--device: only cuda is one");
        chaos_use_gpus(o, FAKE_CUDA_DIR, TEST_SOURCE_DIR "/tests/vectors/tokenizer/llama3");
        break;
    case KEY_CALM:
        o->calm_ms = strtoull(text, NULL, 10);
        break;
    case KEY_HANG:
        o->hang_step_ms = (uint32_t)strtoul(text, NULL, 10);
        break;
    case KEY_CSV:
        a->csv = text;
        break;
    case KEY_PEER_COMMAND:
        o->peer_command = text;
        o->set = CATALOG_PEER;
        break;
    case KEY_PEER_PORT:
        o->peer_port = (uint16_t)strtoul(text, NULL, 10);
        break;
    case KEY_PEER_MODEL:
        o->peer_model = text;
        break;
    case KEY_VERBOSE:
        o->is_verbose = true;
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static bool are_sane(const struct chaos_options *o)
{
    return o->n_clients >= 1 && o->n_clients <= CLIENTS_MAX && o->kills_per_round >= 1 &&
           !o->peer_command == !o->peer_port;
}

static void write_csv(const char *path, struct chaos_result *r)
{
    FILE *f = fopen(path, "we");

    if (!f) {
        perror(path);
        return;
    }
    chaos_csv(r, f);
    fclose(f);
}

static void end_early(int number)
{
    (void)number;
    chaos_stop();
}

static bool is_clean(const struct chaos_result *r)
{
    const struct counts *c = &r->counts;

    return c->lost + c->wrong + c->refused + c->leaked + c->failed == 0 && r->n_defects == 0;
}

int main(int argc, char **argv)
{
    static const struct argp argp = {
        option_table,
        take_option,
        NULL,
        "Kill processes of a server under load, and compare every "
        "answer with its undisturbed run.  SIGINT ends the run early, "
        "with its result.",
        NULL,
        NULL,
        NULL
    };
    struct arguments a = { .options = chaos_defaults() };
    struct chaos_result r;
    struct err e;

    a.options.bin = TEST_BIN_DIR;
    a.options.model = TEST_SOURCE_DIR "/models/stories-demo";
    argp_parse(&argp, argc, argv, 0, NULL, &a);
    if (!are_sane(&a.options)) {
        fprintf(stderr, "chaos: these options do not fit together\n");
        return 2;
    }
    printf("seed %lu\n", (unsigned long)a.options.seed);
    signal(SIGINT, end_early);
    if (!chaos_run(&a.options, &r, &e)) {
        fprintf(stderr, "chaos: %s\n", e.msg);
        return 2;
    }
    chaos_csv(&r, stdout);
    if (a.csv)
        write_csv(a.csv, &r);
    if (r.n_defects)
        printf("%u defects, evidence in %s\n", r.n_defects, r.evidence_dir);
    chaos_line(&r, stdout);
    int code = is_clean(&r) || a.options.peer_command ? 0 : 1;
    chaos_result_fini(&r);
    return code;
}
