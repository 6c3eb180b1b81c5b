/* settings.c - reads LLMD_FAKE_CUDA. */
#include "tests/cuda/fake/settings.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct fake_settings settings;

void fake_say(const char *fmt, ...)
{
    char text[512];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    fprintf(stderr, "fake libcuda: %s\n", text);
}

static void refuse(const char *what, const char *value)
{
    fake_say("LLMD_FAKE_CUDA: %s '%s' is not understood", what, value);
    abort();
}

static uint64_t number(const char *value)
{
    char *end = NULL;
    uint64_t n = strtoull(value, &end, 0);

    if (end == value)
        refuse("number", value);
    if (*end == 'k')
        return n << 10;
    if (*end == 'm')
        return n << 20;
    if (*end == 'g')
        return n << 30;
    if (*end)
        refuse("number", value);
    return n;
}

static int choice(const char *value, const char *const *words)
{
    for (int i = 0; words[i]; i++)
        if (strcmp(words[i], value) == 0)
            return i;
    refuse("value", value);
    return 0;
}

static void copy_text(char *to, size_t bytes, const char *value)
{
    if (strlen(value) >= bytes)
        refuse("value", value);
    strcpy(to, value);
}

static void set(struct fake_settings *s, const char *key, const char *value)
{
    static const char *const modes[] = { "eager", "lazy", "random", NULL };
    static const char *const switches[] = { "off", "on", NULL };
    static const char *const leaks[] = { "no", "fatal", NULL };

    if (strcmp(key, "gpus") == 0)
        s->n_gpus = (int)number(value);
    else if (strcmp(key, "memory") == 0)
        s->memory_bytes = number(value);
    else if (strcmp(key, "sm") == 0)
        s->sm = (int)number(value);
    else if (strcmp(key, "multiprocessors") == 0)
        s->n_multiprocessors = (int)number(value);
    else if (strcmp(key, "mode") == 0)
        s->mode = (enum fake_mode)choice(value, modes);
    else if (strcmp(key, "delay_us") == 0)
        s->delay_us = (uint32_t)number(value);
    else if (strcmp(key, "seed") == 0)
        s->seed = number(value);
    else if (strcmp(key, "state") == 0)
        copy_text(s->state, sizeof s->state, value);
    else if (strcmp(key, "faults") == 0)
        copy_text(s->faults, sizeof s->faults, value);
    else if (strcmp(key, "leaks") == 0)
        s->leaks_are_fatal = choice(value, leaks) == 1;
    else if (strcmp(key, "driver") == 0)
        s->driver_version = (int)number(value);
    else if (strcmp(key, "init") == 0)
        s->init_result = (int)number(value);
    else if (strcmp(key, "persistence") == 0)
        s->is_persistent = choice(value, switches) == 1;
    else
        refuse("key", key);
}

static void read_settings(void)
{
    const char *env = getenv("LLMD_FAKE_CUDA");
    char *text = strdup(env ? env : ""), *rest = text, *item;

    settings = (struct fake_settings){ .n_gpus = 1,
                                       .memory_bytes = 1ull << 30,
                                       .sm = 80,
                                       .n_multiprocessors = 4,
                                       .delay_us = 200,
                                       .seed = 1,
                                       .driver_version = 13000,
                                       .is_persistent = true };
    while (text && (item = strsep(&rest, ",")) != NULL) {
        char *value = strchr(item, '=');

        if (*item == '\0')
            continue;
        if (!value)
            refuse("item", item);
        *value++ = '\0';
        set(&settings, item, value);
    }
    free(text);
    if (settings.n_gpus < 0 || settings.n_gpus > FAKE_GPUS_MAX)
        refuse("gpus", env);
}

const struct fake_settings *fake_settings(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, read_settings);
    return &settings;
}
