/* fuzz_config_file.c - any bytes as a settings file: settings that hold, or an error with a message. */
#include "common/config.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* What config_set() let in must be what it would let in again. */
static void check_values(const struct config *c)
{
    char value[CONFIG_TEXT_BYTES];
    struct config again;

    config_init(&again);
    for (int i = 0; i < N_CONFIG; i++) {
        enum config_id id = (enum config_id)i;
        bool ok;
        config_value(c, id, value, sizeof value);
        ok = config_set(&again, config_name(id), value, "again", NULL);
        assert(ok);
        assert(memchr(c->source[i], '\0', sizeof c->source[i]));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    struct err e = { 0 };
    struct config c;
    char path[32];
    bool ok;

    assert(fd >= 0);
    ok = write(fd, data, n) == (ssize_t)n;
    assert(ok);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    config_init(&c);
    ok = config_read_file(&c, path, &e);
    assert(ok || (e.code == ERR_CONFIG && e.msg[0]));
    check_values(&c);
    close(fd);
    return 0;
}
