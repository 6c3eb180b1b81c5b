/* commands.c - the table. */
#include "llmctl/commands.h"

#include <string.h>

#define COMMAND(name) name##_command, &name##_argp

const struct command commands[] = {
    { "status", "[--json] [--watch S]", "processes, groups, model, load", COMMAND(status), "",
      false },
    { "top", "[--interval S]", "the same, live on a terminal", COMMAND(top), "", false },
    { "requests", "[--sort KEY] [--state S] [--json]",
      "sequences in the ledgers, and poisoned ones", COMMAND(requests), "", false },
    { "logs", "[PROCESS] [-f] [-n N] [--json]", "last lines of each process", COMMAND(logs),
      "llmd gateway worker", false },
    { "generate", "PROMPT", "continue a text, streaming", COMMAND(generate), "", false },
    { "chat", "[MESSAGE]", "one message, or a conversation", COMMAND(chat), "", false },
    { "bench", "[--rate R | -c N] [--json]", "put a server under load and measure it",
      COMMAND(bench), "", false },
    { "wait", "[--timeout S]", "until the server is ready", COMMAND(wait), "", false },
    { "config", "[--json]", "every setting and where it came from", COMMAND(config), "", false },
    { "doctor", "[--json]", "what this host should have set", COMMAND(doctor), "", false },
    { "model", "inspect|verify|quantize MODEL", "look at a model, or write it smaller",
      COMMAND(model), "inspect verify quantize", true },
    { "support-bundle", "[-o FILE]", "facts for whoever helps, without secrets",
      COMMAND(support_bundle), "", false },
    { "key", "NAME [LIMIT...]", "make an API key", COMMAND(key),
      "rpm= tpm= concurrency= weight= priority=", false },
    { "drain", "", "finish what runs, take nothing new, exit", COMMAND(drain), "", false },
    { "restart", "gateway | group N | llmd", "end one part and start it again", COMMAND(restart),
      "gateway group llmd", false },
    { "reload", "[--model DIR]", "read settings again, or change the model", COMMAND(reload), "",
      false },
    { "upgrade", "", "replace processes by the installed programs", COMMAND(upgrade), "", false },
    { "completion", "bash|zsh|fish", "a completion script for that shell", COMMAND(completion),
      "bash zsh fish", false },
    { "version", "", "of llmctl and of the server", COMMAND(version), "", false },
    { 0 },
};

const struct command *command_find(const char *name)
{
    for (const struct command *c = commands; c->name; c++)
        if (strcmp(c->name, name) == 0)
            return c;
    return NULL;
}

void options_each(const struct argp *argp, option_fn *fn, void *arg)
{
    for (const struct argp_option *o = argp->options; o && (o->name || o->key || o->doc); o++)
        if (o->name && !(o->flags & OPTION_HIDDEN)) /* else it is a heading */
            fn(arg, o);
    for (const struct argp_child *c = argp->children; c && c->argp; c++)
        options_each(c->argp, fn, arg);
}
