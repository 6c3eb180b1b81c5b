/* completion.c - `llmctl completion SHELL`: scripts for bash, zsh and fish, made from the table of commands.
 *
 * What stands for an option's value follows from the name of its argument: FILE and DIR are paths, a|b|c
 * one of these words, anything else is the user's to type. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "llmctl/commands.h"

struct script {
    struct buf *out;
    const char *command; /* whose options are written */
};

/* The option has a short form. */
static bool has_letter(const struct argp_option *o)
{
    return o->key > ' ' && o->key < 127 && isalnum(o->key);
}

static bool is_path(const char *arg)
{
    return arg && (strcmp(arg, "FILE") == 0 || strcmp(arg, "DIR") == 0);
}

/* a|b|c */
static bool is_choice(const char *arg)
{
    return arg && strchr(arg, '|');
}

/* "a|b|c" as "a b c". */
static void put_words(struct buf *out, const char *choice)
{
    for (; *choice; choice++)
        buf_add_char(out, *choice == '|' ? ' ' : *choice);
}

/* For a string in single quotes; the characters in `special` get a backslash. */
static void put_quoted(struct buf *out, const char *text, const char *special)
{
    for (; *text; text++) {
        if (*text == '\'') {
            buf_add_str(out, "'\\''");
            continue;
        }
        if (strchr(special, *text))
            buf_add_char(out, '\\');
        buf_add_char(out, *text);
    }
}

/* ---- bash ---- */

static void bash_option(void *arg, const struct argp_option *o)
{
    if (o->name)
        buf_printf(arg, " --%s", o->name);
}

/* A case for the word after the option. */
static void bash_value(void *arg, const struct argp_option *o)
{
    const struct script *s = arg;

    if (!o->name || strcmp(o->name, "runtime-dir") == 0 || (!is_path(o->arg) && !is_choice(o->arg)))
        return;
    buf_printf(s->out, "    %s:--%s", s->command, o->name);
    if (has_letter(o))
        buf_printf(s->out, " | %s:-%c", s->command, o->key);
    buf_add_str(s->out, ")\n        mapfile -t COMPREPLY < <(compgen ");
    if (is_path(o->arg))
        buf_add_str(s->out, o->arg[0] == 'D' ? "-d" : "-f");
    else {
        buf_add_str(s->out, "-W '");
        put_words(s->out, o->arg);
        buf_add_char(s->out, '\'');
    }
    buf_add_str(s->out, " -- \"$current\")\n        return\n        ;;\n");
}

/* "--api=x" comes as three words: COMP_WORDBREAKS has '='. */
static void put_bash(struct buf *out)
{
    buf_add_str(
        out, "# Bash completion of llmctl.\n"
             "_llmctl()\n"
             "{\n"
             "    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}\n"
             "    local command='' word options='' words='' paths=''\n"
             "    local -i i\n"
             "\n"
             "    [[ $current == '=' ]] && current=''\n"
             "    [[ $previous == '=' ]] && previous=${COMP_WORDS[COMP_CWORD - 2]}\n"
             "    for ((i = 1; i < COMP_CWORD; i++)); do\n"
             "        word=${COMP_WORDS[i]}\n"
             "        case $word in\n"
             "        -R | --runtime-dir) i+=1 ;;\n"
             "        -* | =) ;;\n"
             "        *)\n"
             "            command=$word\n"
             "            break\n"
             "            ;;\n"
             "        esac\n"
             "    done\n"
             "    if [[ $previous == -R || $previous == --runtime-dir ]]; then\n"
             "        mapfile -t COMPREPLY < <(compgen -d -- \"$current\")\n"
             "        return\n"
             "    fi\n");
    buf_add_str(out, "    case $command:$previous in\n");
    for (const struct command *c = commands; c->name; c++)
        options_each(c->argp, bash_value, &(struct script){ out, c->name });
    buf_add_str(out, "    esac\n    case $command in\n    '') words='");
    for (const struct command *c = commands; c->name; c++)
        buf_printf(out, "%s%s", c == commands ? "" : " ", c->name);
    buf_add_str(out, "' options='--help --version --runtime-dir' ;;\n");
    for (const struct command *c = commands; c->name; c++) {
        buf_printf(out, "    %s) ", c->name);
        if (c->then_files)
            buf_printf(out, "if [[ $previous == %s ]]; then words='%s'; else paths=f; fi; ",
                       c->name, c->words);
        else
            buf_printf(out, "words='%s' ", c->words);
        buf_add_str(out, "options='--help");
        options_each(c->argp, bash_option, out);
        buf_add_str(out, "' ;;\n");
    }
    buf_add_str(out,
                "    esac\n"
                "    if [[ $current == -* ]]; then\n"
                "        words=$options\n"
                "    elif [[ $paths ]]; then\n"
                "        mapfile -t COMPREPLY < <(compgen -\"$paths\" -- \"$current\")\n"
                "        return\n"
                "    fi\n"
                "    mapfile -t COMPREPLY < <(compgen -W \"${words:-$options}\" -- \"$current\")\n"
                "}\n"
                "complete -o default -F _llmctl llmctl\n");
}

