/* cold_start.c - how long from starting llmd to the first token at a client?
 *
 * Each round starts a fresh llmd (nothing runs before, nothing is kept), connects as soon as the port
 * accepts, sends one streaming request at once, and stops the clock at the first body byte of the
 * answer; then SIGTERM, and the next round.  The page cache is left warm unless --drop-caches (root) is
 * given.  One CSV line a round on stdout, the median on stderr.
 *
 *     bench-cold-start BIN_DIR MODEL_DIR [ROUNDS] [--drop-caches] */
#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "tests/proc/http_client.h"

enum { PORT = 18973, ROUNDS_MAX = 1000 };

static void nap_us(long us)
{
    nanosleep(&(struct timespec){ .tv_nsec = us * 1000 }, NULL);
}

static void drop_caches(void)
{
    int fd;

    sync();
    fd = open("/proc/sys/vm/drop_caches", O_WRONLY);
    if (fd < 0 || write(fd, "3", 1) != 1)
        fprintf(stderr, "cold_start: cannot drop the page cache, it stays warm\n");
    if (fd >= 0)
        close(fd);
}

static pid_t start_llmd(const char *bin_dir, const char *model, const char *runtime_dir)
{
    char program[512], port[16];
    pid_t pid;

    snprintf(program, sizeof program, "%s/llmd", bin_dir);
    snprintf(port, sizeof port, "%d", PORT);
    pid = fork();
    if (pid == 0) {
        execl(program, "llmd", "--host", "127.0.0.1", "--port", port, "--model", model,
              "--runtime-dir", runtime_dir, "--log-level", "error", (char *)NULL);
        _exit(127);
    }
    return pid;
}

/* Milliseconds to the first token; negative when none came. */
static double one_round(const char *bin_dir, const char *model)
{
    char dir[] = "/tmp/llmd-bench-XXXXXX";
    struct exchange x = { .fd = -1 };
    uint64_t start_ns, limit_ns;
    double ms = -1;
    pid_t pid;

    if (!mkdtemp(dir))
        return -1;
    start_ns = clock_mono_ns();
    limit_ns = start_ns + 20 * NS_PER_S;
    pid = start_llmd(bin_dir, model, dir);
    do {
        http_exchange_close(&x);
        exchange_start(&x, PORT, "/generate_stream", "",
                       "{\"inputs\":\"Once upon a time\",\"parameters\":{\"max_new_tokens\":8}}");
        if (x.refused)
            nap_us(500);
    } while (x.refused && clock_mono_ns() < limit_ns);
    exchanges_run(&x, 1, 20000);
    if (x.first_ns && exchange_finish(&x) && x.status == 200 && strstr(x.body.data, "\"token\""))
        ms = (double)(x.first_ns - start_ns) / 1e6;
    http_exchange_close(&x);
    kill(pid, SIGTERM);
    waitpid(pid, NULL, 0);
    rmdir(dir);
    return ms;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    int rounds = argc > 3 ? atoi(argv[3]) : 20;
    int drop = argc > 4 && strcmp(argv[4], "--drop-caches") == 0;
    double ms[ROUNDS_MAX];

    if (argc < 3 || rounds < 1 || rounds > ROUNDS_MAX) {
        fprintf(stderr, "usage: bench-cold-start BIN_DIR MODEL_DIR [ROUNDS] [--drop-caches]\n");
        return 2;
    }
    printf("round,page_cache,first_token_ms\n");
    for (int i = 0; i < rounds; i++) {
        if (drop)
            drop_caches();
        ms[i] = one_round(argv[1], argv[2]);
        printf("%d,%s,%.1f\n", i, drop ? "dropped" : "warm", ms[i]);
        fflush(stdout);
        if (ms[i] < 0)
            return 1;
    }
    qsort(ms, (size_t)rounds, sizeof ms[0], by_size);
    fprintf(stderr, "start to first token: median %.1f ms, minimum %.1f, maximum %.1f, %d rounds\n",
            ms[rounds / 2], ms[0], ms[rounds - 1], rounds);
    return 0;
}
