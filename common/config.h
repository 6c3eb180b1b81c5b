/* config.h - every setting of llmd: one struct, made by config.def.
 *
 * Sources, later ones win: built-in, file, environment, command line.  Only llmd reads sources; its
 * children get the values in BOOT (proto/llmd.proto) and apply them with config_set().
 *
 * A value is checked where it enters (range, choice), so whoever holds a struct config may believe it. */
#ifndef LLMD_COMMON_CONFIG_H
#define LLMD_COMMON_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/log.h"

enum { CONFIG_TEXT_BYTES = 2048 }; /* an environment of the OCI service has no more in all */

enum config_id {
#define NUM(name, ...)    CONFIG_##name,
#define REAL(name, ...)   CONFIG_##name,
#define TEXT(name, ...)   CONFIG_##name,
#define CHOICE(name, ...) CONFIG_##name,
#include "common/config.def"
#undef NUM
#undef REAL
#undef TEXT
#undef CHOICE
    N_CONFIG
};

struct config {
#define NUM(name, ...)    uint64_t name;
#define REAL(name, ...)   double name;
#define TEXT(name, ...)   char name[CONFIG_TEXT_BYTES];
#define CHOICE(name, ...) char name[24];
#include "common/config.def"
#undef NUM
#undef REAL
#undef TEXT
#undef CHOICE
    char source[N_CONFIG][64]; /* where each value came from, for people */
};

/* All built-in values. */
void config_init(struct config *c);

/* Set one by its name ('-' and '_' are the same).  ERR_CONFIG names setting, value and what is allowed;
 * the old value then stays. */
bool config_set(struct config *c, const char *name, const char *value, const char *source,
                struct err *e);

/* LLMD_<NAME> and the alias names of existing deployments; LLMD_ wins.  `environ`-style array. */
bool config_read_environment(struct config *c, char *const *environment, struct err *e);

/* A YAML mapping of setting: value (config_file.c).  Unknown keys are errors that name the line. */
bool config_read_file(struct config *c, const char *path, struct err *e);

/* The setting of this name ('-' and '_' are the same), or -1. */
int config_find(const char *name);

/* Walk all settings: name, help, and when it takes effect. */
const char *config_name(enum config_id id);
const char *config_help(enum config_id id);
bool config_is_live(enum config_id id);
/* The value as text, as config_set() would take it. */
void config_value(const struct config *c, enum config_id id, char *out, size_t n);
/* The same for people and logs: a secret is "(secret)". */
void config_shown_value(const struct config *c, enum config_id id, char *out, size_t n);
/* Built-in value and allowed range or words, for --help: "8080 (0..65535)". */
void config_range(enum config_id id, char *out, size_t n);

enum log_level config_log_level(const struct config *c);
enum log_format config_log_format(const struct config *c);

/* The name the APIs show: served_model_name, else the last component of the model's path. */
void config_served_name(const struct config *c, char *out, size_t n);

#endif
