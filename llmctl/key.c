/* key.c - `llmctl key`: make a line for the server's file of API keys.
 *
 * It asks nobody: the line goes to standard output, to be put into the file, and the new key to standard error, once.
 * Where a key is there already, it is read from standard input, and only its hash comes out. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/api_keys.h"
#include "llmctl/command.h"

enum { KEY_BYTES_MAX = 512 };

struct key_options {
    struct globals globals;
    bool reads_key;
    struct api_key key;
};

static void take_word(struct key_options *o, const char *word, struct argp_state *state)
{
    struct err e;
    bool ok = o->key.name[0] ? api_key_set_option(&o->key, word, strlen(word), &e)
                             : api_key_set_name(&o->key, word, strlen(word), &e);

    if (!ok)
        argp_error(state, "%s", e.msg);
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct key_options *o = state->input;

    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->globals;
        return 0;
    case 's':
        o->reads_key = true;
        return 0;
    case ARGP_KEY_ARG:
        take_word(o, arg, state);
        return 0;
    case ARGP_KEY_NO_ARGS:
        argp_error(state, "a NAME is wanted");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* The first line of standard input. */
static bool read_key(char out[KEY_BYTES_MAX], struct err *e)
{
    size_t n;

    if (!fgets(out, KEY_BYTES_MAX, stdin))
        return err_set(e, ERR_INPUT, 0, "no key on standard input");
    n = strcspn(out, "\r\n");
    if (n == 0 || n == KEY_BYTES_MAX - 1 || strpbrk(out, " \t"))
        return err_set(e, ERR_INPUT, 0,
                       "the key on standard input is empty, too long or has blanks");
    out[n] = '\0';
    return true;
}

static bool add_key(struct key_options *o, char text[KEY_BYTES_MAX], struct err *e)
{
    if (o->key.n_hashes == API_KEY_HASHES_MAX)
        return err_set(e, ERR_INPUT, 0, "at most %d hashes, one of them of the new key",
                       API_KEY_HASHES_MAX);
    if (o->reads_key && !read_key(text, e))
        return false;
    if (!o->reads_key)
        secret_make_key(text);
    secret_hash(text, strlen(text), o->key.hash[o->key.n_hashes++]);
    return true;
}

static const struct argp_option key_option_list[] = {
    { "stdin", 's', 0, 0, "Take a key that is there from standard input, make none", 0 },
    { 0 },
};
const struct argp key_argp = {
    .options = key_option_list,
    .parser = parse,
    .args_doc = "NAME [rpm=N] [tpm=N] [concurrency=N] [weight=N] [priority=N] [sha256:HASH]",
    .doc = "Make an API key, and the line for the server's api_keys_file.\vThe line goes to "
           "standard output, the key to standard error: it is shown this once. sha256:HASH keeps "
           "an older key good beside it.",
    .children = global_options,
};

int key_command(int argc, char **argv, struct globals g)
{
    struct key_options o = { .globals = g, .key = { .weight = 1 } };
    char text[KEY_BYTES_MAX];
    struct buf line = { 0 };
    struct err e;

    command_parse(&key_argp, argc, argv, &o);
    if (!add_key(&o, text, &e)) {
        command_complain(&e);
        return CTL_EXIT_USAGE;
    }
    api_key_write(&o.key, &line);
    fwrite(line.data, 1, line.n, stdout);
    if (!o.reads_key)
        fprintf(stderr, "key of %s: %s\n", o.key.name, text);
    buf_fini(&line);
    return fflush(stdout) == 0 ? CTL_EXIT_OK : CTL_EXIT_REFUSED;
}