/* ---- zsh ---- */

static void zsh_value(struct buf *out, const char *arg)
{
    if (!arg)
        return;
    buf_printf(out, ":%s:", is_choice(arg) ? "choice" : arg);
    if (is_path(arg))
        buf_add_str(out, arg[0] == 'D' ? "_files -/" : "_files");
    else if (is_choice(arg)) {
        buf_add_char(out, '(');
        put_words(out, arg);
        buf_add_char(out, ')');
    }
}

static void zsh_spec(struct buf *out, const struct argp_option *o, const char *dashed,
                     bool has_equals)
{
    buf_printf(out, " \\\n            '%s%s[", dashed, has_equals && o->arg ? "=" : "");
    put_quoted(out, o->doc ? o->doc : "", "[]\\:");
    buf_add_char(out, ']');
    zsh_value(out, o->arg);
    buf_add_char(out, '\'');
}

static void zsh_option(void *arg, const struct argp_option *o)
{
    char dashed[64];

    if (o->name) {
        snprintf(dashed, sizeof dashed, "--%s", o->name);
        zsh_spec(arg, o, dashed, true);
    }
    if (has_letter(o)) {
        snprintf(dashed, sizeof dashed, "-%c", o->key);
        zsh_spec(arg, o, dashed, false);
    }
}

static void zsh_words(struct buf *out, const struct command *c)
{
    if (c->words[0])
        buf_printf(out, " \\\n            '%s:argument:(%s)'", c->then_files ? "1" : "*", c->words);
    if (c->then_files)
        buf_add_str(out, " \\\n            '*:file:_files'");
}

static void put_zsh(struct buf *out)
{
    buf_add_str(out, "#compdef llmctl\n"
                     "# Zsh completion of llmctl.\n"
                     "_llmctl()\n"
                     "{\n"
                     "    local line state\n"
                     "    local -a list\n"
                     "\n"
                     "    _arguments -C '(-R --runtime-dir)'{-R,--runtime-dir=}'[folder of "
                     "control.sock]:DIR:_files -/' \\\n"
                     "        '--help[show help]' '--version[show the version]' '1: :->command' "
                     "'*:: :->rest'\n"
                     "    case $state in\n"
                     "    command)\n"
                     "        list=(\n");
    for (const struct command *c = commands; c->name; c++) {
        buf_printf(out, "            '%s:", c->name);
        put_quoted(out, c->help, ":\\");
        buf_add_str(out, "'\n");
    }
    buf_add_str(out, "        )\n"
                     "        _describe -t commands command list\n"
                     "        ;;\n"
                     "    rest)\n"
                     "        case $line[1] in\n");
    for (const struct command *c = commands; c->name; c++) {
        buf_printf(out, "        %s)\n            _arguments", c->name);
        options_each(c->argp, zsh_option, out);
        zsh_words(out, c);
        buf_add_str(out, "\n            ;;\n");
    }
    buf_add_str(out, "        esac\n"
                     "        ;;\n"
                     "    esac\n"
                     "}\n"
                     "if [[ $funcstack[1] == _llmctl ]]; then\n"
                     "    _llmctl \"$@\"\n"
                     "else\n"
                     "    compdef _llmctl llmctl\n"
                     "fi\n");
}

/* ---- fish ---- */

static void fish_option(void *arg, const struct argp_option *o)
{
    const struct script *f = arg;

    buf_printf(f->out, "complete -c llmctl -n '__fish_seen_subcommand_from %s'", f->command);
    if (has_letter(o))
        buf_printf(f->out, " -s %c", o->key);
    if (o->name)
        buf_printf(f->out, " -l %s", o->name);
    if (is_path(o->arg))
        buf_add_str(f->out, o->arg[0] == 'D' ? " -xa '(__fish_complete_directories)'" : " -rF");
    else if (is_choice(o->arg)) {
        buf_add_str(f->out, " -xa '");
        put_words(f->out, o->arg);
        buf_add_char(f->out, '\'');
    } else if (o->arg)
        buf_add_str(f->out, " -x");
    buf_add_str(f->out, " -d '");
    for (const char *c = o->doc ? o->doc : ""; *c; c++) { /* fish knows \' in single quotes */
        if (*c == '\'' || *c == '\\')
            buf_add_char(f->out, '\\');
        buf_add_char(f->out, *c);
    }
    buf_add_str(f->out, "'\n");
}

static void put_fish(struct buf *out)
{
    buf_add_str(out, "# Fish completion of llmctl.\n"
                     "complete -c llmctl -f\n"
                     "complete -c llmctl -n __fish_use_subcommand -s R -l runtime-dir -xa "
                     "'(__fish_complete_directories)' -d 'Folder of control.sock'\n");
    for (const struct command *c = commands; c->name; c++) {
        struct script f = { .out = out, .command = c->name };
        buf_printf(out, "complete -c llmctl -n __fish_use_subcommand -a %s -d '%s'\n", c->name,
                   c->help);
        if (c->then_files)
            buf_printf(out, "complete -c llmctl -n '__fish_seen_subcommand_from %s' -F\n", c->name);
        if (c->words[0])
            buf_printf(out, "complete -c llmctl -n '__fish_seen_subcommand_from %s' -a '%s'\n",
                       c->name, c->words);
        options_each(c->argp, fish_option, &f);
    }
}

bool completion_put(struct buf *out, const char *shell)
{
    static const struct {
        const char *shell;
        void (*put)(struct buf *out);
    } scripts[] = { { "bash", put_bash }, { "zsh", put_zsh }, { "fish", put_fish } };

    for (size_t i = 0; i < sizeof scripts / sizeof *scripts; i++)
        if (strcmp(shell, scripts[i].shell) == 0) {
            scripts[i].put(out);
            return true;
        }
    return false;
}

/* ---- the command ---- */

struct completion_options {
    struct globals globals;
    const char *shell;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct completion_options *o = state->input;

    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->globals;
        return 0;
    case ARGP_KEY_ARG:
        if (o->shell)
            argp_error(state, "one shell only");
        o->shell = arg;
        return 0;
    case ARGP_KEY_NO_ARGS:
        argp_error(state, "which shell? bash, zsh or fish");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

const struct argp completion_argp = {
    .parser = parse,
    .args_doc = "bash|zsh|fish",
    .doc = "Write a completion script to standard output.\vFor this shell only: "
           "`eval \"$(llmctl completion bash)\"`. A package installs them for all.",
    .children = global_options,
};

int completion_command(int argc, char **argv, struct globals g)
{
    struct completion_options o = { .globals = g };
    struct buf out = { 0 };

    command_parse(&completion_argp, argc, argv, &o);
    if (!completion_put(&out, o.shell)) {
        fprintf(stderr, "llmctl: there is no completion for '%s'; have bash, zsh or fish\n",
                o.shell);
        return CTL_EXIT_USAGE;
    }
    fwrite(out.data, 1, out.n, stdout);
    buf_fini(&out);
    return fflush(stdout) == 0 ? CTL_EXIT_OK : CTL_EXIT_REFUSED;
}
